//! The activity of the calling thread: which pool's worker it is, and which task it runs.

use crate::deadlock::Crew;
use crate::future::{FutureId, TaskRef};
use crate::observer::Observer;
use crate::panic::log_panic;
use crate::sync::Arc;
use std::cell::Cell;
use std::ptr;

/// A worker thread, as seen by the task that runs on it.
pub(crate) struct Worker<'pool> {
    /// Identifies the pool.
    pub(crate) home: *const (),
    pub(crate) crew: &'pool Arc<dyn Crew>,
    pub(crate) observer: Option<&'pool dyn Observer>,
    task: Cell<*const TaskRef>,
}

#[cfg(not(loom_models))]
thread_local! {
    static WORKER: Cell<*const Worker<'static>> = const { Cell::new(ptr::null()) };
    /// Identifies the pool that the thread is or was a worker of. The destructors of
    /// thread-local values run when the worker has left already.
    static HOME: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

#[cfg(loom_models)]
loom::thread_local! {
    static WORKER: Cell<*const Worker<'static>> = Cell::new(ptr::null());
    static HOME: Cell<*const ()> = Cell::new(ptr::null());
}

impl<'pool> Worker<'pool> {
    pub(crate) fn new(
        home: *const (),
        crew: &'pool Arc<dyn Crew>,
        observer: Option<&'pool dyn Observer>,
    ) -> Self {
        Self {
            home,
            crew,
            observer,
            task: Cell::new(ptr::null()),
        }
    }

    /// Makes the calling thread this worker while `f` runs.
    pub(crate) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        /// Makes it what it was before: that worker is further down this stack.
        struct Leave(*const Worker<'static>);
        impl Drop for Leave {
            fn drop(&mut self) {
                WORKER.with(|worker| worker.set(self.0));
            }
        }
        HOME.with(|home| home.set(self.home));
        let before = WORKER.with(|worker| worker.replace(ptr::from_ref(self).cast()));
        let _leave = Leave(before);
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

    /// The task that runs on the worker.
    pub(crate) fn task(&self) -> Option<&TaskRef> {
        // SAFETY: the reference is kept by the caller of `run_and_finish`, which
        // removes the pointer before it returns.
        unsafe { self.task.get().as_ref() }
    }
}

/// Calls `f` with the calling thread's worker, if it is one.
pub(crate) fn with_worker<R>(f: impl FnOnce(Option<&Worker<'_>>) -> R) -> R {
    // Without access, the thread is ending and runs no task any more.
    let worker = WORKER.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: `enter` removes the pointer before the worker goes.
    f(unsafe { worker.as_ref() })
}

/// Whether the calling thread is a worker of the pool that `home` identifies, or was
/// one and is ending.
pub fn is_worker_of(home: *const ()) -> bool {
    HOME.try_with(Cell::get).is_ok_and(|own| own == home)
}

/// Whether the calling thread is a worker.
pub(crate) fn is_worker() -> bool {
    with_worker(|worker| worker.is_some())
}

/// The task that the calling thread is running.
pub(crate) fn task() -> Option<FutureId> {
    with_worker(|worker| Some(worker?.task()?.id()))
}
