//! Functions and classes by their names, as a pickler refers to them.
//!
//! A name says where a function is now. The caller checks the name for each call, and the worker looks the
//! name up for each call. A function that was replaced meanwhile is found or refused as `pickle` finds or
//! refuses it.

use crate::interp::{interned, stdlib};
use crate::pickle::seen::LastSeen;
use pyo3::exceptions::{PyAttributeError, PyKeyboardInterrupt, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyFunction, PyModule, PyString, PyType};
use std::ptr;

/// The module of a function, and its name in there, which may have dots.
pub(crate) struct Name {
    module: Py<PyString>,
    qualified: Py<PyString>,
    /// The place where the name was last found.
    seen: LastSeen,
}

impl Name {
    fn new(module: Py<PyString>, qualified: Py<PyString>) -> Self {
        Self {
            module,
            qualified,
            seen: LastSeen::default(),
        }
    }

    /// Returns the name by which `pickle` refers to a function or class; none if `pickle` may do something
    /// else. Runs no Python code except code that computes attributes of classes.
    pub(crate) fn of(function: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = function.py();
        let kind = function.get_type();
        let is_name = if kind.is(py.get_type::<PyFunction>()) || kind.is(py.get_type::<PyType>()) {
            true
        } else if kind.is(py.get_type::<PyCFunction>()) {
            let owner = function.getattr(interned::self_(py))?;
            owner.is_exact_instance_of::<PyModule>()
                && !stdlib::copyreg_table(py)?.contains(&kind)?
        } else {
            false
        };
        if !is_name {
            return Ok(None);
        }
        let module = function.getattr(interned::module(py))?;
        let qualified = function.getattr(interned::qualname(py))?;
        // The pickler looks for functions whose names are not exact texts.
        let (Ok(module), Ok(qualified)) = (
            module.cast_into_exact::<PyString>(),
            qualified.cast_into_exact::<PyString>(),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self::new(module.unbind(), qualified.unbind())))
    }

    /// Returns whether the name is still that of the function.
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
        names_of(function, |module, qualified| {
            is_same(self.module.bind(py), module) && is_same(self.qualified.bind(py), qualified)
        })
    }

    /// Returns whether the function is found under its name, as far as the variables of loaded modules tell.
    /// Runs no Python code.
    pub(crate) fn is_found(&self, function: &Bound<'_, PyAny>) -> bool {
        if self.seen.is(function) {
            return true;
        }
        let found = self.variable(function.py());
        found.is_some_and(|found| found.is(function))
    }

    /// Returns the variable of a loaded module that has the name. Runs no Python code.
    fn variable<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if let Some(found) = self.seen.object(py) {
            return Some(found);
        }
        self.seen.forget();
        // SAFETY: attached. The interpreter keeps the dictionary of modules to its end.
        let modules = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) };
        let modules = modules?.cast_into_exact::<PyDict>().ok()?;
        let module = item_of(&modules, self.module.bind(py))?;
        let variables = module.cast_into_exact::<PyModule>().ok()?.dict();
        let found = item_of(&variables, self.qualified.bind(py))?;
        // SAFETY: the one is the interpreter's dictionary of modules, the other that of one of its modules. The
        // second refers to the object: with an interpreter lock, nothing has run meanwhile.
        unsafe { self.seen.note(&modules, &variables, &found) };
        Some(found)
    }

    /// Returns whether the name stands for the function. Runs Python code if necessary.
    ///
    /// # Errors
    /// `KeyboardInterrupt`.
    pub(crate) fn stands_for(&self, function: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = function.py();
        if self.is_found(function) {
            return Ok(true);
        }
        match self.find(py) {
            Ok(found) => Ok(found.is(function)),
            Err(error) if is_interrupt(py, &error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Finds the object that has the name, as unpickling does.
    ///
    /// # Errors
    /// The exception of importing the module, or of looking for the attribute.
    pub(crate) fn find<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let name = self.qualified.bind(py);
        if let Some(found) = self.variable(py) {
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

    /// Returns the name as bytes; none if the name has characters that cannot be encoded.
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

    /// Reads a name that [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub(crate) fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let (module, qualified) = read(bytes)
            .ok_or_else(|| PyRuntimeError::new_err("the name of the function is garbled"))?;
        Ok(Self::new(
            PyString::intern(py, module).unbind(),
            PyString::intern(py, qualified).unbind(),
        ))
    }
}

/// Returns the module and the qualified name, of the bytes that [`Name::to_bytes`] has written.
pub(crate) fn read(bytes: &[u8]) -> Option<(&str, &str)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    let (module, qualified) = rest.split_at_checked(length)?;
    Some((
        str::from_utf8(module).ok()?,
        str::from_utf8(qualified).ok()?,
    ))
}

/// Returns the value of a key. Runs no Python code if the dictionary has no keys but texts.
fn item_of<'py>(
    dictionary: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> Option<Bound<'py, PyAny>> {
    let mut found = ptr::null_mut();
    // SAFETY: attached; a dictionary, and a key. The function returns a new reference, or null.
    unsafe {
        let (dictionary, key) = (dictionary.as_ptr(), key.as_ptr());
        if ffi::compat::PyDict_GetItemRef(dictionary, key, &raw mut found) < 0 {
            // By a key that is no text, and compares itself.
            ffi::PyErr_Clear();
        }
    }
    // SAFETY: as above.
    unsafe { Bound::from_owned_ptr_or_opt(dictionary.py(), found) }
}

/// Calls `look` with the names of the module and of the function in there, or null.
fn names_of(
    function: &Bound<'_, PyAny>,
    look: impl FnOnce(*mut ffi::PyObject, *mut ffi::PyObject) -> bool,
) -> bool {
    let py = function.py();
    if cfg!(Py_GIL_DISABLED) {
        // Another thread may set other names, which frees the former ones.
        let of = |name| function.getattr(name).ok();
        let (module, qualified) = (of(interned::module(py)), of(interned::qualname(py)));
        let pointer =
            |name: &Option<Bound<'_, PyAny>>| name.as_ref().map_or(ptr::null_mut(), Bound::as_ptr);
        return look(pointer(&module), pointer(&qualified));
    }
    let function = function.as_ptr().cast::<ffi::PyFunctionObject>();
    // SAFETY: attached; of this type, whose fields are objects or null.
    let (module, qualified) = unsafe { ((*function).func_module, (*function).func_qualname) };
    look(module, qualified)
}

/// Returns whether a name is this object, or equals it.
fn is_same(name: &Bound<'_, PyString>, other: *mut ffi::PyObject) -> bool {
    if name.as_ptr() == other {
        return true;
    }
    // SAFETY: attached; null, or an object that its owner, or the caller, keeps meanwhile.
    let other = unsafe { Bound::from_borrowed_ptr_or_opt(name.py(), other) };
    let other = other.and_then(|other| other.cast_into_exact::<PyString>().ok());
    other.is_some_and(|other| PyAnyMethods::eq(other.as_any(), name).unwrap_or(false))
}

/// Returns whether pickling was interrupted, which is not an error of the call.
pub(crate) fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py)
}
