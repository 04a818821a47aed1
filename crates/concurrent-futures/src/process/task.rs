//! A task on its way to a worker process and back.
//!
//! | where | phase of the future |
//! |---|---|
//! | in the pool's queue | pending; it can be cancelled |
//! | handed to a worker | running; it cannot |
//! | taken back before the worker began | pending |
//! | its worker died before it began | pending, first in the queue |
//! | its worker died while it ran | finished with an error; pending if it may be repeated |
//! | answered | finished |

use super::codec::Bytes;
use super::failure::Failure;
use super::function::Invoke;
use super::options::TaskOptions;
use crate::error::TaskError;
use crate::future::state::Advance;
use crate::future::{Call, Future, FutureId, Outcome, Phase, TaskRef};
use crate::panic;
use std::marker::PhantomData;

/// What a task comes to.
#[derive(Debug)]
pub(super) enum Ending<'a> {
    /// A value, as bytes.
    Value(Bytes<'a>),
    /// The bytes of a [`Failure`].
    Failure(Bytes<'a>),
    Error(TaskError),
}

/// Stands for a call that a worker process carries out.
struct Remote<I>(PhantomData<I>);

impl<I: Invoke> Call for Remote<I> {
    type Output = I::Output;

    fn call(self) -> Outcome<I::Output> {
        Err(TaskError::Abandoned)
    }

    fn name() -> &'static str {
        I::name()
    }
}

/// A call, and the future that waits for it.
pub(super) struct Task {
    future: TaskRef,
    /// Writes an outcome of the future's type.
    ///
    /// # Safety
    /// The future is this task's, and the caller has started or claimed it.
    write: unsafe fn(&TaskRef, Ending<'_>),
    name: fn() -> &'static str,
    /// The function's place.
    pub(super) function: u64,
    pub(super) argument: Vec<u8>,
    pub(super) options: TaskOptions,
    /// Whether the outcome is written, but not published.
    written: bool,
}

impl Task {
    /// A task of the pool that `home` identifies.
    pub(super) fn new<I: Invoke>(
        home: *const (),
        function: u64,
        argument: Vec<u8>,
        options: TaskOptions,
    ) -> (Self, Future<I::Output>) {
        let (ours, handle) = TaskRef::pair(Remote::<I>(PhantomData), home);
        let task = Self {
            future: ours,
            write: write::<I>,
            name: I::name,
            function,
            argument,
            options,
            written: false,
        };
        // SAFETY: the call's output is this type, and this is the task's only handle.
        (task, unsafe { Future::new(handle) })
    }

    pub(super) fn id(&self) -> FutureId {
        self.future.id()
    }

    pub(super) fn name(&self) -> &'static str {
        (self.name)()
    }

    /// Pending to running. False when it was cancelled.
    pub(super) fn start(&self) -> bool {
        self.future.state().start()
    }

    /// Running to pending: the worker that it was handed to has not begun.
    pub(super) fn give_back(&self) {
        // SAFETY: a task that a pool has started is the pool's, and only the pool's, to
        // finish or give back. The phase is not done, so that nobody is notified.
        let went = unsafe {
            self.future
                .state()
                .advance(&[Phase::Running], Phase::Pending, true)
        };
        debug_assert_eq!(went, Advance::Done);
    }

    /// Cancels the task if it is pending.
    pub(super) fn cancel(&self) {
        self.future.cancel();
    }

    /// Ends a task that was started. If nobody waits for it and it has no callbacks, that
    /// is all, and foreign code runs only to make the value. Otherwise it is given
    /// back for [`finish`](Self::finish).
    pub(super) fn end(mut self, ending: Ending<'_>) -> Option<Self> {
        // SAFETY: it was started by the pool, which ends it once: `self` is gone or only
        // finished afterwards.
        unsafe {
            (self.write)(&self.future, ending);
            self.written = true;
            (!self.future.state().finish_unobserved()).then_some(self)
        }
    }

    /// Runs the callbacks and wakes who waits for a task that [`end`](Self::end) has given
    /// back.
    pub(super) fn finish(self) {
        debug_assert!(self.written);
        // Dropping it does.
    }

    /// Ends a task that was started with an error, callbacks and all.
    pub(super) fn fail(self, error: TaskError) {
        if let Some(task) = self.end(Ending::Error(error)) {
            task.finish();
        }
    }

    /// Fails a task unless it was cancelled.
    pub(super) fn reject(self, error: TaskError) {
        if self.start() {
            self.fail(error);
        }
    }
}

impl Drop for Task {
    /// Nobody may wait forever: what was not finished is finished now.
    fn drop(&mut self) {
        let state = self.future.state();
        if self.written {
            if !state.is_done() {
                // SAFETY: written by `end`, and not finished.
                unsafe { self.future.finish() };
            }
        } else if state.claim().is_ok() {
            // SAFETY: just claimed.
            unsafe {
                (self.write)(&self.future, Ending::Error(TaskError::Abandoned));
                self.future.finish();
            }
        }
    }
}

/// # Safety
/// The task is a `Remote<I>`, and the caller has started or claimed it.
unsafe fn write<I: Invoke>(task: &TaskRef, ending: Ending<'_>) {
    let outcome = match ending {
        Ending::Value(bytes) => panic::catch(|| I::receive(bytes))
            .unwrap_or_else(|panic| Err(TaskError::Panicked(panic))),
        Ending::Failure(bytes) => Err(Failure::decode(bytes.as_slice())),
        Ending::Error(error) => Err(error),
    };
    // SAFETY: promised by the caller; the call holds nothing.
    unsafe { task.write_outcome::<Remote<I>>(outcome) };
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {} ({})", self.id(), self.name())
    }
}
