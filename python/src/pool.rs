//! `ThreadPool`: what `concurrent_futures.ThreadPoolExecutor` is made of.

use crate::aside::aside;
use crate::future::Future;
use crate::host::{Shared, Threads};
use crate::interrupts::raise_kept;
use crate::map::{self, ResultIterator};
use crate::process;
use crate::stdlib;
use crate::task::Call;
use crate::waiting;
use concurrent_futures::engine::{Permit, Pool, WhenFull, is_worker_of};
use concurrent_futures::{BuildError, SubmitError};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The engine's pool and its settings.
struct Started {
    pool: Arc<Pool>,
    threads: Arc<Threads>,
    copy_context: bool,
}

/// A pool of threads, without the attributes that Python code adds.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct ThreadPool {
    /// Set by `_start`. What is replaced (in the child of a fork, or by a second
    /// `__init__`) is never freed, as others may be using it.
    started: AtomicPtr<Started>,
}

impl ThreadPool {
    fn started(&self) -> PyResult<&Started> {
        // SAFETY: see the field.
        unsafe { self.started.load(Ordering::Acquire).as_ref() }.ok_or_else(|| {
            PyRuntimeError::new_err("ThreadPoolExecutor.__init__ has not been called")
        })
    }

    /// Submits a call, and returns its future.
    pub(crate) fn submit_call<'py>(
        &self,
        py: Python<'py>,
        function: Bound<'py, PyAny>,
        arguments: Bound<'py, PyTuple>,
        keywords: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Future>> {
        let started = self.started()?;
        let pool = &started.pool;
        if pool.is_closed() {
            return Err(stdlib::submit_error(py, &pool.closed_error()));
        }
        if process::is_exiting() {
            return Err(stdlib::submit_error(py, &SubmitError::Shutdown));
        }
        let context = started.copy_context.then(|| copy_context(py)).transpose()?;
        let permit = started.permit(py)?;
        let call = Call {
            function: function.unbind(),
            arguments: arguments.unbind(),
            keywords: keywords.map(Bound::unbind),
            context,
            permit,
        };
        let future = Future::of_call(py, call)?;
        // SAFETY: made just now, and kept until we return.
        let submitted = unsafe { pool.submit_foreign(Future::enlist(&future, pool.home())) };
        raise_kept()?;
        match submitted {
            Ok(()) => Ok(future),
            Err(error) => Err(stdlib::submit_error(py, &error)),
        }
    }
}

impl Started {
    /// A place for one more pending task; none if they are not limited.
    fn permit(&self, py: Python<'_>) -> PyResult<Option<Permit>> {
        let Some(limit) = self.pool.limit() else {
            return Ok(None);
        };
        let when_full = if is_worker_of(self.pool.home()) {
            WhenFull::Exceed
        } else {
            WhenFull::Refuse
        };
        let home = self.pool.home();
        let acquired = match limit.acquire(home, when_full) {
            Err(SubmitError::Full) => waiting::detached(py, |stop| {
                limit.acquire(self.pool.home(), WhenFull::Wait(stop))
            })?,
            other => other,
        };
        match acquired {
            Ok(Some(permit)) => Ok(Some(permit)),
            Ok(None) => Err(stdlib::submit_error(py, &self.pool.closed_error())),
            Err(error) => Err(stdlib::submit_error(py, &error)),
        }
    }
}

fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(Bound::unbind)
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let started = *self.started.get_mut();
        if !started.is_null() {
            // SAFETY: made by `_start`; nobody else has a reference to the object.
            let started = unsafe { Box::from_raw(started) };
            // The workers finish what is pending.
            aside(|_| {
                started.pool.close();
                drop(started);
            });
        }
    }
}

#[pymethods]
impl ThreadPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            started: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Sets the pool up; also once more, in the child of a fork.
    #[pyo3(name = "_start")]
    #[allow(clippy::too_many_arguments, reason = "the executor's settings")]
    fn start(
        &self,
        max_workers: usize,
        thread_name_prefix: Py<PyAny>,
        initializer: Option<Py<PyAny>>,
        initargs: Py<PyTuple>,
        max_pending: Option<usize>,
        copy_context: bool,
        threads: Py<PySet>,
        workers: Py<PyAny>,
    ) -> PyResult<()> {
        let threads = Arc::new(Threads {
            name_prefix: thread_name_prefix,
            initializer,
            initargs,
            of_pool: threads,
            of_process: workers,
        });
        let host = Box::new(Shared(Arc::clone(&threads)));
        let pool =
            Pool::with_host(max_workers, max_pending, host).map_err(|error| match error {
                BuildError::ZeroPending => {
                    PyValueError::new_err("max_pending must be greater than 0")
                }
                error => PyValueError::new_err(error.to_string()),
            })?;
        process::note(&pool);
        let started = Box::new(Started {
            pool,
            threads,
            copy_context,
        });
        self.started
            .store(Box::into_raw(started), Ordering::Release);
        Ok(())
    }

    /// Submits the call fn(*args, **kwargs), and returns its Future at once.
    ///
    /// With `max_pending`, it waits for room first. Raises RuntimeError after a shutdown,
    /// BrokenThreadPool if an initializer has failed.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    pub(crate) fn submit<'py>(
        &self,
        py: Python<'py>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Future>> {
        if let Some(kwargs) = &kwargs
            && !kwargs
                .keys()
                .iter()
                .all(|key| key.is_instance_of::<PyString>())
        {
            return Err(PyTypeError::new_err("keywords must be strings"));
        }
        self.submit_call(py, r#fn, args, kwargs)
    }

    /// Calls fn for the items of the iterables, and returns an iterator over the results.
    #[pyo3(name = "_map")]
    fn map<'py>(
        this: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        iterables: Bound<'py, PyTuple>,
        timeout: Option<&Bound<'py, PyAny>>,
        buffersize: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, ResultIterator>> {
        map::map(this, r#fn, iterables, timeout, buffersize)
    }

    /// Refuses tasks from now on.
    #[pyo3(name = "_close")]
    fn close(&self) -> PyResult<()> {
        self.started()?.pool.close();
        Ok(())
    }

    /// Cancels all pending tasks.
    #[pyo3(name = "_cancel_pending")]
    fn cancel_pending(&self) -> PyResult<()> {
        self.started()?.pool.cancel_pending();
        Ok(())
    }

    /// Waits until the pool has no threads, and is starting none.
    #[pyo3(name = "_wait_for_threads")]
    fn wait_for_threads(&self, py: Python<'_>) -> PyResult<()> {
        let pool = &self.started()?.pool;
        match waiting::detached(py, |stop| pool.wait_for_threads(stop))? {
            Ok(_) => Ok(()),
            Err(deadlock) => Err(stdlib::deadlock(py, &deadlock)),
        }
    }

    /// Whether the calling thread is one of the pool's workers.
    #[pyo3(name = "_is_worker")]
    fn is_worker(&self) -> PyResult<bool> {
        Ok(is_worker_of(self.started()?.pool.home()))
    }

    /// The number of pending tasks.
    #[pyo3(name = "_pending")]
    fn pending(&self) -> PyResult<usize> {
        Ok(self.started()?.pool.pending())
    }

    #[getter(_shutdown)]
    fn is_shut_down(&self) -> PyResult<bool> {
        Ok(self.started()?.pool.is_closed())
    }

    /// False, or what is wrong with the pool.
    #[getter(_broken)]
    fn broken<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.started()?.pool.closed_error() {
            SubmitError::Broken(_) => Ok(stdlib::BROKEN.into_pyobject(py)?.into_any()),
            _ => Ok(false.into_pyobject(py)?.to_owned().into_any()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: see the field.
        match unsafe { self.started.load(Ordering::Acquire).as_ref() } {
            // Workers refer to the settings, too: if there are any, none of it is garbage.
            Some(started) if started.pool.threads_alive() == 0 => started.threads.traverse(visit),
            _ => Ok(()),
        }
    }
}
