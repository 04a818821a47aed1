//! The submission of tasks to a pool: into the queue, and a worker for them.

use crate::error::SubmitError;
use crate::future::Future;
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::runtime::sync::Arc;
use crate::task::panic::log_panic;
use crate::task::trace::Spanned;
use crate::task::{Call, TaskRef};
use crate::thread::idle::WakeAction;
use crate::thread::pool::Pool;

impl Pool {
    /// Puts a task for a call into the queue, and makes sure that a worker takes the task. Gives the call
    /// back with the error.
    pub(super) fn submit<C>(
        self: &Arc<Self>,
        call: C,
    ) -> Result<Future<C::Output>, (SubmitError, C)>
    where
        C: Call + Send,
        C::Output: Send,
    {
        let (queued, handle) = TaskRef::pair(Spanned::new(call), Some(self.id));
        if let Some(observer) = &self.observer {
            log_panic("an observer panicked", || observer.submitted(handle.id()));
        }
        if recorder::is_on() {
            self.describe_pool();
            recorder::submitted(handle.id(), self.number, C::name());
        }
        let submitted = match self.push(queued) {
            Ok(()) => self.call_worker(Some(&handle)),
            Err(task) => Err(self.refuse(task)),
        };
        match submitted {
            // SAFETY: the task's output has this type, and this is its only handle.
            Ok(()) => Ok(unsafe { Future::new(handle) }),
            // SAFETY: the task's call has this type.
            Err(error) => match unsafe { handle.take_back::<Spanned<C>>() } {
                Some(Spanned { call, .. }) => {
                    recorder::rejected(handle.id(), RunOutcome::Rejected);
                    Err((error, call))
                }
                // Another submitter's thread was started after all, and took it.
                // SAFETY: the task's output has this type, and this is its only handle.
                None => Ok(unsafe { Future::new(handle) }),
            },
        }
    }

    /// Puts a task into the queue, and counts it. Gives the task back when the queue is closed.
    #[inline]
    fn push(&self, task: TaskRef) -> Result<(), TaskRef> {
        // First, so that no worker takes a task that is not counted.
        self.counts.submitted();
        self.queue.push(task)
    }

    /// Drops a task that the queue has refused, and returns the reason.
    #[cold]
    fn refuse(&self, task: TaskRef) -> SubmitError {
        drop(task);
        self.counts.withdrawn();
        self.closed_error()
    }

    /// Puts a foreign task into the queue, and makes sure that a worker takes the task.
    ///
    /// # Errors
    /// [`SubmitError`], when the pool was shut down, is broken, or has no thread and
    /// cannot start one. The task will not be run then, and is as it was.
    ///
    /// # Safety
    /// The object of the task stays until this returns.
    pub unsafe fn submit_foreign(self: &Arc<Self>, task: TaskRef) -> Result<(), SubmitError> {
        // SAFETY: the object of the task stays until `submit_foreign` returns, and so longer than `this`.
        let this = unsafe { task.alias() };
        self.push(task).map_err(|task| self.refuse(task))?;
        if !self.spawner.starts_eagerly() {
            return self.call_worker(Some(&this));
        }
        let is_short = |idle| self.queue.len_up_to(idle + 1) > idle;
        match self.idle.call_eagerly(is_short) {
            WakeAction::Nothing => Ok(()),
            WakeAction::StartThread => self.start_thread(Some(&this)),
        }
    }
}
