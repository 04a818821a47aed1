//! The inbox of threads of Python: threads that are not attached put things in.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Things for threads of Python, and a count of those that are still to come.
///
/// The inbox *ends* when it was closed, is empty, and nothing more is to come.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    things: VecDeque<T>,
    /// The number of things that are to come, or were taken and are not handled yet.
    expected: usize,
    closed: bool,
    /// Whether the thread is to look at other things.
    woken: bool,
    /// The number of threads that wait.
    waiting: usize,
}

/// The reason why a wait is over.
pub(crate) enum Taken<T> {
    /// These things were there.
    Things(Vec<T>),
    /// The time has passed, or the inbox was closed.
    Nothing,
    /// The inbox has ended.
    End,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                things: VecDeque::new(),
                expected: 0,
                closed: false,
                woken: false,
                waiting: 0,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a thing in. One that counts was announced by [`expect`](Self::expect).
    pub(crate) fn put(&self, thing: T) {
        let mut state = self.lock();
        state.things.push_back(thing);
        let is_waited_for = state.waiting > 0;
        drop(state);
        if is_waited_for {
            self.changed.notify_one();
        }
    }

    /// Announces a thing.
    pub(crate) fn expect(&self) {
        self.lock().expected += 1;
    }

    /// Notes that announced things were handled, or do not come.
    pub(crate) fn settle(&self, count: usize) {
        let mut state = self.lock();
        state.expected = state.expected.saturating_sub(count);
        let may_end = state.expected == 0;
        drop(state);
        if may_end {
            self.changed.notify_all();
        }
    }

    /// Lets the inbox end when nothing more is to come. Ends the current wait.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.woken = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for things, up to `limit`, and takes some of them.
    pub(crate) fn take(&self, most: usize, limit: Option<Duration>) -> Taken<T> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut state = self.lock();
        loop {
            if !state.things.is_empty() {
                let count = state.things.len().min(most);
                return Taken::Things(state.things.drain(..count).collect());
            }
            if state.closed && state.expected == 0 {
                return Taken::End;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if std::mem::take(&mut state.woken) || left == Some(Duration::ZERO) {
                return Taken::Nothing;
            }
            state.waiting += 1;
            state = match left {
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting -= 1;
        }
    }
}
