//! Unpickles replies and calls that came from another process.
//!
//! The first byte tells what follows:
//!
//! | byte | follows |
//! |---|---|
//! | [`NONE`] | nothing: it is `None` |
//! | [`PICKLED`] | a pickle |
//! | [`PLAIN`] | a pickle of numbers, texts and the like |
//! | [`BYTES`] | the bytes of a `bytes` object |
//! | [`WITH_BUFFERS`] | a table of buffers, and a pickle |
//! | [`PLAIN_WITH_BUFFERS`] | a table of buffers, and a pickle of numbers, texts, bytes and the like |
//! | [`ATTACHED_BYTES`] | nothing: the bytes of a `bytes` object are out of band |
//! | [`ATOM`] | a number or the like, as `values.rs` has written it |

use crate::interp::{interned, stdlib};
use crate::pickle::{buffers, picklers, values};
use concurrent_futures::engine::MappedSegment;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::sync::Arc;

pub(crate) const NONE: u8 = 0;
pub(crate) const PICKLED: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const WITH_BUFFERS: u8 = 3;
pub(crate) const ATTACHED_BYTES: u8 = 4;
pub(crate) const PLAIN: u8 = 5;
pub(crate) const PLAIN_WITH_BUFFERS: u8 = 6;
pub(crate) const ATOM: u8 = 7;

/// Returns whether unpickling an answer runs no Python code, and needs nothing of its worker.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(&(PICKLED | WITH_BUFFERS)))
}

/// Returns whether unpickling an exception runs no Python code, of bytes that `pack_exception` has made.
pub(crate) fn is_plain_failure(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'p')
}

/// Returns the text of an exception, which `pack_exception` has put behind the pickle, with its length at the end.
pub(crate) fn failure_text(bytes: &[u8]) -> Option<&str> {
    let (rest, length) = bytes.split_last_chunk()?;
    let start = rest.len().checked_sub(u16::from_le_bytes(*length).into())?;
    str::from_utf8(&rest[start..]).ok()
}

/// The length above which pickles are read where they are.
const COPIED: usize = 4096;

/// Returns the value in an answer.
///
/// # Errors
/// The exception that unpickling raises.
pub(crate) fn value<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<MappedSegment>>,
) -> PyResult<Bound<'py, PyAny>> {
    match (bytes.split_first(), attachment) {
        (Some((&NONE, [])), None) => Ok(py.None().into_bound(py)),
        (Some((&(PICKLED | PLAIN), pickle)), None) => loads(py, pickle, None),
        (Some((&ATOM, mut bytes)), None) => values::read(py, &mut bytes),
        (Some((&BYTES, bytes)), None) => Ok(PyBytes::new(py, bytes).into_any()),
        (Some((&(WITH_BUFFERS | PLAIN_WITH_BUFFERS), bytes)), Some(attachment)) => {
            loads(py, bytes, Some(attachment))
        }
        (Some((&ATTACHED_BYTES, [])), Some(attachment)) => {
            Ok(PyBytes::new(py, buffers::contents(attachment)).into_any())
        }
        _ => Err(PyValueError::new_err("the answer of the worker is garbled")),
    }
}

/// Returns the exception in an answer.
///
/// # Errors
/// The exception that unpickling raises.
pub(crate) fn failure<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    stdlib::rebuild_exception(py)?.call1((PyBytes::new(py, bytes),))
}

/// Calls `pickle.loads`. With an attachment, the bytes begin with the table of the buffers in it.
pub(crate) fn loads<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<MappedSegment>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (buffers, pickle) = match attachment {
        None => (None, bytes),
        Some(memory) => {
            let (buffers, pickle) = buffers::split(py, bytes, memory)?;
            let keywords = PyDict::new(py);
            keywords.set_item(interned::buffers(py), buffers)?;
            (Some(keywords), pickle)
        }
    };
    let loads = match &buffers {
        None => picklers::loads(py)?,
        Some(_) => stdlib::loads(py)?.clone(),
    };
    // A program's own function may keep a view of what it gets.
    if pickle.len() <= COPIED || !loads.is(stdlib::loads(py)?) {
        return loads.call((PyBytes::new(py, pickle),), buffers.as_ref());
    }
    let length = ffi::Py_ssize_t::try_from(pickle.len())?;
    // SAFETY: attached. The view is of bytes that stay until we return; it is read-only, and
    // unpickling keeps nothing of it.
    let view = unsafe {
        let start = pickle.as_ptr().cast_mut().cast();
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyMemoryView_FromMemory(start, length, ffi::PyBUF_READ),
        )?
    };
    let result = loads.call((&view,), buffers.as_ref());
    // If other code has kept the view all the same, the view is empty from now on.
    view.call_method0("release")?;
    result
}
