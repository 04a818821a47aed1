//! The size of plain values, which tells whether they are pickled at once.

use crate::pickle::snapshot::{items_of, pairs_of};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// The depth to which plain containers may be nested.
pub(super) const DEPTH: u32 = 3;

/// The size of plain values: numbers, texts, bytes, and containers of these. Nothing can be
/// registered for them, and no Python code runs to pickle or unpickle them.
#[derive(Default)]
pub(super) struct Size {
    /// The number of values and containers.
    values: usize,
    /// The length of the bytes among them.
    pub(super) bytes: usize,
    /// The length of the texts among them, in characters.
    characters: usize,
    /// Whether one of the values may change.
    is_mutable: bool,
}

impl Size {
    /// The number, or length, of values above which an object does not count as plain, as pickling it takes
    /// time.
    const MOST: usize = 4096;
    const LONGEST: usize = 1024 * 1024;

    /// Adds a value. Returns false if the value is not plain, or too much.
    pub(super) fn adds(&mut self, object: &Bound<'_, PyAny>, depth: u32) -> bool {
        self.values += 1;
        if object.is_none()
            || object.is_exact_instance_of::<PyInt>()
            || object.is_exact_instance_of::<PyFloat>()
            || object.is_exact_instance_of::<PyBool>()
        {
            return true;
        }
        if let Ok(text) = object.cast_exact::<PyString>() {
            self.characters += text.len().unwrap_or(0);
            return self.characters <= Self::LONGEST;
        }
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            self.bytes += bytes.as_bytes().len();
            return true;
        }
        if depth == 0 {
            return false;
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            self.has_room(tuple.len())
                && tuple
                    .iter_borrowed()
                    .all(|item| self.adds(&item, depth - 1))
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            self.is_mutable = true;
            self.has_room(list.len())
                && items_of(list)
                    .is_ok_and(|items| items.iter().all(|item| self.adds(&item, depth - 1)))
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            self.is_mutable = true;
            self.adds_pairs(dict, depth - 1)
        } else {
            false
        }
    }

    /// Adds the keywords of a call, whose dictionary the call alone has. Returns false as [`adds`](Self::adds) does.
    pub(super) fn adds_keywords(&mut self, keywords: &Bound<'_, PyDict>) -> bool {
        self.values += 1;
        self.adds_pairs(keywords, DEPTH - 1)
    }

    fn adds_pairs(&mut self, dict: &Bound<'_, PyDict>, depth: u32) -> bool {
        self.has_room(dict.len())
            && pairs_of(dict).is_ok_and(|pairs| {
                let mut pairs = pairs.iter();
                pairs.all(|(key, value)| self.adds(&key, depth) && self.adds(&value, depth))
            })
    }

    /// Returns whether a pickle should be made late: whether the values may change, or are so long that many such
    /// pickles take up memory.
    pub(super) fn is_worth_waiting(&self) -> bool {
        /// The length above which values are long.
        const LONG: usize = 1024;
        self.is_mutable || self.bytes + self.characters + 8 * self.values > LONG
    }

    fn has_room(&self, more: usize) -> bool {
        self.values + more <= Self::MOST
    }
}
