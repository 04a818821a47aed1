//! Copies of arguments and results, as bytes that travel from one interpreter to another.
//!
//! The standard library copies numbers, texts and bytes itself, and pickles lists and dictionaries. Here all of them are
//! written as in `pickle/values.rs`, also containers in containers, if the copy is the one that the standard library
//! would make. So a container is written only if the value contains the container once: a pickle keeps two
//! references to one object. Objects of all other types are left to the standard library.

use crate::pickle::values::{self, DICT, LIST, TUPLE};
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyList, PyTuple};

/// The number of bytes, and of containers, from which on the standard library makes the copy.
const MOST_BYTES: usize = 64 * 1024;
const MOST_CONTAINERS: usize = 64;

/// The depth of containers from which on the standard library makes the copy.
const DEEPEST: usize = 16;

/// A writer of values.
struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    /// The addresses of the containers that were written.
    containers: Vec<usize>,
}

impl Writer<'_> {
    /// Writes a value. Returns false for a value that the standard library is to copy.
    fn write(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> bool {
        if values::append_atom(value, self.bytes) {
            return true;
        }
        let address = value.as_ptr().addr();
        let is_too_much = depth >= DEEPEST
            || self.bytes.len() >= MOST_BYTES
            || self.containers.len() >= MOST_CONTAINERS
            || self.containers.contains(&address);
        if is_too_much {
            return false;
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            if !tuple.is_empty() {
                self.containers.push(address);
            }
            self.write_all(TUPLE, depth, tuple.iter())
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.containers.push(address);
            self.write_all(LIST, depth, list.iter())
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.containers.push(address);
            with_critical_section(dict, || self.write_dict(depth, dict))
        } else {
            false
        }
    }

    /// Writes a container of a kind. Other threads may change a list meanwhile, so that its length comes last.
    fn write_all<'py>(
        &mut self,
        kind: u8,
        depth: usize,
        mut items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> bool {
        let start = self.begin(kind);
        let mut count = 0_u32;
        items.all(|item| {
            count = count.wrapping_add(1);
            self.write(&item, depth + 1)
        }) && self.end(start, count)
    }

    fn write_dict(&mut self, depth: usize, dict: &Bound<'_, PyDict>) -> bool {
        let start = self.begin(DICT);
        let mut count = 0_u32;
        dict.iter().all(|(key, value)| {
            count = count.wrapping_add(1);
            self.write(&key, depth + 1) && self.write(&value, depth + 1)
        }) && self.end(start, count)
    }

    /// Begins a container, and returns the place of its length.
    fn begin(&mut self, kind: u8) -> usize {
        self.bytes.push(kind);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize, count: u32) -> bool {
        let place = self.bytes.get_mut(start..);
        if let Some(place) = place.and_then(|rest| rest.first_chunk_mut()) {
            *place = count.to_ne_bytes();
        }
        true
    }
}

/// Appends a value. Returns false for a value that the standard library is to copy.
pub(super) fn append(value: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    let mut writer = Writer {
        bytes,
        containers: Vec::new(),
    };
    writer.write(value, 0)
}

/// Appends the arguments of a call. Returns false for arguments that the standard library is to copy.
pub(super) fn append_call(
    arguments: &Bound<'_, PyTuple>,
    keywords: Option<&Bound<'_, PyDict>>,
    bytes: &mut Vec<u8>,
) -> bool {
    let Ok(count) = u32::try_from(arguments.len()) else {
        return false;
    };
    bytes.extend_from_slice(&count.to_ne_bytes());
    // The standard library copies each argument by itself, and all keywords together.
    arguments.iter().all(|each| append(&each, bytes))
        && keywords.is_none_or(|keywords| append(keywords, bytes))
}

type Arguments<'py> = (Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>);

/// Reads what [`append_call`] has written.
///
/// # Errors
/// When there is no memory, or a key of a dictionary cannot be one.
pub(super) fn read_call<'py>(py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Arguments<'py>> {
    let (count, rest) = bytes.split_first_chunk().ok_or_else(values::garbled)?;
    *bytes = rest;
    let arguments = (0..u32::from_ne_bytes(*count)).map(|_| values::read(py, bytes));
    let arguments = PyTuple::new(py, arguments.collect::<PyResult<Vec<_>>>()?)?;
    if bytes.is_empty() {
        return Ok((arguments, None));
    }
    let keywords = values::read(py, bytes)?.cast_into::<PyDict>()?;
    Ok((arguments, Some(keywords)))
}
