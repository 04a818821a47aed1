//! A place in the lanes of a session, from which a recording reads on.
//!
//! A session only adds lanes, and a lane only grows. So a place is one number for each lane.

#![forbid(unsafe_code)]

use crate::recording::record::Words;
use crate::recording::session::Session;

/// A place in the lanes of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// The number of the next record of each lane.
    next: Vec<u64>,
}

/// The records of a lane beyond a cursor.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) records: &'a [Words],
    /// The task that the lane's thread is running.
    pub(crate) current: Option<Words>,
    /// The number of records that were overwritten before they were read.
    pub(crate) dropped: u64,
}

impl Cursor {
    /// Returns the place behind all records that there are.
    pub(crate) fn behind(session: &Session) -> Self {
        let lanes = session.lanes();
        Self {
            next: lanes.iter().map(|entry| entry.buffer.head()).collect(),
        }
    }

    /// Gives what each lane has beyond this place to `take`, and moves on.
    pub(crate) fn read(&mut self, session: &Session, mut take: impl FnMut(Reading<'_>)) {
        let lanes = session.lanes().clone();
        self.next.resize(lanes.len().max(self.next.len()), 0);
        let ends = lanes.iter().map(|entry| {
            // First, as a task that ends meanwhile has its run among the records.
            let current = (0..4).find_map(|_| entry.buffer.current.get());
            (current, entry.buffer.head())
        });
        let ends: Vec<_> = ends.collect();
        // Of all stamps below, none is newer.
        let scale = session.times.scale();
        let mut records = Vec::new();
        for ((entry, next), (current, head)) in lanes.iter().zip(&mut self.next).zip(ends) {
            let reading = entry.buffer.read(*next..head, &mut records);
            *next = reading.next;
            for words in &mut records {
                *words = scale.convert(words);
            }
            take(Reading {
                records: &records,
                current: current.map(|words| scale.convert(&words)),
                dropped: reading.dropped,
            });
            records.clear();
        }
    }
}
