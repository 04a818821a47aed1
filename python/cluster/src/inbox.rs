//! The inbox of threads of Python: threads that are not attached put things in.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Things for threads of Python, and a count of those that are still to come.
///
/// The inbox *ends* when it was closed, is empty, and nothing more is to come.
///
/// Each thing has a key. A thread that waits for the thing with a key can *receive* it, for a moment. Then the thing wakes
/// that thread, and not the one that takes all. One thread receives at a time. It begins only while the inbox is empty, and
/// no thread handles what it has taken. So nothing with the key has come before.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Notified when the received thing is there.
    received: Condvar,
}

#[derive(Debug)]
struct State<T> {
    things: VecDeque<T>,
    receiver: Receiver<T>,
    /// Whether a thread may still handle what it has taken.
    is_handling: bool,
    /// The number of things that are to come, or were taken and are not handled yet.
    expected: usize,
    closed: bool,
    /// Whether the thread is to look at other things.
    woken: bool,
    /// The number of threads that wait.
    waiting: usize,
}

/// The thread that receives a thing.
#[derive(Debug)]
enum Receiver<T> {
    None,
    /// A thread that waits for the thing with this key.
    Waits(usize),
    /// A thread whose thing has come.
    Has(T),
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
                receiver: Receiver::None,
                is_handling: false,
                expected: 0,
                closed: false,
                woken: false,
                waiting: 0,
            }),
            changed: Condvar::new(),
            received: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a thing in. One that counts was announced by [`expect`](Self::expect).
    pub(crate) fn put(&self, key: usize, thing: T) {
        let mut state = self.lock();
        if matches!(state.receiver, Receiver::Waits(of) if of == key) {
            state.receiver = Receiver::Has(thing);
            drop(state);
            return self.received.notify_one();
        }
        state.things.push_back(thing);
        self.tell(state);
    }

    /// Puts a thing in that was received, before all others.
    pub(crate) fn put_back(&self, thing: T) {
        let mut state = self.lock();
        state.things.push_front(thing);
        self.tell(state);
    }

    /// Wakes a thread that takes all, if one waits.
    fn tell(&self, state: MutexGuard<'_, State<T>>) {
        let is_waited_for = state.waiting > 0;
        drop(state);
        if is_waited_for {
            self.changed.notify_one();
        }
    }

    /// Lets the calling thread receive the next thing with a key. Returns whether the thread may: then it calls
    /// [`receive`](Self::receive) next. None with the key has come before, unless it was handled as well.
    pub(crate) fn begin_receiving(&self, key: usize) -> bool {
        let mut state = self.lock();
        let is_free = matches!(state.receiver, Receiver::None);
        let may_receive = is_free && !state.is_handling && state.things.is_empty();
        if may_receive {
            state.receiver = Receiver::Waits(key);
        }
        may_receive
    }

    /// Waits for the thing, up to `limit`. From then on, things with its key come to the thread that takes all.
    pub(crate) fn receive(&self, limit: Duration) -> Option<T> {
        let waits = |state: &mut State<T>| matches!(state.receiver, Receiver::Waits(_));
        let waited = self.received.wait_timeout_while(self.lock(), limit, waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match std::mem::replace(&mut state.receiver, Receiver::None) {
            Receiver::Has(thing) => Some(thing),
            Receiver::None | Receiver::Waits(_) => None,
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
        let may_end = state.expected == 0 && state.closed;
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
        state.is_handling = false;
        loop {
            if !state.things.is_empty() {
                state.is_handling = true;
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
