//! The body of the thread that supervises the workers of a pool.

use crate::interp::deferred_drop::drop_released;
use crate::interp::fork::generation;
use crate::interp::{attach, interned};
use crate::process::shared::Shared;
use pyo3::prelude::*;
use std::sync::Arc;

/// The body of a pool's supervisor thread.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Supervisor(Arc<Shared>);

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

#[pymethods]
impl Supervisor {
    /// Supervises the workers, up to the end of the pool.
    fn run(&self, py: Python<'_>) {
        let on_the_way = py.detach(|| {
            self.0.pool.supervise();
            self.0.feeder.end();
            self.0.opener.end();
            // After the last callback: a thread that waits for the supervisor waits for the callbacks, too.
            self.0.callbacks.end();
            self.0.pickling.segments.close();
            attach::come_back()
        });
        drop(on_the_way);
        drop_released(py);
        let workers = self.0.workers.bind(py);
        if let Err(error) = workers.call_method0(interned::let_go(py)) {
            error.write_unraisable(py, Some(workers));
        }
    }

    /// Finishes the pending tasks of the pool, and ends the pool.
    fn close(&self, py: Python<'_>) {
        if self.0.generation == generation() {
            self.0.close(py, false);
        }
    }
}
