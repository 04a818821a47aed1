//! Objects of bytes that came from another process.
//!
//! The first byte tells what follows:
//!
//! | byte | follows |
//! |---|---|
//! | [`NONE`] | nothing: it is `None` |
//! | [`PICKLED`] | a pickle |
//! | [`BYTES`] | the bytes of a `bytes` object |

use crate::stdlib;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub(crate) const NONE: u8 = 0;
pub(crate) const PICKLED: u8 = 1;
pub(crate) const BYTES: u8 = 2;

/// Pickles longer than this are read where they are.
const COPIED: usize = 4096;

/// What an answer is.
///
/// # Errors
/// What unpickling raises.
pub(crate) fn value<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match bytes.split_first() {
        Some((&NONE, [])) => Ok(py.None().into_bound(py)),
        Some((&PICKLED, pickle)) => loads(py, pickle),
        Some((&BYTES, bytes)) => Ok(PyBytes::new(py, bytes).into_any()),
        _ => Err(PyValueError::new_err("the answer of the worker is garbled")),
    }
}

/// The exception in an answer.
///
/// # Errors
/// What unpickling raises.
pub(crate) fn failure<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    stdlib::rebuild_exception(py)?.call1((PyBytes::new(py, bytes),))
}

/// `pickle.loads`.
pub(crate) fn loads<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let loads = stdlib::loads(py)?;
    if pickle.len() <= COPIED {
        return loads.call1((PyBytes::new(py, pickle),));
    }
    let length = ffi::Py_ssize_t::try_from(pickle.len())?;
    // SAFETY: attached. The view is of bytes that stay until we return; it is read-only, and
    // without out-of-band buffers, unpickling keeps nothing of it.
    let view = unsafe {
        let start = pickle.as_ptr().cast_mut().cast();
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyMemoryView_FromMemory(start, length, ffi::PyBUF_READ),
        )?
    };
    let result = loads.call1((&view,));
    // Should somebody have got hold of it all the same, it is empty from now on.
    view.call_method0("release")?;
    result
}
