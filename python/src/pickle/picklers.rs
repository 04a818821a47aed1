//! The pickler of `multiprocessing`: its own, or a pickler that a program has put in its place.
//!
//! For numbers, texts and the like, `multiprocessing`'s own pickler gives the same result as this package does
//! without a pickler. A program's pickler may do anything, so it gets every object.

use crate::interp::class_layout::version_of;
use crate::interp::{interned, stdlib};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule, PyString, PyType};
use std::sync::atomic::{AtomicU32, Ordering};

/// The version of the type `ForkingPickler` when it was last looked at, and found unchanged. Changing
/// a type takes its version away, and no other type gets the same one.
static UNCHANGED: AtomicU32 = AtomicU32::new(0);

/// Returns the pickler that `multiprocessing` has now.
///
/// # Errors
/// When it has none.
pub(crate) fn forking_pickler(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let reduction = stdlib::reduction(py)?;
    let name = interned::forking_pickler(py);
    // The variable of an ordinary module is its attribute.
    if let Ok(module) = reduction.cast_exact::<PyModule>()
        && let Some(pickler) = module.dict().get_item(name)?
    {
        return Ok(pickler);
    }
    reduction.getattr(name)
}

/// Returns whether the pickler is the standard library's, as it was made.
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
    let version = version_of(&pickler);
    // ORDERING: Relaxed: the word stands for itself.
    if version != 0 && version == UNCHANGED.load(Ordering::Relaxed) {
        return Ok(true);
    }
    let is_unchanged = is_unchanged(&pickler)?;
    // Another thread may have changed the type meanwhile.
    if is_unchanged && version_of(&pickler) == version {
        UNCHANGED.store(version, Ordering::Relaxed);
    }
    Ok(is_unchanged)
}

fn is_unchanged(pickler: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = pickler.py();
    let is_own = |object: &Bound<'_, PyAny>| {
        let module = object.getattr(interned::module(py))?;
        module.eq("multiprocessing.reduction")
    };
    let attributes = pickler.getattr(interned::dict(py))?;
    let has_own = |name: &Bound<'_, PyString>| attributes.contains(name);
    Ok(is_own(pickler.as_any())?
        && is_own(&pickler.getattr(interned::dumps(py))?)?
        && is_own(&pickler.getattr(interned::init(py))?)?
        && pickler.getattr(interned::loads(py))?.is(stdlib::loads(py)?)
        && !has_own(interned::reducer_override(py))?
        && !has_own(interned::persistent_id(py))?)
}

/// Returns the bytes that a program's pickler makes of an object.
///
/// # Errors
/// The exception of the pickler.
pub(crate) fn dumps<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    let pickle = forking_pickler(py)?.call_method1(interned::dumps(py), (object,))?;
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
    forking_pickler(py)?.getattr(interned::loads(py))
}
