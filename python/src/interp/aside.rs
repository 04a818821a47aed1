//! Puts aside the exception that the calling thread is raising, while other code runs.
//!
//! The interpreter drops objects while an exception is on its way: a loop that raises drops its
//! iterator. Code that such a drop calls would find that exception, take it for one of its own, or
//! replace it. So each `Drop` that calls Python code, or code which may do so, does it through
//! [`aside`]. (A drop which does nothing but drop references needs no help: each deallocation that
//! runs Python code puts the exception aside itself.)

use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;

/// The exception that was put aside, and is put back at the end.
struct Aside {
    kind: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    traceback: *mut ffi::PyObject,
}

impl Aside {
    fn put(_py: Python<'_>) -> Self {
        let mut this = Self {
            kind: ptr::null_mut(),
            value: ptr::null_mut(),
            traceback: ptr::null_mut(),
        };
        // SAFETY: attached; the function writes three references, or null, to the places.
        #[allow(deprecated, reason = "the function is there in all versions")]
        unsafe {
            ffi::PyErr_Fetch(
                &raw mut this.kind,
                &raw mut this.value,
                &raw mut this.traceback,
            );
        }
        this
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // SAFETY: `aside` keeps the thread attached for as long as this is there. The references
        // are ours, and are given up.
        #[allow(deprecated, reason = "as above")]
        unsafe {
            ffi::PyErr_Restore(self.kind, self.value, self.traceback);
        }
    }
}

/// Calls `f` attached, without the exception that the thread is raising. Calls nothing if the
/// interpreter is gone.
pub(crate) fn aside(f: impl FnOnce(Python<'_>)) {
    let called = Python::try_attach(|py| {
        let _aside = Aside::put(py);
        f(py);
    });
    // Without an interpreter there is no caller to tell.
    let _ = called;
}
