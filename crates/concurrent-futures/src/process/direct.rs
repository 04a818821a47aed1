//! Direct calls: a native module submits calls to the pool of another module, without an interpreter.
//!
//! The frontends for Python are several modules, each with an engine of its own. A pool belongs to one of them. The
//! module of a pool gives a [`DirectCalls`] to another one, which submits bytes and gets bytes. No thread needs the
//! interpreter's lock for that.
//!
//! Different compilers may have built the modules. So all types are those of C. [`CAPSULE`] names their layout: a
//! module that knows another layout does not find the capsule.
//!
//! # Protocol
//! - [`submit`](DirectCalls::submit) refuses a call, by an empty [`DirectTask`], or accepts the call. The owner of an
//!   accepted call has a reference to its task, which the owner releases.
//! - The pool calls [`done`](DirectCall::done) once for each call that it has accepted, in any thread, perhaps before
//!   `submit` returns. It calls `done` for no other.
//! - `done` gets a reference to the task of its own, which `done` releases, or which it keeps for
//!   [`take`](DirectCalls::take).

#![forbid(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::fmt;

/// The name of a Python capsule with a [`DirectCalls`].
pub const CAPSULE: &CStr = c"concurrent_futures.direct_calls.1";

/// The functions of a pool for direct calls.
///
/// No function unwinds. Any thread may call each of them, unless a function says otherwise.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectCalls {
    /// The pool, to which the table has a counted reference.
    pub pool: *const c_void,
    /// Counts a further reference to the pool.
    pub hold: unsafe extern "C" fn(pool: *const c_void),
    /// Gives a reference to the pool up.
    pub release_pool: unsafe extern "C" fn(pool: *const c_void),
    /// Submits a call. The pool copies the argument.
    pub submit: unsafe extern "C" fn(pool: *const c_void, call: *const DirectCall) -> Submitted,
    /// Starts the worker for which the submission of a task has asked. Returns false, with an exception raised, if the
    /// worker could not start. If no other worker has taken the task, this is the task's end, too. The calling thread has
    /// the interpreter.
    pub start_worker: unsafe extern "C" fn(task: DirectTask) -> bool,
    /// Receives the replies of workers that come while the calling thread spins once.
    pub receive_soon: unsafe extern "C" fn(pool: *const c_void),
    /// Cancels a call that no worker has begun. Returns whether it did: then `done` is called.
    pub cancel: unsafe extern "C" fn(task: DirectTask) -> bool,
    /// Ends a call, and its worker if the call runs. Returns whether the call will end.
    pub terminate: unsafe extern "C" fn(task: DirectTask) -> bool,
    /// Returns a new reference to the Python object of an outcome that is [`OTHER`](DirectEnd::OTHER). Null if the
    /// outcome is an exception, which is raised. Called once, by a thread that has the interpreter.
    pub take: unsafe extern "C" fn(task: DirectTask) -> *mut c_void,
    /// Releases a reference to a task.
    pub release_task: unsafe extern "C" fn(task: DirectTask),
}

impl fmt::Debug for DirectCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectCalls")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// A reference to the task of a direct call; null for none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectTask(pub *const c_void);

/// A call, whose function the table knows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectCall {
    /// The first argument, which is a `bytes` object for the function.
    pub argument: *const u8,
    /// The length of the argument.
    pub length: usize,
    /// The second argument, a number.
    pub token: u64,
    /// The nanoseconds that the call may run; 0 for no limit.
    pub time_limit: u64,
    /// The number of times that the call is repeated if its worker dies.
    pub retries: u32,
    /// The first argument of `done`.
    pub context: *mut c_void,
    /// Takes the end of the call. It neither blocks nor calls the pool. The bytes are those of the returned `bytes`
    /// object if the end is [`VALUE`](DirectEnd::VALUE).
    pub done: Done,
}

/// A function that takes the end of a call.
pub type Done = unsafe extern "C" fn(
    context: *mut c_void,
    task: DirectTask,
    end: DirectEnd,
    bytes: *const u8,
    length: usize,
);

impl fmt::Debug for DirectCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectCall")
            .field("length", &self.length)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The kind of a call's end.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectEnd(u32);

impl DirectEnd {
    /// The function has returned a `bytes` object that is not very long.
    pub const VALUE: Self = Self(0);
    /// The call was cancelled before a worker began it.
    pub const CANCELLED: Self = Self(1);
    /// Any other outcome, which [`take`](DirectCalls::take) makes an object or an exception of.
    pub const OTHER: Self = Self(2);
}

/// The result of a submission.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Submitted {
    /// The task, if the pool has accepted the call.
    pub task: DirectTask,
    /// Whether the pool wants another worker, which a thread with the interpreter is to
    /// [start](DirectCalls::start_worker).
    pub wants_worker: bool,
}
