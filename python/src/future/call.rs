//! The call that a future's task makes.

use crate::dump::running::Running;
use crate::interp::deferred_drop::has_no_finalizer;
use crate::interp::fork::may_handle_signals;
use crate::interp::interned;
use crate::interp::signals::hold;
use concurrent_futures::engine::Permit;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

/// A function, its arguments and keywords.
type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Bound<'py, PyDict>);

/// A function, its arguments, and its keywords if there are some.
type Started<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyTuple>,
    Option<Bound<'py, PyDict>>,
);

/// The call of a task.
pub(crate) struct Call {
    pub(crate) function: Py<PyAny>,
    pub(crate) arguments: Py<PyTuple>,
    pub(crate) keywords: Option<Py<PyDict>>,
    /// The context in which the function is called, if not in the worker's.
    pub(crate) context: Option<Py<PyAny>>,
    /// The task's permit, if pending tasks are bounded.
    pub(crate) permit: Option<Permit>,
}

impl Call {
    pub(super) fn call<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Self {
            function,
            arguments,
            keywords,
            context,
            permit,
        } = self;
        drop(permit);
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        let _entered = context
            .map(|context| Entered::enter(context.into_bound(py)))
            .transpose()?;
        let function = function.bind(py);
        let _running = Running::enter(function);
        function.call(arguments.bind(py), keywords)
    }

    /// Starts the call, which gives up its permit. Returns the function to call, its arguments and keywords,
    /// without the context.
    pub(crate) fn start(self, py: Python<'_>) -> Started<'_> {
        drop(self.permit);
        (
            self.function.into_bound(py),
            self.arguments.into_bound(py),
            self.keywords.map(|keywords| keywords.into_bound(py)),
        )
    }

    /// Returns the function to call, its arguments and keywords: in the call's context, if it has one.
    pub(crate) fn into_parts(self, py: Python<'_>) -> PyResult<Parts<'_>> {
        let keywords = self.keywords.map(|keywords| keywords.into_bound(py));
        let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
        let (function, arguments) = (self.function.into_bound(py), self.arguments.into_bound(py));
        let Some(context) = self.context else {
            return Ok((function, arguments, keywords));
        };
        let first = PyTuple::new(py, [function])?;
        let arguments = first.add(arguments)?.cast_into::<PyTuple>()?;
        Ok((
            context.bind(py).getattr(interned::run(py))?,
            arguments,
            keywords,
        ))
    }

    /// Drops a call that will not be made. An interrupt that came in a finalizer of its objects would be lost, so
    /// that signals are held if there may be one. In the standard library, a worker drops these objects, and no
    /// signal handler runs there.
    pub(crate) fn abandon(self, py: Python<'_>) {
        let held = (may_handle_signals() && self.may_have_finalizers(py)).then(|| hold(py));
        drop(self);
        drop(held);
    }

    /// Returns whether Python code may run when the call is dropped: it has the last references to an object that
    /// may have a finalizer.
    fn may_have_finalizers(&self, py: Python<'_>) -> bool {
        /// To count the references in longer calls takes longer than to hold signals.
        const MOST: usize = 8;
        let arguments = self.arguments.bind(py);
        if self.keywords.is_some() || self.context.is_some() || arguments.len() > MOST {
            return true;
        }
        let all = [self.function.bind_borrowed(py)];
        let all = || all.into_iter().chain(arguments.iter_borrowed());
        all().any(|object| {
            let own = all().filter(|other| other.is(object)).count();
            // SAFETY: attached; the call keeps its objects alive.
            unsafe {
                !has_no_finalizer(object.as_ptr())
                    && ffi::Py_REFCNT(object.as_ptr()).cast_unsigned() <= own
            }
        })
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.arguments)?;
        visit.call(&self.keywords)?;
        visit.call(&self.context)
    }
}

/// A context that the calling thread is in.
struct Entered<'py>(Bound<'py, PyAny>);

impl<'py> Entered<'py> {
    fn enter(context: Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached; the object is a context.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
            return Err(PyErr::fetch(context.py()));
        }
        Ok(Self(context))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: attached; the context was entered.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), None);
        }
    }
}
