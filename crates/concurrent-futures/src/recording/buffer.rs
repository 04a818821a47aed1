//! The buffer of one thread: its records, and the record of what it is doing.
//!
//! # Protocol
//! Most records fit in four words, half a line of the cache, which is what a recorded task costs memory. Each record
//! has a *half* in the ring of halves. A record that does not fit in there is *wide*. The owner pushes all of its
//! words to a ring of their own first, and then a half with their number.
//!
//! # Invariants
//! 1. A reader returns whole records in the order in which they were pushed, and counts the others as dropped.
//! 2. The newest records are kept, as many as a ring has slots, apart from the one that is about to be overwritten.
//!
//! Why 2 holds for wide records: the ring of wide records has as many slots as that of halves, and fewer records come
//! into it. A reader that finds a half whose wide record has just been overwritten counts the record as dropped.

#![forbid(unsafe_code)]

use crate::recording::current::Current;
use crate::recording::lane::{Lane, Reading};
use crate::recording::record::{HALF, Half, Record, WORDS, Words};
use std::ops::Range;

/// The buffer of one thread.
#[derive(Debug)]
pub(crate) struct Buffer {
    halves: Lane<HALF>,
    wide: Lane<WORDS>,
    /// The task that the thread is running.
    pub(crate) current: Current<WORDS>,
}

impl Buffer {
    /// Makes a buffer of at least so many records. Their memory is allocated when it is needed.
    pub(crate) fn new(records: usize) -> Self {
        Self {
            halves: Lane::new(records),
            wide: Lane::new(records),
            current: Current::new(),
        }
    }

    /// Adds a record. Only the owner may do so.
    #[inline]
    pub(crate) fn push(&self, record: &Record) {
        match record.half() {
            Some(half) => self.halves.push(&half.0),
            None => self.push_wide(record),
        }
    }

    #[cold]
    fn push_wide(&self, record: &Record) {
        let number = self.wide.head();
        self.wide.push(&record.encode());
        self.halves.push(&Half::of_wide(number).0);
    }

    /// Returns the number of records that were ever pushed.
    pub(crate) fn head(&self) -> u64 {
        self.halves.head()
    }

    /// Appends the records with these numbers to `records`, without those that were overwritten. The end of the numbers
    /// is one that [`head`](Self::head) has returned.
    pub(crate) fn read(&self, numbers: Range<u64>, records: &mut Vec<Words>) -> Reading {
        let mut halves = Vec::new();
        let mut reading = self.halves.read(numbers, &mut halves);
        let mut places = halves.iter().filter_map(|half| Half(*half).wide());
        let mut wide = Vec::new();
        let mut first = 0;
        if let Some(from) = places.next() {
            // Wide records have no gaps in their numbers.
            let end = places.next_back().unwrap_or(from) + 1;
            first = from + self.wide.read(from..end, &mut wide).dropped;
        }
        let mut wide = wide.into_iter();
        records.reserve(halves.len());
        for half in halves.into_iter().map(Half) {
            match half.wide() {
                None => records.push(half.widen()),
                Some(number) if number < first => reading.dropped += 1,
                Some(_) => records.extend(wide.next()),
            }
        }
        reading
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::recording::record::Kind;

    /// Every third record is wide.
    fn record(number: u64) -> Record {
        Record {
            start: number,
            end: number + 1,
            items: if number.is_multiple_of(3) {
                number + 2
            } else {
                1
            },
            ..Record::new(Kind::Run, number)
        }
    }

    fn read(buffer: &Buffer, numbers: Range<u64>) -> (Vec<Record>, Reading) {
        let mut words = Vec::new();
        let reading = buffer.read(numbers, &mut words);
        let records = words.iter().map(|words| Record::decode(words).unwrap());
        (records.collect(), reading)
    }

    #[test]
    fn records_of_both_sizes_come_back_in_their_order() {
        let buffer = Buffer::new(1);
        for number in 0..100 {
            buffer.push(&record(number));
        }
        let (records, reading) = read(&buffer, 10..buffer.head());
        assert_eq!((reading.next, reading.dropped), (100, 0));
        assert!(records.into_iter().eq((10..100).map(record)));
    }

    #[test]
    fn the_newest_records_are_kept_whatever_their_size() {
        let buffer = Buffer::new(1);
        let all = 10_000;
        for number in 0..all {
            buffer.push(&Record {
                items: 7,
                ..record(number)
            });
        }
        let (records, reading) = read(&buffer, 0..buffer.head());
        assert_eq!(reading.next, all);
        assert_eq!(records.len() as u64 + reading.dropped, all);
        // A slot of each ring is always about to be overwritten.
        assert!(records.len() >= 1023, "{}", records.len());
        assert!(
            records
                .iter()
                .map(|record| record.task)
                .eq(reading.dropped..all)
        );
    }

    #[test]
    fn a_reader_beside_the_owner_counts_what_it_does_not_get() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let buffer = Buffer::new(1);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    buffer.push(&record(number));
                }
                is_over.store(true, Ordering::SeqCst);
            });
            let (mut next, mut seen, mut dropped) = (0, 0, 0);
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                let (records, reading) = read(&buffer, next..buffer.head());
                let mut last = None;
                for found in records {
                    assert_eq!(found, record(found.task));
                    assert!(last < Some(found.task));
                    last = Some(found.task);
                    seen += 1;
                }
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
