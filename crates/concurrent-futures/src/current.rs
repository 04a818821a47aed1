//! What the calling thread is doing: which pool's worker it is, and which tasks
//! are on its stack.

use crate::deadlock::Futures;
use crate::future::{FutureId, TaskRef};
use crate::observer::Observer;
use crate::panic::log_panic;
use std::cell::Cell;
use std::ptr;

/// How many tasks a worker runs inside each other when they wait for pending
/// ones of their own pool. Each takes some of the thread's stack.
pub(crate) const MAX_DEPTH: usize = 64;

/// A worker thread, as seen by the tasks that run on it.
pub(crate) struct Worker<'pool> {
    /// Identifies the pool.
    pub(crate) home: *const (),
    pub(crate) max_workers: usize,
    pub(crate) observer: Option<&'pool dyn Observer>,
    top: Cell<*const Frame>,
    depth: Cell<usize>,
}

/// A task on the stack of a worker.
struct Frame {
    task: *const TaskRef,
    below: *const Frame,
}

thread_local! {
    static WORKER: Cell<*const Worker<'static>> = const { Cell::new(ptr::null()) };
}

impl<'pool> Worker<'pool> {
    pub(crate) fn new(
        home: *const (),
        max_workers: usize,
        observer: Option<&'pool dyn Observer>,
    ) -> Self {
        Self {
            home,
            max_workers,
            observer,
            top: Cell::new(ptr::null()),
            depth: Cell::new(0),
        }
    }

    /// Makes the calling thread this worker while `f` runs.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                WORKER.set(ptr::null());
            }
        }
        WORKER.set(ptr::from_ref(self).cast());
        let _leave = Leave;
        f()
    }

    /// Runs a task to its end.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn run(&self, task: &TaskRef) {
        // SAFETY: promised by the caller.
        unsafe { self.run_and_finish(task, || task.finish()) };
    }

    /// Calls the task's call, and then `finish` to make the future done, unless
    /// somebody else has done that.
    ///
    /// # Safety
    /// The caller has started the task.
    pub(crate) unsafe fn run_and_finish<R>(
        &self,
        task: &TaskRef,
        finish: impl FnOnce() -> R,
    ) -> Option<R> {
        /// Takes the frame off the stack, also if something panics.
        struct Leave<'a, 'pool>(&'a Worker<'pool>, *const Frame);
        impl Drop for Leave<'_, '_> {
            fn drop(&mut self) {
                self.0.depth.set(self.0.depth.get() - 1);
                self.0.top.set(self.1);
            }
        }
        let below = self.top.get();
        let frame = Frame { task, below };
        self.top.set(&raw const frame);
        self.depth.set(self.depth.get() + 1);
        // Dropped before the frame.
        let _leave = Leave(self, below);
        self.observe(|observer| observer.started(task.id()));
        // SAFETY: promised by the caller.
        let result = unsafe { task.execute() }.then(finish);
        self.observe(|observer| observer.finished(task.id()));
        result
    }

    fn observe(&self, f: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.observer {
            log_panic("an observer panicked", || f(observer));
        }
    }

    /// Runs a task here and now if it is pending in this worker's own pool and
    /// not too many are on the stack. Returns whether it did.
    pub(crate) fn run_in_place(&self, task: &TaskRef) -> bool {
        if task.home() != self.home || self.depth.get() >= MAX_DEPTH {
            return false;
        }
        // SAFETY: a task of a pool is run by that pool's workers; run below.
        if !unsafe { task.state().start() } {
            return false;
        }
        // SAFETY: just started.
        unsafe { self.run(task) };
        true
    }

    /// The tasks on the stack, the innermost first.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &TaskRef> {
        let mut frame = self.top.get();
        std::iter::from_fn(move || {
            // SAFETY: frames are on this thread's stack, below the caller's, and
            // so are the references to their tasks.
            let (this, task) = unsafe {
                let this = frame.as_ref()?;
                (this, &*this.task)
            };
            frame = this.below;
            Some(task)
        })
    }
}

/// Calls `f` with the calling thread's worker, if it is one.
pub(crate) fn with_worker<R>(f: impl FnOnce(Option<&Worker<'_>>) -> R) -> R {
    // Without access, the thread is ending and runs no task any more.
    let worker = WORKER.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: `enter` removes the pointer before the worker goes.
    f(unsafe { worker.as_ref() })
}

/// Runs the first of these tasks that is pending in the pool whose worker the calling thread
/// is, if there is one. Returns whether it did.
pub fn run_one_in_place(tasks: &Futures<'_>) -> bool {
    with_worker(|worker| worker.is_some_and(|worker| tasks(&mut |task| worker.run_in_place(task))))
}

/// Whether the calling thread is a worker of the pool that `home` identifies.
pub fn is_worker_of(home: *const ()) -> bool {
    with_worker(|worker| worker.is_some_and(|worker| worker.home == home))
}

/// Whether the calling thread is a worker.
pub(crate) fn is_worker() -> bool {
    with_worker(|worker| worker.is_some())
}

/// The task that the calling thread is running.
pub(crate) fn task() -> Option<FutureId> {
    with_worker(|worker| Some(worker?.tasks().next()?.id()))
}
