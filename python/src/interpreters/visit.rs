//! Visits of a worker to its interpreter: the thread gives up the main interpreter, and runs code in the other.
//!
//! For code in the interpreter, and for other threads, a visit is a call of the standard library's
//! `_interpreters.call`. Each visit has a new thread state, so that thread-local variables and context end with the
//! call. The visiting thread owns the interpreter's `__main__` meanwhile, so that closing the interpreter
//! fails until the visit is over.
//!
//! # Invariants
//! 1. During a visit, no object of the main interpreter is touched, not even to drop a reference. A visit takes
//!    and returns data of Rust only.
//! 2. Nothing of the other interpreter is kept from one visit to the next, except in the other interpreter: a
//!    program may close it in between. So a visit begins with looking the interpreter up by its number.
//! 3. No object that the module makes once, and keeps for the process, is made during a visit.

use crate::interp::os::symbol;
use crate::interpreters::stack::Visiting;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::OnceLock;

/// CPython's functions for owning the `__main__` of an interpreter, and for finding an interpreter. The
/// standard library's own extension modules call them; older versions do not have them.
struct Functions {
    look_up: LookUp,
    own_main: OwnMain,
    leave_main: LeaveMain,
}

type LookUp = unsafe extern "C" fn(i64) -> *mut ffi::PyInterpreterState;
type OwnMain = unsafe extern "C" fn(*mut ffi::PyInterpreterState) -> c_int;
type LeaveMain = unsafe extern "C" fn(*mut ffi::PyInterpreterState);

impl Functions {
    /// Returns the functions if this CPython has all of them.
    fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
        FOUND.get_or_init(Self::look).as_ref()
    }

    fn look() -> Option<Self> {
        let look_up = symbol(c"_PyInterpreterState_LookUpID")?;
        let own_main = symbol(c"_PyInterpreterState_SetRunningMain")?;
        let leave_main = symbol(c"_PyInterpreterState_SetNotRunningMain")?;
        // SAFETY: the symbols are those functions, whose signatures are the same from CPython 3.13 on. Older
        // versions, which have no pools of interpreters, do not get here.
        unsafe {
            Some(Self {
                look_up: mem::transmute::<*mut c_void, LookUp>(look_up),
                own_main: mem::transmute::<*mut c_void, OwnMain>(own_main),
                leave_main: mem::transmute::<*mut c_void, LeaveMain>(leave_main),
            })
        }
    }
}

/// A visit. Dropping this ends the visit.
struct Visit {
    functions: &'static Functions,
    interpreter: *mut ffi::PyInterpreterState,
    /// The thread state of the visit.
    there: *mut ffi::PyThreadState,
    /// The thread state to which the thread returns.
    here: *mut ffi::PyThreadState,
    owns_main: bool,
    /// The stack is kept until the thread state of the visit is deleted.
    _stack: Visiting,
}

impl Visit {
    /// Begins a visit; none if the interpreter does not exist, another thread runs code in it, or there is no
    /// memory.
    fn begin(_py: Python<'_>, id: i64) -> Option<Self> {
        let functions = Functions::find()?;
        // SAFETY: attached. A number that no interpreter has leads to an exception.
        unsafe {
            let interpreter = (functions.look_up)(id);
            if interpreter.is_null() {
                ffi::PyErr_Clear();
                return None;
            }
            let there = ffi::PyThreadState_New(interpreter);
            if there.is_null() {
                return None;
            }
            let mut visit = Self {
                functions,
                interpreter,
                there,
                here: ffi::PyThreadState_Swap(there),
                owns_main: false,
                _stack: Visiting::begin(),
            };
            visit.owns_main = (functions.own_main)(interpreter) == 0;
            visit.owns_main.then_some(visit)
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // SAFETY: the thread state `there` is the current one, and was made by `begin`. Clearing it runs the
        // last code of the visit, such as finalizers of thread-local variables.
        unsafe {
            ffi::PyErr_Clear();
            if self.owns_main {
                (self.functions.leave_main)(self.interpreter);
            }
            ffi::PyThreadState_Clear(self.there);
            let there = ffi::PyThreadState_Swap(self.here);
            debug_assert!(ptr::eq(there, self.there), "the visit has its thread state");
            ffi::PyThreadState_Delete(self.there);
        }
    }
}

/// Calls a function in the interpreter with this number, attached to that interpreter. Returns nothing, and
/// calls nothing, if the interpreter cannot be visited.
///
/// # Safety
/// The function keeps to the invariants of this module: it touches no object of the calling interpreter.
pub(super) unsafe fn visit<R: 'static>(
    py: Python<'_>,
    id: i64,
    f: impl FnOnce(Python<'_>) -> R,
) -> Option<R> {
    let _visit = Visit::begin(py, id)?;
    // SAFETY: the thread is attached to the visited interpreter until the visit is dropped.
    let py = unsafe { Python::assume_attached() };
    Some(f(py))
}
