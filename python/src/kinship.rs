//! The class that objects name as their own, by `__class__`.
//!
//! `isinstance` asks an object for its `__class__` when its type does not do. A class can say so in
//! its body only: to assign `cls.__class__` means the class's own class. `install` needs it for
//! classes that exist, those of the standard library.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

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
        if (*pointer).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE == 0 {
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
