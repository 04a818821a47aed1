//! The state that the handle of a thread pool and its workers share.

use crate::error::MAX_WORKERS;
use crate::error::{BrokenExecutor, BuildError, SubmitError, TaskError};
use crate::id::PoolId;
use crate::limit::{self, PendingLimit, Permit, WhenFull};
use crate::observer::Observer;
use crate::recording::recorder;
use crate::recording::session::{PoolInfo, PoolKind};
use crate::runtime::crew::Tally;
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::{Arc, Mutex};
use crate::stats::ExecutorStats;
use crate::stats::counts::Counts;
use crate::stats::directory::Listed;
use crate::task::TaskRef;
use crate::thread::idle::Idle;
use crate::thread::queue::Queue;
use crate::thread::spare::{Parked, Place, Why};
use crate::thread::spawner::ThreadSpawner;
use std::error::Error;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Checks the number of workers of a pool.
pub(super) fn check(max_workers: usize) -> Result<(), BuildError> {
    match max_workers {
        0 => Err(BuildError::ZeroWorkers),
        too_many if too_many > MAX_WORKERS => Err(BuildError::TooManyWorkers(too_many)),
        _ => Ok(()),
    }
}

/// The function that each worker calls first.
pub(super) type Initializer =
    Box<dyn Fn() -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// The part of a thread pool that its workers see too.
pub struct Pool {
    pub(super) id: PoolId,
    pub(super) queue: Queue,
    pub(super) idle: Idle,
    pub(super) max_workers: usize,
    pub(super) spawner: Box<dyn ThreadSpawner>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) limit: Option<Arc<PendingLimit>>,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) threads: Mutex<Threads>,
    /// The number of threads, as `threads` has it.
    pub(super) alive: AtomicUsize,
    pub(super) parked: Parked,
    pub(super) tally: Tally,
    pub(super) broken: OnceLock<BrokenExecutor>,
    pub(super) counts: Listed,
    /// The number of the pool in recordings.
    pub(super) number: u32,
    /// The session of recordings to which the pool was described last.
    pub(super) described: AtomicU64,
}

/// The threads of a pool.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) alive: usize,
    /// The number of submitters that are starting a thread. A thread that has ended already may have no
    /// handle yet.
    pub(super) starting: usize,
    /// The places of the spare workers, which are among the started ones.
    pub(super) spare: Vec<Place>,
    pub(super) started: usize,
    pub(super) handles: Vec<JoinHandle<()>>,
    /// The threads that wait until there are no workers.
    pub(super) waiting: Vec<Arc<Signal>>,
}

impl Threads {
    /// Notifies the waiting threads, if there is no worker any more.
    pub(super) fn tell(&mut self) {
        if self.alive == 0 {
            for signal in self.waiting.drain(..) {
                signal.notify();
            }
        }
    }
}

impl Pool {
    pub(super) fn new(max_workers: usize, spawner: Box<dyn ThreadSpawner>) -> Self {
        let id = PoolId::next();
        Self {
            id,
            counts: Listed::new(id, Counts::new()),
            queue: Queue::new(),
            idle: Idle::new(max_workers),
            max_workers,
            spawner,
            keep_alive: None,
            limit: None,
            observer: None,
            threads: Mutex::new(Threads::default()),
            alive: AtomicUsize::new(0),
            parked: Parked::new(),
            tally: Tally::new(),
            broken: OnceLock::new(),
            number: recorder::next_number(),
            described: AtomicU64::new(0),
        }
    }

    /// Makes a pool for foreign tasks.
    ///
    /// # Errors
    /// [`BuildError`] when a number makes no sense.
    pub fn with_spawner(
        max_workers: usize,
        max_pending: Option<usize>,
        spawner: Box<dyn ThreadSpawner>,
    ) -> Result<Arc<Self>, BuildError> {
        check(max_workers)?;
        Ok(Self::share(Self {
            limit: PendingLimit::bound(max_pending)?,
            ..Self::new(max_workers, spawner)
        }))
    }

    /// Makes a pool known, so that it can be described.
    pub(super) fn share(pool: Self) -> Arc<Self> {
        let pool = Arc::new(pool);
        #[cfg(not(loom_models))]
        {
            let weak = Arc::downgrade(&pool);
            pool.counts.set_inspect(weak);
        }
        pool
    }

    /// Describes the pool to the recorder, unless it knows the pool.
    pub fn describe_pool(&self) {
        // ORDERING: Relaxed: describing it twice does no harm.
        if recorder::epoch() == self.described.load(Ordering::Relaxed) {
            return;
        }
        recorder::describe_pool(&self.described, || PoolInfo {
            number: self.number,
            kind: PoolKind::Threads,
            name: self.spawner.pool_name(),
            max_workers: self.max_workers,
        });
    }

    /// Returns the number of the pool in recordings.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the identity of this pool.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    pub(super) fn broken(&self) -> Option<BrokenExecutor> {
        self.broken.get().cloned()
    }

    /// Takes a permit for a task; none if pending tasks are not bounded.
    ///
    /// # Errors
    /// [`SubmitError`], when there is no room, or the pool accepts no tasks.
    #[inline]
    pub fn admit(&self, when_full: WhenFull<'_>) -> Result<Option<Permit>, SubmitError> {
        limit::admit(self.limit.as_ref(), self.id, when_full, || {
            self.closed_error()
        })
    }

    /// Returns the number of pending tasks, some of which may have been cancelled.
    pub fn pending(&self) -> usize {
        self.queue.len_up_to(usize::MAX)
    }

    /// Returns whether `shutdown` was called, or the pool is broken.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Returns the reason why nothing is accepted any more.
    pub fn closed_error(&self) -> SubmitError {
        match self.broken() {
            Some(broken) => SubmitError::Broken(broken),
            None => SubmitError::Shutdown,
        }
    }

    /// Notes that a task came out of the queue and is not to be run.
    pub(super) fn skip(&self, task: &TaskRef) {
        self.counts.skipped();
        task.skip();
    }

    /// Returns the figures of the pool; see [`ExecutorStats`].
    pub fn stats(&self) -> ExecutorStats {
        self.counts.of_threads(self.queue.taken())
    }

    /// Fails all pending tasks with this error, but `except`.
    pub(super) fn fail_pending(&self, error: &TaskError, except: Option<&TaskRef>) {
        while let Some(task) = self.queue.pop() {
            let excepted = except.is_some_and(|except| except.id() == task.id());
            // SAFETY: the thread that takes a task out of the queue runs the task, or fails it.
            unsafe {
                if excepted {
                    continue;
                }
                if task.state().start() {
                    task.fail(error.clone());
                } else {
                    self.counts.skipped();
                }
            }
        }
    }

    /// Fails the pending tasks, and refuses tasks from now on.
    pub fn break_with(&self, broken: BrokenExecutor) {
        // The first cause stays.
        let broken = self.broken.get_or_init(|| broken);
        self.close();
        self.fail_pending(&TaskError::Broken(broken.clone()), None);
    }

    /// Refuses tasks from now on.
    pub fn close(&self) {
        self.queue.close();
        if let Some(limit) = &self.limit {
            limit.close();
        }
        self.idle.wake_all();
        while self.parked.call(Why::End) {}
    }

    /// Cancels all pending tasks.
    pub fn cancel_pending(&self) {
        while let Some(task) = self.queue.pop() {
            task.cancel();
            self.skip(&task);
        }
    }

    /// Takes the oldest pending task out of the queue. The task is the caller's: the pool will not run it.
    pub fn take_pending(&self) -> Option<TaskRef> {
        let task = self.queue.pop()?;
        task.leave_pool();
        Some(task)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool of at most {} workers", self.max_workers)
    }
}
