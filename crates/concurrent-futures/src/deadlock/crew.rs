//! A pool of threads, as the detector of deadlocks sees it.

use crate::signal::Signal;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};
use std::io;

/// A pool of threads whose workers may wait for each other's tasks.
pub(crate) trait Crew: Send + Sync {
    /// The numbers of its workers that are spare, blocked or held back.
    fn tally(&self) -> &Tally;

    /// The number of its regular workers, with those whose threads are being started.
    fn regular_workers(&self) -> usize;

    /// The number of tasks that may run at once.
    fn max_workers(&self) -> usize;

    /// Whether tasks are in its queue.
    fn has_pending(&self) -> bool;

    /// Lets a parked spare worker go on, or starts a thread for a new one. The spare is
    /// counted already. Called without the detector's lock.
    ///
    /// # Errors
    /// Why no thread could be started.
    fn call_spare(self: Arc<Self>) -> io::Result<()>;
}

/// The detector's counts of a pool. Changed under the detector's lock only.
pub(crate) struct Tally {
    /// Spare workers that are not parked.
    spares: AtomicUsize,
    /// Workers, regular or spare, that are blocked.
    blocked: AtomicUsize,
    /// Regular workers that must not take a task yet.
    held: Mutex<Vec<Arc<Signal>>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            spares: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            held: Mutex::new(Vec::new()),
        }
    }

    /// The number of spare workers that are not parked.
    pub(crate) fn spares(&self) -> usize {
        // ORDERING: Relaxed, here and below: decisions are made under the detector's
        // lock. A look without the lock is a hint, see `hold_back`.
        self.spares.load(Ordering::Relaxed)
    }

    pub(super) fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(super) fn spares_come(&self, count: usize) {
        self.spares.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn spare_leaves(&self) {
        self.spares.fetch_sub(1, Ordering::Relaxed);
        self.release();
    }

    pub(super) fn blocks(&self) {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        if self.spares() > 0 {
            self.release();
        }
    }

    pub(super) fn goes_on(&self) {
        self.blocked.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    pub(super) fn hold(&self, signal: &Arc<Signal>) {
        lock(&self.held).push(Arc::clone(signal));
    }

    /// Lets all who are held back look again.
    fn release(&self) {
        for signal in lock(&self.held).drain(..) {
            signal.notify();
        }
    }
}

/// The number of workers that are neither blocked, parked nor held back.
pub(super) fn awake(crew: &dyn Crew) -> usize {
    let tally = crew.tally();
    (crew.regular_workers() + tally.spares()).saturating_sub(tally.blocked())
}

/// Whether more tasks run, or may be taken at any moment, than the pool allows.
pub(super) fn is_crowded(crew: &dyn Crew) -> bool {
    awake(crew).saturating_sub(crew.tally().held()) > crew.max_workers()
}

/// The crew of a single worker that no task is pending for: a worker process.
pub(crate) struct Single(Tally);

impl Single {
    pub(crate) fn new() -> Self {
        Self(Tally::new())
    }
}

impl Crew for Single {
    fn tally(&self) -> &Tally {
        &self.0
    }

    fn regular_workers(&self) -> usize {
        1
    }

    fn max_workers(&self) -> usize {
        1
    }

    fn has_pending(&self) -> bool {
        false
    }

    fn call_spare(self: Arc<Self>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
