//! Plain futures: those whose methods are as this package made them.
//!
//! The standard library's executors, and `map`, call methods of futures: `_invoke_callbacks`,
//! `set_result`, `cancel` and so on. Ours do without these calls, and only if nobody can tell: if the
//! future is exactly of the type that executors make, and nobody has replaced a method of that type,
//! nor `_invoke_callbacks` of that future.
//! The methods of all other futures are called where the standard library calls them.
//!
//! # Invariants
//! 1. `Methods::version` is 0, or the interpreter's version of the type with which all methods were
//!    found to be the original ones. The interpreter gives a type another version, or none (0), when
//!    the type or one of its bases is changed.

use crate::future::Future;
use crate::name;
use crate::stdlib;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
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
    let future = unsafe { future.cast_unchecked::<Future>() };
    (!future.get().is_overridden()).then_some(future)
}

/// Whether the future is a plain one.
pub(crate) fn is_plain(future: &Bound<'_, Future>) -> bool {
    cast(future.as_any()).is_some()
}

/// The object in the place of the type's method `_invoke_callbacks`: the method, and a note of each
/// future that is given a method of its own.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct InvokeCallbacks(Py<PyAny>);

impl InvokeCallbacks {
    /// Puts it there.
    pub(crate) fn set(py: Python<'_>) -> PyResult<()> {
        let future_type = py.get_type::<Future>();
        let name = name::invoke_callbacks(py);
        let method = future_type.getattr(name)?.unbind();
        future_type.setattr(name, Bound::new(py, Self(method))?)
    }

    /// The attributes of a future that has some.
    fn attributes<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let attributes = future.getattr(name::dict(future.py()))?;
        Ok(attributes.cast_into::<PyDict>()?)
    }
}

#[pymethods]
impl InvokeCallbacks {
    fn __get__<'py>(
        &self,
        py: Python<'py>,
        future: Option<Bound<'py, PyAny>>,
        owner: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = self.0.bind(py);
        let Some(future) = future.filter(|future| !future.is_none()) else {
            return Ok(method.clone());
        };
        let is_overridden = future
            .cast::<Future>()
            .is_ok_and(|future| future.get().is_overridden());
        if is_overridden
            && let Some(own) = Self::attributes(&future)?.get_item(name::invoke_callbacks(py))?
        {
            return Ok(own);
        }
        method.call_method1("__get__", (future, owner))
    }

    #[allow(clippy::unused_self, reason = "what Python calls")]
    fn __set__(&self, future: &Bound<'_, Future>, own: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        Self::attributes(future.as_any())?.set_item(name::invoke_callbacks(py), own)?;
        future.get().override_methods();
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "what Python calls")]
    fn __delete__(&self, future: &Bound<'_, Future>) -> PyResult<()> {
        let py = future.py();
        Self::attributes(future.as_any())?
            .del_item(name::invoke_callbacks(py))
            .map_err(|_| PyAttributeError::new_err("_invoke_callbacks"))
    }
}
