//! The counters of one pool, and of each of its threads.
//!
//! # Protocol
//! Each worker thread has counters of its own, which only this thread writes. The first thread that submits to a pool
//! *owns* a counter, which it writes without an atomic addition. All other submitters share eight counters, one for
//! each group of threads, to which they add. A thread is known by an address of its own. A thread that gets the
//! address of one that has ended owns what that one owned.

#![forbid(unsafe_code)]

use crate::id::FutureId;
use crate::runtime::os::clock::now;
use crate::stats::ExecutorStats;
use crate::stats::times::Marks;
use crate::stats::view::{Inspect, RunTime, TaskView, WorkerView};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// The number of groups of submitters.
const GROUPS: usize = 8;

/// The submissions of the first submitter, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct First {
    owner: AtomicUsize,
    count: AtomicU64,
}

/// The submissions of a group of other threads, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Group(AtomicU64);

/// Returns an address that no other thread has.
#[inline]
fn token() -> usize {
    thread_local! {
        static TOKEN: Cell<u8> = const { Cell::new(0) };
    }
    // The value has no destructor, so that there is access as long as the thread runs.
    TOKEN.with(|token| ptr::from_ref(token).addr())
}

/// Returns the group of a thread.
fn group(token: usize) -> usize {
    // Addresses of threads differ in the middle. The high bits of the product depend on all of them.
    let mixed = (token >> 6) as u64;
    usize::try_from(mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61).unwrap_or(0) % GROUPS
}

/// Adds to a word that only the calling thread writes.
#[inline]
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
}

/// The counters of one worker thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCounts {
    /// The thread, as people know it.
    name: String,
    /// The number of the running task, and the address of its operations; 0 and null if none runs.
    task: AtomicU64,
    operations: AtomicPtr<()>,
    finished: AtomicU64,
    failed: AtomicU64,
    /// Nanoseconds for which the worker ran tasks.
    busy: AtomicU64,
    /// When the running task began; 0 if that was not measured, or none runs.
    since: AtomicU64,
    /// When times began to be measured; 0 if they are not. A copy of the pool's: the line is the worker's own.
    timed_since: AtomicU64,
}

impl WorkerCounts {
    /// Counts a task that begins, and that came out of the queue as number `taken`; 0 if it came another way.
    #[inline]
    pub(crate) fn begin(
        &self,
        task: FutureId,
        operations: *const (),
        taken: u64,
        counts: Option<&Counts>,
    ) {
        self.operations.store(operations.cast_mut(), Relaxed);
        self.task.store(task.number(), Relaxed);
        if self.timed_since.load(Relaxed) != 0 {
            self.begin_timed(taken, counts);
        }
    }

    /// Counts a task that ends.
    #[inline]
    pub(crate) fn end(&self, has_failed: bool) {
        add(
            if has_failed {
                &self.failed
            } else {
                &self.finished
            },
            1,
        );
        self.task.store(0, Relaxed);
        if self.timed_since.load(Relaxed) != 0 {
            self.end_timed();
        }
    }

    #[cold]
    fn begin_timed(&self, taken: u64, counts: Option<&Counts>) {
        let moment = now();
        self.since.store(moment, Relaxed);
        if let (1.., Some(counts)) = (taken, counts) {
            lock(&counts.marks).taken(taken, moment);
        }
    }

    #[cold]
    fn end_timed(&self) {
        let began = self.began();
        self.since.store(0, Relaxed);
        add(&self.busy, now().saturating_sub(began));
    }

    /// Returns when the running task began, or when times began to be measured.
    fn began(&self) -> u64 {
        match self.since.load(Relaxed) {
            0 => self.timed_since.load(Relaxed),
            since => since,
        }
    }

    /// Returns whether the worker runs a task.
    fn is_running(&self) -> bool {
        self.task.load(Relaxed) != 0
    }
}

/// The sums over workers that have ended, and the workers that there are.
#[derive(Debug, Default)]
struct Workers {
    alive: Vec<Arc<WorkerCounts>>,
    finished: u64,
    failed: u64,
    busy: u64,
    ended: u64,
    restarts: u64,
}

/// The counters of one pool.
pub(crate) struct Counts {
    first: First,
    groups: [Group; GROUPS],
    /// Tasks that were cancelled.
    cancelled: AtomicU64,
    /// Tasks that failed without being started, or with their worker process.
    rejected: AtomicU64,
    /// Tasks in the queue that no worker will start when it takes them: cancelled, or started by a spare worker.
    gone: AtomicU64,
    /// Tasks that have left the queue and were not started then.
    skipped: AtomicU64,
    is_timed: AtomicBool,
    timed_since: AtomicU64,
    marks: Mutex<Marks>,
    workers: Mutex<Workers>,
    /// The sums over all worker processes.
    processes: WorkerCounts,
    /// The pool, which describes itself.
    pub(crate) inspect: OnceLock<Weak<dyn Inspect>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            first: First::default(),
            groups: Default::default(),
            cancelled: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            is_timed: AtomicBool::new(false),
            timed_since: AtomicU64::new(0),
            marks: Mutex::default(),
            workers: Mutex::default(),
            processes: WorkerCounts::default(),
            inspect: OnceLock::new(),
        }
    }

    /// Returns whether times are measured.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        // ORDERING: Acquire: a thread that sees the flag sees since when.
        self.is_timed.load(Ordering::Acquire)
    }

    fn timed_since(&self) -> u64 {
        self.timed_since.load(Relaxed)
    }

    /// Measures times from now on.
    pub(crate) fn measure(&self) {
        if self.is_timed() {
            return;
        }
        // Under the lock, so that each worker has the moment before any thread finds that times are measured.
        let workers = lock(&self.workers);
        if !self.is_timed() {
            let moment = now().max(1);
            self.timed_since.store(moment, Relaxed);
            lock(&self.marks).begin(self.submissions());
            for worker in &workers.alive {
                worker.timed_since.store(moment, Relaxed);
            }
            // ORDERING: Release publishes the moment.
            self.is_timed.store(true, Ordering::Release);
        }
    }

    /// Counts a task that is about to be queued.
    #[inline]
    pub(crate) fn submitted(&self) {
        if self.first.owner.load(Relaxed) == token() {
            add(&self.first.count, 1);
        } else {
            self.submitted_by_another();
        }
        if self.is_timed() {
            self.mark();
        }
    }

    #[cold]
    #[inline(never)]
    fn submitted_by_another(&self) {
        let token = token();
        let owner = &self.first.owner;
        if owner.load(Relaxed) == 0 && owner.compare_exchange(0, token, Relaxed, Relaxed).is_ok() {
            add(&self.first.count, 1);
        } else {
            self.groups[group(token)].0.fetch_add(1, Relaxed);
        }
    }

    #[cold]
    fn mark(&self) {
        let submitted = self.submissions();
        lock(&self.marks).submitted(submitted, now());
    }

    /// Uncounts a task that the queue has refused.
    pub(crate) fn withdrawn(&self) {
        self.groups[group(token())].0.fetch_sub(1, Relaxed);
    }

    fn submissions(&self) -> u64 {
        let first = self.first.count.load(Relaxed);
        let groups = self.groups.iter();
        groups.fold(first, |sum, group| sum.wrapping_add(group.0.load(Relaxed)))
    }

    /// Counts a task that has left the queue and is not started.
    pub(crate) fn skipped(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    /// Counts a task that was cancelled.
    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
        self.gone.fetch_add(1, Relaxed);
    }

    /// Counts a task that a spare worker has started, and that is in the queue still.
    pub(crate) fn claimed(&self) {
        self.gone.fetch_add(1, Relaxed);
    }

    /// Counts a task that failed without being started.
    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// Counts calls that a worker process has answered after so many nanoseconds. `submitted` is the moment of
    /// their submission, or 0. The caller has the pool's lock, so that no other thread counts answers.
    pub(crate) fn answered(&self, calls: u64, has_failed: bool, nanoseconds: u64, submitted: u64) {
        let ended = &self.processes;
        let count = if has_failed {
            &ended.failed
        } else {
            &ended.finished
        };
        add(count, calls);
        add(&ended.busy, nanoseconds);
        if submitted != 0 {
            let began = now().saturating_sub(nanoseconds);
            let waited = began.saturating_sub(submitted);
            lock(&self.marks).histogram.add(waited);
        }
    }

    /// Counts calls that failed together with their worker process.
    pub(crate) fn failed(&self, calls: u64) {
        self.rejected.fetch_add(calls, Relaxed);
    }

    /// Adds a worker thread.
    pub(crate) fn add_worker(&self, name: String) -> Arc<WorkerCounts> {
        let mut workers = lock(&self.workers);
        let worker = Arc::new(WorkerCounts {
            name,
            timed_since: AtomicU64::new(self.timed_since()),
            ..WorkerCounts::default()
        });
        workers.alive.push(Arc::clone(&worker));
        worker
    }

    /// Counts a worker that comes: perhaps in the place of another.
    pub(crate) fn worker_comes(&self) {
        let mut workers = lock(&self.workers);
        if workers.ended > workers.restarts {
            workers.restarts += 1;
        }
    }

    /// Counts a worker that ends while its pool goes on.
    pub(crate) fn worker_goes(&self) {
        lock(&self.workers).ended += 1;
    }

    /// Removes a worker thread.
    pub(crate) fn remove_worker(&self, worker: &Arc<WorkerCounts>) {
        let mut workers = lock(&self.workers);
        workers.alive.retain(|other| !Arc::ptr_eq(other, worker));
        workers.finished += worker.finished.load(Relaxed);
        workers.failed += worker.failed.load(Relaxed);
        workers.busy += worker.busy.load(Relaxed);
    }

    /// Describes the worker threads; `name` tells the name of a function by the operations of its task.
    pub(crate) fn threads(&self, name: impl Fn(*const ()) -> &'static str) -> Vec<WorkerView> {
        let moment = now();
        let timed_since = self.timed_since();
        let workers = lock(&self.workers);
        let view = |worker: &Arc<WorkerCounts>| {
            let number = worker.task.load(Relaxed);
            let since = worker.since.load(Relaxed);
            let time = |began: u64| Duration::from_nanos(moment.saturating_sub(began));
            let time = match since {
                0 => RunTime::AtLeast(time(timed_since)),
                since => RunTime::Exactly(time(since)),
            };
            let operations = worker.operations.load(Relaxed);
            let name = Cow::Borrowed(name(operations));
            WorkerView {
                name: worker.name.clone(),
                pid: None,
                is_ready: true,
                task: (number != 0).then_some(TaskView { number, name, time }),
                behind: 0,
            }
        };
        workers.alive.iter().map(view).collect()
    }

    /// Returns how many tasks in the queue no worker will start.
    pub(crate) fn gone(&self) -> u64 {
        let skipped = self.skipped.load(Relaxed);
        self.gone.load(Relaxed).saturating_sub(skipped)
    }

    /// Returns the figures that all kinds of pools have, and measures times from now on.
    pub(crate) fn common(&self) -> ExecutorStats {
        self.measure();
        let moment = now();
        let timed_since = self.timed_since();
        let workers = lock(&self.workers);
        let mut stats = ExecutorStats {
            cancelled: self.cancelled.load(Relaxed),
            failed: self.rejected.load(Relaxed)
                + workers.failed
                + self.processes.failed.load(Relaxed),
            finished: workers.finished + self.processes.finished.load(Relaxed),
            restarts: workers.restarts,
            workers: workers.alive.len() as u64,
            measured: Duration::from_nanos(moment.saturating_sub(timed_since)),
            ..ExecutorStats::default()
        };
        let mut busy = workers.busy + self.processes.busy.load(Relaxed);
        for worker in &workers.alive {
            if worker.is_running() {
                stats.running += 1;
                busy += moment.saturating_sub(worker.began());
            }
            stats.finished += worker.finished.load(Relaxed);
            stats.failed += worker.failed.load(Relaxed);
            busy += worker.busy.load(Relaxed);
        }
        drop(workers);
        stats.busy = Duration::from_nanos(busy);
        stats.queued = lock(&self.marks).histogram.times();
        stats
    }

    /// Returns the figures of a pool of threads, from whose queue `taken` tasks were taken.
    pub(crate) fn of_threads(&self, taken: u64) -> ExecutorStats {
        let gone = self.gone();
        let submitted = self.submissions();
        ExecutorStats {
            pending: submitted.saturating_sub(taken).saturating_sub(gone),
            ..self.common()
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}
