//! Results of `map` that come before the outcome of their task, from a worker on another machine.
//!
//! A task of several items has one outcome, which has all results. While a call of it runs on, the results of the calls
//! before come in *parts*. A part is the place of its first result among the items, and some results as bytes. Parts may
//! come twice, and in any order, as the task may run again. A result that has been yielded stays, whatever comes later.
//!
//! The thread that iterates waits for the outcome or for a part, whichever comes first. A part that comes wakes it by a
//! promise, which the thread has left there.

#![forbid(unsafe_code)]

use crate::error::TaskError;
use crate::future::Future;
use crate::future::blocking::NEVER;
use crate::future::wait::{Waitable, wait_for_first};
use crate::future::{Promise, promise};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The results of the items of one task.
type Chunk<T> = Vec<Result<T, TaskError>>;

/// Makes results of bytes.
pub(crate) type Decode<T> = Arc<dyn Fn(Vec<u8>) -> Result<Chunk<T>, TaskError> + Send + Sync>;

/// The parts of the results of a task that have come, and were not looked at.
#[derive(Debug, Default)]
pub struct EarlyParts(Mutex<Came>);

#[derive(Debug, Default)]
struct Came {
    parts: Vec<(u64, Vec<u8>)>,
    /// Set when a part comes.
    news: Option<Promise<()>>,
}

impl EarlyParts {
    fn lock(&self) -> MutexGuard<'_, Came> {
        // No foreign code runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a part, whose first result is that of the item at `first`. Returns at once.
    pub fn add(&self, first: u64, results: Vec<u8>) {
        let news = {
            let mut came = self.lock();
            came.parts.push((first, results));
            came.news.take()
        };
        if let Some(news) = news {
            // No other thread sets it.
            let _ = news.set_result(());
        }
    }

    fn take(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.lock().parts)
    }

    /// Returns a future that is done when a part comes; none if one is there.
    fn news(&self) -> Option<Future<()>> {
        let (promise, future) = promise();
        let mut came = self.lock();
        if !came.parts.is_empty() {
            return None;
        }
        let former = came.news.replace(promise);
        drop(came);
        drop(former);
        Some(future)
    }
}

/// The next results of a task.
pub(crate) enum Next<T> {
    /// These results follow those before. The task runs on.
    Part(Chunk<T>),
    /// The task is done: these are all of its results.
    Done(Result<Chunk<T>, TaskError>),
}

/// The results of a task, of which some come early.
pub(crate) struct EarlyResults<T> {
    parts: Arc<EarlyParts>,
    decode: Decode<T>,
    /// Parts behind one that has not come yet.
    later: BTreeMap<u64, Chunk<T>>,
}

impl<T> EarlyResults<T> {
    pub(crate) fn new(parts: Arc<EarlyParts>, decode: Decode<T>) -> Self {
        Self {
            parts,
            decode,
            later: BTreeMap::new(),
        }
    }

    /// Takes the results behind the first `known` ones that have come early.
    fn take(&mut self, known: usize) -> Option<Chunk<T>> {
        for (first, bytes) in self.parts.take() {
            // If they cannot be decoded, nor can the outcome: it tells.
            if let Ok(results) = (self.decode)(bytes) {
                let place = self.later.entry(first).or_default();
                if place.len() < results.len() {
                    *place = results;
                }
            }
        }
        while let Some(entry) = self.later.first_entry() {
            let first = usize::try_from(*entry.key()).unwrap_or(usize::MAX);
            if first > known {
                break;
            }
            let mut results = entry.remove();
            if results.len() > known - first {
                results.drain(..known - first);
                return Some(results);
            }
        }
        None
    }

    /// Waits for the results of the task behind the first `known` ones, or for its outcome.
    pub(crate) fn next(
        &mut self,
        future: &mut Future<Chunk<T>>,
        known: usize,
        deadline: Option<Instant>,
    ) -> Next<T> {
        loop {
            if let Some(results) = self.take(known) {
                return Next::Part(results);
            }
            if future.is_done() {
                // A part that has come meanwhile is a part of the outcome.
                return Next::Done(future.result_until(deadline));
            }
            let Some(news) = self.parts.news() else {
                continue;
            };
            let both: [&dyn Waitable; 2] = [future, &news];
            wait_for_first(&both, deadline, |_| true, NEVER);
            if !future.is_done() && !news.is_done() {
                // The deadline has passed, or the future can never be done. It tells which.
                return Next::Done(future.result_until(deadline));
            }
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// Each byte is a result.
    fn decode() -> Decode<u8> {
        Arc::new(|bytes| {
            if bytes.contains(&0) {
                return Err(TaskError::Abandoned);
            }
            Ok(bytes.into_iter().map(Ok).collect())
        })
    }

    fn values(chunk: Chunk<u8>) -> Vec<u8> {
        chunk.into_iter().map(Result::unwrap).collect()
    }

    fn part(next: Next<u8>) -> Vec<u8> {
        match next {
            Next::Part(chunk) => values(chunk),
            Next::Done(_) => panic!("done"),
        }
    }

    #[test]
    fn parts_come_in_any_order_and_twice() {
        let parts = Arc::new(EarlyParts::default());
        let mut early = EarlyResults::new(Arc::clone(&parts), decode());
        let (promise, mut future) = promise::<Chunk<u8>>();
        parts.add(3, vec![4]);
        parts.add(0, vec![1, 2]);
        assert_eq!(part(early.next(&mut future, 0, None)), [1, 2]);
        // Of a second run, and damaged.
        parts.add(0, vec![9]);
        parts.add(2, vec![0]);
        parts.add(1, vec![9, 3]);
        assert_eq!(part(early.next(&mut future, 2, None)), [3]);
        assert_eq!(part(early.next(&mut future, 3, None)), [4]);
        let soon = Some(Instant::now() + Duration::from_millis(1));
        let late = early.next(&mut future, 4, soon);
        assert!(matches!(late, Next::Done(Err(TaskError::Timeout))));
        promise.set_result(vec![Ok(1), Ok(2)]).unwrap();
        let Next::Done(Ok(all)) = early.next(&mut future, 4, None) else {
            panic!("a part");
        };
        assert_eq!(values(all), [1, 2]);
    }

    #[test]
    fn a_part_wakes_the_thread_that_waits_and_so_does_the_outcome() {
        for _ in 0..200 {
            let parts = Arc::new(EarlyParts::default());
            let mut early = EarlyResults::new(Arc::clone(&parts), decode());
            let (promise, mut future) = promise::<Chunk<u8>>();
            let adding = thread::spawn(move || {
                parts.add(0, vec![1]);
                parts.add(1, vec![2]);
                promise.set_result(vec![Ok(1), Ok(2), Ok(3)]).unwrap();
            });
            let mut seen = Vec::new();
            loop {
                match early.next(&mut future, seen.len(), None) {
                    Next::Part(chunk) => seen.extend(values(chunk)),
                    Next::Done(all) => {
                        seen.extend(values(all.unwrap()).split_off(seen.len()));
                        break;
                    }
                }
            }
            assert_eq!(seen, [1, 2, 3]);
            adding.join().unwrap();
        }
    }
}
