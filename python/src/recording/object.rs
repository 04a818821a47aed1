//! `Recording`, the object that `concurrent_futures.recording()` returns.

use concurrent_futures::RecordingOptions;
use concurrent_futures::engine::{self, recorder, set_program, write_page};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A recording of the tasks of this process's pools; see `concurrent_futures.recording`.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct Recording(concurrent_futures::Recording);

#[pymethods]
impl Recording {
    #[new]
    #[pyo3(signature = (*, records_per_thread = None, arguments = None, file = None, opened = None, program = None))]
    fn new(
        py: Python<'_>,
        records_per_thread: Option<usize>,
        arguments: Option<usize>,
        file: Option<PathBuf>,
        opened: Option<PathBuf>,
        program: Option<String>,
    ) -> PyResult<Self> {
        if let Some(path) = opened {
            return Ok(Self(
                py.detach(|| concurrent_futures::Recording::open(path))?,
            ));
        }
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
        let options = options.argument_length(arguments.unwrap_or(0));
        match program {
            Some(program) => set_program(program),
            None => tell_program(py),
        }
        Ok(Self(match file {
            Some(path) => py.detach(|| options.start_to_file(path))?,
            None => options.start(),
        }))
    }

    fn __enter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) {
        self.stop(py);
    }

    /// Stops the recording. A second call has no effect.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import recording
    /// >>> run = recording()
    /// >>> run.stop()
    /// >>> run.is_running
    /// False
    fn stop(&self, py: Python<'_>) {
        tell_program(py);
        py.detach(|| self.0.stop());
    }

    /// Whether the recording goes on: it was not stopped, and this process did not fork from its own.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import recording
    /// >>> with recording() as run:
    /// ...     run.is_running
    /// True
    #[getter]
    fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// The error that ended the writing of the recording's file, for example because the disk is full; or None.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import recording
    /// >>> with recording() as run:
    /// ...     run.error is None
    /// True
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let error = self.0.error()?;
        let copy = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error),
        };
        Some(PyErr::from(copy).into_value(py).into_any())
    }

    /// Returns the recording as JSON in Chrome's trace event format.
    ///
    /// A recording that is running is returned as it is now.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import ThreadPoolExecutor, recording
    /// >>> with ThreadPoolExecutor() as pool, recording() as run:
    /// ...     length = pool.submit(len, "page").result()
    /// >>> b'"len"' in run.trace()
    /// True
    fn trace<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        written(py, |out| self.0.write_trace(out))
    }

    /// Returns the recording as JSON with columns; docs/recording.md describes it.
    ///
    /// A recording that is running is returned as it is now.
    ///
    /// Examples
    /// --------
    /// >>> import json
    /// >>> from concurrent_futures import ThreadPoolExecutor, recording
    /// >>> with ThreadPoolExecutor() as pool, recording() as run:
    /// ...     length = pool.submit(len, "page").result()
    /// >>> json.loads(run.columns()).get("finished")
    /// True
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        written(py, |out| self.0.write_columns(out))
    }

    /// Returns the page: with the recording as it is now, or without it and with the address of updates.
    #[pyo3(name = "_page")]
    fn page<'py>(&self, py: Python<'py>, events: Option<String>) -> PyResult<Bound<'py, PyBytes>> {
        written(py, |out| {
            write_page(out, events.as_deref(), |out| match &events {
                Some(_) => Ok(()),
                None => self.0.write_columns(out),
            })
        })
    }

    /// Returns the updates of one live page, which remember so many tasks at most.
    #[pyo3(name = "_follow", signature = (most = None))]
    fn follow(&self, most: Option<usize>) -> Follower {
        Follower(Mutex::new(engine::Follower::new(&self.0, most)))
    }

    /// Saves the recording to a file whose name ends with .json: a trace, or columns if it ends with
    /// .columns.json.
    #[pyo3(name = "_save")]
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        tell_program(py);
        Ok(py.detach(|| self.0.save(&path))?)
    }
}

/// The updates of one live page.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Follower(Mutex<engine::Follower>);

#[pymethods]
impl Follower {
    /// Returns the next document as JSON, and whether another one follows.
    fn update<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        let mut goes_on = true;
        let document = written(py, |out| {
            let mut follower = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            goes_on = follower.write(out)?;
            Ok(())
        })?;
        Ok((document, goes_on))
    }
}

/// Tells the engine the name of the script, as the program's arguments have it now.
fn tell_program(py: Python<'_>) {
    let name = || -> PyResult<String> {
        let script: PathBuf = py.import("sys")?.getattr("argv")?.get_item(0)?.extract()?;
        let name = script.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    };
    // A program may have no arguments, or any object in their place.
    if let Ok(name) = name()
        && !name.is_empty()
    {
        set_program(if name == "-c" {
            "python -c".to_owned()
        } else {
            name
        });
    }
}

/// Returns what a function has written.
fn written(
    py: Python<'_>,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()> + Send,
) -> PyResult<Bound<'_, PyBytes>> {
    tell_program(py);
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
