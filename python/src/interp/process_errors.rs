//! Errors of worker processes, as exceptions.

use crate::interp::{interned, stdlib};
use concurrent_futures::{BrokenExecutor, SubmitError, TaskError, WorkerDied, WorkerExit};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::error::Error;
use std::io;

/// The standard library's message for a broken pool.
pub(crate) const BROKEN: &str =
    "A child process terminated abruptly, the process pool is not usable anymore";
/// The standard library's message for each future of a broken pool.
const BROKEN_FUTURE: &str = "A process in the process pool was terminated abruptly while the \
                             future was running or pending.";

/// Returns an exit code in the form of `multiprocessing`: negative for a signal.
fn exit_code(exit: WorkerExit) -> Option<i32> {
    match exit {
        WorkerExit::Code(code) => Some(code),
        WorkerExit::Signal(signal) => Some(-signal),
        _ => None,
    }
}

fn worker_died(py: Python<'_>, death: &WorkerDied) -> PyErr {
    let arguments = (death.to_string(), death.pid(), exit_code(death.exit()));
    stdlib::error(stdlib::worker_died_error(py), arguments)
}

/// Returns the reason why a pool is broken, as the cause of an exception.
fn cause(py: Python<'_>, broken: &BrokenExecutor) -> PyErr {
    let cause = broken.cause();
    if let Some(error) = cause.downcast_ref::<PyErr>() {
        return remote_traceback(py, error);
    }
    if let Some(death) = cause.downcast_ref::<WorkerDied>() {
        return worker_died(py, death);
    }
    PyRuntimeError::new_err(cause.to_string())
}

/// Returns the `OSError` for a refusal of the system, with the `errno` that tells Python the class.
pub(crate) fn os_error(error: &io::Error) -> PyErr {
    let text = error.to_string();
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(known) = cause {
        let code = known
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            // The number is an attribute of the exception, and need not be in the text as well.
            let text = text.replace(&format!(" (os error {code})"), "");
            return PyOSError::new_err((code, text));
        }
        cause = known.source();
    }
    PyOSError::new_err(text)
}

/// Returns the exception for a pool that cannot be made: `ValueError` for a setting without a meaning.
pub(crate) fn not_made(error: &io::Error) -> PyErr {
    match error.kind() {
        io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
        _ => os_error(error),
    }
}

fn broken_process_pool(py: Python<'_>, message: &str, cause: PyErr) -> PyErr {
    let raised = stdlib::error(stdlib::broken_process_pool(py), (message,));
    raised.set_cause(py, Some(cause));
    raised
}

pub(crate) fn submit_error(py: Python<'_>, error: &SubmitError) -> PyErr {
    match error {
        SubmitError::Broken(broken) => broken_process_pool(py, BROKEN, cause(py, broken)),
        other => stdlib::submit_error(py, other),
    }
}

/// Returns the exception that a future raises for an error of its task.
pub(crate) fn task_error(py: Python<'_>, error: &TaskError) -> PyErr {
    match error {
        TaskError::Broken(broken) => broken_process_pool(py, BROKEN_FUTURE, cause(py, broken)),
        TaskError::WorkerDied(death) => worker_died(py, death),
        TaskError::TimeLimit(limit) => stdlib::error(
            stdlib::task_timeout_error(py),
            (limit.to_string(), limit.pid(), limit.limit().as_secs_f64()),
        ),
        TaskError::Terminated => {
            stdlib::error(stdlib::task_terminated_error(py), (error.to_string(),))
        }
        other => stdlib::task_error(py, other),
    }
}

/// Returns the exception of a future whose answer cannot be unpickled, if that breaks the pool.
pub(crate) fn broken_by(py: Python<'_>, error: &PyErr) -> PyErr {
    broken_process_pool(py, BROKEN_FUTURE, remote_traceback(py, error))
}

/// Returns the exception object with its traceback. Up to CPython 3.11, an exception that was just raised has
/// none.
pub(crate) fn value_of<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyAny> {
    error.clone_ref(py).into_value(py).into_bound(py).into_any()
}

/// Returns a traceback as text, in the form in which the standard library passes it on.
fn remote_traceback(py: Python<'_>, error: &PyErr) -> PyErr {
    let value = value_of(py, error);
    match stdlib::remote_traceback(py).and_then(|make| make.call1((value,))) {
        Ok(remote) => PyErr::from_value(remote),
        Err(error) => error,
    }
}

/// Returns the exception, with its own traceback as text for its cause.
pub(crate) fn with_remote_traceback<'py>(py: Python<'py>, error: PyErr) -> Bound<'py, PyAny> {
    let cause = remote_traceback(py, &error);
    error.set_cause(py, Some(cause));
    let value = error.into_value(py).into_bound(py).into_any();
    // Frames would keep what could not be pickled.
    if let Err(error) = value.setattr(interned::traceback(py), py.None()) {
        error.write_unraisable(py, Some(&value));
    }
    value
}
