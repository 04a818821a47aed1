//! Loom models of buffers and their parts: a reader beside the owner, in every interleaving and with weak memory.

#![forbid(unsafe_code)]

use crate::recording::buffer::Buffer;
use crate::recording::current::Current;
use crate::recording::lane::Lane;
use crate::recording::record::{Kind, Record};
use crate::runtime::explored;
use crate::runtime::sync::{Arc, thread};

fn record(number: u64) -> [u64; 2] {
    [number; 2]
}

#[test]
fn a_reader_returns_whole_records_and_counts_the_others() {
    explored::check(Some(3), || {
        let lane = Arc::new(Lane::new(2));
        let owner = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || {
                for number in 1..4 {
                    lane.push(&record(number));
                }
            })
        };
        let mut next = 0;
        for _ in 0..2 {
            let mut records = Vec::new();
            let reading = lane.read(next..lane.head(), &mut records);
            let mut number = next + reading.dropped;
            for words in &records {
                number += 1;
                assert_eq!(*words, record(number));
            }
            assert_eq!(number, reading.next);
            next = reading.next;
        }
        owner.join().unwrap();
        let mut records = Vec::new();
        assert_eq!(lane.read(2..lane.head(), &mut records).next, 3);
        assert_eq!(records, [record(3)]);
    });
}

#[test]
fn records_of_both_sizes_are_whole_and_counted() {
    let run = |task| Record {
        items: task,
        ..Record::new(Kind::Run, task)
    };
    explored::check(Some(3), move || {
        let buffer = Arc::new(Buffer::new(2));
        let owner = {
            let buffer = Arc::clone(&buffer);
            // The first one is a half, and the others are wide.
            thread::spawn(move || (1..4).for_each(|task| buffer.push(&run(task))))
        };
        let mut records = Vec::new();
        let reading = buffer.read(0..buffer.head(), &mut records);
        assert_eq!(records.len() as u64 + reading.dropped, reading.next);
        let mut last = 0;
        for words in &records {
            let record = Record::decode(words).unwrap();
            assert_eq!(record, run(record.task));
            assert!(record.task > last && record.task <= reading.next);
            last = record.task;
        }
        owner.join().unwrap();
    });
}

#[test]
fn the_current_record_is_whole_or_none() {
    explored::check(Some(3), || {
        let current = Arc::new(Current::new());
        let owner = {
            let current = Arc::clone(&current);
            thread::spawn(move || {
                current.set(&record(1));
                current.set_word(1, 0);
                current.set(&record(2));
            })
        };
        let mut last = 0;
        for _ in 0..2 {
            if let Some(words) = current.get() {
                assert!(words == record(words[0]) || words == [1, 0]);
                let moment = 2 * words[0] - u64::from(words[1] != 0);
                assert!(moment >= last);
                last = moment;
            }
        }
        owner.join().unwrap();
        assert_eq!(current.get(), Some(record(2)));
    });
}
