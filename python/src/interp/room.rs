//! A bound on the calls and bytes that wait to be dispatched to workers.
//!
//! The feeder waits until a call may be pickled: until few bytes wait, and the pool has room for a call. The engine's
//! `Departures` has the protocol of the wait.

use crate::interp::attach::come_back;
use concurrent_futures::engine::Departures;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The room of a pool.
#[derive(Default)]
pub(crate) struct Room {
    /// The number of bytes that wait to be dispatched.
    bytes: AtomicUsize,
    departures: Departures,
}

impl Room {
    /// The number of waiting bytes above which no more calls are pickled.
    const MOST: usize = 16 * 1024 * 1024;
    /// The length up to which pickles do not count.
    const SHORT: usize = 64 * 1024;

    /// Waits until a call may be pickled: until few bytes wait, and `is_free` holds. `is_free` may be called by a thread
    /// that is not attached. One thread at a time waits.
    pub(crate) fn wait(&self, py: Python<'_>, is_free: impl Fn() -> bool + Send + Sync) {
        // ORDERING: Relaxed, here and below: `Departures` orders the count.
        let is_open = || self.bytes.load(Ordering::Relaxed) < Self::MOST && is_free();
        if is_open() {
            return;
        }
        let on_the_way = py.detach(|| {
            // A pool that breaks gives up all that waits.
            self.departures.wait_for_room(is_open);
            come_back()
        });
        drop(on_the_way);
    }

    /// Notes that a call has left the pool, or that the pool refuses calls.
    pub(crate) fn note_departure(&self) {
        self.departures.note();
    }

    /// Takes room for a pickle of this length.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Option<Taken> {
        if length < Self::SHORT {
            return None;
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Some(Taken {
            room: Arc::clone(self),
            length,
        })
    }
}

/// The room of some waiting bytes. Dropping this gives the room back, and takes no lock.
pub(crate) struct Taken {
    room: Arc<Room>,
    length: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.length, Ordering::Relaxed);
        self.room.departures.note();
    }
}
