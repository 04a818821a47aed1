//! `submit` as a function of Python for tools, and a native method for callers.
//!
//! Tools read a function's `__code__`, its source and signature, and replace its code. A call of it goes
//! through the `vectorcall` field of the function object, which CPython honours from 3.12 on. There the call
//! leads straight to the native method that the function's body calls, or to its twin for calls without
//! keywords. Older versions execute the body.
//!
//! # Invariants
//! 1. The short way is taken only while the function has the code with which it was made, and for arguments
//!    that the native method takes. For these, the body would do nothing else.
//! 2. Objects that an entry refers to live as long as the process, so that an address that was compared
//!    is never another object's.

use crate::interp::os::symbol;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyString, PyType};
use std::ffi::c_void;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function whose calls lead straight to a native method.
struct Entry {
    /// The code that the function was made with; null while there is no such function.
    code: AtomicPtr<ffi::PyObject>,
    /// The native method.
    method: AtomicPtr<ffi::PyObject>,
    /// The native method for calls without keywords, which needs no tuple of all arguments.
    positional: AtomicPtr<ffi::PyObject>,
    /// The class that has the method.
    class: AtomicPtr<ffi::PyTypeObject>,
}

impl Entry {
    const fn new() -> Self {
        Self {
            code: AtomicPtr::new(ptr::null_mut()),
            method: AtomicPtr::new(ptr::null_mut()),
            positional: AtomicPtr::new(ptr::null_mut()),
            class: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns whether a function has the code that it was made with.
    fn is_untouched(&self, function: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller has checked that it is a function; attached. Another thread may set another code,
        // in one step.
        let code = unsafe {
            AtomicPtr::from_ptr(&raw mut (*function.cast::<ffi::PyFunctionObject>()).func_code)
        };
        // ORDERING: Relaxed: only the address is of interest. Acquire: class and method were stored before the
        // code.
        ptr::eq(
            code.load(Ordering::Relaxed),
            self.code.load(Ordering::Acquire),
        )
    }

    /// # Safety
    /// Those of `vectorcall`; the entry belongs to the function.
    unsafe fn call(
        &self,
        function: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: the arguments are those of `vectorcall`, and the entry belongs to the function; there are
        // at least two arguments where they are read.
        unsafe {
            if ffi::PyVectorcall_NARGS(count) >= 2
                && self.is_untouched(function)
                && ffi::PyObject_TypeCheck(*arguments, self.class.load(Ordering::Relaxed)) != 0
            {
                let method = if keywords.is_null() {
                    &self.positional
                } else {
                    &self.method
                };
                let method = method.load(Ordering::Relaxed);
                return ffi::PyObject_Vectorcall(method, arguments, count, keywords);
            }
            match LONG_WAY.get() {
                Some(long_way) => long_way(function, arguments, count, keywords),
                // It is set before any function leads here.
                None => ptr::null_mut(),
            }
        }
    }
}

/// The functions `submit` of threads and processes: our own, and the standard library's after `install()`.
static ENTRIES: [Entry; 4] = [const { Entry::new() }; 4];

/// The interpreter's own `vectorcall` of Python functions.
static LONG_WAY: OnceLock<ffi::vectorcallfunc> = OnceLock::new();

/// # Safety
/// Those of `vectorcall`.
unsafe extern "C" fn enter<const NUMBER: usize>(
    function: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the arguments are those of `vectorcall`; `has_short_way` has set the function's entry.
    unsafe { ENTRIES[NUMBER].call(function, arguments, count, keywords) }
}

type SetVectorcall = unsafe extern "C" fn(*mut ffi::PyFunctionObject, ffi::vectorcallfunc);

/// Returns CPython's function that sets a `vectorcall`, from 3.12 on.
fn set_vectorcall() -> Option<SetVectorcall> {
    let symbol = symbol(c"PyFunction_SetVectorcall")?;
    // SAFETY: the symbol is that function.
    Some(unsafe { mem::transmute::<*mut c_void, SetVectorcall>(symbol) })
}

/// Leads calls of a function straight to a native method, which its body calls with the same arguments. If the
/// method's class has another one for calls without keywords, those lead there.
/// Number 0 is `submit` of threads, 1 that of processes; 2 and 3 are the standard library's.
#[pyfunction]
pub(crate) fn lead_to(
    function: &Bound<'_, PyFunction>,
    method: Bound<'_, PyAny>,
    number: usize,
) -> PyResult<()> {
    let (Some(entry), Some(enter)) = (
        ENTRIES.get(number),
        [enter::<0>, enter::<1>, enter::<2>, enter::<3>].get(number),
    ) else {
        return Err(PyValueError::new_err("there is no such entry"));
    };
    let object = function.as_ptr().cast::<ffi::PyFunctionObject>();
    // SAFETY: attached; a function.
    let vectorcall = unsafe { (*object).vectorcall };
    // Kept for ever (invariant 2).
    let code = function.getattr("__code__")?.into_ptr();
    // The class is kept by the method, and so for ever, too.
    let class = method.getattr("__objclass__")?.cast_into::<PyType>()?;
    let positional = class.getattr_opt("_submit_positional")?;
    let positional = positional.unwrap_or_else(|| method.clone());
    entry.class.store(class.as_type_ptr(), Ordering::Relaxed);
    entry.method.store(method.into_ptr(), Ordering::Relaxed);
    entry
        .positional
        .store(positional.into_ptr(), Ordering::Relaxed);
    entry.code.store(code, Ordering::Release);
    let (Some(set), Some(vectorcall)) = (set_vectorcall(), vectorcall) else {
        return Ok(());
    };
    let enter: ffi::vectorcallfunc = *enter;
    if !ptr::fn_addr_eq(vectorcall, enter) {
        LONG_WAY.get_or_init(|| vectorcall);
        // SAFETY: attached; a function, and a `vectorcall` for its entry.
        unsafe { set(object, enter) };
    }
    Ok(())
}

/// Returns whether calling this object comes to calling the native method of an entry.
pub(crate) fn leads_to(number: usize, function: &Bound<'_, PyAny>) -> bool {
    if !function.is_exact_instance_of::<PyFunction>() {
        return false;
    }
    [number, number + 2]
        .into_iter()
        .filter_map(|number| ENTRIES.get(number))
        .any(|entry| entry.is_untouched(function.as_ptr()))
}

/// Returns whether calling this object comes to calling the native method of an entry; for Python code.
#[pyfunction(name = "leads_to")]
pub(crate) fn py_leads_to(number: usize, function: &Bound<'_, PyAny>) -> bool {
    leads_to(number, function)
}

/// Raises an exception unless all names of a call's keywords are strings.
pub(crate) fn check_keywords(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let are_strings = |keywords: &Bound<'_, PyDict>| {
        keywords
            .keys()
            .iter()
            .all(|key| key.is_instance_of::<PyString>())
    };
    if keywords.is_some_and(|keywords| !are_strings(keywords)) {
        return Err(PyTypeError::new_err("keywords must be strings"));
    }
    Ok(())
}
