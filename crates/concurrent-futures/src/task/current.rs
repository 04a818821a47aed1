//! The activity of the calling thread: which pool's worker it is, and which task it runs.

use crate::id::{FutureId, PoolId};
use crate::observer::Observer;
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::runtime::crew::Crew;
use crate::runtime::sync::Arc;
use crate::stats::counts::{Counts, WorkerCounts};
use crate::task::TaskRef;
use crate::task::panic::log_panic;
use std::cell::Cell;
use std::ptr;
use std::sync::Arc as StdArc;

/// A worker thread, as seen by the task that runs on it.
pub(crate) struct Worker<'pool> {
    /// The identity of the pool.
    pub(crate) pool_id: PoolId,
    pub(crate) crew: &'pool Arc<dyn Crew>,
    pub(crate) observer: Option<&'pool dyn Observer>,
    /// The worker's number in recordings.
    pub(crate) number: u32,
    /// The worker's counters.
    counts: StdArc<WorkerCounts>,
    /// The counters of the pool, which the worker's belong to, if there are any.
    pool_counts: Option<&'pool Counts>,
    /// The session of recordings to which the worker was described last.
    described: Cell<u64>,
    task: Cell<*const TaskRef>,
}

#[cfg(not(loom_models))]
thread_local! {
    static WORKER: Cell<*const Worker<'static>> = const { Cell::new(ptr::null()) };
    /// The identity of the pool that the thread is or was a worker of. The destructors of thread-local values
    /// run after the worker has left.
    static POOL: Cell<Option<PoolId>> = const { Cell::new(None) };
}

#[cfg(loom_models)]
loom::thread_local! {
    static WORKER: Cell<*const Worker<'static>> = Cell::new(ptr::null());
    static POOL: Cell<Option<PoolId>> = Cell::new(None);
}

impl<'pool> Worker<'pool> {
    pub(crate) fn new(
        pool_id: PoolId,
        crew: &'pool Arc<dyn Crew>,
        observer: Option<&'pool dyn Observer>,
        counts: Option<(&'pool Counts, StdArc<WorkerCounts>)>,
    ) -> Self {
        let (pool_counts, counts) = counts.unzip();
        Self {
            pool_id,
            crew,
            observer,
            number: recorder::next_number(),
            counts: counts.unwrap_or_default(),
            pool_counts,
            described: Cell::new(0),
            task: Cell::new(ptr::null()),
        }
    }

    /// Makes the calling thread this worker while `f` runs.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        /// Restores the previous worker, which is further down this stack.
        struct Leave(*const Worker<'static>);
        impl Drop for Leave {
            fn drop(&mut self) {
                WORKER.with(|worker| worker.set(self.0));
            }
        }
        POOL.with(|pool| pool.set(Some(self.pool_id)));
        let before = WORKER.with(|worker| worker.replace(ptr::from_ref(self).cast()));
        let _leave = Leave(before);
        f()
    }

    /// Runs a task to its end. For `taken` see `run_and_finish`.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn run(&self, task: &TaskRef, taken: u64) {
        // SAFETY: `run`'s caller has started the task, which is `run_and_finish`'s condition; `finish` runs
        // after `execute` has written the outcome.
        unsafe { self.run_and_finish(task, taken, || task.finish()) };
    }

    /// Calls the task's call, and then `finish` to make the future done, unless another thread has done that.
    /// `taken` is the number by which the task came out of the queue; 0 if it came another way.
    ///
    /// # Safety
    /// The caller has started the task.
    pub(crate) unsafe fn run_and_finish<R>(
        &self,
        task: &TaskRef,
        taken: u64,
        finish: impl FnOnce() -> R,
    ) -> Option<R> {
        /// Forgets the task, also if something panics.
        struct Leave<'a, 'pool>(&'a Worker<'pool>);
        impl Drop for Leave<'_, '_> {
            fn drop(&mut self) {
                self.0.task.set(ptr::null());
            }
        }
        self.task.set(task);
        let _leave = Leave(self);
        self.observe(|observer| observer.started(task.id()));
        let recorded = if recorder::is_on() {
            self.describe(false);
            recorder::begin(task.id(), self.crew.number(), self.number)
        } else {
            None
        };
        self.counts
            .begin(task.id(), task.operations(), taken, self.pool_counts);
        // SAFETY: the caller has started the task, which is `execute`'s condition.
        let outcome = unsafe { task.execute() };
        self.counts.end(outcome == RunOutcome::Failed);
        if let Some(begun) = recorded {
            // SAFETY: the task was executed, and is not finished.
            unsafe { record(begun, task, outcome) };
        }
        let result = (outcome != RunOutcome::Elsewhere).then(finish);
        self.observe(|observer| observer.finished(task.id()));
        result
    }

    /// Describes the worker and its pool to the recorder, if it records and does not know them.
    /// `has_just_begun`, if the worker did not exist before.
    pub(crate) fn describe(&self, has_just_begun: bool) {
        let epoch = recorder::epoch();
        if epoch != 0 && self.described.replace(epoch) != epoch {
            self.crew.describe(self.number, has_just_begun);
        }
    }

    fn observe(&self, f: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.observer {
            log_panic("an observer panicked", || f(observer));
        }
    }

    /// Returns the task that runs on the worker.
    pub(crate) fn task(&self) -> Option<&TaskRef> {
        // SAFETY: the reference is kept by the caller of `run_and_finish`, which
        // removes the pointer before it returns.
        unsafe { self.task.get().as_ref() }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool_counts {
            pool.remove_worker(&self.counts);
        }
    }
}

/// Records the run of a task.
///
/// # Safety
/// The task was executed, and is not finished. `outcome` is the result of `execute`.
#[cold]
unsafe fn record(begun: recorder::Begun, task: &TaskRef, outcome: RunOutcome) {
    let error = if outcome == RunOutcome::Failed {
        // SAFETY: the outcome is written, and the worker's until it finishes the task.
        unsafe { task.error_text() }
    } else {
        None
    };
    recorder::end(begun, task.static_name(), outcome, error.as_deref());
}

/// Calls `f` with the calling thread's worker, if it is one.
pub(crate) fn with_worker<R>(f: impl FnOnce(Option<&Worker<'_>>) -> R) -> R {
    // Without access, the thread is ending and runs no task any more.
    let worker = WORKER.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: `enter` removes the pointer before the worker goes.
    f(unsafe { worker.as_ref() })
}

/// Returns whether the calling thread is a worker of the pool, or was a worker of the pool and is ending.
pub fn is_worker_of(pool: PoolId) -> bool {
    POOL.try_with(Cell::get).is_ok_and(|own| own == Some(pool))
}

/// Returns whether the calling thread is a worker.
pub(crate) fn is_worker() -> bool {
    with_worker(|worker| worker.is_some())
}

/// Returns the task that the calling thread is running.
pub(crate) fn task() -> Option<FutureId> {
    with_worker(|worker| Some(worker?.task()?.id()))
}
