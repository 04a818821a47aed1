//! Classes: their versions, and the class that an object names as its own, by `__class__`.
//!
//! `isinstance` asks an object for its `__class__` when its type does not do. A class can say so in
//! its body only: to assign `cls.__class__` means the class's own class. `install` needs it for
//! classes that exist, those of the standard library.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns the interpreter's version of a class; 0 if the class has none now. A change of the class or of one of
/// its bases changes the version.
pub(crate) fn version_of(class: &Bound<'_, PyType>) -> u32 {
    // SAFETY: attached; a type that is alive. Threads that change the class write the word atomically.
    let version = unsafe { AtomicU32::from_ptr(&raw mut (*class.as_type_ptr()).tp_version_tag) };
    // ORDERING: Relaxed: the word stands for itself.
    version.load(Ordering::Relaxed)
}

/// Puts a descriptor for `__class__` into a class of Python code, or takes it out.
#[pyfunction]
#[pyo3(signature = (class_, descriptor))]
pub(crate) fn describe_class(
    class_: &Bound<'_, PyType>,
    descriptor: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = class_.py();
    let pointer = class_.as_type_ptr();
    // SAFETY: attached; a type that is alive. Types of Python code may be changed, and have a
    // dictionary of their own.
    unsafe {
        if ffi::PyType_GetFlags(pointer) & ffi::Py_TPFLAGS_HEAPTYPE == 0 {
            return Err(PyTypeError::new_err(
                "only classes of Python code can be changed",
            ));
        }
        let names = Bound::from_borrowed_ptr(py, (*pointer).tp_dict);
        match descriptor {
            Some(descriptor) => names.set_item("__class__", descriptor)?,
            None => names.del_item("__class__")?,
        }
        ffi::PyType_Modified(pointer);
    }
    Ok(())
}
