//! `Recording`, the object that `concurrent_futures.recording()` returns.

use concurrent_futures::RecordingOptions;
use concurrent_futures::engine::recorder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use std::io;
use std::path::PathBuf;

/// A recording of the tasks of this process's pools; see `concurrent_futures.recording`.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct Recording(concurrent_futures::Recording);

#[pymethods]
impl Recording {
    #[new]
    #[pyo3(signature = (*, records_per_thread = None, arguments = None))]
    fn new(records_per_thread: Option<usize>, arguments: Option<usize>) -> PyResult<Self> {
        let mut options = RecordingOptions::new();
        match records_per_thread {
            Some(0) => {
                return Err(PyValueError::new_err(
                    "records_per_thread must be greater than 0",
                ));
            }
            Some(records) => options = options.records_per_thread(records),
            None => {}
        }
        Ok(Self(
            options.argument_length(arguments.unwrap_or(0)).start(),
        ))
    }

    fn __enter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) {
        self.stop(py);
    }

    /// Stops the recording. A second call has no effect.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    /// Whether the recording goes on: it was not stopped, and this process did not fork from its own.
    #[getter]
    fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Returns the recording as JSON in Chrome's trace event format.
    fn trace<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        written(py, |out| self.0.write_trace(out))
    }

    /// Returns the recording as JSON with columns; docs/recording.md describes it.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        written(py, |out| self.0.write_columns(out))
    }

    /// Saves the recording to a file whose name ends with .json: a trace, or columns if it ends with
    /// .columns.json.
    #[pyo3(name = "_save")]
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        Ok(py.detach(|| self.0.save(&path))?)
    }
}

/// Returns what a function has written.
fn written(
    py: Python<'_>,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()> + Send,
) -> PyResult<Bound<'_, PyBytes>> {
    let bytes = py.detach(|| {
        let mut bytes = Vec::new();
        write(&mut bytes).map(|()| bytes)
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// Calls function(*args, **kwargs); tasks that the call submits have a label in recordings.
#[pyfunction]
#[pyo3(signature = (label, function, /, *args, **kwargs))]
pub(crate) fn call_with_label<'py>(
    label: &Bound<'py, PyString>,
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    if !recorder::is_on() {
        return function.call(args, kwargs);
    }
    let text = label.to_string_lossy();
    concurrent_futures::with_label(&text, || function.call(args, kwargs))
}
