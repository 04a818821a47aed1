//! Plain values as bytes, without a pickle. Pickling numbers, texts and the like would take twice as long.
//!
//! The first byte of each tells what follows:
//!
//! | byte | follows |
//! |---|---|
//! | [`NONE`], [`FALSE`], [`TRUE`] | nothing |
//! | [`SHORT_INT`] | four bytes |
//! | [`INT`], [`FLOAT`] | eight bytes |
//! | [`TEXT`], [`BYTES`] | the length in four bytes, and that many bytes |
//! | [`TUPLE`], [`LIST`], [`DICT`] | the number of items in four bytes, and that many values; for a dictionary, key and value of each item |
//!
//! Numbers are in the machine's order. `replies.rs` uses other first bytes.

use crate::pickle::snapshot::{items_of, pairs_of};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
pub(crate) const TUPLE: u8 = 7;
pub(crate) const LIST: u8 = 8;
pub(crate) const DICT: u8 = 9;
pub(crate) const SHORT_INT: u8 = 14;

/// The length above which containers are pickled.
const FEW: usize = 64;

/// The length above which values are sent by themselves.
pub(crate) const SHORT: usize = 32 * 1024;

/// Appends a number, a text or the like that is short. Returns false, and appends nothing, for another value.
pub(crate) fn append_short_atom(result: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    /// The length above which values, bytes among them, are encoded in other ways.
    const LONGEST: usize = 1024;
    let is_long = match result.cast_exact::<PyString>() {
        Ok(text) => text.len().is_ok_and(|length| length > LONGEST),
        Err(_) => result.is_exact_instance_of::<PyBytes>(),
    };
    !is_long && append_atom(result, bytes)
}

/// Appends a number, a text or the like, or a tuple of such values. Returns false for another value.
pub(crate) fn append_immutable(value: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    append_atom(value, bytes)
        || value.is_exact_instance_of::<PyTuple>() && append_container(value, bytes)
}

/// Appends a number, a text or the like. Returns false, and appends nothing, for another value.
pub(crate) fn append_atom(result: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    if result.is_none() {
        bytes.push(NONE);
    } else if result.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: attached; an integer, so that there is no error but that it is too large.
        let number =
            unsafe { ffi::PyLong_AsLongLongAndOverflow(result.as_ptr(), &raw mut overflow) };
        if overflow != 0 {
            return false;
        }
        match i32::try_from(number) {
            Ok(number) => append_fixed(SHORT_INT, number.to_ne_bytes(), bytes),
            Err(_) => append_fixed(INT, number.to_ne_bytes(), bytes),
        }
    } else if let Ok(flag) = result.cast_exact::<PyBool>() {
        bytes.push(if flag.is_true() { TRUE } else { FALSE });
    } else if let Ok(number) = result.cast_exact::<PyFloat>() {
        append_fixed(FLOAT, number.value().to_ne_bytes(), bytes);
    } else if let Ok(text) = result.cast_exact::<PyString>() {
        if text.len().is_ok_and(|characters| characters > SHORT) {
            // To encode it takes a while.
            return false;
        }
        match text.to_str() {
            Ok(text) if text.len() <= SHORT => append_counted(TEXT, text.as_bytes(), bytes),
            // Lone surrogates are no UTF-8.
            _ => return false,
        }
    } else if let Ok(value) = result.cast_exact::<PyBytes>() {
        if value.as_bytes().len() > SHORT {
            return false;
        }
        append_counted(BYTES, value.as_bytes(), bytes);
    } else {
        return false;
    }
    true
}

/// Appends a container of numbers, texts and the like. Returns false for another value.
pub(crate) fn append_container(container: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    if let Ok(tuple) = container.cast_exact::<PyTuple>() {
        begin(TUPLE, tuple.len(), bytes)
            && (tuple.iter_borrowed()).all(|item| append_atom(&item, bytes))
    } else if let Ok(list) = container.cast_exact::<PyList>() {
        // While the items are looked at, no Python code runs.
        let Some(items) = (list.len() <= FEW).then(|| items_of(list)) else {
            return false;
        };
        items.is_ok_and(|items| {
            begin(LIST, items.len(), bytes) && items.iter().all(|item| append_atom(&item, bytes))
        })
    } else if let Ok(dict) = container.cast_exact::<PyDict>() {
        let Some(pairs) = (dict.len() <= FEW).then(|| pairs_of(dict)) else {
            return false;
        };
        pairs.is_ok_and(|pairs| {
            begin(DICT, pairs.len(), bytes)
                && (pairs.iter())
                    .all(|(key, value)| append_atom(&key, bytes) && append_atom(&value, bytes))
        })
    } else {
        false
    }
}

/// Appends the beginning of a container. Returns false if the container is long.
fn begin(kind: u8, items: usize, bytes: &mut Vec<u8>) -> bool {
    let Some(items) = u32::try_from(items).ok().filter(|_| items <= FEW) else {
        return false;
    };
    bytes.push(kind);
    bytes.extend_from_slice(&items.to_ne_bytes());
    true
}

fn append_fixed<const LENGTH: usize>(kind: u8, value: [u8; LENGTH], bytes: &mut Vec<u8>) {
    bytes.reserve(1 + LENGTH);
    bytes.push(kind);
    bytes.extend_from_slice(&value);
}

pub(crate) fn append_counted(kind: u8, value: &[u8], bytes: &mut Vec<u8>) {
    // An exception that is longer is cut off, and cannot be unpickled; it does not fit into a stream.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(value);
}

/// Reads a value, and moves past its bytes.
///
/// # Errors
/// When the bytes are something else.
pub(crate) fn read<'py>(py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (kind, rest) = bytes.split_first().ok_or_else(garbled)?;
    *bytes = rest;
    read_rest(py, *kind, bytes)
}

/// Reads the rest of a value after its first byte.
///
/// # Errors
/// When the bytes are something else.
#[inline]
pub(crate) fn read_rest<'py>(
    py: Python<'py>,
    kind: u8,
    bytes: &mut &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match kind {
        NONE => py.None().into_bound(py),
        FALSE => PyBool::new(py, false).to_owned().into_any(),
        TRUE => PyBool::new(py, true).to_owned().into_any(),
        SHORT_INT => i32::from_ne_bytes(fixed(bytes)?)
            .into_pyobject(py)?
            .into_any(),
        INT => i64::from_ne_bytes(fixed(bytes)?)
            .into_pyobject(py)?
            .into_any(),
        FLOAT => PyFloat::new(py, f64::from_ne_bytes(fixed(bytes)?)).into_any(),
        TEXT => PyString::from_bytes(py, counted(bytes)?)?.into_any(),
        BYTES => PyBytes::new(py, counted(bytes)?).into_any(),
        TUPLE => PyTuple::new(py, read_atoms(py, bytes)?)?.into_any(),
        LIST => PyList::new(py, read_atoms(py, bytes)?)?.into_any(),
        DICT => {
            let dict = PyDict::new(py);
            for _ in 0..count(bytes)? {
                let key = read(py, bytes)?;
                dict.set_item(key, read(py, bytes)?)?;
            }
            dict.into_any()
        }
        _ => return Err(garbled()),
    })
}

/// Skips the value behind its first byte; none if the bytes are something else.
pub(crate) fn skip_rest(kind: u8, bytes: &mut &[u8]) -> Option<()> {
    // Containers have plain values, among them containers: the number of values that are left.
    let mut left = 1_u64;
    let mut next = Some(kind);
    while left > 0 {
        let kind = match next.take() {
            Some(kind) => kind,
            None => *bytes.split_off_first()?,
        };
        left -= 1;
        match kind {
            NONE | FALSE | TRUE => {}
            SHORT_INT => skip(4, bytes)?,
            INT | FLOAT => skip(8, bytes)?,
            TEXT | BYTES => skip(skip_count(bytes)? as usize, bytes)?,
            TUPLE | LIST => left += u64::from(skip_count(bytes)?),
            DICT => left += 2 * u64::from(skip_count(bytes)?),
            _ => return None,
        }
    }
    Some(())
}

fn skip(length: usize, bytes: &mut &[u8]) -> Option<()> {
    bytes.split_off(..length).map(|_| ())
}

fn skip_count(bytes: &mut &[u8]) -> Option<u32> {
    let count = bytes.split_off(..4)?;
    count.try_into().ok().map(u32::from_ne_bytes)
}

/// Skips bytes with their number before them, and returns the bytes.
pub(crate) fn skip_counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(skip_count(bytes)?).ok()?;
    bytes.split_off(..length)
}

fn count(bytes: &mut &[u8]) -> PyResult<u32> {
    Ok(u32::from_ne_bytes(fixed(bytes)?))
}

fn read_atoms<'py>(py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    (0..count(bytes)?).map(|_| read(py, bytes)).collect()
}

fn fixed<const LENGTH: usize>(bytes: &mut &[u8]) -> PyResult<[u8; LENGTH]> {
    let (value, rest) = bytes.split_first_chunk().ok_or_else(garbled)?;
    *bytes = rest;
    Ok(*value)
}

pub(crate) fn counted<'a>(bytes: &mut &'a [u8]) -> PyResult<&'a [u8]> {
    let length = usize::try_from(count(bytes)?)?;
    let (value, rest) = bytes.split_at_checked(length).ok_or_else(garbled)?;
    *bytes = rest;
    Ok(value)
}

pub(crate) fn garbled() -> PyErr {
    PyValueError::new_err("the answer of the worker is garbled")
}
