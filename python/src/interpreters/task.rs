//! The tasks of pools of interpreters: those of thread pools, but for the interpreter in which they are called.

use crate::future::call::Call;
use crate::future::object::Future;
use crate::interpreters::context;
use concurrent_futures::TaskError;
use concurrent_futures::engine::recorder::RunOutcome;
use concurrent_futures::engine::{Cancel, ForeignTask, Header, VTable};
use pyo3::prelude::*;
use std::borrow::Cow;
use std::ptr::NonNull;

/// The operations of futures whose call is made in the interpreter of the worker.
static VTABLE: VTable = VTable::of::<IsolatedFuture>();

/// The engine's view of a future of a pool of interpreters.
struct IsolatedFuture;

// SAFETY: the objects are `Future`s, and all operations are those of `Future`.
unsafe impl ForeignTask for IsolatedFuture {
    unsafe fn execute(task: NonNull<Header>) -> RunOutcome {
        // SAFETY: the caller has started the task of a future.
        unsafe { Future::execute_by(task, context::run) }
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: `execute` did not return `Elsewhere`, as `finish` of `Future` requires.
        unsafe { <Future as ForeignTask>::finish(task) }
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        // SAFETY: the caller has started the task of a future.
        unsafe { <Future as ForeignTask>::fail(task, error) }
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        // SAFETY: the header is that of a future.
        unsafe { <Future as ForeignTask>::cancel(task) }
    }

    unsafe fn skip(task: NonNull<Header>) {
        // SAFETY: the header is that of a future.
        unsafe { <Future as ForeignTask>::skip(task) }
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: the future is finished.
        unsafe { <Future as ForeignTask>::failed(task) }
    }

    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: the header was that of a future, and the last `TaskRef` gives the reference up.
        unsafe { <Future as ForeignTask>::free(task) }
    }

    unsafe fn name(_: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

/// Makes the future of a call that is made in the interpreter of a worker.
pub(crate) fn make(py: Python<'_>, call: Call) -> PyResult<Bound<'_, Future>> {
    Future::create(py, Future::with(&VTABLE, Some(call), None))
}
