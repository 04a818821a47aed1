//! Partial calls (`functools.partial`) by the name of their function, for `map`.
//!
//! `pickle` copies a partial call with each item. If all parts of the call are immutable, the copies cannot
//! be told apart. Such parts are functions and classes that have names, numbers, texts and the like, and
//! tuples of these. So each worker makes such a partial call once, and anew when a name stands for another
//! object.
//!
//! As bytes, it is the name of the function, the arguments and the keyword arguments. A number of bytes or parts
//! goes before them. Each part is of one kind:
//!
//! | byte | follows |
//! |---|---|
//! | [`NAME`] | the length in four bytes, and a name ([`Name::to_bytes`]) |
//! | [`VALUE`] | a value, as `values.rs` has written it |

use crate::interp::{interned, stdlib};
use crate::pickle::by_name::Name;
use crate::pickle::snapshot::pairs_of;
use crate::pickle::values;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::cell::RefCell;

const NAME: u8 = 0;
const VALUE: u8 = 1;

/// Returns a partial call as bytes; none if the object is no partial call, or has parts that are not
/// immutable. Looks names up, also those that need Python code.
///
/// # Errors
/// The exception of looking at the function.
pub(crate) fn to_bytes(function: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    let py = function.py();
    let kind = stdlib::partial(py)?;
    if !function.get_type().is(kind) || !is_pickled_as_usual(kind)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let inner = function.getattr(interned::func(py))?;
    let arguments = function.getattr(interned::args(py))?;
    let keywords = function.getattr(interned::keywords(py))?;
    let (Ok(arguments), Ok(keywords)) = (
        arguments.cast_into_exact::<PyTuple>(),
        keywords.cast_into_exact::<PyDict>(),
    ) else {
        return Ok(None);
    };
    let keywords = pairs_of(&keywords)?;
    let is_whole = append_name(&inner, &mut bytes)?
        && append_number(arguments.len(), &mut bytes)
        && append_parts(arguments.iter(), &mut bytes)?
        && append_number(keywords.len(), &mut bytes)
        && append_parts(
            keywords.iter().flat_map(|(key, value)| [key, value]),
            &mut bytes,
        )?;
    Ok(is_whole.then_some(bytes))
}

/// Returns whether `multiprocessing` pickles partial calls in its usual way.
fn is_pickled_as_usual(kind: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = kind.py();
    let reducers = stdlib::original_pickler(py)?.getattr(interned::extra_reducers(py))?;
    let Ok(reducers) = reducers.cast_into_exact::<PyDict>() else {
        return Ok(false);
    };
    let reducer = reducers.get_item(kind)?;
    let usual = stdlib::reduce_partial(py)?;
    Ok(reducer.is_some_and(|reducer| reducer.is(usual)))
}

fn append_number(number: usize, bytes: &mut Vec<u8>) -> bool {
    let Ok(number) = u32::try_from(number) else {
        return false;
    };
    bytes.extend_from_slice(&number.to_ne_bytes());
    true
}

fn append_parts<'py>(
    mut parts: impl Iterator<Item = Bound<'py, PyAny>>,
    bytes: &mut Vec<u8>,
) -> PyResult<bool> {
    parts.try_fold(true, |is_whole, part| {
        Ok(is_whole && (append_value(&part, bytes) || append_name(&part, bytes)?))
    })
}

/// Appends an immutable value. Returns false, and appends nothing, if the value is not immutable.
fn append_value(value: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    bytes.push(VALUE);
    let is_immutable = values::append_immutable(value, bytes);
    if !is_immutable {
        bytes.truncate(start);
    }
    is_immutable
}

/// Appends a function or class by its name. Returns false if `pickle` does not refer to it by a name.
fn append_name(function: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> PyResult<bool> {
    let Some(name) = Name::of(function)? else {
        return Ok(false);
    };
    if !name.stands_for(function)? {
        return Ok(false);
    }
    let Some(named) = name.to_bytes(function.py()) else {
        return Ok(false);
    };
    bytes.push(NAME);
    if !append_number(named.len(), bytes) {
        return Ok(false);
    }
    bytes.extend_from_slice(&named);
    Ok(true)
}

/// Returns the bytes of the function's name, of the bytes that [`to_bytes`] has written.
pub(crate) fn function(bytes: &[u8]) -> Option<&[u8]> {
    let (&NAME, bytes) = bytes.split_first()? else {
        return None;
    };
    let (length, bytes) = bytes.split_first_chunk()?;
    bytes.get(..usize::try_from(u32::from_ne_bytes(*length)).ok()?)
}

/// A partial call in a worker.
pub(crate) struct Partial {
    function: Name,
    arguments: Vec<Part>,
    keywords: Vec<(Py<PyString>, Part)>,
    made: RefCell<Option<Made>>,
}

enum Part {
    Name(Name),
    Value(Py<PyAny>),
}

/// The object, and the objects that the names of its parts stood for.
struct Made {
    partial: Py<PyAny>,
    named: Vec<Py<PyAny>>,
}

impl Partial {
    /// Reads the bytes that [`to_bytes`] has written.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub(crate) fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let mut left = bytes;
        let Part::Name(function) = read_part(py, &mut left)? else {
            return Err(garbled());
        };
        let arguments = (0..read_number(&mut left)?)
            .map(|_| read_part(py, &mut left))
            .collect::<PyResult<_>>()?;
        let keywords = (0..read_number(&mut left)?)
            .map(|_| {
                let Part::Value(key) = read_part(py, &mut left)? else {
                    return Err(garbled());
                };
                let key = key.into_bound(py).cast_into::<PyString>()?.unbind();
                Ok((key, read_part(py, &mut left)?))
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            function,
            arguments,
            keywords,
            made: RefCell::new(None),
        })
    }

    /// Returns the names, in the order in which unpickling comes to them.
    fn names(&self) -> impl Iterator<Item = &Name> {
        let keywords = self.keywords.iter().map(|(_, part)| part);
        let parts = self.arguments.iter().chain(keywords);
        let names = parts.filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Value(_) => None,
        });
        std::iter::once(&self.function).chain(names)
    }

    /// Returns whether this object is the partial call, and all names stand for the same objects as before.
    /// The comparison runs no Python code, and returns false where only Python code could tell.
    pub(crate) fn is_found(&self, partial: &Bound<'_, PyAny>) -> bool {
        let py = partial.py();
        let made = self.made.borrow();
        made.as_ref().is_some_and(|made| {
            let mut pairs = self.names().zip(&made.named);
            made.partial.is(partial) && pairs.all(|(name, object)| name.is_found(object.bind(py)))
        })
    }

    /// Returns the object, with the objects that the names stand for now.
    ///
    /// # Errors
    /// The exception of looking for a name.
    pub(crate) fn find<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let named = self
            .names()
            .map(|name| name.find(py))
            .collect::<PyResult<Vec<_>>>()?;
        if let Some(made) = &*self.made.borrow() {
            let mut pairs = made.named.iter().zip(&named);
            if pairs.all(|(before, now)| before.is(now)) {
                return Ok(made.partial.bind(py).clone());
            }
        }
        let partial = self.make(py, &named)?;
        let made = Made {
            partial: partial.clone().unbind(),
            named: named.into_iter().map(Bound::unbind).collect(),
        };
        // Dropped when nothing is borrowed, as Python code may run.
        let before = self.made.replace(Some(made));
        drop(before);
        Ok(partial)
    }

    fn make<'py>(
        &self,
        py: Python<'py>,
        named: &[Bound<'py, PyAny>],
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut named = named.iter();
        let mut object = |part: Option<&Part>| match part {
            Some(Part::Value(value)) => Ok(value.bind(py).clone()),
            _ => named.next().cloned().ok_or_else(garbled),
        };
        let mut all = vec![object(None)?];
        for part in &self.arguments {
            all.push(object(Some(part))?);
        }
        let keywords = PyDict::new(py);
        for (key, part) in &self.keywords {
            keywords.set_item(key, object(Some(part))?)?;
        }
        stdlib::partial(py)?.call(PyTuple::new(py, all)?, Some(&keywords))
    }
}

fn read_part(py: Python<'_>, left: &mut &[u8]) -> PyResult<Part> {
    let (kind, rest) = left.split_first().ok_or_else(garbled)?;
    *left = rest;
    if *kind == VALUE {
        return Ok(Part::Value(values::read(py, left)?.unbind()));
    }
    let length = usize::try_from(read_number(left)?)?;
    let (named, rest) = left.split_at_checked(length).ok_or_else(garbled)?;
    *left = rest;
    Name::from_bytes(py, named).map(Part::Name)
}

fn read_number(left: &mut &[u8]) -> PyResult<u32> {
    let (number, rest) = left.split_first_chunk().ok_or_else(garbled)?;
    *left = rest;
    Ok(u32::from_ne_bytes(*number))
}

fn garbled() -> PyErr {
    PyRuntimeError::new_err("the partial call is garbled")
}
