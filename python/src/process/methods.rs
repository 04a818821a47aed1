//! The methods of `ProcessPool` that Python code calls.

use crate::future::object::Future;
use crate::interp::deferred_drop::drop_released;
use crate::interp::entry::check_keywords;
use crate::interp::fork::generation;
use crate::interp::{interned, process_errors};
use crate::process::map::{self, SpanIterator};
use crate::process::pool::{ProcessPool, Settings, Started};
use crate::process::shared::start_worker;
use crate::process::supervisor::Supervisor;
use crate::process::{direct, task};
use crate::stats::{Figures, figures};
use concurrent_futures::engine::PoolSettings;
use concurrent_futures::{OnWorkerDeath, SubmitError, TaskOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[pymethods]
impl ProcessPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::empty()
    }

    /// Keeps the settings of workers.
    #[pyo3(name = "_own")]
    fn own<'py>(this: &Bound<'py, Self>, task: Bound<'py, PyAny>) {
        drop(this.get().task.replace(this.as_any(), Some(task)));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.task.traverse(visit)
    }

    fn __clear__(&self) {
        // It is garbage, and so is what its workers would need: no more are started.
        drop(self.task.take());
    }

    /// Sets the pool up.
    #[pyo3(name = "_start")]
    #[allow(clippy::too_many_arguments, reason = "the executor's settings")]
    #[allow(clippy::fn_params_excessive_bools, reason = "the executor's settings")]
    fn start(
        &self,
        py: Python<'_>,
        workers: Py<PyAny>,
        max_workers: usize,
        max_tasks_per_child: Option<usize>,
        strict: bool,
        task_timeout: Option<f64>,
        memory_limit: Option<u64>,
        max_pending: Option<usize>,
        by_value: bool,
    ) -> PyResult<()> {
        if memory_limit == Some(0) {
            return Err(PyValueError::new_err("memory_limit must be greater than 0"));
        }
        let settings = PoolSettings {
            max_workers,
            max_tasks_per_child,
            max_pending,
            memory_limit,
            on_worker_death: if strict {
                OnWorkerDeath::Break
            } else {
                OnWorkerDeath::Isolate
            },
        };
        let mut options = TaskOptions::new();
        if let Some(limit) = time_limit(task_timeout)? {
            options = options.time_limit(limit);
        }
        let settings = Arc::new(Settings {
            pool: settings,
            options,
            by_value,
        });
        self.set_up(Started::new(settings, workers, py)?);
        Ok(())
    }

    /// Submits the call fn(*args, **kwargs); see `concurrent_futures.process`.
    #[pyo3(name = "_submit", signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        this: &Bound<'py, Self>,
        r#fn: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_keywords(kwargs)?;
        if !this.get().is_plain.load(Ordering::Acquire) {
            let py = this.py();
            let kwargs = kwargs.cloned().unwrap_or_else(|| PyDict::new(py));
            return this.call_method1(interned::submit_in_python(py), (r#fn, args, kwargs));
        }
        let options = this.get().started()?.options;
        Self::submit_call(this, r#fn, args, kwargs, options).map(Bound::into_any)
    }

    /// Leads `submit` to `_submit_in_python` from now on.
    #[pyo3(name = "_leave_submit_to_python")]
    fn leave_submit_to_python(&self) {
        self.is_plain.store(false, Ordering::Release);
    }

    /// Returns whether `submit` is native.
    #[pyo3(name = "_is_plain")]
    fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Acquire)
    }

    /// Returns the futures of tasks that are not done.
    #[pyo3(name = "_unfinished_futures")]
    fn unfinished_futures<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, Future>>> {
        let shared = self.shared()?;
        shared.check_fork()?;
        let mut futures = Vec::new();
        let mut show = |task| {
            // Direct calls have no futures.
            if task::is_future(task) {
                // SAFETY: the task is a future of ours, to which the pool refers meanwhile.
                futures.push(unsafe { Future::of(py, task) });
            }
        };
        shared.pool.show_unfinished(&mut show);
        Ok(futures)
    }

    /// Sets the number of workers that the pool may have.
    #[pyo3(name = "_allow_workers")]
    fn allow_workers(&self, number: usize) -> PyResult<()> {
        self.shared()?.pool.set_max_workers(number);
        Ok(())
    }

    /// Submits a call with a time limit and retries.
    #[pyo3(name = "_submit_with")]
    fn submit_with<'py>(
        this: &Bound<'py, Self>,
        timeout: Option<f64>,
        retries: u32,
        r#fn: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, Future>> {
        let mut options = this.get().started()?.options.retries(retries);
        if let Some(limit) = time_limit(timeout)? {
            options = options.time_limit(limit);
        }
        Self::submit_call(this, r#fn, args, Some(kwargs), options)
    }

    /// Returns a capsule by which another module calls the function with bytes and a number, without the interpreter. None
    /// if the pool cannot do that. The pool has begun.
    #[pyo3(name = "_direct_calls")]
    fn direct_calls<'py>(
        &self,
        r#fn: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyCapsule>>> {
        direct::offer(self.started()?, self.is_plain(), r#fn)
    }

    /// Calls a function for each item; see `map` of the executor.
    #[pyo3(name = "_map")]
    fn map<'py>(
        this: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        iterables: Bound<'py, PyTuple>,
        timeout: Option<&Bound<'py, PyAny>>,
        size: Option<usize>,
        buffersize: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, SpanIterator>> {
        map::map(this, r#fn, iterables, timeout, size, buffersize)
    }

    /// Counts workers that are to be there, and starts them.
    #[pyo3(name = "_start_workers")]
    fn start_workers(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let started = self.started()?;
        started.is_used.store(true, Ordering::Relaxed);
        let shared = &started.shared;
        let mut first = Ok(());
        // Each worker that was promised: an error must not keep the remaining workers from being counted
        // back.
        for _ in 0..shared.pool.want_workers(number) {
            first = first.and(start_worker(py, shared));
        }
        first
    }

    /// Returns the object that the supervisor's thread calls.
    #[pyo3(name = "_supervisor")]
    fn supervisor(&self) -> PyResult<Supervisor> {
        Ok(Supervisor::new(Arc::clone(self.shared()?)))
    }

    /// Refuses tasks from now on. With `cancel_futures`, cancels the pending tasks.
    #[pyo3(name = "_close")]
    fn close(&self, py: Python<'_>, cancel_futures: bool) -> PyResult<()> {
        let started = self.started()?;
        started.is_used.store(true, Ordering::Relaxed);
        if started.shared.generation == generation() {
            started.close(py, cancel_futures);
            drop_released(py);
        }
        Ok(())
    }

    /// Ends all workers by a signal: SIGKILL or SIGTERM.
    #[pyo3(name = "_end_workers")]
    fn end_workers(&self, py: Python<'_>, kill: bool) -> PyResult<()> {
        let started = self.started()?;
        let shared = &started.shared;
        shared.check_fork()?;
        started.is_used.store(true, Ordering::Relaxed);
        py.detach(|| shared.pool.end_workers(kill));
        Ok(())
    }

    /// Returns whether the calling thread is one that the end of the pool waits for.
    #[pyo3(name = "_calls_back")]
    fn calls_back(&self) -> PyResult<bool> {
        Ok(self.shared()?.is_own_thread())
    }

    /// Returns the number of tasks that no worker has.
    #[pyo3(name = "_pending")]
    fn pending(&self) -> PyResult<usize> {
        let shared = self.shared()?;
        shared.check_fork()?;
        Ok(shared.pool.pending() + shared.feeder.left())
    }

    /// Returns the figures of the pool.
    #[pyo3(name = "_stats")]
    fn stats(&self) -> PyResult<Figures> {
        let shared = self.shared()?;
        shared.check_fork()?;
        Ok(figures(&shared.pool.stats(shared.feeder.left())))
    }

    /// Returns the number of workers that have nothing to do.
    #[pyo3(name = "_idle")]
    fn idle(&self) -> PyResult<usize> {
        let shared = self.shared()?;
        shared.check_fork()?;
        Ok(shared.pool.idle_workers())
    }

    /// Returns the number of tasks that are not done.
    #[pyo3(name = "_unfinished")]
    fn unfinished(&self) -> PyResult<usize> {
        let shared = self.shared()?;
        shared.check_fork()?;
        Ok(shared.pool.unfinished() + shared.feeder.left())
    }

    /// Returns the number of tasks that were ever submitted.
    #[pyo3(name = "_submitted")]
    fn submitted(&self) -> PyResult<usize> {
        Ok(self.started()?.submitted.load(Ordering::Relaxed))
    }

    /// Returns whether the pool accepts no more tasks.
    #[pyo3(name = "_is_closed")]
    fn is_closed(&self) -> PyResult<bool> {
        let shared = self.shared()?;
        Ok(shared.generation != generation() || shared.refusal().is_some())
    }

    /// Returns False, or the reason why the pool is broken.
    #[pyo3(name = "_what_broke")]
    fn broken<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.shared()?.pool.refusal() {
            Some(SubmitError::Broken(_)) => {
                Ok(process_errors::BROKEN.into_pyobject(py)?.into_any())
            }
            _ => Ok(false.into_pyobject(py)?.to_owned().into_any()),
        }
    }
}

/// Returns a time limit in seconds.
fn time_limit(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(limit) if !limit.is_zero() => Ok(Some(limit)),
        _ if seconds > 0.0 => Ok(None), // As good as no limit.
        _ => Err(PyValueError::new_err(
            "the time limit must be greater than 0",
        )),
    }
}
