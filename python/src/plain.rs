//! Plain futures: those whose methods are as this package made them.
//!
//! The standard library's executors, and `map`, call methods of futures: `_invoke_callbacks`,
//! `set_result`, `cancel` and so on. Ours do without these calls, and only if nobody can tell: if the
//! future is exactly of the type that executors make, and nobody has replaced a method of that type.
//! The methods of all other futures are called where the standard library calls them.
//!
//! # Invariants
//! 1. `Methods::version` is 0, or the interpreter's version of the type with which all methods were
//!    found to be the original ones. The interpreter gives a type another version, or none (0), when
//!    the type or one of its bases is changed.

use crate::future::Future;
use crate::name;
use crate::stdlib;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The methods that the standard library's executors call.
const NAMES: [&str; 6] = [
    "_invoke_callbacks",
    "cancel",
    "result",
    "set_exception",
    "set_result",
    "set_running_or_notify_cancel",
];

/// The methods of the type of executors' futures, as they were at first.
pub(crate) struct Methods {
    originals: [Py<PyAny>; NAMES.len()],
    version: AtomicU32,
}

impl Methods {
    pub(crate) fn of(future_type: &Bound<'_, PyType>) -> PyResult<Self> {
        let found: Vec<_> = NAMES
            .iter()
            .map(|name| future_type.getattr(*name).map(Bound::unbind))
            .collect::<PyResult<_>>()?;
        let originals = found
            .try_into()
            .map_err(|_| PyRuntimeError::new_err("methods are missing"))?;
        Ok(Self {
            originals,
            version: AtomicU32::new(0),
        })
    }

    /// Whether nobody has replaced one.
    fn are_original(&self, future_type: &Bound<'_, PyType>) -> bool {
        let version = version_of(future_type);
        // ORDERING: Relaxed: nothing else is read by it.
        if version != 0 && version == self.version.load(Ordering::Relaxed) {
            return true;
        }
        let mut pairs = NAMES.iter().zip(&self.originals);
        let are_original = pairs.all(|(name, original)| {
            let found = future_type.getattr(*name);
            found.is_ok_and(|found| found.is(original))
        });
        if are_original && version_of(future_type) == version {
            self.version.store(version, Ordering::Relaxed);
        }
        are_original
    }
}

fn version_of(kind: &Bound<'_, PyType>) -> u32 {
    // SAFETY: attached; a type that is alive.
    unsafe { (*kind.as_type_ptr()).tp_version_tag }
}

/// The future, if it is a plain one.
pub(crate) fn cast<'a, 'py>(future: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, Future>> {
    let (future_type, methods) = stdlib::future_type_and_methods(future.py()).ok()?;
    if future.get_type_ptr() != future_type.as_type_ptr() || !methods.are_original(future_type) {
        return None;
    }
    // SAFETY: the type is a subclass of ours.
    Some(unsafe { future.cast_unchecked::<Future>() })
}

/// Whether this is the native module's own method `_invoke_callbacks`, of some future.
pub(crate) fn is_invoke_callbacks(method: &Bound<'_, PyAny>) -> bool {
    let Some(own) = INVOKE_CALLBACKS.get() else {
        return false;
    };
    function_of(method) == Some(*own)
}

/// The native function of the method above.
static INVOKE_CALLBACKS: OnceLock<usize> = OnceLock::new();

/// Finds out the native function of the method, from a future of the native module's own type.
pub(crate) fn note_invoke_callbacks(sample: &Bound<'_, Future>) -> PyResult<()> {
    let method = sample.getattr(name::invoke_callbacks(sample.py()))?;
    if let Some(function) = function_of(&method) {
        INVOKE_CALLBACKS.get_or_init(|| function);
    }
    Ok(())
}

/// The address of the function that a method calls, if it is a native one.
fn function_of(method: &Bound<'_, PyAny>) -> Option<usize> {
    let method = method.as_ptr();
    // SAFETY: attached; the object is a native function, as is looked at first.
    unsafe {
        (ffi::PyCFunction_CheckExact(method) != 0)
            .then(|| ffi::PyCFunction_GetFunction(method))
            .flatten()
            .map(|function| function as usize)
    }
}

/// Whether the future is a plain one.
pub(crate) fn is_plain(future: &Bound<'_, Future>) -> bool {
    cast(future.as_any()).is_some()
}
