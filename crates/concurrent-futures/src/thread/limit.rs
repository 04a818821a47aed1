//! The bound on pending tasks.

#![forbid(unsafe_code)]

use crate::error::SubmitError;
use crate::future::blocking::Stop;
use crate::signal::{Signal, Woken};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts pending tasks, and makes submitters wait for room.
pub struct PendingLimit {
    max: usize,
    state: Mutex<State>,
}

struct State {
    pending: usize,
    closed: bool,
    /// Who waits for room, the first to come first. Each is woken for one place.
    waiting: VecDeque<Arc<Signal>>,
}

/// What to do when there is no room.
#[derive(Clone, Copy)]
pub enum WhenFull<'a> {
    /// Wait, until told to stop.
    Wait(Stop<'a>),
    /// Return an error.
    Refuse,
    /// For tasks of the pool's own workers: if these waited, nobody might be left
    /// to make room.
    Exceed,
}

impl PendingLimit {
    /// So many may be pending.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            state: Mutex::new(State {
                pending: 0,
                closed: false,
                waiting: VecDeque::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one task. `Ok(None)` when the executor was closed.
    ///
    /// # Errors
    /// [`SubmitError::Full`], if there is no room, and waiting for it was not wanted or
    /// was stopped.
    pub fn acquire(
        self: &Arc<Self>,
        when_full: WhenFull<'_>,
    ) -> Result<Option<Permit>, SubmitError> {
        let mut state = self.lock();
        while !state.closed && state.pending >= self.max {
            match when_full {
                WhenFull::Wait(stop) => {
                    let signal = Arc::new(Signal::new());
                    state.waiting.push_back(Arc::clone(&signal));
                    drop(state);
                    let stopped = !wait(&signal, stop);
                    state = self.lock();
                    if stopped {
                        state.leave(&signal);
                        return Err(SubmitError::Full);
                    }
                }
                WhenFull::Refuse => return Err(SubmitError::Full),
                WhenFull::Exceed => break,
            }
        }
        if state.closed {
            return Ok(None);
        }
        state.pending += 1;
        Ok(Some(Permit(Arc::clone(self))))
    }

    /// Lets all go who wait for room.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for signal in state.waiting.drain(..) {
            signal.notify();
        }
    }
}

/// Waits for the signal. False when `stop` said so.
fn wait(signal: &Signal, stop: Stop<'_>) -> bool {
    loop {
        match signal.wait_once(None) {
            Woken::Notified => return true,
            Woken::Early if stop() => return false,
            Woken::Early | Woken::Expired => {}
        }
    }
}

impl State {
    /// One who waited goes away. The place it was woken for, if it was, is for the next.
    fn leave(&mut self, signal: &Arc<Signal>) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !Arc::ptr_eq(waiting, signal));
        if self.waiting.len() == before {
            self.wake_one();
        }
    }

    fn wake_one(&mut self) {
        if let Some(signal) = self.waiting.pop_front() {
            signal.notify();
        }
    }
}

impl fmt::Debug for WhenFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait(_) => "Wait",
            Self::Refuse => "Refuse",
            Self::Exceed => "Exceed",
        })
    }
}

impl fmt::Debug for PendingLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} pending tasks", self.max)
    }
}

/// The place of a pending task; free again when this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<PendingLimit>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.pending -= 1;
        state.wake_one();
    }
}
