//! The view of a thread pool that the detector of deadlocks has.

use crate::runtime::os::signal::Signal;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, Mutex, lock};
use std::io;

/// A pool of threads whose workers may wait for each other's tasks.
pub(crate) trait Crew: Send + Sync {
    /// Returns the numbers of the pool's workers that are spare, blocked or held back.
    fn tally(&self) -> &Tally;

    /// Returns the number of the pool's regular workers, with those whose threads are being started.
    fn regular_workers(&self) -> usize;

    /// Returns the number of tasks that may run at once.
    fn max_workers(&self) -> usize;

    /// Returns whether tasks are in the pool's queue.
    fn has_pending(&self) -> bool;

    /// Returns the number of the pool in recordings.
    fn number(&self) -> u32 {
        0
    }

    /// Describes the pool and the calling worker to the recorder. `has_just_begun`, if the worker did not exist
    /// before.
    fn describe(&self, worker: u32, has_just_begun: bool) {
        let _ = (worker, has_just_begun);
    }

    /// Lets a parked spare worker go on, or starts a thread for a new one. The spare is
    /// counted already. Called without the detector's lock.
    ///
    /// # Errors
    /// Why no thread could be started.
    fn call_spare(self: Arc<Self>) -> io::Result<()>;
}

/// The detector's counts of a pool. Changed under the detector's lock only.
pub(crate) struct Tally {
    /// The number of spare workers that are not parked.
    spares: AtomicUsize,
    /// The number of workers, regular or spare, that are blocked.
    blocked: AtomicUsize,
    /// The regular workers that must not take a task yet.
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

    /// Returns the number of spare workers that are not parked.
    pub(crate) fn spares(&self) -> usize {
        // ORDERING: Relaxed, here and below: decisions are made under the detector's
        // lock. A look without the lock is a hint, see `hold_back`.
        self.spares.load(Ordering::Relaxed)
    }

    pub(crate) fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn spares_come(&self, count: usize) {
        self.spares.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn spare_leaves(&self) {
        self.spares.fetch_sub(1, Ordering::Relaxed);
        self.release();
    }

    pub(crate) fn blocks(&self) {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        if self.spares() > 0 {
            self.release();
        }
    }

    pub(crate) fn goes_on(&self) {
        self.blocked.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    pub(crate) fn hold(&self, signal: &Arc<Signal>) {
        lock(&self.held).push(Arc::clone(signal));
    }

    /// Lets all workers that are held back look again.
    fn release(&self) {
        for signal in lock(&self.held).drain(..) {
            signal.notify();
        }
    }
}

/// Returns the number of workers that are neither blocked, parked nor held back.
pub(crate) fn awake(crew: &dyn Crew) -> usize {
    let tally = crew.tally();
    (crew.regular_workers() + tally.spares()).saturating_sub(tally.blocked())
}

/// Returns whether more tasks run, or may be taken at any moment, than the pool allows.
pub(crate) fn is_crowded(crew: &dyn Crew) -> bool {
    awake(crew).saturating_sub(crew.tally().held()) > crew.max_workers()
}

/// The crew of a worker process: a single worker, for which no task is pending.
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
