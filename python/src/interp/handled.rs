//! The exception that the calling thread is handling, as `sys.exception()` returns it.
//!
//! A worker of the standard library's pool sets the exception of its task in the handler of that exception. So
//! callbacks see the exception, and it becomes the context of exceptions that they raise.

use pyo3::ffi;
use pyo3::prelude::*;

/// Makes an exception the one that the calling thread handles, as long as this value lives.
pub(crate) struct Handled<'py> {
    before: Option<Bound<'py, PyAny>>,
    py: Python<'py>,
}

impl<'py> Handled<'py> {
    pub(crate) fn new(exception: &Bound<'py, PyAny>) -> Self {
        let py = exception.py();
        // SAFETY: attached; the function returns a new reference, or null if there is none.
        let before = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyErr_GetHandledException()) };
        // SAFETY: attached; the argument is an exception, and the function takes a reference of
        // its own.
        unsafe { ffi::PyErr_SetHandledException(exception.as_ptr()) };
        Self { before, py }
    }
}

impl Drop for Handled<'_> {
    fn drop(&mut self) {
        let none = self.py.None();
        let before = self.before.as_ref().map_or(none.as_ptr(), Bound::as_ptr);
        // SAFETY: attached, as `py` shows; `None` stands for no exception, and the function takes
        // a reference of its own.
        unsafe { ffi::PyErr_SetHandledException(before) };
    }
}
