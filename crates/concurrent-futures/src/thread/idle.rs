//! Idle accounting: when to wake a worker, when to start a worker, and when a worker sleeps.
//!
//! # Protocol
//! Workers are *busy* (running a task), *searching* (looking at the queue), or *sleeping*. One word counts the
//! searching workers, the sleeping workers, and all threads.
//!
//! - A submitter pushes its task, then reads the counts ([`Idle::call`]). If a worker is searching, that worker
//!   will find the task or see to it. If not, the submitter makes the worker that slept last search; if none
//!   sleeps, the submitter may start a thread.
//! - A worker that takes a task stops searching. If it was the last to search, and the queue is not empty, it
//!   calls another worker before it runs its task.
//! - A worker that finds nothing announces that it sleeps, then looks at the queue once more, and only then
//!   sleeps.
//!
//! # Invariants
//! 1. While a task is in the queue, and a worker sleeps or could be started, one of these holds. Some worker
//!    is searching. Or a submitter is between its push and its call. Or a worker is between its announcement
//!    and its second look. Because: the push and the counts are in one total order (`SeqCst`). Either the
//!    submitter reads the announcement, or the announcing worker's second look finds the task.
//! 2. A sleeping worker is woken by the thread that took it off the list of sleepers. That thread counts the
//!    worker as searching from then on. So no two submitters wake a worker for the same search.
//! 3. At most one worker searches unasked when the queue is empty; the others sleep at once. It searches for
//!    about as long as a wake-up costs, and then sleeps: an idle pool takes no CPU time.

#![forbid(unsafe_code)]

use crate::error::MAX_WORKERS;
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::atomic::{AtomicU64, Ordering};
use crate::runtime::sync::{Arc, Mutex, lock};
use std::time::Instant;

/// The counts of workers, in one word.
#[derive(Clone, Copy)]
struct Counts(u64);

const ONE_SEARCHING: u64 = 1;
const ONE_SLEEPING: u64 = 1 << 20;
const ONE_THREAD: u64 = 1 << 40;
const COUNT_MASK: u64 = MAX_WORKERS as u64;

impl Counts {
    fn searching(self) -> u64 {
        self.0 & COUNT_MASK
    }

    fn sleeping(self) -> u64 {
        self.0 >> 20 & COUNT_MASK
    }

    fn threads(self) -> u64 {
        self.0 >> 40
    }
}

/// The action that [`Idle::call`] asks of its caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WakeAction {
    /// Does nothing: a worker is searching or woken, or the pool gets no more workers.
    Nothing,
    /// Starts a thread. The thread is counted as searching; if it cannot be started, `thread_failed` must be
    /// called.
    StartThread,
}

/// The result of a sleep. The worker is searching in any case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParkOutcome {
    /// The worker was woken, or did not sleep.
    Called,
    /// The deadline passed.
    Expired,
}

pub(crate) struct Idle {
    counts: AtomicU64,
    max_threads: u64,
    /// The signals of the sleeping workers. The worker that slept last is at the end.
    sleepers: Mutex<Vec<Arc<Signal>>>,
}

impl Idle {
    pub(crate) fn new(max_threads: usize) -> Self {
        Self {
            counts: AtomicU64::new(0),
            max_threads: max_threads as u64,
            sleepers: Mutex::new(Vec::new()),
        }
    }

    fn load(&self) -> Counts {
        // ORDERING: SeqCst, for the total order with the push (invariant 1).
        Counts(self.counts.load(Ordering::SeqCst))
    }

    fn exchange(&self, current: Counts, new: u64) -> bool {
        // ORDERING: SeqCst, as in the other accesses of the counts: see the module documentation.
        self.counts
            .compare_exchange(current.0, new, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Makes sure that a worker will look at the queue, in which there is a task.
    pub(crate) fn call(&self) -> WakeAction {
        order_for_loom();
        loop {
            let counts = self.load();
            if counts.searching() > 0 {
                return WakeAction::Nothing;
            }
            if counts.sleeping() > 0 {
                if self.wake_one() {
                    return WakeAction::Nothing;
                }
            } else if counts.threads() >= self.max_threads {
                return WakeAction::Nothing;
            } else if self.exchange(counts, counts.0 + ONE_THREAD + ONE_SEARCHING) {
                return WakeAction::StartThread;
            }
        }
    }

    /// Wakes or starts a worker like [`call`](Self::call), for a pool that starts threads eagerly. Also asks
    /// for a thread if the pool may have another, and `is_short` returns true for the number of idle workers.
    pub(crate) fn call_eagerly(&self, is_short: impl Fn(usize) -> bool) -> WakeAction {
        loop {
            let counts = self.load();
            let idle = counts.searching() + counts.sleeping();
            let idle = usize::try_from(idle).unwrap_or(usize::MAX);
            if counts.threads() >= self.max_threads || !is_short(idle) {
                return self.call();
            }
            if self.exchange(counts, counts.0 + ONE_THREAD + ONE_SEARCHING) {
                return WakeAction::StartThread;
            }
        }
    }

    /// Returns the number of workers, with those whose threads are being started.
    pub(crate) fn threads(&self) -> usize {
        usize::try_from(self.load().threads()).unwrap_or(usize::MAX)
    }

    /// Makes the worker that slept last search. Returns false if none sleeps.
    pub(crate) fn wake_one(&self) -> bool {
        let signal = {
            let mut sleepers = lock(&self.sleepers);
            let Some(signal) = sleepers.pop() else {
                return false;
            };
            self.counts
                .fetch_add(ONE_SEARCHING.wrapping_sub(ONE_SLEEPING), Ordering::SeqCst);
            signal
        };
        signal.notify();
        true
    }

    /// Makes all sleeping workers search.
    pub(crate) fn wake_all(&self) {
        while self.wake_one() {}
    }

    /// Uncounts a thread that was asked for and could not be started.
    pub(crate) fn thread_failed(&self) {
        self.counts
            .fetch_sub(ONE_THREAD + ONE_SEARCHING, Ordering::SeqCst);
    }

    /// Decides whether a busy worker that has found nothing to do may search for a while.
    pub(crate) fn start_searching(&self) -> bool {
        let counts = self.load();
        counts.searching() == 0 && self.exchange(counts, counts.0 + ONE_SEARCHING)
    }

    /// Counts a searching worker as busy, as it has found a task. Returns whether it was the last searching
    /// worker, and should call another if there are more tasks.
    pub(crate) fn stop_searching(&self) -> bool {
        let before = Counts(self.counts.fetch_sub(ONE_SEARCHING, Ordering::SeqCst));
        order_for_loom();
        before.searching() == 1
    }

    /// Uncounts a worker that ends, and that was not counted as searching or sleeping.
    pub(crate) fn thread_ends(&self) {
        self.counts.fetch_sub(ONE_THREAD, Ordering::SeqCst);
    }

    /// Uncounts a searching worker that ends. If `has_work` and the worker may be needed still, returns
    /// false.
    pub(crate) fn end_unless(&self, has_work: impl Fn() -> bool) -> bool {
        self.stop_searching();
        self.thread_ends();
        order_for_loom();
        // A thread that submitted while we were counted has relied on us. If another worker
        // is to be started for its task, we are that worker.
        !has_work() || self.call() == WakeAction::Nothing
    }

    /// Puts a worker to sleep until it is woken or `deadline` passes, unless `has_work` returns true after
    /// the announcement.
    pub(crate) fn sleep(
        &self,
        signal: &Arc<Signal>,
        searching: bool,
        has_work: impl Fn() -> bool,
        deadline: Option<Instant>,
    ) -> ParkOutcome {
        {
            let mut sleepers = lock(&self.sleepers);
            sleepers.push(Arc::clone(signal));
            let stops = if searching { ONE_SEARCHING } else { 0 };
            self.counts
                .fetch_add(ONE_SLEEPING.wrapping_sub(stops), Ordering::SeqCst);
        }
        order_for_loom();
        if has_work() {
            self.leave(signal);
            return ParkOutcome::Called;
        }
        if !signal.wait(deadline) && self.leave(signal) {
            return ParkOutcome::Expired;
        }
        ParkOutcome::Called
    }

    /// Takes a worker off the list of sleepers, and counts it as searching. Returns false if the worker was
    /// woken meanwhile; then takes its signal.
    fn leave(&self, signal: &Arc<Signal>) -> bool {
        let left = {
            let mut sleepers = lock(&self.sleepers);
            let place = sleepers
                .iter()
                .rposition(|sleeper| Arc::ptr_eq(sleeper, signal));
            if let Some(place) = place {
                sleepers.remove(place);
                self.counts
                    .fetch_add(ONE_SEARCHING.wrapping_sub(ONE_SLEEPING), Ordering::SeqCst);
            }
            place.is_some()
        };
        if !left {
            signal.wait(None);
        }
        left
    }
}

/// Orders accesses for loom, which treats `SeqCst` accesses as `AcqRel` and totally orders fences only.
fn order_for_loom() {
    #[cfg(loom_models)]
    crate::runtime::sync::atomic::fence(Ordering::SeqCst);
}
