//! What is taken from Python's standard library and from the package's own modules.

use crate::name;
use crate::plain::Methods;
use crate::replaceable::Replaceable;
use concurrent_futures::{BrokenExecutor, Deadlock, SubmitError, TaskError};
use pyo3::exceptions::{PyBaseException, PyException, PyRuntimeError, PyTimeoutError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

/// Makes an accessor for each of these objects of modules.
///
/// All objects of a group are looked up together, whenever the module of the package that needs
/// them is imported, and never later: a thread that looks something up at its first use may be in the
/// middle of it when another one forks, and then the child would wait for it forever.
///
/// There are groups so that nothing is imported that is not needed: a program with threads
/// only does without `multiprocessing`, a worker process without the executors.
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
    /// Looks up what every process with the native module needs.
    Interpreter = look_up_for_all {
        switch_interval = "sys", "getswitchinterval";
        getsignal = "_signal", "getsignal";
        zip = "builtins", "zip";
        bytes_io = "io", "BytesIO";
        copyreg_table = "copyreg", "dispatch_table";
    }
    /// Looks up what futures need.
    Futures = look_up_for_futures {
        logger = "concurrent.futures._base", "LOGGER";
        cancelled_error = "concurrent.futures._base", "CancelledError";
        invalid_state_error = "concurrent.futures._base", "InvalidStateError";
        done_and_not_done = "concurrent.futures._base", "DoneAndNotDoneFutures";
        condition = "threading", "Condition";
        wait_with_condition = "concurrent_futures._base", "_wait_with_condition";
        is_threading_replaced = "concurrent_futures._private", "is_threading_replaced";
        allocate_lock = "_thread", "allocate_lock";
        // The original, also after `install()`.
        original_as_completed = "concurrent_futures._base", "_original_as_completed";
        result_iterator = "concurrent_futures._base", "result_iterator";
    }
    /// Looks up what pools of threads need.
    Threads = look_up_for_threads {
        broken_thread_pool = "concurrent.futures.thread", "BrokenThreadPool";
        run_worker = "concurrent_futures._private", "run_worker";
        checkpoint = "concurrent_futures._private", "checkpoint";
        current_thread = "threading", "current_thread";
    }
    /// Looks up what worker processes and their pools need.
    Workers = look_up_for_workers {
        loads = "pickle", "loads";
        dumps = "pickle", "dumps";
        pickler = "pickle", "Pickler";
        default_protocol = "pickle", "DEFAULT_PROTOCOL";
        reduction = "multiprocessing", "reduction";
        original_pickler = "multiprocessing.reduction", "ForkingPickler";
        failed_item = "concurrent_futures._worker", "FailedItem";
    }
    /// Looks up what pools of processes need.
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

/// What the package tells the engine.
struct Types {
    future: Py<PyType>,
    deadlock_error: Py<PyType>,
    methods: Methods,
}

static TYPES: Replaceable<Types> = Replaceable::empty();

/// Tells the engine which type the futures of executors are of, a subclass of `Future`,
/// and what it raises when tasks wait for each other. Returns the types that are used: where the
/// package was imported before, those of the first import, of which programs may have futures.
#[pyfunction]
pub(crate) fn use_types<'py>(
    py: Python<'py>,
    future: Bound<'py, PyType>,
    deadlock_error: Bound<'py, PyType>,
) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyType>)> {
    if !future.is_subclass_of::<crate::future::Future>()? {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "the future type must be a subclass of concurrent_futures._engine.Future",
        ));
    }
    // The standard library may have been imported again, too: then its classes are others.
    let original = future.getattr(name::original(py))?;
    let known = TYPES
        .get()
        .map(|types| (types.future.bind(py), types.deadlock_error.bind(py)));
    if let Some((known, deadlock_error)) = known
        && known.getattr(name::original(py))?.is(&original)
    {
        return Ok((known.clone(), deadlock_error.clone()));
    }
    TYPES.set(Types {
        methods: Methods::of(&future)?,
        future: future.clone().unbind(),
        deadlock_error: deadlock_error.clone().unbind(),
    });
    Ok((future, deadlock_error))
}

fn types() -> PyResult<&'static Types> {
    TYPES.get().ok_or_else(|| {
        PyRuntimeError::new_err("import concurrent_futures instead of its native module")
    })
}

/// The type of an executor's futures.
pub(crate) fn future_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(types()?.future.bind(py))
}

/// The same with its methods.
pub(crate) fn future_type_and_methods(
    py: Python<'_>,
) -> PyResult<(&Bound<'_, PyType>, &'static Methods)> {
    let types = types()?;
    Ok((types.future.bind(py), &types.methods))
}

/// An exception of a type that was imported.
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

pub(crate) fn deadlock(py: Python<'_>, deadlock: &Deadlock) -> PyErr {
    match types() {
        Ok(types) => error(
            Ok(types.deadlock_error.bind(py).as_any()),
            (deadlock.to_string(),),
        ),
        Err(error) => error,
    }
}

/// What the standard library says of a pool whose initializer failed.
pub(crate) const BROKEN: &str =
    "A thread initializer failed, the thread pool is not usable anymore";

pub(crate) fn broken(py: Python<'_>, broken: &BrokenExecutor) -> PyErr {
    let raised = error(broken_thread_pool(py), (BROKEN,));
    if let Some(cause) = broken.cause().downcast_ref::<PyErr>() {
        raised.set_cause(py, Some(cause.clone_ref(py)));
    }
    raised
}

pub(crate) fn submit_error(py: Python<'_>, submit_error: &SubmitError) -> PyErr {
    match submit_error {
        SubmitError::Broken(cause) => broken(py, cause),
        SubmitError::NoWorker(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => PyErr::clone_ref(error, py),
            None => PyRuntimeError::new_err(error.to_string()),
        },
        SubmitError::Shutdown if crate::process::is_exiting() => {
            PyRuntimeError::new_err("cannot schedule new futures after interpreter shutdown")
        }
        SubmitError::Shutdown => {
            PyRuntimeError::new_err("cannot schedule new futures after shutdown")
        }
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

/// An exception object that is about to be raised, as the `raise` statement does it: one
/// that is being handled becomes its context.
pub(crate) fn raising(exception: &Bound<'_, PyAny>) -> PyErr {
    if !exception.is_instance_of::<PyBaseException>() {
        return PyErr::from_value(exception.clone());
    }
    // SAFETY: attached; the value is an instance of the type.
    unsafe { ffi::PyErr_SetObject(exception.get_type().as_ptr(), exception.as_ptr()) };
    PyErr::fetch(exception.py())
}

/// What happened in a callback or the like, of which nobody can be told: logs it. Returns
/// exceptions that stand for more than a failure (`KeyboardInterrupt`, `SystemExit`).
pub(crate) fn log_failure(
    error: PyErr,
    message: &Bound<'_, PyString>,
    about: &Bound<'_, PyAny>,
) -> Option<PyErr> {
    let py = about.py();
    if !error.is_instance_of::<PyException>(py) {
        return Some(error);
    }
    log(py, name::error(py), &error, (message, about));
    None
}

/// Logs with the level of that name, and the exception.
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
        keywords.set_item(name::exc_info(py), exception)?;
        logger(py)?.getattr(level)?.call(arguments, Some(&keywords))
    })();
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}
