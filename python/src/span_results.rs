//! The results of a span as bytes, which a worker writes one after the other, and another process
//! reads from any of them on. The items go to the worker in the same way: to pickle numbers, texts and the
//! like, and to unpickle them, takes twice as long.
//!
//! The first byte of each tells what follows:
//!
//! | byte | follows |
//! |---|---|
//! | [`NONE`], [`FALSE`], [`TRUE`] | nothing |
//! | [`SHORT_INT`] | four bytes |
//! | [`INT`], [`FLOAT`] | eight bytes |
//! | [`TEXT`], [`BYTES`] | the length in four bytes, and so many |
//! | [`TUPLE`], [`LIST`], [`DICT`] | the number of items in four bytes, and so many of the above; for a dictionary, key and value of each |
//! | [`VALUE`] | the same, of what [`Pickling::append_result`] makes of it; for an item, of the pickle of its call |
//! | [`PLAIN`] | as [`VALUE`]; unpickling it runs no Python code |
//! | [`FAILURE`] | the same, of an exception's bytes: the item has failed |
//! | [`PLAIN_FAILURE`] | as [`FAILURE`]; unpickling it runs no Python code |
//! | [`LONG`] | to the end, what `append_result` makes of it; there is no other result |
//! | [`ALL`] | to the end, what it makes of the list of all results |
//!
//! Numbers are in the machine's order. What is no number, text or the like, and no container of
//! such things only, is pickled for itself, so that the bytes of one result say nothing of another.
//!
//! Bytes that begin with a plain result have plain ones only: the first byte tells whether the results
//! are to be unpickled on arrival ([`is_plain`]).

use crate::pickling::Pickling;
use crate::stdlib;
use crate::unpickling;
use concurrent_futures::engine::{Answer, Received};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use std::sync::Arc;

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
const TUPLE: u8 = 7;
const LIST: u8 = 8;
const DICT: u8 = 9;
const VALUE: u8 = 10;
const FAILURE: u8 = 11;
const LONG: u8 = 12;
const ALL: u8 = 13;
const SHORT_INT: u8 = 14;
const PLAIN: u8 = 15;
const PLAIN_FAILURE: u8 = 16;

/// Longer containers are pickled.
const FEW: usize = 64;

/// More than this of items is pickled, and may go beside the stream.
const MUCH: usize = 64 * 1024;

/// Longer results are sent for themselves.
const SHORT: usize = 32 * 1024;

/// What became of a result that was to be appended.
pub(crate) enum Appended {
    Yes,
    /// It is not plain, as those before it are: these bytes are to follow once those are sent.
    Apart(Vec<u8>),
    /// It is to be sent for itself: this is all of the answer.
    Long(Answer),
}

/// Appends a result.
///
/// # Errors
/// What pickling it raises.
pub(crate) fn append(
    result: &Bound<'_, PyAny>,
    pickling: &Pickling,
    bytes: &mut Vec<u8>,
) -> PyResult<Appended> {
    let start = bytes.len();
    if append_atom(result, bytes) || append_container(result, bytes) {
        return Ok(Appended::Yes);
    }
    bytes.truncate(start);
    let mut answer = Answer::default();
    answer.bytes.push(LONG);
    pickling.append_result(result, &mut answer)?;
    if answer.tail.is_some() || answer.attachment.is_some() || answer.bytes.len() > SHORT {
        return Ok(Appended::Long(answer));
    }
    let value = &answer.bytes[1..];
    if unpickling::is_plain(value) {
        append_counted(PLAIN, value, bytes);
        return Ok(Appended::Yes);
    }
    Ok(append_or_part(VALUE, value, bytes))
}

/// Appends what is not plain, unless there are plain results before it.
fn append_or_part(kind: u8, value: &[u8], bytes: &mut Vec<u8>) -> Appended {
    if bytes.is_empty() || !is_plain(bytes) {
        append_counted(kind, value, bytes);
        return Appended::Yes;
    }
    let mut apart = Vec::new();
    append_counted(kind, value, &mut apart);
    Appended::Apart(apart)
}

/// Whether unpickling the results that these bytes begin with runs no Python code, and needs nothing of
/// their worker.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((&(VALUE | FAILURE), _)) => false,
        Some((&(LONG | ALL), value)) => unpickling::is_plain(value),
        _ => true,
    }
}

/// Appends a number, a text or the like. False, and nothing, if it is something else.
fn append_atom(result: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
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

/// Appends a container of numbers, texts and the like. False if it is something else.
fn append_container(container: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    let mut begin = |kind, items: usize| {
        let Some(items) = u32::try_from(items).ok().filter(|_| items <= FEW) else {
            return false;
        };
        bytes.push(kind);
        bytes.extend_from_slice(&items.to_ne_bytes());
        true
    };
    if let Ok(tuple) = container.cast_exact::<PyTuple>() {
        let mut items = tuple.iter_borrowed();
        begin(TUPLE, tuple.len()) && items.all(|item| append_atom(&item, bytes))
    } else if let Ok(list) = container.cast_exact::<PyList>() {
        // While the items are looked at, no Python code runs.
        begin(LIST, list.len()) && list.iter().all(|item| append_atom(&item, bytes))
    } else if let Ok(dict) = container.cast_exact::<PyDict>() {
        begin(DICT, dict.len())
            && dict
                .iter()
                .all(|(key, value)| append_atom(&key, bytes) && append_atom(&value, bytes))
    } else {
        false
    }
}

fn append_fixed<const LENGTH: usize>(kind: u8, value: [u8; LENGTH], bytes: &mut Vec<u8>) {
    bytes.reserve(1 + LENGTH);
    bytes.push(kind);
    bytes.extend_from_slice(&value);
}

fn append_counted(kind: u8, value: &[u8], bytes: &mut Vec<u8>) {
    // An exception that is longer is cut off, and cannot be unpickled; it does not fit into a stream.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(value);
}

/// Appends an exception, as `pack_exception` has made bytes of it.
pub(crate) fn append_failure(packed: &[u8], bytes: &mut Vec<u8>) -> Appended {
    if unpickling::is_plain_failure(packed) {
        append_counted(PLAIN_FAILURE, packed, bytes);
        return Appended::Yes;
    }
    append_or_part(FAILURE, packed, bytes)
}

/// Appends an item of a span. False, and what is of no use, if it is for `pickle`.
pub(crate) fn append_item(item: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    let appended = append_atom(item, bytes) || append_container(item, bytes);
    if !appended {
        bytes.truncate(start);
    }
    appended
}

/// Appends an item of a span as the pickle of its call.
pub(crate) fn append_pickled_item(pickle: &[u8], bytes: &mut Vec<u8>) {
    append_counted(VALUE, pickle, bytes);
}

/// An item of a span.
pub(crate) enum Item<'a, 'py> {
    Plain(Bound<'py, PyAny>),
    /// The pickle of its call.
    Pickled(&'a [u8]),
}

/// Reads an item of a span.
///
/// # Errors
/// When it cannot be done.
pub(crate) fn read_item<'a, 'py>(py: Python<'py>, bytes: &mut &'a [u8]) -> PyResult<Item<'a, 'py>> {
    if let Some((&VALUE, rest)) = bytes.split_first() {
        *bytes = rest;
        return counted(bytes).map(Item::Pickled);
    }
    read_one(py, bytes, None).map(Item::Plain)
}

/// Appends the items of a chunk. False if they are for `pickle`, which keeps what they have in common.
pub(crate) fn append_chunk(items: &[Bound<'_, PyAny>], bytes: &mut Vec<u8>) -> bool {
    items.iter().all(|item| {
        let may_be = bytes.len() <= MUCH;
        let is_tuple = item.is_exact_instance_of::<PyTuple>();
        may_be && (append_atom(item, bytes) || is_tuple && append_container(item, bytes))
    })
}

/// Reads the items of a chunk.
///
/// # Errors
/// When it cannot be done.
pub(crate) fn read_chunk<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let items = PyList::empty(py);
    let mut left = bytes;
    while !left.is_empty() {
        items.append(read_one(py, &mut left, None)?)?;
    }
    Ok(items)
}

/// Appends all results of a span that is one task.
///
/// # Errors
/// What pickling them raises.
pub(crate) fn append_all(
    results: &Bound<'_, PyList>,
    pickling: &Pickling,
    answer: &mut Answer,
) -> PyResult<()> {
    answer.bytes.push(ALL);
    pickling.append_result(results, answer)
}

/// What was read of the results of a span.
pub(crate) struct Read<'py> {
    /// The results; `FailedItem` for those that have failed.
    pub(crate) results: Vec<Bound<'py, PyAny>>,
    /// Where the result begins at which it stopped, if it did not come to the end.
    pub(crate) stopped: Option<usize>,
}

/// Reads results up to the end, or up to one that cannot be unpickled.
///
/// # Errors
/// What the first raises, if that cannot be unpickled.
pub(crate) fn read<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<Received>>,
) -> PyResult<Read<'py>> {
    let mut results = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let start = bytes.len() - left.len();
        if let (0, Some((&ALL, value))) = (start, left.split_first()) {
            let all = unpickling::value(py, value, attachment)?.cast_into::<PyList>()?;
            return Ok(Read {
                results: all.iter().collect(),
                stopped: None,
            });
        }
        match read_one(py, &mut left, attachment) {
            Ok(result) => results.push(result),
            Err(error) if results.is_empty() => return Err(error),
            Err(_) => {
                return Ok(Read {
                    results,
                    stopped: Some(start),
                });
            }
        }
    }
    Ok(Read {
        results,
        stopped: None,
    })
}

/// As [`read`]; the stand-ins of failed items have the exceptions already.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_all<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<Received>>,
) -> PyResult<Read<'py>> {
    let read = read(py, bytes, attachment)?;
    for result in &read.results {
        if result.get_type().is(stdlib::failed_item(py)?) {
            let error = stdlib::rebuild_exception(py)?.call1((result.getattr("data")?,))?;
            result.setattr("data", error)?;
        }
    }
    Ok(read)
}

fn read_one<'py>(
    py: Python<'py>,
    bytes: &mut &[u8],
    attachment: Option<&Arc<Received>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = match bytes.split_first() {
        Some((&kind, rest)) => {
            *bytes = rest;
            kind
        }
        None => return Err(garbled()),
    };
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
                let key = read_one(py, bytes, None)?;
                dict.set_item(key, read_one(py, bytes, None)?)?;
            }
            dict.into_any()
        }
        VALUE | PLAIN => unpickling::value(py, counted(bytes)?, None)?,
        FAILURE | PLAIN_FAILURE => {
            stdlib::failed_item(py)?.call1((PyBytes::new(py, counted(bytes)?),))?
        }
        LONG => unpickling::value(py, std::mem::take(bytes), attachment)?,
        _ => return Err(garbled()),
    })
}

fn count(bytes: &mut &[u8]) -> PyResult<u32> {
    Ok(u32::from_ne_bytes(fixed(bytes)?))
}

fn read_atoms<'py>(py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    (0..count(bytes)?)
        .map(|_| read_one(py, bytes, None))
        .collect()
}

fn fixed<const LENGTH: usize>(bytes: &mut &[u8]) -> PyResult<[u8; LENGTH]> {
    let (value, rest) = bytes.split_first_chunk().ok_or_else(garbled)?;
    *bytes = rest;
    Ok(*value)
}

fn counted<'a>(bytes: &mut &'a [u8]) -> PyResult<&'a [u8]> {
    let length = usize::try_from(count(bytes)?)?;
    let (value, rest) = bytes.split_at_checked(length).ok_or_else(garbled)?;
    *bytes = rest;
    Ok(value)
}

fn garbled() -> PyErr {
    PyValueError::new_err("the answer of the worker is garbled")
}
