//! The bound on pending tasks.

#![forbid(unsafe_code)]

use crate::error::SubmitError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Counts pending tasks, and makes submitters wait for room.
pub(crate) struct PendingLimit {
    max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    pending: usize,
    closed: bool,
}

/// What to do when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Wait,
    Refuse,
    /// For tasks of the pool's own workers: if these waited, nobody might be left
    /// to make room.
    Exceed,
}

impl PendingLimit {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            state: Mutex::new(State {
                pending: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one task. `Ok(None)` when the executor was closed.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        when_full: WhenFull,
    ) -> Result<Option<Permit>, SubmitError> {
        let mut state = self.lock();
        while !state.closed && state.pending >= self.max {
            match when_full {
                WhenFull::Wait => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
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
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The place of a pending task; free again when this is dropped.
pub(crate) struct Permit(Arc<PendingLimit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().pending -= 1;
        self.0.changed.notify_one();
    }
}
