//! The names of functions and errors in recordings.
//!
//! No foreign code runs to make a name: a program must not behave differently because it is recorded. A bound method or a
//! partial object has the name of its function. Another object that is no function has the name of its type. The text of an
//! error has the arguments that are texts or numbers. The `repr` of a call's arguments is foreign code, and made only if
//! the recording asks for it.
//!
//! A name is looked up once for each code object, which is kept as long as something is recorded: its address stands
//! for the name.

#[cfg(unix)]
use crate::interp::fork::kept_across_forks;
use crate::interp::stdlib;
use concurrent_futures::FutureId;
use concurrent_futures::engine::recorder::{self, Name};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyFloat, PyFunction, PyInt, PyString, PyTuple, PyType};
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The objects whose addresses stand for names, and the session of recordings that they are kept for.
struct Kept {
    epoch: u64,
    objects: Option<HashMap<usize, Py<PyAny>>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    epoch: 0,
    objects: None,
});

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

// The child of a fork drops the objects when it records something itself.
#[cfg(unix)]
kept_across_forks!(kept(), Kept, |_| {});

/// Keeps an object as long as something is recorded.
fn keep(object: &Bound<'_, PyAny>) {
    let mut before = None;
    let mut kept = kept();
    let epoch = recorder::epoch();
    if kept.epoch != epoch {
        kept.epoch = epoch;
        before = kept.objects.take();
    }
    let objects = kept.objects.get_or_insert_default();
    objects
        .entry(object.as_ptr().addr())
        .or_insert_with(|| object.clone().unbind());
    drop(kept);
    // Foreign code may run.
    drop(before);
}

/// Returns the name of an object's type.
fn type_name(object: *mut ffi::PyObject) -> String {
    // SAFETY: attached; the object is alive, and so its type, whose name is a text of C.
    let name = unsafe { CStr::from_ptr((*ffi::Py_TYPE(object)).tp_name) };
    name.to_string_lossy().into_owned()
}

/// Returns the name of a function, method or the like; the attributes of these exact types run no foreign code.
fn qualified(function: &Bound<'_, PyAny>) -> String {
    let text = |name: &str| {
        let value = function.getattr(name).ok()?;
        let text = value.cast_exact::<PyString>().ok()?;
        Some(text.to_string_lossy().into_owned())
    };
    let name = text("__qualname__").unwrap_or_else(|| type_name(function.as_ptr()));
    match text("__module__") {
        Some(module) if module != "__main__" && module != "builtins" => format!("{module}.{name}"),
        _ => name,
    }
}

unsafe extern "C" {
    static mut PyMethod_Type: ffi::PyTypeObject;
}

/// Returns whether an object is exactly a bound method, whose attributes run no foreign code.
fn is_method(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; the object is alive, and so its type.
    let kind = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    kind == &raw mut PyMethod_Type
}

/// Returns the index of the name of what a call calls.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> u32 {
    let py = function.py();
    if function.is_exact_instance_of::<PyFunction>() {
        // SAFETY: attached; a function has a code object, which is borrowed from it.
        let code = unsafe { ffi::PyFunction_GetCode(function.as_ptr()) };
        return recorder::name(code.addr(), || {
            // SAFETY: attached; the function keeps its code meanwhile.
            keep(&unsafe { Bound::from_borrowed_ptr(py, code) });
            qualified(function)
        });
    }
    if function.is_instance_of::<PyCFunction>() {
        // SAFETY: attached; the object is a function of C.
        let address = unsafe { ffi::PyCFunction_GetFunction(function.as_ptr()) };
        let key = address.map_or(0, |address| address as usize);
        return recorder::name(key, || qualified(function));
    }
    // SAFETY: attached; the object is alive, and so its type.
    if unsafe { ffi::Py_TYPE(function.as_ptr()) } == &raw mut ffi::PyMethodDescr_Type {
        return recorder::name(function.as_ptr().addr(), || {
            keep(function);
            qualified(function)
        });
    }
    match innermost(function) {
        Some(inner) => name_of(&inner),
        None => recorder::text(&name_of_object(function)),
    }
}

/// Returns the function that a bound method or a partial object calls in the end; none for other objects.
fn innermost<'py>(function: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    /// A program may make a partial object that calls itself.
    const DEEPEST: usize = 8;
    let mut inner = called_by(function)?;
    for _ in 0..DEEPEST {
        match called_by(&inner) {
            Some(next) => inner = next,
            None => return Some(inner),
        }
    }
    None
}

/// Returns what a bound method or a partial object calls; none for other objects. Runs no foreign code.
fn called_by<'py>(function: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if is_method(function) {
        function.getattr("__func__").ok()
    } else if stdlib::partial(function.py()).is_ok_and(|kind| function.get_type().is(kind)) {
        function.getattr("func").ok()
    } else {
        None
    }
}

/// Returns the name of an object that is no function: that of its type, or its own if it is a type.
fn name_of_object(object: &Bound<'_, PyAny>) -> String {
    if !object.is_instance_of::<PyType>() {
        return type_name(object.as_ptr());
    }
    // SAFETY: attached; the object is a type, whose name is a text of C.
    let name = unsafe { CStr::from_ptr((*object.as_ptr().cast::<ffi::PyTypeObject>()).tp_name) };
    name.to_string_lossy().into_owned()
}

/// Returns the name of what a call calls, as recordings have it. Runs no foreign code.
pub(crate) fn text_of_callee(function: &Bound<'_, PyAny>) -> String {
    let inner = innermost(function);
    let function = inner.as_ref().unwrap_or(function);
    // SAFETY: attached; the object is alive, and so its type.
    let is_descriptor =
        unsafe { ffi::Py_TYPE(function.as_ptr()) == &raw mut ffi::PyMethodDescr_Type };
    if is_descriptor
        || function.is_exact_instance_of::<PyFunction>()
        || function.is_instance_of::<PyCFunction>()
    {
        qualified(function)
    } else {
        name_of_object(function)
    }
}

/// Records that a call was submitted.
pub(crate) fn note_submitted(
    future: FutureId,
    pool: u32,
    function: &Bound<'_, PyAny>,
    arguments: Option<(&Bound<'_, PyTuple>, Option<&Bound<'_, PyDict>>)>,
) {
    let name = Name::Index(name_of(function));
    let shown = match (recorder::argument_length(), arguments) {
        (0, _) | (_, None) => 0,
        (length, Some((arguments, keywords))) => {
            recorder::text(&shown(arguments, keywords, length))
        }
    };
    recorder::submitted_with(future, pool, name, 0, shown);
}

/// Returns the `repr` of the arguments, cut to a length.
fn shown(
    arguments: &Bound<'_, PyTuple>,
    keywords: Option<&Bound<'_, PyDict>>,
    length: usize,
) -> String {
    let repr = |value: &Bound<'_, PyAny>| match value.repr() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("<{}>", type_name(value.as_ptr())),
    };
    let mut parts: Vec<String> = arguments.iter().map(|value| repr(&value)).collect();
    for (key, value) in keywords.into_iter().flatten() {
        parts.push(format!("{key}={}", repr(&value)));
    }
    let text = parts.join(", ");
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns an exception as text, without running foreign code.
pub(crate) fn text_of(exception: &Bound<'_, PyAny>) -> String {
    let name = type_name(exception.as_ptr());
    let name = name.strip_prefix("builtins.").unwrap_or(&name);
    // SAFETY: attached; the object is an exception, which has its arguments, or null, in this field.
    let arguments = unsafe {
        let object = exception.as_ptr().cast::<ffi::PyBaseExceptionObject>();
        Bound::from_borrowed_ptr_or_opt(exception.py(), (*object).args)
    };
    let Some(arguments) = arguments.and_then(|arguments| arguments.cast_into::<PyTuple>().ok())
    else {
        return name.to_owned();
    };
    let is_plain = |value: &Bound<'_, PyAny>| {
        value.is_exact_instance_of::<PyString>()
            || value.is_exact_instance_of::<PyInt>()
            || value.is_exact_instance_of::<PyFloat>()
    };
    let plain = arguments.iter().filter(is_plain);
    // A number may have more digits than the interpreter writes.
    let text = |value: Bound<'_, PyAny>| match value.str() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => "…".to_owned(),
    };
    let texts: Vec<String> = plain.map(text).collect();
    match &texts[..] {
        [] => name.to_owned(),
        texts => format!("{name}: {}", texts.join(", ")),
    }
}
