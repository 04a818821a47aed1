//! Dumps of programs that stand still: a description of all pools, and the Python stacks of worker processes.

pub(crate) mod running;
#[cfg(unix)]
pub(crate) mod signal;

use concurrent_futures::engine::describe_pools;
use pyo3::ffi;
use pyo3::prelude::*;

/// Returns a text that says what each worker runs, and what waits for what.
#[pyfunction]
pub(crate) fn dump_pools(py: Python<'_>) -> String {
    py.detach(describe_pools)
}

/// Returns whether the process has more than one interpreter.
#[pyfunction]
pub(crate) fn has_other_interpreters(_py: Python<'_>) -> bool {
    // SAFETY: attached. The first interpreter is in the list for as long as others are.
    unsafe { !ffi::PyInterpreterState_Next(ffi::PyInterpreterState_Head()).is_null() }
}

/// Returns what `current_frames`, which is `sys._current_frames`, returns: the frame of each thread, by the numbers of the
/// threads. Returns nothing where CPython may crash by that.
///
/// That function goes through the threads of all interpreters. The objects that it makes for frames of another interpreter
/// are from the memory of the calling one. The other one frees them, and CPython aborts. Without the interpreter lock, the
/// frames of threads that run change while they are read.
#[pyfunction]
pub(crate) fn frames_of_threads<'py>(
    py: Python<'py>,
    current_frames: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if cfg!(Py_GIL_DISABLED) || has_other_interpreters(py) {
        return Ok(None);
    }
    // No Python code runs in between, in which another thread could make an interpreter.
    current_frames.call0().map(Some)
}
