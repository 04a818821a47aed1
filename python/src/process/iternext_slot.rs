//! A fast path to the next result of `map`, past the work of PyO3 around each call.
//!
//! PyO3 counts attachments, catches panics and turns errors into Python's for each call. That takes longer
//! than to hand out a result that is there. So the type's slot that the interpreter calls for `next` is ours.
//! The slot hands out such a result, and leaves all other cases to PyO3's slot.
//!
//! # Invariants
//! 1. The short way calls nothing that may panic. That of an iterator over results raises nothing, and drops nothing
//!    but the handle of the result, after everything else.
//! 2. The slot is set once, while the package is imported, before there is an object of the type.

use crate::interp::shared_generator::SharedGenerator;
use crate::process::map::SpanIterator;
use crate::thread::map::ResultIterator;
use pyo3::PyClass;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::OnceLock;

/// An iterator over the results of `map`, or an object around one.
trait Results: PyClass + Sized {
    /// Returns what the slot returns, if the short way can be taken: the next result, mostly.
    fn short_way(this: &Bound<'_, Self>) -> Option<*mut ffi::PyObject>;

    /// Returns the place of PyO3's slot.
    fn long_way() -> &'static OnceLock<ffi::iternextfunc>;
}

impl Results for ResultIterator {
    fn short_way(this: &Bound<'_, Self>) -> Option<*mut ffi::PyObject> {
        Self::at_hand(this).map(Bound::into_ptr)
    }

    fn long_way() -> &'static OnceLock<ffi::iternextfunc> {
        static LONG_WAY: OnceLock<ffi::iternextfunc> = OnceLock::new();
        &LONG_WAY
    }
}

impl Results for SpanIterator {
    fn short_way(this: &Bound<'_, Self>) -> Option<*mut ffi::PyObject> {
        Self::at_hand(this).map(Bound::into_ptr)
    }

    fn long_way() -> &'static OnceLock<ffi::iternextfunc> {
        static LONG_WAY: OnceLock<ffi::iternextfunc> = OnceLock::new();
        &LONG_WAY
    }
}

impl Results for SharedGenerator {
    fn short_way(this: &Bound<'_, Self>) -> Option<*mut ffi::PyObject> {
        Self::resume(this)
    }

    fn long_way() -> &'static OnceLock<ffi::iternextfunc> {
        static LONG_WAY: OnceLock<ffi::iternextfunc> = OnceLock::new();
        &LONG_WAY
    }
}

/// Puts the fast paths into the types.
///
/// # Errors
/// When a type has no such slot.
pub(crate) fn set(py: Python<'_>) -> PyResult<()> {
    set_for::<ResultIterator>(py)?;
    set_for::<SpanIterator>(py)?;
    set_for::<SharedGenerator>(py)
}

fn set_for<R: Results>(py: Python<'_>) -> PyResult<()> {
    let iterator = R::type_object_raw(py);
    // SAFETY: attached; a type that is alive, as types of PyO3 always are, and that no other code uses while
    // the package is imported.
    let slot = unsafe { &mut (*iterator).tp_iternext };
    let Some(long_way) = *slot else {
        return Err(PyRuntimeError::new_err("iterators have no __next__"));
    };
    // In a second interpreter of this process it would be the same.
    if ptr::fn_addr_eq(*R::long_way().get_or_init(|| long_way), long_way) {
        *slot = Some(next::<R>);
    }
    Ok(())
}

unsafe extern "C" fn next<R: Results>(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it attached, with an object of the type, which it keeps.
    let result = unsafe {
        let py = Python::assume_attached();
        R::short_way(Bound::ref_from_ptr(py, &this).cast_unchecked())
    };
    match (result, R::long_way().get()) {
        (Some(result), _) => result,
        // SAFETY: the slot's former function gets the object that the interpreter calls the slot with,
        // attached.
        (None, Some(long_way)) => unsafe { long_way(this) },
        // It was set before the slot was.
        (None, None) => ptr::null_mut(),
    }
}
