//! Segments: files in memory that are filled by one process and mapped privately by another.

use crate::runtime::os::fallback::{self, Job};
use crate::runtime::os::{files, limits};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The memory of a segment in the process that fills it.
pub(crate) type Map = MmapRaw;

/// The length from which on the free memory is looked at first.
const LARGE: usize = 64 * 1024 * 1024;

/// Makes a segment. It has all of its pages: to be refused one later is to be killed.
pub(crate) fn create(capacity: usize) -> io::Result<(OwnedFd, Map)> {
    let is_too_much = |available| capacity > available / 2;
    if capacity >= LARGE && limits::available_memory().is_some_and(is_too_much) {
        // The system would rather kill a process than refuse pages.
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let file = files::create_segment("concurrent-futures-buffer", capacity)
        .inspect_err(|error| fallback::note(Job::Buffers, error))?;
    let map = MmapOptions::new()
        .len(capacity)
        .populate()
        .map_raw(&file.as_fd())?;
    Ok((file, map))
}

/// The memory of a segment in the process that receives it. Writes stay in that process.
#[derive(Debug)]
pub(crate) enum PrivateMap {
    Mapped(MmapRaw, usize),
    /// The bytes were copied, as the segment could not be mapped.
    Copied(Vec<u8>),
}

impl PrivateMap {
    /// Maps `length` bytes of a segment.
    ///
    /// # Errors
    /// When the file is shorter, or could be cut off although it must not, or there is no memory.
    pub(crate) fn of(file: OwnedFd, length: u64, must_be_sealed: bool) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        let is_whole = u64::try_from(size).is_ok_and(|size| size >= length);
        if !is_whole || must_be_sealed && !files::is_sealed(&file) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut options = MmapOptions::new();
        options.len(length.max(1));
        // SAFETY: the file cannot be cut off, as it is sealed, or has no name, and both sides are
        // ours. Its sender does not write to it
        // before the release; should it do so against the protocol, its bytes are any bytes.
        if let Ok(map) = unsafe { options.map_copy(&file.as_fd()) } {
            // All pages at once, which are there: each fault would cost more. That the
            // advice is not taken does no harm.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::PopulateRead);
            return Ok(Self::Mapped(map.into(), length));
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(length, 0);
        File::from(file).read_exact_at(&mut bytes, 0)?;
        Ok(Self::Copied(bytes))
    }

    /// Returns the address of the first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        match self {
            Self::Mapped(map, _) => map.as_mut_ptr(),
            Self::Copied(bytes) => bytes.as_ptr().cast_mut(),
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Mapped(_, length) => *length,
            Self::Copied(bytes) => bytes.len(),
        }
    }
}
