//! Who is awake: when to wake a worker, when to start one, when to sleep.
//!
//! # Protocol
//! Workers are *busy* (running a task), *searching* (looking at the queue), or
//! *sleeping*. One word counts the searching and the sleeping ones, and all threads.
//!
//! - A submitter pushes its task, then reads the counts ([`Idle::call`]). If someone
//!   is searching, that one will find the task or see to it. If not, it makes a
//!   sleeping worker search, the one that slept last; if none sleeps, it may start
//!   a thread.
//! - A worker that takes a task stops searching. If it was the last to search, and
//!   the queue is not empty, it calls another, before it runs its task.
//! - A worker that finds nothing announces that it sleeps, then looks at the queue
//!   once more, and only then sleeps.
//!
//! # Invariants
//! 1. While a task is in the queue, and a worker sleeps or could be started, some
//!    worker is searching, or a submitter is between its push and its call, or a
//!    worker between its announcement and its second look. Because: the push and
//!    the counts are in one total order (`SeqCst`). Either the submitter reads the
//!    announcement, or the announcing worker's second look finds the task.
//! 2. A sleeping worker is woken by whoever took it off the list of sleepers, which
//!    counts it as searching from then on: no two submitters wake for one searcher.
//! 3. At most one worker searches of its own accord when the queue is empty; the
//!    others sleep at once. It searches for about as long as a wake-up costs, and
//!    sleeps then: a pool that is idle takes no CPU.

#![forbid(unsafe_code)]

use crate::signal::Signal;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, lock};
use std::time::Instant;

/// The counts in one word.
#[derive(Clone, Copy)]
struct Counts(u64);

const ONE_SEARCHING: u64 = 1;
const ONE_SLEEPING: u64 = 1 << 20;
const ONE_THREAD: u64 = 1 << 40;
const COUNT_MASK: u64 = MAX_THREADS as u64;

/// What a count can hold.
pub(crate) const MAX_THREADS: usize = (1 << 20) - 1;

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

/// What the caller of [`Idle::call`] is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Nothing: a worker is searching, woken, or there will be none.
    Nothing,
    /// Start a thread. It is counted as one that searches; if it cannot be started,
    /// `thread_failed` must be called.
    StartThread,
}

/// How a sleep ended. The worker is searching in any case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Awake {
    /// It was woken, or did not sleep.
    Called,
    /// The deadline passed.
    Expired,
}

pub(crate) struct Idle {
    counts: AtomicU64,
    max_threads: u64,
    /// The signals of the sleeping workers, the last to sleep last.
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
        // ORDERING: SeqCst, as above.
        self.counts
            .compare_exchange(current.0, new, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// There is a task in the queue: sees to it that a worker will look.
    pub(crate) fn call(&self) -> Call {
        order_for_loom();
        loop {
            let counts = self.load();
            if counts.searching() > 0 {
                return Call::Nothing;
            }
            if counts.sleeping() > 0 {
                if self.wake_one() {
                    return Call::Nothing;
                }
            } else if counts.threads() >= self.max_threads {
                return Call::Nothing;
            } else if self.exchange(counts, counts.0 + ONE_THREAD + ONE_SEARCHING) {
                return Call::StartThread;
            }
        }
    }

    /// The same, for a pool that starts threads eagerly: if there may be another thread,
    /// and `is_short` says that so many idle workers are too few, asks for one.
    pub(crate) fn call_eagerly(&self, is_short: impl Fn(usize) -> bool) -> Call {
        loop {
            let counts = self.load();
            let idle = counts.searching() + counts.sleeping();
            let idle = usize::try_from(idle).unwrap_or(usize::MAX);
            if counts.threads() >= self.max_threads || !is_short(idle) {
                return self.call();
            }
            if self.exchange(counts, counts.0 + ONE_THREAD + ONE_SEARCHING) {
                return Call::StartThread;
            }
        }
    }

    /// The number of workers, with those whose threads are being started.
    pub(crate) fn threads(&self) -> usize {
        usize::try_from(self.load().threads()).unwrap_or(usize::MAX)
    }

    /// Makes the worker that slept last search. False when none sleeps.
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

    /// A thread that was asked for could not be started.
    pub(crate) fn thread_failed(&self) {
        self.counts
            .fetch_sub(ONE_THREAD + ONE_SEARCHING, Ordering::SeqCst);
    }

    /// A busy worker found nothing to do: may it search for a while?
    pub(crate) fn start_searching(&self) -> bool {
        let counts = self.load();
        counts.searching() == 0 && self.exchange(counts, counts.0 + ONE_SEARCHING)
    }

    /// A searching worker has found a task. Returns whether it was the last one, and
    /// should call another if there are more tasks.
    pub(crate) fn stop_searching(&self) -> bool {
        let before = Counts(self.counts.fetch_sub(ONE_SEARCHING, Ordering::SeqCst));
        order_for_loom();
        before.searching() == 1
    }

    /// A worker ends. It was not counted as searching or sleeping.
    pub(crate) fn thread_ends(&self) {
        self.counts.fetch_sub(ONE_THREAD, Ordering::SeqCst);
    }

    /// A searching worker ends, unless `has_work`: then it may be needed still, and
    /// false is returned.
    pub(crate) fn end_unless(&self, has_work: impl Fn() -> bool) -> bool {
        self.stop_searching();
        self.thread_ends();
        order_for_loom();
        // Who submitted while we were counted has relied on us. If another thread is
        // to be started for it, we are that thread.
        !has_work() || self.call() == Call::Nothing
    }

    /// A worker goes to sleep, unless `has_work` says otherwise after the
    /// announcement, until it is woken or `deadline` passes.
    pub(crate) fn sleep(
        &self,
        signal: &Arc<Signal>,
        searching: bool,
        has_work: impl Fn() -> bool,
        deadline: Option<Instant>,
    ) -> Awake {
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
            return Awake::Called;
        }
        if !signal.wait(deadline) && self.leave(signal) {
            return Awake::Expired;
        }
        Awake::Called
    }

    /// Takes a worker off the list of sleepers, and counts it as searching. False when
    /// it was woken meanwhile; its signal is taken then.
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

/// Loom takes `SeqCst` accesses for `AcqRel`, and knows the total order of fences only.
fn order_for_loom() {
    #[cfg(loom_models)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}
