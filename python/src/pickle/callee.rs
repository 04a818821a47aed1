//! The functions that are defined for workers: as bytes, and in the worker.

use crate::pickle::by_name::{self, Name};
use crate::pickle::partials::{self, Partial};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A function by its name, or a partial call.
pub(crate) enum Callee {
    Name(Name),
    Partial(Partial),
}

impl Callee {
    const NAME: u8 = 0;
    const PARTIAL: u8 = 1;

    pub(crate) fn of_name(bytes: &[u8]) -> Vec<u8> {
        [&[Self::NAME], bytes].concat()
    }

    pub(crate) fn of_partial(bytes: &[u8]) -> Vec<u8> {
        [&[Self::PARTIAL], bytes].concat()
    }

    /// Reads the bytes of a function's name or of a partial call.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub(crate) fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        match bytes.split_first() {
            Some((&Self::NAME, bytes)) => Name::from_bytes(py, bytes).map(Self::Name),
            Some((&Self::PARTIAL, bytes)) => Partial::from_bytes(py, bytes).map(Self::Partial),
            _ => Err(PyRuntimeError::new_err("the function is garbled")),
        }
    }

    /// Returns the name of the function for people, by the same bytes; none if they are something else.
    pub(crate) fn name(bytes: &[u8]) -> Option<String> {
        let name = match bytes.split_first()? {
            (&Self::NAME, bytes) => bytes,
            (&Self::PARTIAL, bytes) => partials::function(bytes)?,
            _ => return None,
        };
        let (module, qualified) = by_name::read(name)?;
        Some(if module == "__main__" || module == "builtins" {
            qualified.to_owned()
        } else {
            format!("{module}.{qualified}")
        })
    }

    /// Returns whether the function, or a partial call with all its parts, is found under its name.
    pub(crate) fn is_found(&self, object: &Bound<'_, PyAny>) -> bool {
        match self {
            Self::Name(name) => name.is_found(object),
            Self::Partial(partial) => partial.is_found(object),
        }
    }

    /// Finds the object that a name, or a partial call, stands for now.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn find<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Name(name) => name.find(py),
            Self::Partial(partial) => partial.find(py),
        }
    }
}
