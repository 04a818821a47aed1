//! Plain futures: those whose methods are as this package made them.
//!
//! The standard library's executors, and `map`, call methods of futures: `_invoke_callbacks`, `set_result`,
//! `cancel` and so on. Our executors leave these calls out if that makes no difference. The future must be of
//! exactly the type that executors make, no method of that type may have been replaced, nor
//! `_invoke_callbacks` of that future. The methods of all other futures are called where the standard library
//! calls them.
//!
//! # Invariants
//! 1. `Methods::version` is 0, or the interpreter's version of the type with which all methods were found to be
//!    the original ones. The interpreter gives a type another version, or none (0), when the type or one of its
//!    bases is changed.

use crate::future::object::Future;
use crate::interp::class_layout::version_of;
use crate::interp::replaceable::Replaceable;
use crate::interp::{interned, stdlib};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};
use std::sync::atomic::{AtomicU32, Ordering};

/// The objects that the package registers with the engine.
struct Types {
    future: Py<PyType>,
    methods: Methods,
}

static TYPES: Replaceable<Types> = Replaceable::empty();

/// Registers the type of executors' futures, a subclass of `Future`, and the error that is raised when tasks
/// wait for each other. Returns the types in use: if the package was imported before, those of the first
/// import, of which programs may have futures.
#[pyfunction]
pub(crate) fn use_types<'py>(
    py: Python<'py>,
    future: Bound<'py, PyType>,
    deadlock_error: Bound<'py, PyType>,
) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyType>)> {
    if !future.is_subclass_of::<Future>()? {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "the future type must be a subclass of concurrent_futures._engine.Future",
        ));
    }
    // The standard library may have been imported again, too: then it has other classes.
    let original = future.getattr(interned::original(py))?;
    let known = TYPES.get().map(|types| types.future.bind(py));
    if let Some(known) = known
        && known.getattr(interned::original(py))?.is(&original)
    {
        return Ok((known.clone(), stdlib::deadlock_error(py)?.clone()));
    }
    stdlib::use_deadlock_error(deadlock_error.clone());
    TYPES.set(Types {
        methods: Methods::of(&future)?,
        future: future.clone().unbind(),
    });
    Ok((future, deadlock_error))
}

fn types() -> PyResult<&'static Types> {
    TYPES.get().ok_or_else(stdlib::not_imported)
}

/// Returns the type of an executor's futures.
pub(crate) fn future_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(types()?.future.bind(py))
}

/// Returns the type of an executor's futures, with its methods.
fn future_type_and_methods(py: Python<'_>) -> PyResult<(&Bound<'_, PyType>, &'static Methods)> {
    let types = types()?;
    Ok((types.future.bind(py), &types.methods))
}

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
struct Methods {
    originals: [Py<PyAny>; NAMES.len()],
    version: AtomicU32,
}

impl Methods {
    fn of(future_type: &Bound<'_, PyType>) -> PyResult<Self> {
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

    /// Returns whether no method was replaced.
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

/// Returns the interpreter's versions of classes; none if a class has no version. The version changes when the
/// class or one of its bases is changed.
#[pyfunction]
pub(crate) fn versions(classes: &Bound<'_, PyTuple>) -> PyResult<Option<Vec<u32>>> {
    classes
        .iter()
        .map(|class| Ok(Some(version_of(class.cast::<PyType>()?)).filter(|version| *version != 0)))
        .collect()
}

/// Returns whether classes have these versions, and a dictionary has these values.
#[pyfunction]
pub(crate) fn are_unchanged(
    classes: &Bound<'_, PyTuple>,
    versions: &Bound<'_, PyList>,
    names: &Bound<'_, PyDict>,
    values: &Bound<'_, PyDict>,
) -> PyResult<bool> {
    for (class, version) in classes.iter().zip(versions.iter()) {
        if version_of(class.cast::<PyType>()?) != version.extract::<u32>()? {
            return Ok(false);
        }
    }
    for (name, value) in values.iter() {
        if !names.get_item(name)?.is_some_and(|found| found.is(&value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the future, if it is plain.
pub(crate) fn cast<'a, 'py>(future: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, Future>> {
    let (future_type, methods) = future_type_and_methods(future.py()).ok()?;
    if future.get_type_ptr() != future_type.as_type_ptr() || !methods.are_original(future_type) {
        return None;
    }
    // SAFETY: the type is a subclass of ours.
    let future = unsafe { future.cast_unchecked::<Future>() };
    (!future.get().is_overridden()).then_some(future)
}

/// Returns whether no method of the type of executors' futures was replaced.
pub(crate) fn are_all_plain(py: Python<'_>) -> bool {
    future_type_and_methods(py)
        .is_ok_and(|(future_type, methods)| methods.are_original(future_type))
}

/// Returns whether the future is plain.
pub(crate) fn is_plain(future: &Bound<'_, Future>) -> bool {
    cast(future.as_any()).is_some()
}

/// The object in the place of the type's method `_invoke_callbacks`. It calls the method, and notes each
/// future that is given a method of its own.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct InvokeCallbacks(Py<PyAny>);

impl InvokeCallbacks {
    /// Puts the object into the type.
    pub(crate) fn set(py: Python<'_>) -> PyResult<()> {
        let future_type = py.get_type::<Future>();
        let name = interned::invoke_callbacks(py);
        let method = future_type.getattr(name)?.unbind();
        future_type.setattr(name, Bound::new(py, Self(method))?)
    }

    /// Returns the attributes of a future, if it has some.
    fn attributes<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let attributes = future.getattr(interned::dict(future.py()))?;
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
            && let Some(own) =
                Self::attributes(&future)?.get_item(interned::invoke_callbacks(py))?
        {
            return Ok(own);
        }
        method.call_method1("__get__", (future, owner))
    }

    #[allow(clippy::unused_self, reason = "what Python calls")]
    fn __set__(&self, future: &Bound<'_, Future>, own: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        Self::attributes(future.as_any())?.set_item(interned::invoke_callbacks(py), own)?;
        future.get().override_methods();
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "what Python calls")]
    fn __delete__(&self, future: &Bound<'_, Future>) -> PyResult<()> {
        let py = future.py();
        Self::attributes(future.as_any())?
            .del_item(interned::invoke_callbacks(py))
            .map_err(|_| PyAttributeError::new_err("_invoke_callbacks"))
    }
}
