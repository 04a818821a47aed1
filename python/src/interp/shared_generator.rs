//! Generators that threads may share.
//!
//! A generator belongs to one thread at a time. The interpreter refuses a thread that comes while another is in the
//! generator; free-threaded builds do so from CPython 3.15 on. Before, two threads that ask a generator for its next
//! item at the same time end the process. There, the package puts this object around its generators. It refuses the
//! thread that comes too late with the interpreter's own error, and otherwise is like the generator.
//!
//! # Invariants
//! 1. A thread that calls the generator has taken it, and gives it back afterwards. No thread waits for it.

use crate::interp::try_lock_cell::{Exclusive, Taken};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, ffi};

/// Whether the interpreter's own generators may be shared by threads.
pub(crate) const GENERATORS_ARE_SAFE: bool = cfg!(any(not(Py_GIL_DISABLED), Py_3_15));

/// The interpreter's message about a generator that is in use.
pub(crate) const EXECUTING: &str = "generator already executing";

/// A generator, for one thread at a time.
#[pyclass(module = "concurrent_futures._engine", frozen, weakref)]
pub(crate) struct SharedGenerator {
    generator: Py<PyAny>,
    turn: Exclusive<()>,
}

impl SharedGenerator {
    fn take(&self, py: Python<'_>) -> PyResult<Taken<'_, ()>> {
        self.turn
            .take(py)
            .ok_or_else(|| PyValueError::new_err(EXECUTING))
    }

    /// Returns what the generator's slot for the next item returns: null at its end, and with an exception. None if
    /// another thread is in the generator.
    pub(crate) fn resume(this: &Bound<'_, Self>) -> Option<*mut ffi::PyObject> {
        let shared = this.get();
        let _turn = shared.turn.take(this.py())?;
        let generator = shared.generator.as_ptr();
        // SAFETY: attached, and the object is alive. The interpreter calls the slot in the same way.
        unsafe {
            (*ffi::Py_TYPE(generator))
                .tp_iternext
                .map(|next| next(generator))
        }
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _turn = self.take(py)?;
        self.generator.bind(py).call_method1(method, arguments)
    }
}

#[pymethods]
impl SharedGenerator {
    #[new]
    fn new(generator: Py<PyAny>) -> Self {
        Self {
            generator,
            turn: Exclusive::new(()),
        }
    }

    fn __iter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let _turn = self.take(py)?;
        let generator = self.generator.bind(py).try_iter()?;
        generator.into_iter().next().transpose()
    }

    /// Resumes the generator with a value.
    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.call(py, "send", (value,))
    }

    /// Raises an exception in the generator.
    #[pyo3(signature = (*exception))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        exception: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(py, "throw", exception)
    }

    /// Ends the generator.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.call(py, "close", ())
    }

    #[getter]
    fn gi_running(&self, py: Python<'_>) -> bool {
        self.turn.take(py).is_none()
    }

    /// Returns the generator's frame; none while a thread is in the generator.
    #[getter]
    fn gi_frame<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let turn = self.turn.take(py);
        turn.map(|_| self.generator.bind(py).getattr("gi_frame"))
            .transpose()
    }

    /// Returns the iterator that the generator yields from; none while a thread is in the generator.
    #[getter]
    fn gi_yieldfrom<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let turn = self.turn.take(py);
        turn.map(|_| self.generator.bind(py).getattr("gi_yieldfrom"))
            .transpose()
    }

    #[getter]
    fn gi_suspended(&self, py: Python<'_>) -> PyResult<bool> {
        let turn = self.turn.take(py);
        let is_suspended = turn.map(|_| self.generator.bind(py).getattr("gi_suspended"));
        is_suspended.map_or(Ok(false), |is_suspended| is_suspended?.is_truthy())
    }

    /// Returns the class that `isinstance` looks at besides the type.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.generator.bind(py).get_type().into_any()
    }

    /// Returns the other attributes of the generator: its names and its code.
    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.generator.bind(py).getattr(name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.generator
            .bind(py)
            .repr()
            .map(|text| text.to_string_lossy().into_owned())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.generator)
    }
}
