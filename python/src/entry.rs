//! `submit` is a function of Python for tools, and native for callers.
//!
//! Tools read a function's `__code__`, its source and signature, and replace its code. A call
//! of it goes through the `vectorcall` field of the function object, which CPython honours from 3.12
//! on: there the call leads straight to the native method that the function's body calls. Older versions
//! execute the body.
//!
//! # Invariants
//! 1. The short way is taken only while the function has the code with which it was made, and for
//!    arguments that the native method takes: the body would do nothing else.
//! 2. Objects that an entry refers to live as long as the process, so that an address that was compared
//!    is never another object's.

use crate::pool::ThreadPool;
use crate::process_pool::ProcessPool;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::PyFunction;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function with a short way.
struct Entry {
    /// The code that the function was made with; null while there is no such function.
    code: AtomicPtr<ffi::PyObject>,
    /// The native method.
    method: AtomicPtr<ffi::PyObject>,
}

impl Entry {
    const fn new() -> Self {
        Self {
            code: AtomicPtr::new(ptr::null_mut()),
            method: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether a function has the code that it was made with.
    fn is_untouched(&self, function: *mut ffi::PyObject) -> bool {
        // SAFETY: the caller has checked that it is a function; attached.
        let code = unsafe { (*function.cast::<ffi::PyFunctionObject>()).func_code };
        ptr::eq(code, self.code.load(Ordering::Relaxed))
    }

    /// # Safety
    /// Those of `vectorcall`; the entry belongs to the function, and `class` to the method.
    unsafe fn call(
        &self,
        class: *mut ffi::PyTypeObject,
        function: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: promised by the caller; there are at least two arguments where they are read.
        unsafe {
            if ffi::PyVectorcall_NARGS(count) >= 2
                && ffi::PyObject_TypeCheck(*arguments, class) != 0
                && self.is_untouched(function)
            {
                let method = self.method.load(Ordering::Acquire);
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

/// Those of threads and of processes: our own, and the standard library's after `install()`.
static ENTRIES: [Entry; 4] = [const { Entry::new() }; 4];

/// How functions of Python are called.
static LONG_WAY: OnceLock<ffi::vectorcallfunc> = OnceLock::new();

/// # Safety
/// Those of `vectorcall`.
unsafe extern "C" fn enter<const NUMBER: usize>(
    function: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it attached.
    let py = unsafe { Python::assume_attached() };
    let class = if NUMBER.is_multiple_of(2) {
        ThreadPool::type_object_raw(py)
    } else {
        ProcessPool::type_object_raw(py)
    };
    // SAFETY: promised by the caller; `has_short_way` has set the function's entry.
    unsafe { ENTRIES[NUMBER].call(class, function, arguments, count, keywords) }
}

type SetVectorcall = unsafe extern "C" fn(*mut ffi::PyFunctionObject, ffi::vectorcallfunc);

/// CPython's function for it, from 3.12 on.
fn set_vectorcall() -> Option<SetVectorcall> {
    // SAFETY: a string that ends with a zero; the symbol is that function.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"PyFunction_SetVectorcall".as_ptr());
        mem::transmute::<*mut libc::c_void, Option<SetVectorcall>>(symbol)
    }
}

/// Leads calls of a function straight to a native method, which its body calls with the same
/// arguments: number 0 is `submit` of threads, 1 that of processes; 2 and 3 are the standard
/// library's.
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
    let (code, vectorcall) = unsafe { ((*object).func_code, (*object).vectorcall) };
    // SAFETY: attached; what a function refers to. It is kept for ever (invariant 2).
    mem::forget(unsafe { Bound::from_borrowed_ptr(function.py(), code) });
    entry.method.store(method.into_ptr(), Ordering::Release);
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

/// Whether calling this comes to calling the native method of an entry.
pub(crate) fn leads_to(number: usize, function: &Bound<'_, PyAny>) -> bool {
    if !function.is_exact_instance_of::<PyFunction>() {
        return false;
    }
    [number, number + 2]
        .into_iter()
        .filter_map(|number| ENTRIES.get(number))
        .any(|entry| entry.is_untouched(function.as_ptr()))
}

/// The same, for Python code.
#[pyfunction(name = "leads_to")]
pub(crate) fn py_leads_to(number: usize, function: &Bound<'_, PyAny>) -> bool {
    leads_to(number, function)
}
