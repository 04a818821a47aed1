//! The work of a pool's own thread, which another thread does if the system refuses the thread.

use crate::interp::signals::{hold, keep};
use crate::interp::{interned, stdlib};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::{Arc, Mutex, PoisonError};

/// The work; told whether to wait some time for more of it before the end.
type Work = Box<dyn FnOnce(Python<'_>, bool) + Send>;

/// Work that is done once, by the thread that is first to run it.
#[derive(Clone)]
pub(crate) struct ThreadBody(Arc<Mutex<Option<Work>>>);

impl ThreadBody {
    pub(crate) fn new(work: impl FnOnce(Python<'_>, bool) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(work)))))
    }

    /// Calls `start`, which starts a thread that runs the work. If that fails, logs the message and does the
    /// work in the calling thread.
    pub(crate) fn start(
        self,
        py: Python<'_>,
        message: &Bound<'_, PyString>,
        start: impl FnOnce(Self) -> PyResult<()>,
    ) {
        let held = hold(py);
        let started = start(self.clone());
        drop(held);
        if let Err(error) = started {
            if error.is_instance_of::<PyKeyboardInterrupt>(py) {
                // The thread may be there. The interrupt is for a caller that can be told.
                keep(error);
            } else {
                stdlib::log(py, interned::error(py), &error, (message,));
            }
            self.run(py, false);
        }
    }

    /// Does the work, unless another thread has begun it. With `lingers`, waits some time for more work.
    pub(crate) fn run(&self, py: Python<'_>, lingers: bool) {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work(py, lingers);
        }
    }
}
