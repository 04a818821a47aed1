//! Segments of shared memory, as their receiver has them: see `lane.rs`.

use crate::process::os;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::SealFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a receiver has released since it last told.
#[derive(Debug, Default)]
pub(in crate::process) struct Releases {
    numbers: Mutex<Vec<u64>>,
    /// Whether there are some.
    any: AtomicBool,
}

impl Releases {
    /// The most that one frame tells.
    pub(in crate::process) const MOST: usize = 64;

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, number: u64, is_reusable: bool) {
        let mut numbers = self.lock();
        numbers.push(number << 1 | u64::from(is_reusable));
        // ORDERING: Relaxed: a hint. Who misses it looks again with the next frame.
        self.any.store(true, Ordering::Relaxed);
    }

    /// The bytes of a frame that tells; none if there is nothing to tell.
    pub(in crate::process) fn take(&self) -> Option<Vec<u8>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut numbers = self.lock();
        let rest = numbers.len().saturating_sub(Self::MOST);
        let told = numbers.split_off(rest);
        self.any.store(rest > 0, Ordering::Relaxed);
        Some(told.into_iter().flat_map(u64::to_ne_bytes).collect())
    }
}

/// An attachment as it was received.
#[derive(Debug)]
pub struct Received {
    memory: Memory,
    length: usize,
    number: u64,
    releases: Arc<Releases>,
    /// How often the process had forked, and which fork it was.
    forks: u64,
    generation: u64,
}

#[derive(Debug)]
enum Memory {
    Mapped(MmapRaw),
    /// Where it could not be mapped.
    Copied(Vec<u8>),
}

impl Received {
    pub(super) fn new(
        file: OwnedFd,
        length: u64,
        number: u64,
        releases: &Arc<Releases>,
    ) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let is_whole = u64::try_from(size).is_ok_and(|size| size >= length);
        if !is_whole || !seals.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Before it is there: a fork meanwhile has it, or not.
        let forks = os::forks();
        Ok(Self {
            memory: Memory::of(file, length)?,
            length,
            number,
            releases: Arc::clone(releases),
            forks,
            generation: os::generation(),
        })
    }

    /// Where it is. What is written there is for nobody else.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        match &self.memory {
            Memory::Mapped(map) => map.as_mut_ptr(),
            Memory::Copied(bytes) => bytes.as_ptr().cast_mut(),
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Memory {
    fn of(file: OwnedFd, length: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(length.max(1));
        // SAFETY: the file cannot be cut off, as it is sealed. Its sender does not write to it
        // before the release; should it do so against the protocol, its bytes are any bytes.
        if let Ok(map) = unsafe { options.map_copy(&file.as_fd()) } {
            // All pages at once, which are there: each fault would cost more. That the
            // advice is not taken does no harm.
            let _ = map.advise(memmap2::Advice::PopulateRead);
            return Ok(Self::Mapped(map.into()));
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(length, 0);
        File::from(file).read_exact_at(&mut bytes, 0)?;
        Ok(Self::Copied(bytes))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.generation == os::generation() {
            let is_reusable = self.forks == os::forks();
            self.releases.push(self.number, is_reusable);
        }
    }
}
