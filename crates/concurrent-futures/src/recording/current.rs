//! The record of what a thread is doing at the moment, which is overwritten in place.
//!
//! # Protocol
//! One thread, the *owner*, writes; any thread reads at the same time. The version is odd while the owner writes. A
//! reader that sees an odd version, or another one afterwards, has read nothing. One word alone is replaced without a
//! new version. No thread waits for another.

#![forbid(unsafe_code)]

use crate::recording::lane::{Slot, empty, read, write};
use crate::runtime::sync::atomic::{AtomicU64, Ordering, fence};

/// The record of what a thread is doing.
#[derive(Debug)]
pub(crate) struct Current<const WORDS: usize> {
    /// Twice the number of changes of the record; odd during a change.
    version: AtomicU64,
    words: Slot<WORDS>,
}

impl<const WORDS: usize> Current<WORDS> {
    pub(crate) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            words: empty(),
        }
    }

    /// Replaces the record. Only the owner may do so.
    #[inline]
    pub(crate) fn set(&self, words: &[u64; WORDS]) {
        // ORDERING: Relaxed, as the owner wrote it itself.
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // ORDERING: Release: a reader that sees a word written below sees the odd version.
        fence(Ordering::Release);
        write(&self.words, words);
        // ORDERING: Release publishes the words.
        self.version.store(version + 2, Ordering::Release);
    }

    /// Replaces a word of the record. Only the owner may do so.
    pub(crate) fn set_word(&self, place: usize, word: u64) {
        // ORDERING: Relaxed: the record is whole with either word, and the version orders later changes.
        self.words[place].store(word, Ordering::Relaxed);
    }

    /// Returns the record; none while the owner is changing it, and before there is one.
    pub(crate) fn get(&self) -> Option<[u64; WORDS]> {
        // ORDERING: Acquire pairs with the Release of `set`.
        let before = self.version.load(Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let words = read(&self.words);
        // ORDERING: Acquire: what was read came before the version that is read now.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == before).then_some(words)
    }
}
