//! The hooks around forks and at the end of the interpreter.

#[cfg(unix)]
use crate::dump::{running, signal};
use crate::interp::aside::aside;
use crate::interp::attach;
#[cfg(unix)]
use crate::interp::{deferred_drop, fork, signals};
#[cfg(has_processes)]
use crate::process::parent_death;
#[cfg(unix)]
use crate::recording::names;
#[cfg(unix)]
use crate::thread::at_exit;
#[cfg(unix)]
use concurrent_futures::engine::{around_forks, guard_forks};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts forks, and lets the child forget the parent's pools and references. This comes before anything else in the
/// child: hooks of the program may use executors before hooks of ours are called.
#[cfg(unix)]
pub(crate) fn count_forks() {
    fn after_fork(in_child: bool) {
        signal::after_fork(in_child);
        running::after_fork(in_child);
        names::after_fork(in_child);
        #[cfg(has_processes)]
        parent_death::after_fork(in_child);
        deferred_drop::after_fork(in_child);
        at_exit::after_fork(in_child);
    }
    extern "C" fn before() {
        at_exit::before_fork();
        deferred_drop::before_fork();
        #[cfg(has_processes)]
        parent_death::before_fork();
        names::before_fork();
        running::before_fork();
        signal::before_fork();
    }
    extern "C" fn in_parent() {
        after_fork(false);
    }
    extern "C" fn in_child() {
        fork::count();
        attach::forked();
        signals::forked();
        after_fork(true);
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        guard_forks();
        // They take locks whose holders wait for nothing else, and give them back. The child changes atomics, handlers
        // of signals, and the contents of these locks.
        around_forks(Some(before), Some(in_parent), Some(in_child));
    });
}

/// Refuses interpreters other than the first that loaded the module, as its Python objects belong to one
/// interpreter. A program that embeds Python may end the first, and begin another one with the same number. Each
/// has a dictionary of its own, and the first has a mark there.
///
/// # Errors
/// `ImportError`, on which the package turns to the standard library.
pub(crate) fn only_in_first_interpreter(py: Python<'_>) -> PyResult<()> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    const MARK: &str = "concurrent_futures._engine";
    // SAFETY: attached; the reference is borrowed, from an interpreter that is there.
    let own = unsafe {
        let interpreter = ffi::PyInterpreterState_Get();
        let own = ffi::PyInterpreterState_GetDict(interpreter);
        Bound::from_borrowed_ptr_or_opt(py, own)
    };
    let own = own.map(Bound::cast_into::<PyDict>).transpose()?;
    let own = own.ok_or_else(|| PyImportError::new_err("the interpreter has no dictionary"))?;
    if IS_TAKEN.swap(true, Ordering::SeqCst) && !own.contains(MARK)? {
        return Err(PyImportError::new_err(
            "concurrent_futures._engine does not support subinterpreters",
        ));
    }
    own.set_item(MARK, true)
}

/// Registers a function that the interpreter calls at its end. The package may call this more than once, each time
/// that it is imported.
///
/// # Errors
/// The exception of the interpreter's functions.
#[pyfunction]
pub(crate) fn register_hooks(py: Python<'_>) -> PyResult<()> {
    static ARE_REGISTERED: AtomicBool = AtomicBool::new(false);
    if ARE_REGISTERED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let end = Bound::new(py, End(AtomicBool::new(false)))?;
    py.import("atexit")?
        .call_method1("register", (end,))
        .map(drop)
}

/// A function for `atexit`, which drops its functions when all of them were called. Until then the
/// interpreter is whole, and functions that were registered earlier may wait for threads.
#[pyclass(module = "concurrent_futures._engine", frozen)]
struct End(AtomicBool);

#[pymethods]
impl End {
    /// Notes that the interpreter is ending: a program may call or drop the functions before that.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let is_ending = py.import("threading")?.getattr_opt("_SHUTTING_DOWN")?;
        let is_ending = is_ending.is_none_or(|is_ending| is_ending.is_truthy().unwrap_or(true));
        self.0.store(is_ending, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if *self.0.get_mut() {
            aside(attach::interpreter_ends);
        }
    }
}
