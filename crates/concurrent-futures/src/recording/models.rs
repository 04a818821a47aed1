//! Loom models of the lane: a reader beside the owner, in every interleaving and with weak memory.

#![forbid(unsafe_code)]

use crate::recording::lane::Lane;
use crate::runtime::sync::{Arc, thread};

fn record(number: u64) -> [u64; 2] {
    [number; 2]
}

#[test]
fn a_reader_returns_whole_records_and_counts_the_others() {
    loom::model(|| {
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
fn the_current_record_is_whole_or_none() {
    loom::model(|| {
        let lane = Arc::new(Lane::new(2));
        let owner = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || {
                lane.set_current(&record(1));
                lane.set_current_word(1, 0);
                lane.set_current(&record(2));
            })
        };
        let mut last = 0;
        for _ in 0..2 {
            if let Some(words) = lane.current() {
                assert!(words == record(words[0]) || words == [1, 0]);
                let moment = 2 * words[0] - u64::from(words[1] != 0);
                assert!(moment >= last);
                last = moment;
            }
        }
        owner.join().unwrap();
        assert_eq!(lane.current(), Some(record(2)));
    });
}
