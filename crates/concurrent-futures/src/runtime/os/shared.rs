//! Memory that two processes share, for as long as one of them has it.

#[cfg(target_os = "linux")]
use crate::runtime::os::fallback::{self, Job};
use crate::runtime::os::files;
#[cfg(target_os = "linux")]
use crate::runtime::os::system_v::Attached;
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A reference by which another process gets the same memory.
#[derive(Debug)]
pub(crate) enum Shared {
    /// A file.
    File(OwnedFd),
    /// The number of a segment.
    Segment(i32),
}

/// Shared memory, as this process has it.
#[derive(Debug)]
pub(crate) enum Region {
    /// A file that is mapped.
    File(MmapRaw),
    /// A segment that is attached.
    #[cfg(target_os = "linux")]
    Segment(Attached),
}

impl Region {
    /// Makes memory of this length, which is zero.
    pub(crate) fn create(name: &str, length: usize) -> io::Result<(Shared, Self)> {
        let refused = match files::create(name, length) {
            Ok(file) => {
                let region = Self::map(&file, length)?;
                return Ok((Shared::File(file), region));
            }
            Err(error) => error,
        };
        #[cfg(not(target_os = "linux"))]
        return Err(refused);
        // That it is refused, too, tells less than why there is no file.
        #[cfg(target_os = "linux")]
        {
            let Ok((number, attached)) = Attached::create(length) else {
                return Err(refused);
            };
            fallback::note(Job::Memory, &refused);
            Ok((Shared::Segment(number), Self::Segment(attached)))
        }
    }

    /// Attaches to the memory that another process has made.
    ///
    /// # Errors
    /// When the memory is shorter than this length, or the system refuses.
    pub(crate) fn attach(shared: &Shared, length: usize) -> io::Result<Self> {
        match shared {
            Shared::File(file) => Self::map(file, length),
            #[cfg(target_os = "linux")]
            Shared::Segment(number) => Attached::attach(*number, length).map(Self::Segment),
            #[cfg(not(target_os = "linux"))]
            Shared::Segment(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn map(file: &OwnedFd, length: usize) -> io::Result<Self> {
        let there = rustix::fs::fstat(file)?.st_size;
        if !u64::try_from(there).is_ok_and(|there| there >= length as u64) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let map = MmapOptions::new().len(length).map_raw(&file.as_fd())?;
        Ok(Self::File(map))
    }

    /// Returns the address of the first byte, a multiple of the size of a page.
    pub(crate) fn start(&self) -> *mut u8 {
        match self {
            Self::File(map) => map.as_mut_ptr(),
            #[cfg(target_os = "linux")]
            Self::Segment(attached) => attached.start(),
        }
    }
}
