//! Which pickler `multiprocessing` has: its own, or one that a program has put in its place.
//!
//! `multiprocessing`'s own pickler does to numbers, texts and the like what this package does without
//! a pickler. Another one may do anything, so that it gets every object.

use crate::name;
use crate::stdlib;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};
use std::sync::atomic::{AtomicU32, Ordering};

/// The version of the type `ForkingPickler` when it was last looked at, and found unchanged. Changing
/// a type takes its version away, and no other type gets the same one.
static UNCHANGED: AtomicU32 = AtomicU32::new(0);

/// Returns the pickler that `multiprocessing` has now.
///
/// # Errors
/// When it has none.
pub(crate) fn forking_pickler(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    stdlib::reduction(py)?.getattr(name::forking_pickler(py))
}

/// Whether that is the standard library's, as it was made.
///
/// # Errors
/// When `multiprocessing` has none.
pub(crate) fn is_original(py: Python<'_>) -> PyResult<bool> {
    let pickler = forking_pickler(py)?;
    if !pickler.is(stdlib::original_pickler(py)?) {
        return Ok(false);
    }
    let Ok(pickler) = pickler.cast_into_exact::<PyType>() else {
        return Ok(false);
    };
    // SAFETY: attached; it is a type.
    let version = || unsafe { (*pickler.as_type_ptr()).tp_version_tag };
    // ORDERING: Relaxed: the word stands for itself.
    if version() != 0 && version() == UNCHANGED.load(Ordering::Relaxed) {
        return Ok(true);
    }
    let is_unchanged = is_unchanged(&pickler)?;
    if is_unchanged {
        UNCHANGED.store(version(), Ordering::Relaxed);
    }
    Ok(is_unchanged)
}

fn is_unchanged(pickler: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = pickler.py();
    let is_own = |object: &Bound<'_, PyAny>| {
        let module = object.getattr(name::module(py))?;
        module.eq("multiprocessing.reduction")
    };
    let attributes = pickler.getattr(name::dict(py))?;
    let has_own = |name: &Bound<'_, PyString>| attributes.contains(name);
    Ok(is_own(pickler.as_any())?
        && is_own(&pickler.getattr(name::dumps(py))?)?
        && is_own(&pickler.getattr(name::init(py))?)?
        && pickler.getattr(name::loads(py))?.is(stdlib::loads(py)?)
        && !has_own(name::reducer_override(py))?
        && !has_own(name::persistent_id(py))?)
}

/// Returns what the pickler of a program makes of an object.
///
/// # Errors
/// The exception of the pickler.
pub(crate) fn dumps<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    let pickle = forking_pickler(py)?.call_method1(name::dumps(py), (object,))?;
    match pickle.cast_into_exact::<PyBytes>() {
        Ok(pickle) => Ok(pickle),
        // The standard library's is a view of its buffer.
        Err(other) => {
            let bytes = py.get_type::<PyBytes>().call1((other.into_inner(),))?;
            Ok(bytes.cast_into::<PyBytes>()?)
        }
    }
}

/// Returns the function that unpickles: `pickle.loads`, unless a program has put something in its place.
///
/// # Errors
/// When there is none.
pub(crate) fn loads(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    if is_original(py)? {
        return stdlib::loads(py).cloned();
    }
    forking_pickler(py)?.getattr(name::loads(py))
}
