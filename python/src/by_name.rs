//! Functions and classes by their names, as a pickler refers to them.
//!
//! A name says where a function is now. The caller looks at the name for each call, and the worker
//! looks the name up for each call: a function that was replaced meanwhile is found or refused as
//! `pickle` finds or refuses it.

use crate::name;
use crate::stdlib;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyFunction, PyModule, PyString, PyType};

/// The module of a function, and its name in there, which may have dots.
pub(crate) struct Name {
    module: Py<PyString>,
    qualified: Py<PyString>,
}

impl Name {
    /// Returns the name by which `pickle` refers to a function or class; none if `pickle` may do
    /// something else. Runs no Python code but what computes attributes of classes.
    pub(crate) fn of(function: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = function.py();
        let kind = function.get_type();
        let is_name = if kind.is(py.get_type::<PyFunction>()) || kind.is(py.get_type::<PyType>()) {
            true
        } else if kind.is(py.get_type::<PyCFunction>()) {
            let owner = function.getattr(name::self_(py))?;
            owner.is_exact_instance_of::<PyModule>()
                && !stdlib::copyreg_table(py)?.contains(&kind)?
        } else {
            false
        };
        if !is_name {
            return Ok(None);
        }
        let module = function.getattr(name::module(py))?;
        let qualified = function.getattr(name::qualname(py))?;
        // Others are for the pickler to look for.
        let (Ok(module), Ok(qualified)) = (
            module.cast_into_exact::<PyString>(),
            qualified.cast_into_exact::<PyString>(),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self {
            module: module.unbind(),
            qualified: qualified.unbind(),
        }))
    }

    /// Whether the name is still that of the function.
    pub(crate) fn is_name_of(&self, function: &Bound<'_, PyAny>) -> bool {
        let py = function.py();
        if function.is_exact_instance_of::<PyCFunction>() {
            return true;
        }
        if !function.is_exact_instance_of::<PyFunction>() {
            let now = Self::of(function).ok().flatten();
            return now.is_some_and(|now| {
                is_same(self.module.bind(py), now.module.as_ptr())
                    && is_same(self.qualified.bind(py), now.qualified.as_ptr())
            });
        }
        let function = function.as_ptr().cast::<ffi::PyFunctionObject>();
        // SAFETY: attached; of this type, whose fields are objects or null.
        let (module, qualified) = unsafe { ((*function).func_module, (*function).func_qualname) };
        is_same(self.module.bind(py), module) && is_same(self.qualified.bind(py), qualified)
    }

    /// Whether the function is what its name stands for, as far as that can be told without running
    /// Python code: by the variables of a module that is loaded.
    pub(crate) fn is_found(&self, function: &Bound<'_, PyAny>) -> bool {
        // SAFETY: attached, as `function` tells. The interpreter keeps the dictionary of modules, and the
        // others keep each other: nothing runs in between that could take one out. Keys and dictionaries
        // are exact, so that the look-ups run no Python code.
        unsafe {
            let modules = ffi::PyImport_GetModuleDict();
            if modules.is_null() || ffi::PyDict_CheckExact(modules) == 0 {
                return false;
            }
            let module = ffi::PyDict_GetItemWithError(modules, self.module.as_ptr());
            if module.is_null() || ffi::PyModule_CheckExact(module) == 0 {
                return false;
            }
            let variables = ffi::PyModule_GetDict(module);
            if variables.is_null() {
                return false;
            }
            let found = ffi::PyDict_GetItemWithError(variables, self.qualified.as_ptr());
            if found.is_null() && !ffi::PyErr_Occurred().is_null() {
                // By a key that is no text, and compares itself.
                ffi::PyErr_Clear();
            }
            found == function.as_ptr()
        }
    }

    /// Finds the object that has the name, as unpickling does.
    ///
    /// # Errors
    /// The exception of importing the module, or of looking for the attribute.
    pub(crate) fn find<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let name = self.qualified.bind(py);
        if let Some(module) = loaded(self.module.bind(py))
            && let Some(found) = variable(&module, name)
        {
            return Ok(found);
        }
        let mut found = py.import(self.module.bind(py))?.into_any();
        for part in name.to_str()?.split('.') {
            if part == "<locals>" {
                let message = format!("Can't get local attribute {name:?} on {found:?}");
                return Err(PyAttributeError::new_err(message));
            }
            found = match found.getattr(part) {
                Ok(inner) => inner,
                Err(error) if error.is_instance_of::<PyAttributeError>(py) => {
                    let message = format!("Can't get attribute {name:?} on {found:?}");
                    let other = PyAttributeError::new_err(message);
                    other.set_cause(py, Some(error));
                    return Err(other);
                }
                Err(error) => return Err(error),
            };
        }
        Ok(found)
    }

    /// Returns the name as bytes; none if it has characters that no text has.
    pub(crate) fn to_bytes(&self, py: Python<'_>) -> Option<Vec<u8>> {
        let module = self.module.bind(py).to_str().ok()?;
        let qualified = self.qualified.bind(py).to_str().ok()?;
        let length = u32::try_from(module.len()).ok()?;
        Some(
            [
                &length.to_ne_bytes(),
                module.as_bytes(),
                qualified.as_bytes(),
            ]
            .concat(),
        )
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub(crate) fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let read = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
            let (module, qualified) = rest.split_at_checked(length)?;
            Some((
                str::from_utf8(module).ok()?,
                str::from_utf8(qualified).ok()?,
            ))
        };
        let (module, qualified) =
            read().ok_or_else(|| PyRuntimeError::new_err("the name of the function is garbled"))?;
        Ok(Self {
            module: PyString::intern(py, module).unbind(),
            qualified: PyString::intern(py, qualified).unbind(),
        })
    }
}

/// Whether a name is this object, or equals it.
fn is_same(name: &Bound<'_, PyString>, other: *mut ffi::PyObject) -> bool {
    if name.as_ptr() == other {
        return true;
    }
    // SAFETY: attached; null, or an object that its owner keeps while no Python code runs.
    let other = unsafe { Bound::from_borrowed_ptr_or_opt(name.py(), other) };
    let other = other.and_then(|other| other.cast_into_exact::<PyString>().ok());
    other.is_some_and(|other| PyAnyMethods::eq(other.as_any(), name).unwrap_or(false))
}

/// The module of that name, if it is loaded and an ordinary one.
fn loaded<'py>(name: &Bound<'py, PyString>) -> Option<Bound<'py, PyModule>> {
    let py = name.py();
    // SAFETY: attached; the interpreter keeps the dictionary.
    let modules = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) }?;
    let modules = modules.cast_into_exact::<PyDict>().ok()?;
    let module = modules.get_item(name).ok()??;
    module.cast_into_exact::<PyModule>().ok()
}

/// The variable of that name of a module.
fn variable<'py>(
    module: &Bound<'py, PyModule>,
    name: &Bound<'py, PyString>,
) -> Option<Bound<'py, PyAny>> {
    module.dict().get_item(name).ok()?
}
