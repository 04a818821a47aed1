//! The package's pool of processes, for calls that need no interpreter in this process.
//!
//! The engine's `process/direct.rs` has the protocol. A pool of a version with another interface has no capsule of this
//! name: then Python code submits all calls.

use bytes::Bytes;
use concurrent_futures::engine::{CAPSULE, DirectCall, DirectCalls, DirectEnd, DirectTask};
use concurrent_futures_cluster::{CallOptions, Ended};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods};
use std::ffi::c_void;
use std::slice;

/// The first byte of an outcome that is a result; see `_calls.run`.
pub(crate) const RESULT: u8 = 1;

/// A call, which learns its end.
pub(crate) trait Caller: Send {
    /// Takes the end of the call.
    fn end(self, ended: Ended);

    /// Leaves the end of the call to Python code, which takes the outcome of the task.
    fn end_by_python(self, task: Task);
}

/// A counted reference to a pool.
pub(crate) struct DirectPool(DirectCalls);

// SAFETY: any thread may use the functions, and release the pool.
unsafe impl Send for DirectPool {}
// SAFETY: as for `Send`.
unsafe impl Sync for DirectPool {}

impl DirectPool {
    /// Returns the pool in a capsule.
    ///
    /// # Errors
    /// When the capsule is another one.
    pub(crate) fn of(capsule: &Bound<'_, PyCapsule>) -> PyResult<Self> {
        let content = capsule.pointer_checked(Some(CAPSULE))?;
        // SAFETY: a capsule of this name has such a table, which stays as long as the capsule.
        let calls = unsafe { content.cast::<DirectCalls>().read() };
        // SAFETY: the capsule has a reference.
        unsafe { (calls.hold)(calls.pool) };
        Ok(Self(calls))
    }

    /// Submits a call. Returns its task, and whether a worker is to be started for it; or the caller again, if the pool does
    /// not accept the call.
    pub(crate) fn submit<C: Caller>(
        &self,
        caller: C,
        options: CallOptions,
        argument: &[u8],
    ) -> Result<(Task, bool), Box<C>> {
        let CallOptions {
            time_limit,
            retries,
            token,
            ..
        } = options;
        let calls = self.0;
        let context = Box::into_raw(Box::new(Context { caller, calls }));
        let nanoseconds = |limit: std::time::Duration| u64::try_from(limit.as_nanos());
        let call = DirectCall {
            argument: argument.as_ptr(),
            length: argument.len(),
            token,
            // A limit of centuries is none.
            time_limit: time_limit.map_or(0, |limit| nanoseconds(limit).unwrap_or(0).max(1)),
            retries,
            context: context.cast(),
            done: done::<C>,
        };
        // SAFETY: the table has the pool, and `done` takes such a context, from any thread.
        let submitted = unsafe { (self.0.submit)(self.0.pool, &raw const call) };
        if submitted.task.0.is_null() {
            // SAFETY: `done` is not called for a call that is refused.
            let Context { caller, .. } = *unsafe { Box::from_raw(context) };
            return Err(Box::new(caller));
        }
        let task = Task {
            task: submitted.task,
            calls: self.0,
        };
        Ok((task, submitted.wants_worker))
    }

    /// Receives the replies that come while the calling thread spins once.
    pub(crate) fn receive_soon(&self) {
        // SAFETY: the table has the pool.
        unsafe { (self.0.receive_soon)(self.0.pool) };
    }
}

impl Drop for DirectPool {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { (self.0.release_pool)(self.0.pool) };
    }
}

/// The first argument of `done`.
struct Context<C> {
    caller: C,
    calls: DirectCalls,
}

/// Takes the end of a call.
///
/// # Safety
/// The pool calls this once, with the context of a submission.
unsafe extern "C" fn done<C: Caller>(
    context: *mut c_void,
    task: DirectTask,
    end: DirectEnd,
    bytes: *const u8,
    length: usize,
) {
    // SAFETY: the context of the submission, which is given up.
    let Context { caller, calls } = *unsafe { Box::from_raw(context.cast::<Context<C>>()) };
    let task = Task { task, calls };
    match end {
        DirectEnd::VALUE => {
            // SAFETY: the pool keeps the bytes meanwhile.
            let bytes = unsafe { slice::from_raw_parts(bytes, length) };
            caller.end(ended(&Bytes::copy_from_slice(bytes)));
        }
        DirectEnd::CANCELLED => caller.end(Ended::Untouched),
        _ => caller.end_by_python(task),
    }
}

/// Returns the end of a call whose outcome is these bytes; see `_calls.run`.
pub(crate) fn ended(bytes: &Bytes) -> Ended {
    let is_value = bytes.first() == Some(&RESULT);
    let outcome = bytes.slice(bytes.len().min(1)..);
    if is_value {
        Ended::Value(outcome)
    } else {
        Ended::Failure(outcome)
    }
}

/// A counted reference to the task of a call.
pub(crate) struct Task {
    task: DirectTask,
    /// The functions. The pool may be gone.
    calls: DirectCalls,
}

// SAFETY: any thread may use the functions, and release the task.
unsafe impl Send for Task {}
// SAFETY: as for `Send`.
unsafe impl Sync for Task {}

impl Task {
    /// Cancels the call if no worker has begun it, and tells that. Returns whether it did.
    pub(crate) fn cancel(&self) -> bool {
        // SAFETY: the reference is ours.
        unsafe { (self.calls.cancel)(self.task) }
    }

    /// Ends the call, and its worker if the call runs. Returns whether the call will end.
    pub(crate) fn terminate(&self) -> bool {
        // SAFETY: the reference is ours.
        unsafe { (self.calls.terminate)(self.task) }
    }

    /// Returns the object of an outcome that Python code looks at.
    ///
    /// # Errors
    /// The exception of the call, or why there is no outcome.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the reference is ours; attached. The object is a new reference.
        unsafe {
            let object = (self.calls.take)(self.task);
            Bound::from_owned_ptr_or_err(py, object.cast())
        }
    }

    /// Starts the worker for which the submission has asked.
    ///
    /// # Errors
    /// The exception that says why it could not.
    pub(crate) fn start_worker(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: the reference is ours; attached.
        if unsafe { (self.calls.start_worker)(self.task) } {
            Ok(())
        } else {
            Err(PyErr::fetch(py))
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { (self.calls.release_task)(self.task) };
    }
}
