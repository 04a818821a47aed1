//! Containers of the program as they are at one moment.
//!
//! Without an interpreter lock, another thread may change a list or dictionary while we go through it. Then a
//! number of items that was written before would be wrong. So we go through a copy, which the interpreter makes in
//! one step. With an interpreter lock no copy is needed, as we run no Python code on the way.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

#[cfg(Py_GIL_DISABLED)]
mod kinds {
    use super::{Bound, PyDict, PyList};
    use pyo3::types::PyTuple;

    pub(super) type Items<'a, 'py> = Bound<'py, PyTuple>;
    pub(super) type Pairs<'a, 'py> = Bound<'py, PyDict>;

    pub(super) fn items<'py>(list: &Bound<'py, PyList>) -> pyo3::PyResult<Bound<'py, PyTuple>> {
        use pyo3::types::PyListMethods;
        use pyo3::types::PySequenceMethods;
        list.as_sequence().to_tuple()
    }

    pub(super) fn pairs<'py>(dict: &Bound<'py, PyDict>) -> pyo3::PyResult<Bound<'py, PyDict>> {
        use pyo3::types::PyDictMethods;
        dict.copy()
    }
}

#[cfg(not(Py_GIL_DISABLED))]
mod kinds {
    use super::{Bound, PyDict, PyList};

    pub(super) type Items<'a, 'py> = &'a Bound<'py, PyList>;
    pub(super) type Pairs<'a, 'py> = &'a Bound<'py, PyDict>;

    #[allow(clippy::unnecessary_wraps, reason = "as without an interpreter lock")]
    pub(super) fn items<'a, 'py>(list: &'a Bound<'py, PyList>) -> pyo3::PyResult<Items<'a, 'py>> {
        Ok(list)
    }

    #[allow(clippy::unnecessary_wraps, reason = "as without an interpreter lock")]
    pub(super) fn pairs<'a, 'py>(dict: &'a Bound<'py, PyDict>) -> pyo3::PyResult<Pairs<'a, 'py>> {
        Ok(dict)
    }
}

/// Returns the items of a list, as many as it has now.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn items_of<'a, 'py>(list: &'a Bound<'py, PyList>) -> PyResult<kinds::Items<'a, 'py>> {
    kinds::items(list)
}

/// Returns the keys and values of a dictionary, as many as it has now.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn pairs_of<'a, 'py>(dict: &'a Bound<'py, PyDict>) -> PyResult<kinds::Pairs<'a, 'py>> {
    kinds::pairs(dict)
}
