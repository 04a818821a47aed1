//! A short way to the next result of `map`, past what PyO3 does around each call.
//!
//! What PyO3 does (counting attachments, catching panics, turning errors into Python's) takes
//! longer than to hand out a result that is there. So the slot of the type that the interpreter
//! calls for `next` is ours; it hands out such a result, and leaves all else to PyO3's.
//!
//! # Invariants
//! 1. The short way raises nothing, drops nothing, and calls nothing that may panic or run
//!    Python code.
//! 2. The slot is set once, while the package is imported, before there is an object of the type.

use crate::process_map::SpanIterator;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use std::ptr;
use std::sync::OnceLock;

/// PyO3's.
static LONG_WAY: OnceLock<ffi::iternextfunc> = OnceLock::new();

/// Puts the short way into the type.
///
/// # Errors
/// When the type has no such slot.
pub(crate) fn set(py: Python<'_>) -> PyResult<()> {
    let span_iterator = SpanIterator::type_object_raw(py);
    // SAFETY: attached; a type that is alive, as types of PyO3 always are, and that nobody else
    // uses while the package is imported.
    let slot = unsafe { &mut (*span_iterator).tp_iternext };
    let Some(long_way) = *slot else {
        return Err(PyRuntimeError::new_err("iterators have no __next__"));
    };
    // In a second interpreter of this process it would be the same.
    if ptr::fn_addr_eq(*LONG_WAY.get_or_init(|| long_way), long_way) {
        *slot = Some(next);
    }
    Ok(())
}

unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it attached, with an object of the type, which it keeps.
    let at_hand = unsafe {
        let py = Python::assume_attached();
        SpanIterator::at_hand(Bound::ref_from_ptr(py, &this).cast_unchecked())
    };
    match (at_hand, LONG_WAY.get()) {
        (Some(result), _) => result.into_ptr(),
        // SAFETY: as above; it is what the slot was before.
        (None, Some(long_way)) => unsafe { long_way(this) },
        // It was set before the slot was.
        (None, None) => ptr::null_mut(),
    }
}
