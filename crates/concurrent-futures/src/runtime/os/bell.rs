//! The bell that wakes a supervisor, which waits for many descriptors at once.
//!
//! | choice | is |
//! |---|---|
//! | first | an eventfd |
//! | portable | a pipe, which is readable while there are bytes in it |

#![forbid(unsafe_code)]

use crate::runtime::os::descriptors;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that is readable from the first ring until it is made quiet.
#[derive(Debug)]
pub(crate) enum Bell {
    #[cfg(target_os = "linux")]
    Event(OwnedFd),
    Pipe {
        reading: OwnedFd,
        writing: OwnedFd,
    },
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if !crate::runtime::os::backend::is_portable() {
            use crate::runtime::os::fallback::{self, Job};
            use rustix::event::EventfdFlags;
            use rustix::io::Errno;
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            match rustix::event::eventfd(0, flags) {
                Ok(event) => return Ok(Self::Event(event)),
                // A pipe takes more descriptors and memory.
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                    return Err(error.into());
                }
                Err(error) => fallback::note(Job::Bell, &error),
            }
        }
        let (reading, writing) = descriptors::pipe()?;
        for end in [&reading, &writing] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self::Pipe { reading, writing })
    }

    /// Makes the bell readable.
    pub(crate) fn ring(&self) {
        // It fails when the counter or the pipe is full, and the supervisor about to be woken.
        let _ = match self {
            #[cfg(target_os = "linux")]
            Self::Event(event) => rustix::io::write(event, &1_u64.to_ne_bytes()),
            Self::Pipe { writing, .. } => rustix::io::write(writing, &[1]),
        };
    }

    /// Takes all rings so far.
    pub(crate) fn quiet(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Event(event) => {
                // Reading fails if no thread has rung.
                let _ = rustix::io::read(event, &mut [0; 8]);
            }
            Self::Pipe { reading, .. } => {
                let mut bytes = [0; 256];
                while rustix::io::read(reading, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Event(event) => event.as_fd(),
            Self::Pipe { reading, .. } => reading.as_fd(),
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::runtime::os::poll::poll;
    use std::time::Duration;

    #[test]
    fn a_bell_is_readable_from_a_ring_until_it_is_quiet() {
        let (reading, writing) = descriptors::pipe().unwrap();
        for end in [&reading, &writing] {
            rustix::io::ioctl_fionbio(end, true).unwrap();
        }
        for bell in [Bell::new().unwrap(), Bell::Pipe { reading, writing }] {
            let rings = || poll(&[Some(bell.as_fd())], Some(Duration::ZERO)).unwrap()[0];
            assert!(!rings());
            // More than a pipe holds.
            for _ in 0..100_000 {
                bell.ring();
            }
            assert!(rings());
            bell.quiet();
            assert!(!rings());
            bell.ring();
            assert!(rings());
        }
    }
}
