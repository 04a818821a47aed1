//! Waiting for descriptors.

#![forbid(unsafe_code)]

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Waits until a descriptor is readable or the time is over. Returns which descriptors are readable, at their places.
/// A place without a descriptor is never readable.
///
/// # Errors
/// `EINTR` when a signal of the system came first; another error when the system has no memory.
pub(crate) fn poll(
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<Duration>,
) -> Result<Vec<bool>, Errno> {
    let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut watched: Vec<PollFd<'_>> = fds.iter().copied().flatten().map(watch).collect();
    // A time that the system cannot tell is none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    rustix::event::poll(&mut watched, timeout.as_ref())?;
    let mut ready = watched.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds
        .iter()
        .map(|fd| fd.is_some() && ready.next() == Some(true))
        .collect())
}

/// Waits until the other end of a socket or pipe is closed. Returns false if the descriptors are none any more, as the
/// program has closed them.
pub(crate) fn wait_for_end(fds: &[BorrowedFd<'_>]) -> bool {
    let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::empty());
    let mut watched: Vec<PollFd<'_>> = fds.iter().copied().map(watch).collect();
    loop {
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => {}
            Err(_) => return false,
        }
        let found = |flags| watched.iter().any(|fd| fd.revents().intersects(flags));
        if found(PollFlags::HUP | PollFlags::ERR) {
            return true;
        }
        if found(PollFlags::NVAL) {
            return false;
        }
    }
}
