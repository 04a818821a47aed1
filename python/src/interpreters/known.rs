//! The functions that a worker's interpreter has, so that a call need not send its function again.
//!
//! The standard library sends each function with each call: the code of a function that uses no global variables,
//! or else the function's name. Here the first call sends the function the same way, and the interpreter keeps
//! what arrived. Later calls use the kept function as long as sending the function would come to the same:
//! see [`Known::is_current`].

use crate::interpreters::inside::Kind;
use crate::pickle::by_name::Name;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyFunction, PyTuple, PyWeakrefReference};
use std::mem;
use std::ptr;

/// The number of functions that an interpreter keeps.
const MOST: usize = 64;

/// The functions that an interpreter has, by their places.
pub(super) struct KnownFunctions {
    known: Vec<Known>,
    /// The place of the function that was found last.
    last: usize,
    /// The place that is used next when all are.
    next: usize,
}

/// A function that was called before.
struct Known {
    /// The address of the function, while the reference shows that the function is alive.
    address: *mut ffi::PyObject,
    reference: Py<PyWeakrefReference>,
    sent: Sent,
}

/// The way in which calls of a function are to go.
pub(super) enum Sent {
    /// The interpreter has the function.
    Kept(Kind, Traits),
    /// The function cannot be kept: calls go the standard library's way.
    Not,
}

/// The traits of a function that decide how the standard library sends it.
pub(super) struct Traits {
    name: Option<Name>,
    /// Only for functions of Python.
    code: Option<CodeTraits>,
}

struct CodeTraits {
    code: Py<PyAny>,
    has_defaults: bool,
    names: Py<PyTuple>,
    /// The number of names in the code that are global variables. A function that uses a global variable is
    /// sent by its name.
    globals: usize,
}

impl CodeTraits {
    fn of(function: &Bound<'_, PyFunction>) -> PyResult<Self> {
        let code = function.getattr("__code__")?;
        let names = code.getattr("co_names")?.cast_into::<PyTuple>()?;
        Ok(Self {
            has_defaults: has_defaults(function),
            globals: count_globals(function, &names),
            names: names.unbind(),
            code: code.unbind(),
        })
    }

    fn is_current(&self, function: &Bound<'_, PyFunction>) -> bool {
        // SAFETY: attached; a function has its code, and lends it.
        let code = unsafe { ffi::PyFunction_GetCode(function.as_ptr()) };
        ptr::eq(code, self.code.as_ptr())
            && has_defaults(function) == self.has_defaults
            && count_globals(function, self.names.bind(function.py())) == self.globals
    }
}

/// Returns whether a function has default values.
fn has_defaults(function: &Bound<'_, PyFunction>) -> bool {
    // SAFETY: attached; a function, whose fields are objects or null.
    unsafe {
        let function = function.as_ptr().cast::<ffi::PyFunctionObject>();
        let (values, keywords) = ((*function).func_defaults, (*function).func_kwdefaults);
        !values.is_null() && ffi::PyTuple_Size(values) > 0
            || !keywords.is_null() && ffi::PyDict_Size(keywords) > 0
    }
}

fn count_globals(function: &Bound<'_, PyFunction>, names: &Bound<'_, PyTuple>) -> usize {
    // SAFETY: attached; a function, which has globals; keys are texts, so that no Python code runs, or the
    // exception is that of another key.
    unsafe {
        let globals = ffi::PyFunction_GetGlobals(function.as_ptr());
        let is_global = |name: &Borrowed<'_, '_, PyAny>| {
            let found = ffi::PyDict_Contains(globals, name.as_ptr());
            if found < 0 {
                ffi::PyErr_Clear();
            }
            found > 0
        };
        names.iter_borrowed().filter(is_global).count()
    }
}

impl Traits {
    /// Returns the traits of a function; none if only the standard library can tell how it is sent.
    pub(super) fn of(function: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let code = function.cast_exact::<PyFunction>();
        let name = Name::of(function)?;
        if code.is_err() && name.is_none() {
            return Ok(None);
        }
        let code = code.ok().map(CodeTraits::of).transpose()?;
        Ok(Some(Self { name, code }))
    }

    fn are_current(&self, function: &Bound<'_, PyAny>, kind: Kind) -> bool {
        let code = match (&self.code, function.cast_exact::<PyFunction>()) {
            (Some(code), Ok(function)) => code.is_current(function),
            (code, _) => code.is_none(),
        };
        let is_named = || {
            let name = self.name.as_ref();
            name.is_some_and(|name| name.is_name_of(function) && name.is_found(function))
        };
        code && (kind == Kind::Code || is_named())
    }
}

impl Known {
    fn is(&self, function: &Bound<'_, PyAny>) -> bool {
        ptr::eq(self.address, function.as_ptr())
            && self
                .reference
                .bind(function.py())
                .upgrade()
                .is_some_and(|alive| alive.is(function))
    }

    /// Returns whether the standard library would send the function now as it was sent: by its code, or by its
    /// name, which stands for it.
    fn is_current(&self, function: &Bound<'_, PyAny>) -> bool {
        match &self.sent {
            Sent::Kept(kind, traits) => traits.are_current(function, *kind),
            Sent::Not => true,
        }
    }
}

/// The place of a function, and whether the interpreter has it.
pub(super) enum Found {
    /// The interpreter has the function at this place.
    Kept(usize),
    /// The function cannot be kept.
    Not,
    /// The function is to be sent first, and then noted at this place.
    Unsent(usize),
}

impl KnownFunctions {
    pub(super) const fn new() -> Self {
        Self {
            known: Vec::new(),
            last: 0,
            next: 0,
        }
    }

    /// Finds a function.
    pub(super) fn find(&mut self, function: &Bound<'_, PyAny>) -> Found {
        let is_last = self.known.get(self.last);
        let place = if is_last.is_some_and(|known| known.is(function)) {
            Some(self.last)
        } else {
            self.known.iter().position(|known| known.is(function))
        };
        let Some((place, known)) = place.and_then(|place| Some((place, self.known.get(place)?)))
        else {
            return Found::Unsent(self.vacancy());
        };
        self.last = place;
        match &known.sent {
            _ if !known.is_current(function) => Found::Unsent(place),
            Sent::Kept(..) => Found::Kept(place),
            Sent::Not => Found::Not,
        }
    }

    fn vacancy(&mut self) -> usize {
        if self.known.len() < MOST {
            return self.known.len();
        }
        let place = self.next;
        self.next = (place + 1) % MOST;
        place
    }

    /// Notes how a function was sent. Returns what was known at that place before, which is to be dropped where
    /// Python code may run.
    pub(super) fn note(
        &mut self,
        place: usize,
        function: &Bound<'_, PyAny>,
        sent: Sent,
    ) -> PyResult<impl Sized + use<>> {
        let known = Known {
            address: function.as_ptr(),
            reference: PyWeakrefReference::new(function)?.unbind(),
            sent,
        };
        Ok(if let Some(before) = self.known.get_mut(place) {
            Some(mem::replace(before, known))
        } else {
            self.known.push(known);
            None
        })
    }
}
