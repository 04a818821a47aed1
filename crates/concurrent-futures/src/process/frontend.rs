//! The pool of worker processes that other frontends use, and the life of their workers.

use crate::error::{BrokenExecutor, BuildError, SubmitError};
use crate::future::driver::Driver;
use crate::id::PoolId;
use crate::limit::{Permit, WhenFull};
use crate::process::contract::{Caller, PoolSettings, RemoteCall, RemoteTask, WorkerSpawner};
use crate::process::pool::settings::Settings;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::WorkerHandle;
use crate::process::pool::{Pool, supervisor};
use crate::process::worker;
use crate::runtime::os::process::Signal;
use crate::runtime::os::socket::Socket;
use crate::stats::ExecutorStats;
use crate::task::TaskRef;
use crate::task::header::Header;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// A pool of worker processes for a frontend of the engine.
pub struct ProcessPool(Arc<Pool>);

impl ProcessPool {
    /// Makes a pool without workers and without a supervisor: some thread must call
    /// [`supervise`](Self::supervise).
    ///
    /// # Errors
    /// When a setting makes no sense, or the system refuses a resource that the pool needs.
    pub fn new(
        settings: &PoolSettings,
        spawner: Arc<dyn WorkerSpawner>,
    ) -> Result<Self, BuildError> {
        Ok(Self(Pool::new(Settings::of_frontend(settings)?, spawner)?))
    }

    /// Describes the pool to the recorder, and returns its number in recordings.
    #[must_use]
    pub fn describe(&self) -> u32 {
        let recorded = &self.0.settings.recorded;
        recorded.describe();
        recorded.number()
    }

    /// Returns the identity of the pool in its tasks.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.0.id
    }

    /// Does the supervisor's work, up to the end of the pool.
    pub fn supervise(&self) {
        supervisor::supervise(&self.0);
    }

    /// Submits a task. Returns whether a worker is to be started for it, by
    /// [`start_worker`](Self::start_worker).
    ///
    /// # Errors
    /// When the pool was closed or is broken. The future stays as it is then.
    ///
    /// # Safety
    /// The reference is that of a `T`.
    pub unsafe fn submit<T: RemoteTask>(
        &self,
        task: TaskRef,
        call: RemoteCall,
    ) -> Result<bool, SubmitError> {
        // SAFETY: the reference is that of a `T`, by `submit`'s own condition.
        let task = unsafe { Task::foreign::<T>(task, call) };
        self.0.submit(task)
    }

    /// Asks for up to `number` workers, which the caller starts. Returns how many the caller is to start.
    #[must_use]
    pub fn want_workers(&self, number: usize) -> usize {
        self.0.want_workers(number)
    }

    /// Asks for one more worker, unless a worker is idle that has had tasks. Returns whether the caller is to
    /// start it.
    #[must_use]
    pub fn want_another_worker(&self) -> bool {
        self.0.want_another()
    }

    /// Starts a worker that is wanted.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn start_worker(&self) -> io::Result<()> {
        self.0.start_worker()
    }

    /// Lets the pool look for work again. The frontend calls this after a worker could not be started, and
    /// after the task that wanted the worker was cancelled. Other tasks may have relied on the worker.
    pub fn reconsider(&self) {
        self.0.reconsider();
    }

    /// Returns the figures of the pool; see [`ExecutorStats`]. `fed` tasks are on their way to the pool.
    #[allow(
        clippy::must_use_candidate,
        reason = "the first call begins to measure times"
    )]
    pub fn stats(&self, fed: usize) -> ExecutorStats {
        self.0.stats(fed)
    }

    /// Returns the number of workers that have nothing to do.
    #[must_use]
    pub fn idle_workers(&self) -> usize {
        self.0.lock().idle_count()
    }

    /// Returns the number of tasks that are not done.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let state = self.0.lock();
        let handed: usize = state.workers.iter().map(WorkerHandle::load).sum();
        state.queue.len() + handed
    }

    /// Returns whether fewer than `most` calls are not done. Cancelled calls do not count. Calls of a span that are
    /// independent count one by one.
    #[must_use]
    pub fn has_room(&self, most: usize) -> bool {
        /// The number of cancelled tasks that are looked at, at most.
        const CANCELLED: usize = 1024;
        let state = self.0.lock();
        let handed = state.workers.iter().flat_map(WorkerHandle::tasks);
        let queued = state.queue.iter().take(most + CANCELLED);
        let mut left = most;
        for task in handed.chain(queued.filter(|task| !task.is_cancelled())) {
            let items = task.growing().map_or(task.weight(), |items| items as usize);
            left = left.saturating_sub(items);
            if left == 0 {
                return false;
            }
        }
        true
    }

    /// Shows the tasks that are not done: those that were dispatched first, then the others in the order in
    /// which they will be started. Holds the lock meanwhile: `show` runs no foreign code.
    pub fn show_unfinished(&self, mut show: impl FnMut(NonNull<Header>)) {
        let state = self.0.lock();
        let handed = state.workers.iter().flat_map(WorkerHandle::tasks);
        for task in handed.chain(&state.queue) {
            show(task.address());
        }
    }

    /// Sets the number of workers that the pool may have. A smaller number than there are ends none of them.
    pub fn set_max_workers(&self, number: usize) {
        self.0.lock().max_workers = number;
    }

    /// Returns the reason why the pool accepts no tasks, if it does not.
    #[must_use]
    pub fn refusal(&self) -> Option<SubmitError> {
        self.0.refusal()
    }

    /// Takes a permit for a task; none if pending tasks are not bounded.
    ///
    /// # Errors
    /// [`SubmitError`], when there is no room, or the pool accepts no tasks.
    pub fn admit(&self, when_full: WhenFull<'_>) -> Result<Option<Permit>, SubmitError> {
        self.0.admit(when_full)
    }

    /// Returns whether pending tasks are bounded.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.0.settings.limit.is_some()
    }

    /// Receives the replies of workers that come while the calling thread spins once. Returns whether there were some.
    #[allow(clippy::must_use_candidate, reason = "the replies are the purpose")]
    pub fn receive_soon(&self) -> bool {
        self.0.receive_soon()
    }

    /// Refuses submitters that wait for room, and those that come.
    pub fn stop_admitting(&self) {
        self.0.stop_admitting();
    }

    /// Accepts no more tasks. With `cancel_futures`, cancels the tasks that no worker has begun.
    pub fn close(&self, cancel_futures: bool) {
        self.0.shutdown(false, cancel_futures);
    }

    /// Tells the pool that answers no longer need its workers. A closed pool then looks at the remaining work.
    pub fn settled(&self) {
        self.0.settled();
    }

    /// Fails pending and running tasks, and ends all workers.
    pub fn break_with(&self, broken: &BrokenExecutor) {
        self.0.break_with(broken);
    }

    /// Ends all workers by a signal, and cancels the tasks that they have not begun.
    pub fn end_workers(&self, kill: bool) {
        self.0
            .end_workers(if kill { Signal::KILL } else { Signal::TERM });
    }

    /// Recalls the task of a future, if the worker that it was dispatched to has not begun it. Then calls
    /// `cancel`, which is to cancel the pending future. Returns whether it did.
    pub fn recall(&self, task: &TaskRef, cancel: impl FnOnce()) -> bool {
        let recalled = self.0.recall(task.id());
        let is_recalled = recalled.is_some();
        if is_recalled {
            cancel();
        }
        drop(recalled);
        is_recalled
    }

    /// Returns whether a worker has begun with a task that is running by its word.
    #[must_use]
    pub fn has_begun(&self, task: &TaskRef) -> bool {
        self.0.has_begun(task.id())
    }

    /// Ends the task of a future, together with its worker if the task is running. Returns whether it will
    /// end.
    #[must_use]
    pub fn terminate(&self, task: &TaskRef) -> bool {
        Driver::terminate(&*self.0, task.id())
    }

    /// Returns the number of pending tasks, without those that were dispatched.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.lock().queue.len()
    }

    /// Returns the process ids of the workers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.0.pids()
    }

    /// Returns whether attachments are not sent, as the pool may use few descriptors only.
    #[must_use]
    pub fn is_lean(&self) -> bool {
        self.0.settings.is_lean
    }

    /// Returns whether the death of a worker breaks the pool.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.0.settings.breaks_by_death()
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}

/// Runs a worker: carries out calls until the pool, or its process, ends.
///
/// # Errors
/// When the channel is corrupt, or the system refuses a resource that the worker needs.
///
/// # Safety
/// The other end of the channel is a pool of this very library, which has started this process. Its
/// memory is shared with that one.
pub unsafe fn serve(channel: OwnedFd, caller: &mut dyn Caller) -> io::Result<()> {
    worker::serve_frontend(&Socket::from_fd(channel)?, caller)
}

/// Tells the pool that the worker cannot work, and no other could either. The worker is to end then.
///
/// # Errors
/// The parent's end of the channel is closed.
pub fn refuse(channel: OwnedFd, why: &str) -> io::Result<()> {
    worker::refuse(&Socket::from_fd(channel)?, why)
}
