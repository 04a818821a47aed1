//! A ring of records of a few words, of which the newest are kept.
//!
//! # Protocol
//! One thread, the *owner*, writes; any thread reads at the same time. Record *n* is in slot *n* modulo the
//! number of slots. The owner writes the words of record *n* and then publishes `head = n + 1`. A reader copies
//! the records below `head`, looks at `head` once more, and drops those that the owner may have overwritten
//! meanwhile. No thread waits for another.
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
use std::ops::Range;
use std::sync::OnceLock;

/// The number of records that are allocated at a time, at first.
const CHUNK: usize = if cfg!(loom_models) { 1 } else { 1024 };

/// The number of slots in chunks. Records beyond are allocated by large pages: a page fault for each small page would
/// cost as much as all else of an event. A lane of few records gets no large page.
const SMALL: usize = 4 * CHUNK;

/// The records of one thread, of so many words each.
pub(crate) struct Lane<const WORDS: usize> {
    /// The first slots, each chunk from its first use on.
    chunks: Box<[OnceLock<Box<[Slot<WORDS>]>>]>,
    /// The other slots, each page from its first use on.
    pages: Box<[OnceLock<Page>]>,
    /// The number of slots, a power of two.
    slots: u64,
    /// The number of records ever pushed.
    head: AtomicU64,
}

pub(super) type Slot<const WORDS: usize> = [AtomicU64; WORDS];

pub(super) fn empty<const WORDS: usize>() -> Slot<WORDS> {
    std::array::from_fn(|_| AtomicU64::new(0))
}

#[inline]
pub(super) fn write<const WORDS: usize>(slot: &Slot<WORDS>, words: &[u64; WORDS]) {
    for (place, word) in slot.iter().zip(words) {
        // ORDERING: Relaxed, as fences and the published number order the words.
        place.store(*word, Ordering::Relaxed);
    }
}

pub(super) fn read<const WORDS: usize>(slot: &Slot<WORDS>) -> [u64; WORDS] {
    // ORDERING: Relaxed, as for `write`.
    std::array::from_fn(|index| slot[index].load(Ordering::Relaxed))
}

#[cfg(not(loom_models))]
use large::Page;

/// Slots on a large page.
#[cfg(not(loom_models))]
mod large {
    use super::Slot;
    use crate::runtime::os::pages::{LargePage, WORDS as PAGE_WORDS};

    pub(super) struct Page(LargePage);

    impl Page {
        /// The number of slots of a page.
        pub(super) const fn slots<const WORDS: usize>() -> usize {
            PAGE_WORDS / WORDS
        }

        pub(super) fn new() -> Self {
            Self(LargePage::zeroed())
        }

        pub(super) fn slot<const WORDS: usize>(&self, index: usize) -> &Slot<WORDS> {
            &self.0.words().as_chunks::<WORDS>().0[index]
        }
    }
}

/// No page: a model has few slots.
#[cfg(loom_models)]
enum Page {}

#[cfg(loom_models)]
impl Page {
    const fn slots<const WORDS: usize>() -> usize {
        1
    }

    fn new() -> Self {
        unreachable!("a model has few slots")
    }

    fn slot<const WORDS: usize>(&self, _: usize) -> &Slot<WORDS> {
        match *self {}
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
        let slots = records.max(CHUNK).next_power_of_two();
        let small = slots.min(SMALL);
        let pages = (slots - small).div_ceil(Page::slots::<WORDS>());
        let lane = Self {
            slots: slots as u64,
            chunks: (0..small / CHUNK).map(|_| OnceLock::new()).collect(),
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            head: AtomicU64::new(0),
        };
        if cfg!(loom_models) {
            // Loom does not know `OnceLock`.
            for number in 0..lane.slots {
                let _ = lane.slot(number);
            }
        }
        lane
    }

    #[inline]
    fn slot(&self, number: u64) -> &Slot<WORDS> {
        // The number of slots fits, and the remainder is less.
        let index = usize::try_from(number & (self.slots - 1)).unwrap_or_default();
        let Some(beyond) = index.checked_sub(SMALL) else {
            let new = || (0..CHUNK).map(|_| empty()).collect();
            return &self.chunks[index / CHUNK].get_or_init(new)[index % CHUNK];
        };
        let slots = Page::slots::<WORDS>();
        self.pages[beyond / slots]
            .get_or_init(Page::new)
            .slot(beyond % slots)
    }

    /// Returns the number of records that were ever pushed.
    pub(crate) fn head(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release of `push`.
        self.head.load(Ordering::Acquire)
    }

    /// Adds a record. Only the owner may do so.
    #[inline]
    pub(crate) fn push(&self, words: &[u64; WORDS]) {
        // ORDERING: Relaxed, as the owner wrote it itself.
        let head = self.head.load(Ordering::Relaxed);
        // ORDERING: Release: a reader that sees a word written below sees that `head` was published.
        fence(Ordering::Release);
        write(self.slot(head), words);
        // ORDERING: Release publishes the words.
        self.head.store(head + 1, Ordering::Release);
    }

    /// Appends the records with these numbers to `records`, without those that were overwritten. The end of the numbers
    /// is one that [`head`](Self::head) has returned.
    pub(crate) fn read(&self, numbers: Range<u64>, records: &mut Vec<[u64; WORDS]>) -> Reading {
        let slots = self.slots;
        let Range { start: from, end } = numbers;
        let next = from.max(end);
        let first = from.max(next.saturating_sub(slots));
        let start = records.len();
        records.extend((first..next).map(|number| read(self.slot(number))));
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
            .field("slots", &self.slots)
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
        assert_eq!(lane.read(0..lane.head(), &mut records).next, 0);
        for number in 0..3 {
            lane.push(&record(number));
        }
        let reading = lane.read(1..lane.head(), &mut records);
        assert_eq!((reading.next, reading.dropped), (3, 0));
        assert_eq!(records, [record(1), record(2)]);
        for number in 3..2 * SLOTS {
            lane.push(&record(number));
        }
        records.clear();
        let reading = lane.read(3..lane.head(), &mut records);
        // One slot is always about to be overwritten.
        assert_eq!((reading.next, reading.dropped), (2 * SLOTS, SLOTS - 2));
        let kept: Vec<_> = (SLOTS + 1..2 * SLOTS).map(record).collect();
        assert_eq!(records, kept);
    }

    #[test]
    fn records_beyond_the_first_chunks_are_kept_on_large_pages() {
        const SLOTS: u64 = 4 * SMALL as u64;
        let lane = Lane::new(3 * SMALL);
        for number in 0..SLOTS + 10 {
            lane.push(&record(number));
        }
        let mut records = Vec::new();
        let reading = lane.read(0..lane.head(), &mut records);
        assert_eq!((reading.next, reading.dropped), (SLOTS + 10, 11));
        assert!(records.into_iter().eq((11..SLOTS + 10).map(record)));
    }

    #[test]
    fn a_reader_beside_the_owner_gets_whole_records_in_order() {
        let lane = Lane::new(CHUNK);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    lane.push(&record(number));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let (mut next, mut seen, mut dropped) = (0, 0, 0);
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                let mut records = Vec::new();
                let reading = lane.read(next..lane.head(), &mut records);
                let mut expected = next + reading.dropped;
                for words in &records {
                    assert_eq!(*words, record(expected));
                    expected += 1;
                }
                assert_eq!(expected, reading.next);
                seen += records.len() as u64;
                dropped += reading.dropped;
                next = reading.next;
                if was_over {
                    break;
                }
            }
            assert_eq!(seen + dropped, 200_000);
        });
    }
}
