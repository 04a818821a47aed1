//! The items and results of a span as bytes. A worker writes results one after the other, and another process
//! reads them from any of them on. Pickling numbers, texts and the like would take twice as long.
//!
//! The first byte of each tells what follows:
//!
//! | byte | follows |
//! |---|---|
//! | less than [`VALUE`], or [`values::SHORT_INT`] | a plain value, as in `values.rs` |
//! | [`VALUE`] | the length in four bytes, and the bytes of [`Pickling::append_result`]; for an item, those of the pickle of its call |
//! | [`PLAIN`] | as [`VALUE`]; unpickling it runs no Python code |
//! | [`FAILURE`] | the length in four bytes, and the bytes of an exception: the item has failed |
//! | [`PLAIN_FAILURE`] | as [`FAILURE`]; unpickling it runs no Python code |
//! | [`LONG`] | the bytes of `append_result`, to the end; there is no other result |
//! | [`ALL`] | the bytes of `append_result` for the list of all results, to the end |
//!
//! An object that is not plain is pickled by itself, so that the bytes of one result do not depend on
//! another. Numbers, texts, and containers of plain objects are plain.
//!
//! Bytes that begin with a plain result contain plain ones only: the first byte tells whether the results
//! are to be unpickled on arrival ([`is_plain`]).

use crate::interp::stdlib;
use crate::pickle::objects::Pickling;
use crate::pickle::unpickling;
use crate::pickle::values::{
    self, SHORT, append_atom, append_container, append_counted, counted, garbled,
};
use concurrent_futures::engine::{Answer, MappedSegment};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::sync::Arc;

const VALUE: u8 = 10;
const FAILURE: u8 = 11;
const LONG: u8 = 12;
const ALL: u8 = 13;
const PLAIN: u8 = 15;
const PLAIN_FAILURE: u8 = 16;

/// The number of bytes above which items are pickled, and may go beside the stream.
const MUCH: usize = 64 * 1024;

/// The outcome of an attempt to append a result.
pub(crate) enum Appended {
    Yes,
    /// The result is not plain, but the results before it are. Its bytes follow after those results are sent.
    Apart(Vec<u8>),
    /// The result is to be sent by itself: this is the whole reply.
    Long(Answer),
}

/// Appends a result.
///
/// # Errors
/// The exception that pickling raises.
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

/// Appends a result that is not plain, unless there are plain results before it.
fn append_or_part(kind: u8, value: &[u8], bytes: &mut Vec<u8>) -> Appended {
    if bytes.is_empty() || !is_plain(bytes) {
        append_counted(kind, value, bytes);
        return Appended::Yes;
    }
    let mut apart = Vec::new();
    append_counted(kind, value, &mut apart);
    Appended::Apart(apart)
}

/// Returns whether unpickling the results at the beginning of these bytes runs no Python code, and needs
/// nothing of their worker.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((&(VALUE | FAILURE), _)) => false,
        Some((&(LONG | ALL), value)) => unpickling::is_plain(value),
        _ => true,
    }
}

/// Appends an exception, in the bytes that `pack_exception` has made.
pub(crate) fn append_failure(packed: &[u8], bytes: &mut Vec<u8>) -> Appended {
    if unpickling::is_plain_failure(packed) {
        append_counted(PLAIN_FAILURE, packed, bytes);
        return Appended::Yes;
    }
    append_or_part(FAILURE, packed, bytes)
}

/// Appends an item of a span. Returns false, after appending useless bytes, if the item is for `pickle`.
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

/// Appends the items of a chunk. Returns false if they are for `pickle`, which keeps the objects that they
/// share.
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
/// The exception that pickling raises.
pub(crate) fn append_all(
    results: &Bound<'_, PyList>,
    pickling: &Pickling,
    answer: &mut Answer,
) -> PyResult<()> {
    answer.bytes.push(ALL);
    pickling.append_result(results, answer)
}

/// The results of a span that were read.
pub(crate) struct Read<'py> {
    /// The results; `FailedItem` for those that have failed.
    pub(crate) results: Vec<Bound<'py, PyAny>>,
    /// The offset of the result at which reading stopped, if it did not come to the end.
    pub(crate) stopped: Option<usize>,
}

/// Reads results up to the end, or up to a result that cannot be unpickled.
///
/// # Errors
/// The exception that unpickling the first item raises.
pub(crate) fn read<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<MappedSegment>>,
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

/// Reads results as [`read`] does; the stand-ins of failed items have the exceptions already.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_all<'py>(
    py: Python<'py>,
    bytes: &[u8],
    attachment: Option<&Arc<MappedSegment>>,
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

/// Returns the bytes of the first exception among results, without reading the results.
pub(crate) fn first_failure(results: &[u8]) -> Option<&[u8]> {
    let mut left = results;
    loop {
        let (kind, rest) = left.split_first()?;
        left = rest;
        match *kind {
            FAILURE | PLAIN_FAILURE => return values::skip_counted(&mut left),
            VALUE | PLAIN => {
                values::skip_counted(&mut left)?;
            }
            LONG | ALL => return None,
            kind => values::skip_rest(kind, &mut left)?,
        }
    }
}

fn read_one<'py>(
    py: Python<'py>,
    bytes: &mut &[u8],
    attachment: Option<&Arc<MappedSegment>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = match bytes.split_first() {
        Some((&kind, rest)) => {
            *bytes = rest;
            kind
        }
        None => return Err(garbled()),
    };
    match kind {
        VALUE | PLAIN => unpickling::value(py, counted(bytes)?, None),
        FAILURE | PLAIN_FAILURE => {
            stdlib::failed_item(py)?.call1((PyBytes::new(py, counted(bytes)?),))
        }
        LONG => unpickling::value(py, std::mem::take(bytes), attachment),
        kind => values::read_rest(py, kind, bytes),
    }
}
