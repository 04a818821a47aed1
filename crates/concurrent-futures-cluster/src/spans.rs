//! The spans of `map` in workers: the results that are there are told while a later call runs on.
//!
//! When a span has run for some time, a thread of the worker tells the host of the results that are there. The thread
//! starts with the first span. While spans come one after another, it only looks now and then.

#![forbid(unsafe_code)]

use crate::log;
use crate::waits;
use concurrent_futures::engine::{SpanWatch, part_of};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time for which a span runs before its results are told.
const PATIENCE: Duration = Duration::from_millis(100);

/// A span that runs.
struct Watched {
    token: u64,
    began: Instant,
    /// When the host is told the next time.
    due: Instant,
    /// The outcomes that are there: their number, and their bytes.
    count: usize,
    bytes: Vec<u8>,
    /// Those among them that the host was told.
    told: (usize, usize),
}

impl Watched {
    /// Takes the outcomes that the host was not told: their place, and their bytes.
    fn next_part(&mut self, now: Instant) -> Option<(u64, Vec<u8>)> {
        // So there are few parts, and none is late by more than a part of the time before it.
        self.due = now + PATIENCE.max(now.duration_since(self.began) / 4);
        let (count, bytes) = mem::replace(&mut self.told, (self.count, self.bytes.len()));
        let part = self.bytes.get(bytes..)?;
        (self.count > count).then(|| (count as u64, part_of(self.count - count, part)))
    }
}

#[derive(Default)]
struct State {
    /// A worker makes one call at a time.
    span: Option<Watched>,
    has_thread: bool,
    /// Whether the thread waits for a span, however long.
    is_idle: bool,
}

static STATE: Mutex<State> = Mutex::new(State {
    span: None,
    has_thread: false,
    is_idle: false,
});
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, State> {
    // No foreign code runs under the lock.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watch of a span.
pub(crate) enum HostWatch {
    /// The span is that of the state.
    Told,
    /// Nothing is to be told: there is one item, or no host.
    Untold(Vec<u8>),
}

impl SpanWatch for HostWatch {
    fn begin(token: u64, items: usize) -> Self {
        if items < 2 || !waits::has_host() {
            return Self::Untold(Vec::new());
        }
        let began = Instant::now();
        let mut state = lock();
        if !state.has_thread {
            let builder = thread::Builder::new().name(String::from("cf-parts"));
            if let Err(error) = builder.spawn(tell_parts) {
                drop(state);
                log::trouble("results of a span cannot be told early", &error);
                return Self::Untold(Vec::new());
            }
            state.has_thread = true;
        }
        state.span = Some(Watched {
            token,
            began,
            due: began + PATIENCE,
            count: 0,
            bytes: Vec::new(),
            told: (0, 0),
        });
        let is_idle = mem::take(&mut state.is_idle);
        drop(state);
        if is_idle {
            CHANGED.notify_one();
        }
        Self::Told
    }

    fn add(&mut self, outcome: &[u8]) {
        match self {
            Self::Untold(bytes) => bytes.extend_from_slice(outcome),
            Self::Told => {
                if let Some(span) = &mut lock().span {
                    span.bytes.extend_from_slice(outcome);
                    span.count += 1;
                }
            }
        }
    }

    fn end(mut self) -> Vec<u8> {
        match &mut self {
            Self::Untold(bytes) => mem::take(bytes),
            Self::Told => lock()
                .span
                .take()
                .map(|span| span.bytes)
                .unwrap_or_default(),
        }
    }
}

impl Drop for HostWatch {
    fn drop(&mut self) {
        if let Self::Told = self {
            lock().span = None;
        }
    }
}

/// Tells the host of spans that run for some time, as long as the worker lives.
fn tell_parts() {
    let mut state = lock();
    loop {
        let now = Instant::now();
        let Some(span) = &mut state.span else {
            state.is_idle = true;
            state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if span.due > now {
            let left = span.due.duration_since(now);
            let waited = CHANGED.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let token = span.token;
        let part = span.next_part(now);
        drop(state);
        if let Some((first, part)) = part {
            waits::tell_part(token, first, &part);
        }
        state = lock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_in_one_part() {
        let began = Instant::now();
        let mut span = Watched {
            token: 1,
            began,
            due: began,
            count: 0,
            bytes: Vec::new(),
            told: (0, 0),
        };
        assert_eq!(span.next_part(began + PATIENCE), None);
        assert_eq!(span.due, began + 2 * PATIENCE);
        span.bytes.extend([7, 8, 9]);
        span.count = 2;
        let part = span.next_part(began + 8 * PATIENCE);
        assert_eq!(part, Some((0, vec![2, 7, 8, 9])));
        assert_eq!(span.due, began + 10 * PATIENCE);
        span.bytes.push(5);
        span.count = 3;
        assert_eq!(span.next_part(began), Some((2, vec![1, 5])));
        assert_eq!(span.next_part(began), None);
    }
}
