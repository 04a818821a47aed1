//! What an executor of processes, its futures and its supervisor have in common.

use crate::callbacks::{Callbacks, CallbacksThread};
use crate::errands::Errands;
use crate::future::Future;
use crate::name;
use crate::pickling::{Functions, Pickling};
use crate::process::generation;
use crate::process_errors;
use crate::remote::Unopened;
use concurrent_futures::BrokenExecutor;
use concurrent_futures::engine::ProcessPool;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::sync::Arc;

/// How many bytes of shared memory a pool keeps for long arguments.
pub(crate) const KEPT: usize = 64 * 1024 * 1024;
/// How many tasks with long buffers may be there at a time; those of others go through the
/// stream.
pub(crate) const FILES: usize = 64;

/// What an executor, its futures and its supervisor share.
pub(crate) struct Shared {
    pub(crate) pool: ProcessPool,
    pub(crate) functions: Functions,
    /// Of forks: in another one, the pool is not to be touched.
    pub(crate) generation: usize,
    pub(crate) pickling: Pickling,
    pub(crate) callbacks: Arc<Callbacks>,
    /// Unpickles answers.
    pub(crate) opener: Arc<Errands<Unopened>>,
    /// `concurrent_futures.process.Workers`.
    pub(crate) workers: Py<PyAny>,
}

impl Shared {
    /// An answer cannot be unpickled: breaks the pool, if that is its way. Returns what the future
    /// raises.
    pub(crate) fn unpickling_failed(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if !self.pool.is_strict() {
            return error;
        }
        let raised = process_errors::broken_by(py, &error);
        if self.generation == generation() {
            self.pool.break_with(&BrokenExecutor::new(Arc::new(error)));
        }
        raised
    }

    /// Has the callbacks of a future called that is done, by the thread for that.
    pub(crate) fn call_back(&self, future: &Bound<'_, Future>) {
        let py = future.py();
        self.callbacks
            .call(future, |thread| self.start_callbacks(py, thread));
    }

    /// Has a future made done that was claimed and has its outcome, together with that.
    pub(crate) fn finish(&self, future: &Bound<'_, Future>) {
        let py = future.py();
        self.callbacks
            .finish(future, |thread| self.start_callbacks(py, thread));
    }

    /// Has answers unpickled that were kept for it.
    pub(crate) fn start_opener(&self, py: Python<'_>) {
        self.opener.start(py, |thread| {
            let workers = self.workers.bind(py);
            let arguments = (thread, name::unpickler(py));
            workers
                .call_method1(name::start_errands(py), arguments)
                .map(drop)
        });
    }

    /// Errands have ended, and there are no others of their kind.
    pub(crate) fn settled(&self, py: Python<'_>) {
        if self.is_of_this_process() {
            py.detach(|| self.pool.settled());
        }
    }

    /// Whether the calling thread is one that the end of the pool waits for.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.callbacks.is_current() || self.opener.is_current()
    }

    fn start_callbacks(&self, py: Python<'_>, thread: CallbacksThread) -> PyResult<()> {
        let workers = self.workers.bind(py);
        workers
            .call_method1(name::start_callbacks(py), (thread,))
            .map(drop)
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    pub(crate) fn check_fork(&self) -> PyResult<()> {
        if self.is_of_this_process() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "this ProcessPoolExecutor belongs to the process that this one is a fork of: \
             make another one",
        ))
    }
}
