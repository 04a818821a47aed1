//! The receiver's side of segments: see `channel.rs`.

use crate::process::forks;
use crate::runtime::os::segment::PrivateMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The segments that a receiver has released since its last report to the sender.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    numbers: Mutex<Vec<u64>>,
    /// Whether the receiver has released a segment since its last report.
    any: AtomicBool,
}

impl Releases {
    /// The largest number of releases in one frame.
    pub(crate) const MOST: usize = 64;

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, number: u64, is_reusable: bool) {
        let mut numbers = self.lock();
        numbers.push(number << 1 | u64::from(is_reusable));
        // ORDERING: Relaxed: a hint. A thread that misses the flag looks again with the next frame.
        self.any.store(true, Ordering::Relaxed);
    }

    /// Returns the bytes of a frame that tells the releases; none if there are none.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
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

/// An attachment that was received.
#[derive(Debug)]
pub struct MappedSegment {
    memory: PrivateMap,
    length: usize,
    number: u64,
    releases: Arc<Releases>,
    /// The number of forks of the process, and its generation, at the mapping.
    forks: u64,
    generation: u64,
}

impl MappedSegment {
    pub(crate) fn new(
        file: OwnedFd,
        length: u64,
        number: u64,
        releases: &Arc<Releases>,
        must_be_sealed: bool,
    ) -> io::Result<Self> {
        // Before it is there: a fork meanwhile has it, or not.
        let forks = forks::forks();
        let memory = PrivateMap::of(file, length, must_be_sealed)?;
        Ok(Self {
            length: memory.length(),
            memory,
            number,
            releases: Arc::clone(releases),
            forks,
            generation: forks::generation(),
        })
    }

    /// Returns the address of the first byte. No other process sees bytes that are written there.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.memory.start()
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Drop for MappedSegment {
    fn drop(&mut self) {
        if self.generation == forks::generation() {
            let is_reusable = self.forks == forks::forks();
            self.releases.push(self.number, is_reusable);
        }
    }
}
