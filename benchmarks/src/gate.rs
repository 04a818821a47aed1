//! A gate that holds tasks back until they may pass.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Lets as many tasks pass as it was told to, whichever come first: a pool may run its tasks in any order.
#[derive(Default)]
pub(crate) struct Gate {
    arrived: AtomicUsize,
    /// Number of tasks that may pass, written under the lock, so that no task misses its wake-up.
    open_for: AtomicUsize,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    /// Waits until the gate is open for one more task.
    pub(crate) fn pass(&self) {
        let place = self.arrived.fetch_add(1, Ordering::Relaxed);
        if place < self.open_for.load(Ordering::Relaxed) {
            return;
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = |(): &mut ()| place >= self.open_for.load(Ordering::Relaxed);
        drop(self.opened.wait_while(guard, closed));
    }

    /// Opens the gate for `count` tasks in all.
    pub(crate) fn open_for(&self, count: usize) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_for.store(count, Ordering::Relaxed);
        drop(guard);
        self.opened.notify_all();
    }

    /// Opens the gate for all tasks.
    pub(crate) fn open(&self) {
        self.open_for(usize::MAX);
    }
}
