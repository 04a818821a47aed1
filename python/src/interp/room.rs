//! A bound on the bytes that wait to be dispatched to workers.

use crate::interp::attach::come_back;
use pyo3::prelude::*;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The bytes that wait to be dispatched to workers.
#[derive(Default)]
pub(crate) struct Room {
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Room {
    /// The number of waiting bytes above which no more calls are pickled.
    const MOST: usize = 16 * 1024 * 1024;
    /// The length up to which pickles do not count.
    const SHORT: usize = 64 * 1024;

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more calls may be pickled.
    pub(crate) fn wait(&self, py: Python<'_>) {
        let is_full = |waiting: &mut usize| *waiting >= Self::MOST;
        if is_full(&mut self.lock()) {
            let on_the_way = py.detach(|| {
                // A pool that breaks gives up all that waits.
                drop(self.changed.wait_while(self.lock(), is_full));
                come_back()
            });
            drop(on_the_way);
        }
    }

    /// Takes room for a pickle of this length.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Option<Taken> {
        if length < Self::SHORT {
            return None;
        }
        *self.lock() += length;
        Some(Taken {
            room: Arc::clone(self),
            length,
        })
    }
}

/// The room of some waiting bytes. Dropping this gives the room back, and takes no lock but the room's.
pub(crate) struct Taken {
    room: Arc<Room>,
    length: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.room.lock() -= self.length;
        self.room.changed.notify_all();
    }
}
