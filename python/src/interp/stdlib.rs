//! Objects of Python's standard library and of the package's own modules.

use crate::interp::interned;
use crate::interp::replaceable::Replaceable;
use concurrent_futures::{BrokenExecutor, Deadlock, SubmitError, TaskError};
use pyo3::exceptions::{PyBaseException, PyException, PyRuntimeError, PyTimeoutError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use std::error::Error;
use std::fmt;

/// Makes an accessor for each of these objects of modules.
///
/// All objects of a group are looked up together, whenever the module of the package that needs them is
/// imported, and never later. If a thread looked an object up at its first use, another thread could fork in
/// the middle of that. Then the child would wait for the object forever.
///
/// The groups keep out imports that are not needed. A program with threads only does without
/// `multiprocessing`, a worker process without the executors.
macro_rules! imported {
    ($($(#[$doc:meta])* $group:ident = $look_up:ident {
        $($name:ident = $module:literal, $attribute:literal;)*
    })*) => {
        $(
            $(#[$doc])*
            struct $group {
                $($name: Py<PyAny>,)*
            }

            impl $group {
                fn place() -> &'static Replaceable<Self> {
                    static PLACE: Replaceable<$group> = Replaceable::empty();
                    &PLACE
                }

                fn known(py: Python<'_>) -> PyResult<&'static Self> {
                    Self::place().get().map_or_else(|| Self::look_up(py), Ok)
                }

                fn look_up(py: Python<'_>) -> PyResult<&'static Self> {
                    let found = Self {
                        $($name: py.import($module)?.getattr($attribute)?.unbind(),)*
                    };
                    Ok(Self::place().set(found))
                }
            }

            $(#[$doc])*
            #[pyfunction]
            pub(crate) fn $look_up(py: Python<'_>) -> PyResult<()> {
                $group::look_up(py).map(drop)
            }

            $(
                pub(crate) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
                    Ok($group::known(py)?.$name.bind(py))
                }
            )*
        )*
    };
}

imported! {
    /// Looks up the names for every process with the native module.
    Interpreter = look_up_for_all {
        checkpoint = "concurrent_futures", "_checkpoint";
        getsignal = "_signal", "getsignal";
        zip = "builtins", "zip";
        bytes_io = "io", "BytesIO";
        copyreg_table = "copyreg", "dispatch_table";
    }
    /// Looks up the names for futures.
    Futures = look_up_for_futures {
        logger = "concurrent.futures._base", "LOGGER";
        cancelled_error = "concurrent.futures._base", "CancelledError";
        invalid_state_error = "concurrent.futures._base", "InvalidStateError";
        done_and_not_done = "concurrent.futures._base", "DoneAndNotDoneFutures";
        condition = "threading", "Condition";
        wait_with_condition = "concurrent_futures._base", "_wait_with_condition";
        threading_names = "threading", "__dict__";
        allocate_lock = "_thread", "allocate_lock";
        // The original, also after `install()`.
        original_as_completed = "concurrent_futures._base", "_original_as_completed";
        result_iterator = "concurrent_futures._base", "result_iterator";
    }
    /// Looks up the names for thread pools.
    Threads = look_up_for_threads {
        broken_thread_pool = "concurrent.futures.thread", "BrokenThreadPool";
        run_worker = "concurrent_futures._private", "run_worker";
        current_thread = "threading", "current_thread";
    }
    /// Looks up the names for pools of interpreters.
    Interpreters = look_up_for_interpreters {
        broken_interpreter_pool = "concurrent.futures.interpreter", "BrokenInterpreterPool";
        call_in_interpreter = "_interpreters", "call";
        remember = "concurrent_futures.interpreter", "_remember";
        take_result = "concurrent_futures.interpreter", "_take_result";
        raise_exception = "concurrent_futures.interpreter", "_raise_exception";
    }
    /// Looks up the names for worker processes and their pools.
    Workers = look_up_for_workers {
        loads = "pickle", "loads";
        dumps = "pickle", "dumps";
        pickler = "pickle", "Pickler";
        default_protocol = "pickle", "DEFAULT_PROTOCOL";
        reduction = "multiprocessing", "reduction";
        original_pickler = "multiprocessing.reduction", "ForkingPickler";
        partial = "functools", "partial";
        reduce_partial = "multiprocessing.reduction", "_reduce_partial";
        failed_item = "concurrent_futures._worker", "FailedItem";
    }
    /// Looks up the names for process pools.
    Processes = look_up_for_processes {
        call_chunk = "concurrent_futures._engine", "call_chunk";
        rebuild_exception = "concurrent_futures._process_errors", "rebuild_exception";
        broken_process_pool = "concurrent_futures._process_errors", "BrokenProcessPool";
        worker_died_error = "concurrent_futures._process_errors", "WorkerDiedError";
        task_timeout_error = "concurrent_futures._process_errors", "TaskTimeoutError";
        task_terminated_error = "concurrent_futures._process_errors", "TaskTerminatedError";
        remote_traceback = "concurrent_futures._process_errors", "remote_traceback";
    }
}

/// Makes an exception of a type that was imported.
pub(crate) fn error(
    error_type: PyResult<&Bound<'_, PyAny>>,
    arguments: impl for<'py> pyo3::call::PyCallArgs<'py>,
) -> PyErr {
    match error_type.and_then(|error_type| error_type.call1(arguments)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

pub(crate) fn cancelled(py: Python<'_>) -> PyErr {
    error(cancelled_error(py), ())
}

pub(crate) fn timed_out() -> PyErr {
    PyTimeoutError::new_err(())
}

/// The type of the exception that is raised when tasks wait for each other.
static DEADLOCK_ERROR: Replaceable<Py<PyType>> = Replaceable::empty();

/// Registers the type of the exception that is raised when tasks wait for each other.
pub(crate) fn use_deadlock_error(deadlock_error: Bound<'_, PyType>) {
    DEADLOCK_ERROR.set(deadlock_error.unbind());
}

/// Returns the type that was registered last.
pub(crate) fn deadlock_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let known = DEADLOCK_ERROR.get().map(|known| known.bind(py));
    known.ok_or_else(not_imported)
}

/// Returns the error for a program that has imported the native module only.
pub(crate) fn not_imported() -> PyErr {
    PyRuntimeError::new_err("import concurrent_futures instead of its native module")
}

pub(crate) fn deadlock(py: Python<'_>, deadlock: &Deadlock) -> PyErr {
    error(
        deadlock_error(py).map(Bound::as_any),
        (deadlock.to_string(),),
    )
}

/// The standard library's message for a pool whose initializer failed.
pub(crate) const BROKEN: &str =
    "A thread initializer failed, the thread pool is not usable anymore";

/// The reason why a pool of interpreters is broken: the exception of the initializer, or of making an interpreter.
#[derive(Debug)]
pub(crate) struct InterpreterFailed(pub(crate) PyErr);

impl fmt::Display for InterpreterFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for InterpreterFailed {}

pub(crate) fn broken(py: Python<'_>, broken: &BrokenExecutor) -> PyErr {
    let cause = broken.cause();
    let (class, cause) = match cause.downcast_ref::<InterpreterFailed>() {
        Some(InterpreterFailed(cause)) => (broken_interpreter_pool(py), Some(cause)),
        None => (broken_thread_pool(py), cause.downcast_ref::<PyErr>()),
    };
    let raised = error(class, (BROKEN,));
    if let Some(cause) = cause {
        raised.set_cause(py, Some(cause.clone_ref(py)));
    }
    raised
}

/// The message of `submit` after a shutdown.
pub(crate) const AFTER_SHUTDOWN: &str = "cannot schedule new futures after shutdown";

pub(crate) fn submit_error(py: Python<'_>, submit_error: &SubmitError) -> PyErr {
    match submit_error {
        SubmitError::Broken(cause) => broken(py, cause),
        SubmitError::NoWorker(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => PyErr::clone_ref(error, py),
            None => PyRuntimeError::new_err(error.to_string()),
        },
        SubmitError::Shutdown if crate::interp::attach::is_exiting() => {
            PyRuntimeError::new_err("cannot schedule new futures after interpreter shutdown")
        }
        SubmitError::Shutdown => PyRuntimeError::new_err(AFTER_SHUTDOWN),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

pub(crate) fn task_error(py: Python<'_>, task_error: &TaskError) -> PyErr {
    match task_error {
        TaskError::Broken(cause) => broken(py, cause),
        TaskError::Rejected(error) => submit_error(py, error),
        TaskError::Deadlock(cause) => deadlock(py, cause),
        TaskError::Cancelled => cancelled(py),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// Returns an exception object as the `raise` statement prepares it: the handled exception becomes its
/// context.
pub(crate) fn raising(exception: &Bound<'_, PyAny>) -> PyErr {
    if !exception.is_instance_of::<PyBaseException>() {
        return PyErr::from_value(exception.clone());
    }
    // SAFETY: attached; the value is an instance of the type.
    unsafe { ffi::PyErr_SetObject(exception.get_type().as_ptr(), exception.as_ptr()) };
    PyErr::fetch(exception.py())
}

/// Logs an error in a callback or the like, which no caller can receive. Returns exceptions that stand for
/// more than a failure (`KeyboardInterrupt`, `SystemExit`).
pub(crate) fn log_failure(
    error: PyErr,
    message: &Bound<'_, PyString>,
    about: &Bound<'_, PyAny>,
) -> Option<PyErr> {
    let py = about.py();
    if !error.is_instance_of::<PyException>(py) {
        return Some(error);
    }
    log(py, interned::error(py), &error, (message, about));
    None
}

/// Logs a message and the exception, with the level of that name.
pub(crate) fn log<'py>(
    py: Python<'py>,
    level: &Bound<'py, PyString>,
    error: &PyErr,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) {
    let logged = (|| {
        let keywords = PyDict::new(py);
        // Which has its traceback: before CPython 3.12 it is kept beside an exception on its way.
        let exception = error.clone_ref(py).into_value(py);
        keywords.set_item(interned::exc_info(py), exception)?;
        logger(py)?.getattr(level)?.call(arguments, Some(&keywords))
    })();
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}
