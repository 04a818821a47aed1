//! The buffer of one thread: records of a few words, of which the newest are kept.
//!
//! # Protocol
//! One thread, the *owner*, writes; any thread reads at the same time. Record *n* is in slot *n* modulo the
//! number of slots. The owner writes the words of record *n* and then publishes `head = n + 1`. A reader copies
//! the records below `head`, looks at `head` once more, and drops those that the owner may have overwritten
//! meanwhile. No thread waits for another.
//!
//! The *current* record, which says what the owner is doing, is overwritten in place: its version is odd while
//! the owner writes. A reader that sees an odd version, or another one afterwards, has read nothing.
//!
//! # Invariants
//! 1. A record that a reader returns is whole: all of its words are of one `push`.
//! 2. A reader returns records in the order in which they were pushed, none twice, and counts those that it
//!    skips: `next = from + returned + dropped`.
//! 3. The owner makes the same few steps whatever readers do.
//!
//! Why 1 holds: the owner overwrites slot *n* for record *n + slots* after it has published `head = n + slots`,
//! with a release fence in between. A reader that has read a word of the later record therefore finds, after
//! its acquire fence, `head >= n + slots`, and drops record *n*.

#![forbid(unsafe_code)]

use crate::runtime::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::OnceLock;

/// The number of records that are allocated at a time.
const CHUNK: usize = if cfg!(loom_models) { 1 } else { 1024 };

/// The records of one thread, of so many words each.
pub(crate) struct Lane<const WORDS: usize> {
    /// The slots, each chunk from its first use on.
    chunks: Box<[OnceLock<Box<[Slot<WORDS>]>>]>,
    /// The number of records ever pushed.
    head: AtomicU64,
    /// Twice the number of changes of the current record; odd during a change.
    version: AtomicU64,
    current: Slot<WORDS>,
}

struct Slot<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Slot<WORDS> {
    fn empty() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn write(&self, words: &[u64; WORDS]) {
        for (place, word) in self.0.iter().zip(words) {
            // ORDERING: Relaxed, as fences and the published number order the words.
            place.store(*word, Ordering::Relaxed);
        }
    }

    fn read(&self) -> [u64; WORDS] {
        // ORDERING: Relaxed, as for `write`.
        std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed))
    }
}

/// The result of reading a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The number of the first record that was not read.
    pub(crate) next: u64,
    /// The number of records that were overwritten before they were read.
    pub(crate) dropped: u64,
}

impl<const WORDS: usize> Lane<WORDS> {
    /// Makes a lane for at least so many records. Their memory is allocated when it is needed.
    pub(crate) fn new(records: usize) -> Self {
        let chunks = records.div_ceil(CHUNK).max(1).next_power_of_two();
        let lane = Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            head: AtomicU64::new(0),
            version: AtomicU64::new(0),
            current: Slot::empty(),
        };
        if cfg!(loom_models) {
            // Loom does not know `OnceLock`.
            for number in 0..chunks as u64 {
                let _ = lane.slot(number);
            }
        }
        lane
    }

    /// The number of slots, a power of two.
    fn slots(&self) -> u64 {
        (self.chunks.len() * CHUNK) as u64
    }

    fn slot(&self, number: u64) -> &Slot<WORDS> {
        // The number of slots fits, and the remainder is less.
        let index = usize::try_from(number & (self.slots() - 1)).unwrap_or_default();
        let new = || (0..CHUNK).map(|_| Slot::empty()).collect();
        &self.chunks[index / CHUNK].get_or_init(new)[index % CHUNK]
    }

    /// Returns the number of records that were ever pushed.
    pub(crate) fn head(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release of `push`.
        self.head.load(Ordering::Acquire)
    }

    /// Adds a record. Only the owner may do so.
    pub(crate) fn push(&self, words: &[u64; WORDS]) {
        // ORDERING: Relaxed, as the owner wrote it itself.
        let head = self.head.load(Ordering::Relaxed);
        // ORDERING: Release: a reader that sees a word written below sees that `head` was published.
        fence(Ordering::Release);
        self.slot(head).write(words);
        // ORDERING: Release publishes the words.
        self.head.store(head + 1, Ordering::Release);
    }

    /// Replaces the current record. Only the owner may do so.
    pub(crate) fn set_current(&self, words: &[u64; WORDS]) {
        // ORDERING: Relaxed, as the owner wrote it itself.
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // ORDERING: Release: a reader that sees a word written below sees the odd version.
        fence(Ordering::Release);
        self.current.write(words);
        // ORDERING: Release publishes the words.
        self.version.store(version + 2, Ordering::Release);
    }

    /// Returns the current record; none while the owner is changing it, and before there is one.
    pub(crate) fn current(&self) -> Option<[u64; WORDS]> {
        // ORDERING: Acquire pairs with the Release of `set_current`.
        let before = self.version.load(Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let words = self.current.read();
        // ORDERING: Acquire: what was read came before the version that is read now.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == before).then_some(words)
    }

    /// Appends the records from a number on to `records`, without those that were overwritten.
    pub(crate) fn read_from(&self, from: u64, records: &mut Vec<[u64; WORDS]>) -> Reading {
        let slots = self.slots();
        let next = self.head();
        let first = from.max(next.saturating_sub(slots));
        let start = records.len();
        records.extend((first..next).map(|number| self.slot(number).read()));
        // ORDERING: Acquire: what was read came before the number that is read now.
        fence(Ordering::Acquire);
        let head = self.head.load(Ordering::Relaxed);
        // The owner may be at the record with the number `head`, which overwrites the one `slots` before.
        let whole = (head + 1).saturating_sub(slots).clamp(first, next);
        let spoiled = usize::try_from(whole - first).unwrap_or(usize::MAX);
        records.drain(start..start + spoiled.min(records.len() - start));
        Reading {
            next,
            dropped: whole - from.min(whole),
        }
    }
}

impl<const WORDS: usize> std::fmt::Debug for Lane<WORDS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("slots", &self.slots())
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn record(number: u64) -> [u64; 8] {
        [number; 8]
    }

    #[test]
    fn the_newest_records_are_kept_and_the_others_counted() {
        const SLOTS: u64 = CHUNK as u64;
        let lane = Lane::new(CHUNK);
        let mut records = Vec::new();
        assert_eq!(lane.read_from(0, &mut records).next, 0);
        for number in 0..3 {
            lane.push(&record(number));
        }
        let reading = lane.read_from(1, &mut records);
        assert_eq!((reading.next, reading.dropped), (3, 0));
        assert_eq!(records, [record(1), record(2)]);
        for number in 3..2 * SLOTS {
            lane.push(&record(number));
        }
        records.clear();
        let reading = lane.read_from(3, &mut records);
        // One slot is always about to be overwritten.
        assert_eq!((reading.next, reading.dropped), (2 * SLOTS, SLOTS - 2));
        let kept: Vec<_> = (SLOTS + 1..2 * SLOTS).map(record).collect();
        assert_eq!(records, kept);
    }

    #[test]
    fn a_reader_beside_the_owner_gets_whole_records_in_order() {
        let lane = Lane::new(CHUNK);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    lane.push(&record(number));
                    lane.set_current(&record(number));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let (mut next, mut seen, mut dropped) = (0, 0, 0);
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                let mut records = Vec::new();
                let reading = lane.read_from(next, &mut records);
                let mut expected = next + reading.dropped;
                for words in &records {
                    assert_eq!(*words, record(expected));
                    expected += 1;
                }
                assert_eq!(expected, reading.next);
                seen += records.len() as u64;
                dropped += reading.dropped;
                next = reading.next;
                if let Some(words) = lane.current() {
                    assert_eq!(words, record(words[0]));
                }
                if was_over {
                    break;
                }
            }
            assert_eq!(seen + dropped, 200_000);
        });
    }
}
