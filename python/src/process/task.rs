//! The tasks of process pools: what the engine does with their futures.

use crate::future::object::Future;
use crate::future::remote::{self, Remote};
use crate::interp::attach::attached;
use crate::interp::deferred_drop;
use crate::interp::signals::cannot_be_told;
use crate::pickle::callee::Callee;
use crate::pickle::{replies, unpickling};
use crate::process::shared::Shared;
use concurrent_futures::engine::recorder::RunOutcome;
use concurrent_futures::engine::{
    Cancel, ForeignTask, Header, Kept, RemoteAnswer, RemoteCall, RemoteTask, TaskRef, VTable,
};
use concurrent_futures::{SubmitError, TaskError};
use pyo3::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::ptr::NonNull;

/// The operations of futures whose task is carried out in another process.
static VTABLE: VTable = VTable::of::<RemoteFuture>();

/// The engine's view of a future of a process pool.
pub(crate) struct RemoteFuture;

// SAFETY: the objects are `Future`s: the reference of Python's that is counted for the `TaskRef` keeps them
// until `free`.
unsafe impl ForeignTask for RemoteFuture {
    /// Fails: no thread of this process calls the task.
    unsafe fn execute(_: NonNull<Header>) -> RunOutcome {
        RunOutcome::Elsewhere
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: the header is that of a future, and `execute` always returns `Elsewhere`. Only the pool calls this,
        // after it has claimed the future and its outcome was kept.
        attached(|py| unsafe { remote::finish(&Future::of(py, task)) });
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        // SAFETY: the caller has started the task, so that it may claim and finish.
        unsafe {
            let future = Future::at(task);
            if future.as_ref().state().claim().is_ok() {
                Self::answer(task, 0..1, RemoteAnswer::Error(error));
                Self::finish(task);
            }
        }
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        attached(|py| {
            // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
            let future = unsafe { Future::of(py, task) };
            let (cancel, told) = Future::cancel_and(&future, None, |future| {
                remote::call_back(future);
                Ok(())
            });
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
            cancel
        })
    }

    unsafe fn skip(task: NonNull<Header>) {
        // SAFETY: the header is that of a future, as `skip` of `Future` requires.
        unsafe { <Future as ForeignTask>::skip(task) }
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: the future is finished, as `failed` of `Future` requires.
        unsafe { <Future as ForeignTask>::failed(task) }
    }

    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: the header was that of a future, and the last `TaskRef` gives the reference up.
        unsafe { deferred_drop::release(NonNull::new_unchecked(Future::object_of(task))) };
    }

    unsafe fn name(_: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

// SAFETY: the objects are `Future`s with the engine's header; the functions call nothing foreign.
unsafe impl RemoteTask for RemoteFuture {
    unsafe fn answer(task: NonNull<Header>, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        // SAFETY: the pool has a reference to the future, which keeps the task.
        let task = unsafe { TaskRef::borrow(task) };
        let remote = future.remote();
        remote.map_or(Kept::Whole, |remote| remote.keep(&task, items, answer))
    }

    unsafe fn settle(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: the header is that of a future, to which the pool has a reference.
            let future = unsafe { Future::of(py, task) };
            if let Some(remote) = future.get().remote() {
                remote.pool().start_opener(py);
            }
        });
    }

    unsafe fn leave(task: NonNull<Header>) {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        if let Some(remote) = future.remote() {
            remote.leave();
        }
    }

    unsafe fn is_abandoned(task: NonNull<Header>) -> bool {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        future.remote().is_some_and(Remote::is_abandoned)
    }

    fn error_text(failure: &[u8]) -> Option<String> {
        unpickling::failure_text(failure).map(str::to_owned)
    }

    fn item_error_text(results: &[u8]) -> Option<String> {
        replies::first_failure(results)
            .map(|failure| unpickling::failure_text(failure).unwrap_or("").to_owned())
    }

    unsafe fn call_name(task: NonNull<Header>) -> Option<String> {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        future.remote().and_then(Remote::call_name)
    }

    fn function_name(definition: &[u8]) -> Option<String> {
        Callee::name(definition)
    }
}

/// Returns whether a task of a pool of processes is a future of ours.
pub(crate) fn is_future(task: NonNull<Header>) -> bool {
    // SAFETY: the pool has the task meanwhile.
    unsafe { TaskRef::borrow(task) }.has_operations(&VTABLE)
}

/// Makes the future of a task for another process.
pub(crate) fn make(py: Python<'_>, remote: Remote) -> PyResult<Bound<'_, Future>> {
    Future::create(py, Future::with(&VTABLE, None, Some(Box::new(remote))))
}

/// Submits a future that was made for a remote call. Returns whether a worker is to be started.
pub(crate) fn submit(
    py: Python<'_>,
    future: &Bound<'_, Future>,
    pool: &Shared,
    call: RemoteCall,
) -> Result<bool, SubmitError> {
    submit_task(py, enlist(future, pool), pool, call)
}

/// Returns the task of a future that was made for a remote call, for [`submit_task`].
pub(crate) fn enlist(future: &Bound<'_, Future>, pool: &Shared) -> TaskRef {
    // SAFETY: made just now with our table; `free` is called when the last reference is gone.
    unsafe { Future::enlist(future, pool.pool.id()) }
}

/// Submits a task. Returns whether a worker is to be started.
pub(crate) fn submit_task(
    py: Python<'_>,
    task: TaskRef,
    pool: &Shared,
    call: RemoteCall,
) -> Result<bool, SubmitError> {
    /// The number of bytes whose copying takes longer than letting other threads run.
    const LONG: usize = 64 * 1024;
    let is_long = call.argument.len() > LONG;
    // SAFETY: it is a future of ours.
    let submit = move || unsafe { pool.pool.submit::<RemoteFuture>(task, call) };
    if is_long { py.detach(submit) } else { submit() }
}
