//! `ThreadPool`, the native base class of `ThreadPoolExecutor`.

use crate::future::call::Call;
use crate::future::object::Future;
use crate::interp::aside::aside;
use crate::interp::bias::{unbias, unbias_all};
use crate::interp::entry::check_keywords;
use crate::interp::fork::generation;
use crate::interp::signals::{hold_in_drop, raise_kept};
use crate::interp::{attach, interned, stdlib, waiting};
use crate::interpreters::task;
use crate::recording::names;
use crate::stats::{Figures, figures};
use crate::thread::at_exit;
use crate::thread::item::{Functions, GivenUp, Item, ItemHandle};
use crate::thread::map::{self, ResultIterator};
use crate::thread::spawner::{Shared, Threads};
use concurrent_futures::engine::{Permit, Pool, is_worker_of, recorder};
use concurrent_futures::{BuildError, SubmitError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The engine's pool and its settings.
struct Started {
    pool: Arc<Pool>,
    threads: Arc<Threads>,
    copy_context: bool,
    /// The generation of forks: the pool has no threads in another one.
    generation: usize,
    /// Whether the program has shut the pool down.
    is_shut_down: AtomicBool,
}

/// A pool of threads, without the attributes that Python code adds.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct ThreadPool {
    /// The engine's pool and its settings, set by `_start`. A value may be replaced in the child of a fork,
    /// or by a second `__init__`. It is not freed before the executor is garbage, as other threads may be using it.
    started: AtomicPtr<Started>,
    /// Whether the pool works by the standard library's code. It stays so.
    is_standard: AtomicBool,
}

impl ThreadPool {
    fn current(&self) -> Option<&Started> {
        // SAFETY: see the field.
        unsafe { self.started.load(Ordering::Acquire).as_ref() }
    }

    /// Returns the engine's pool. In the child of a fork, our hook gives executors pools of the child. Hooks that a
    /// program has registered earlier may come here before that.
    #[inline]
    fn started<'a>(this: &'a Bound<'_, Self>) -> PyResult<&'a Started> {
        match this.get().current() {
            Some(started) if started.is_of_this_process() => Ok(started),
            Some(_) => Self::renewed(this),
            None => Err(not_initialized()),
        }
    }

    #[cold]
    #[inline(never)]
    fn renewed<'a>(this: &'a Bound<'_, Self>) -> PyResult<&'a Started> {
        this.call_method0(interned::after_fork(this.py()))?;
        this.get().current().ok_or_else(not_initialized)
    }

    /// Submits a call, and returns its future.
    pub(crate) fn submit_call<'py>(
        this: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
        arguments: Bound<'py, PyTuple>,
        keywords: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let this_ref = this.get();
        let started = match Self::started(this) {
            Ok(started) => started,
            Err(_) if this_ref.is_standard() => {
                return submit_standard(this, function, arguments, keywords);
            }
            Err(error) => return Err(error),
        };
        let pool = &started.pool;
        if pool.is_closed() {
            if this_ref.is_standard() {
                return submit_standard(this, function, arguments, keywords);
            }
            return Err(started.refused(py, &pool.closed_error()));
        }
        if attach::is_exiting() {
            return Err(stdlib::submit_error(py, &SubmitError::Shutdown));
        }
        if started.threads.create_context.is_some() && function.is_instance_of::<PyString>() {
            this.call_method1(interned::refuse_script(py), (&function,))?;
        }
        let recorded =
            recorder::is_on().then(|| (function.clone(), arguments.clone(), keywords.clone()));
        let context = started.copy_context.then(|| copy_context(py)).transpose()?;
        let permit = started.permit(py)?;
        unbias_all(&arguments);
        let call = Call {
            function: function.unbind(),
            arguments: arguments.unbind(),
            keywords: keywords.map(Bound::unbind),
            context,
            permit,
        };
        let future = if started.threads.create_context.is_some() {
            task::make(py, call)?
        } else {
            Future::of_call(py, call)?
        };
        if let Some((function, arguments, keywords)) = &recorded {
            pool.describe_pool();
            let arguments = Some((arguments, keywords.as_ref()));
            names::note_submitted(future.get().id(), pool.number(), function, arguments);
        }
        // SAFETY: made just now, and kept until we return.
        let submitted = unsafe { pool.submit_foreign(Future::enlist(&future, pool.id())) };
        raise_kept()?;
        let error = match submitted {
            Ok(()) => return Ok(future.into_any()),
            Err(error) => error,
        };
        recorder::rejected(future.get().id(), recorder::RunOutcome::Rejected);
        if this_ref.is_standard() {
            // It has become so meanwhile.
            // SAFETY: the queue has refused the task, and no other thread knows it.
            if let Some(call) = unsafe { Future::take_call(&future) } {
                let (function, arguments, keywords) = call.into_parts(py)?;
                return submit_standard(this, function, arguments, Some(keywords));
            }
        }
        Err(stdlib::submit_error(py, &error))
    }

    /// Returns whether `submit_item` may be called: calls need nothing but a thread.
    pub(crate) fn takes_items(this: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(match Self::started(this) {
            Ok(started) => !started.copy_context && started.threads.create_context.is_none(),
            Err(_) if this.get().is_standard() => false,
            Err(error) => return Err(error),
        })
    }

    /// Submits the call of an item of `map`. Gives the item back if the pool works by the standard library's code.
    pub(crate) fn submit_item<'py>(
        this: &Bound<'py, Self>,
        functions: &mut Functions<'py>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Result<ItemHandle, Bound<'py, PyAny>>> {
        let py = this.py();
        let started = Self::started(this)?;
        let pool = &started.pool;
        if pool.is_closed() {
            if this.get().is_standard() {
                return Ok(Err(item));
            }
            return Err(started.refused(py, &pool.closed_error()));
        }
        if attach::is_exiting() {
            return Err(stdlib::submit_error(py, &SubmitError::Shutdown));
        }
        let permit = started.permit(py)?;
        let is_recorded = recorder::is_on();
        let recorded = is_recorded.then(|| item.clone());
        let (queued, handle) = ItemHandle::new(functions, item, permit, pool.id());
        if let Some(item) = recorded {
            pool.describe_pool();
            let arguments = if functions.is_unary() {
                PyTuple::new(py, [item])?
            } else {
                item.cast_into::<PyTuple>()?
            };
            let (function, arguments) = (functions.function(), Some((&arguments, None)));
            names::note_submitted(handle.task().id(), pool.number(), function, arguments);
        }
        // SAFETY: the handle keeps the item until we return.
        let submitted = unsafe { pool.submit_foreign(queued) };
        raise_kept()?;
        let error = match submitted {
            Ok(()) => return Ok(Ok(handle)),
            Err(error) => error,
        };
        recorder::rejected(handle.task().id(), recorder::RunOutcome::Rejected);
        if this.get().is_standard()
            && let Some(item) = handle.take_back(py)
        {
            // It has become so meanwhile.
            return Ok(Err(item));
        }
        Err(stdlib::submit_error(py, &error))
    }

    fn is_standard(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of the thread that set this, and then closed the pool. A
        // submitter that finds the pool closed finds this set.
        self.is_standard.load(Ordering::Acquire)
    }
}

/// Submits a call by the standard library's protocol.
fn submit_standard<'py>(
    pool: &Bound<'py, ThreadPool>,
    function: Bound<'py, PyAny>,
    arguments: Bound<'py, PyTuple>,
    keywords: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = pool.py();
    let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
    pool.call_method1(
        interned::submit_standard(py),
        (function, arguments, keywords),
    )
}

impl Started {
    #[inline]
    fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// Returns whether nothing but the executor refers to the settings.
    fn has_settings_alone(&self) -> bool {
        // The parent's workers are not here; but no other object tells which of them there were.
        self.is_of_this_process() && self.pool.threads_alive() == 0
    }

    /// Ends the pool of an executor that no code reaches any more.
    fn end(self: Box<Self>) {
        // To hold signals takes longer than all else of the life of a pool without threads.
        let runs_nothing = self.threads.are_none();
        // The workers finish what is pending.
        let end = || {
            self.pool.close();
            drop(self);
        };
        aside(|py| {
            if runs_nothing {
                end();
            } else {
                hold_in_drop(py, end);
            }
        });
    }

    /// Returns the error of `submit` in a pool that does not accept the task. At the end of the interpreter, a pool is
    /// shut down by the first of its threads that ends, as in the standard library.
    #[cold]
    fn refused(&self, py: Python<'_>, error: &SubmitError) -> PyErr {
        let is_shut_down = self.is_shut_down.load(Ordering::Relaxed)
            || self.threads.has_one_ended.load(Ordering::Acquire);
        if matches!(error, SubmitError::Shutdown) && is_shut_down {
            return PyRuntimeError::new_err(stdlib::AFTER_SHUTDOWN);
        }
        stdlib::submit_error(py, error)
    }

    /// Takes a permit for one more pending task; none if pending tasks are not bounded.
    fn permit(&self, py: Python<'_>) -> PyResult<Option<Permit>> {
        waiting::permit(py, |when_full| self.pool.admit(when_full))?
            .map_err(|error| self.refused(py, &error))
    }
}

fn not_initialized() -> PyErr {
    PyRuntimeError::new_err("ThreadPoolExecutor.__init__ has not been called")
}

fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(Bound::unbind)
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let started = *self.started.get_mut();
        if !started.is_null() {
            // SAFETY: made by `_start`; no other reference to the object exists.
            let started = unsafe { Box::from_raw(started) };
            if started.is_of_this_process() {
                started.end();
            } else {
                // A thread of the parent may have had its locks.
                mem::forget(started);
            }
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
            is_standard: AtomicBool::new(false),
        }
    }

    /// Sets the pool up, and once more in the child of a fork.
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
        create_context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let threads = Arc::new(Threads {
            name_prefix: thread_name_prefix,
            initializer,
            initargs,
            create_context,
            of_pool: threads,
            of_process: workers,
            successor: PyOnceLock::new(),
            has_one_ended: AtomicBool::new(false),
        });
        let host = Box::new(Shared(Arc::clone(&threads)));
        let pool =
            Pool::with_spawner(max_workers, max_pending, host).map_err(|error| match error {
                BuildError::ZeroPending => {
                    PyValueError::new_err("max_pending must be greater than 0")
                }
                error => PyValueError::new_err(error.to_string()),
            })?;
        at_exit::note(&pool);
        let started = Box::new(Started {
            pool,
            threads,
            copy_context,
            generation: generation(),
            is_shut_down: AtomicBool::new(false),
        });
        self.started
            .store(Box::into_raw(started), Ordering::Release);
        Ok(())
    }

    /// Submits the call fn(*args, **kwargs); see `concurrent_futures.thread`.
    #[pyo3(name = "_submit", signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        this: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_keywords(kwargs.as_ref())?;
        Self::submit_call(this, r#fn, args, kwargs)
    }

    /// Submits the call fn(*args).
    #[pyo3(name = "_submit_positional", signature = (r#fn, /, *args))]
    fn submit_positional<'py>(
        this: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::submit_call(this, r#fn, args, None)
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
    fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        let started = Self::started(this)?;
        // ORDERING: Relaxed: it only chooses the message of an error.
        started.is_shut_down.store(true, Ordering::Relaxed);
        started.pool.close();
        Ok(())
    }

    /// Cancels all pending tasks.
    #[pyo3(name = "_cancel_pending")]
    fn cancel_pending(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::started(this)?.pool.cancel_pending();
        Ok(())
    }

    /// Waits until the pool has no threads, and is starting none.
    #[pyo3(name = "_wait_for_threads")]
    fn wait_for_threads(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let pool = &Self::started(this)?.pool;
        match waiting::detached(py, |stop| pool.wait_for_threads(stop))? {
            Ok(_) => Ok(()),
            Err(deadlock) => Err(stdlib::deadlock(py, &deadlock)),
        }
    }

    /// Returns whether the calling thread is one of the pool's workers.
    #[pyo3(name = "_is_worker")]
    fn is_worker(this: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(is_worker_of(Self::started(this)?.pool.id()))
    }

    /// Returns the number of pending tasks.
    #[pyo3(name = "_pending")]
    fn pending(this: &Bound<'_, Self>) -> PyResult<usize> {
        Ok(Self::started(this)?.pool.pending())
    }

    /// Returns the figures of the pool.
    #[pyo3(name = "_stats")]
    fn stats(this: &Bound<'_, Self>) -> PyResult<Figures> {
        Ok(figures(&Self::started(this)?.pool.stats()))
    }

    /// Makes the pool work by the standard library's code from now on.
    #[pyo3(name = "_use_standard")]
    fn use_standard(&self) {
        // ORDERING: see `is_standard`.
        self.is_standard.store(true, Ordering::Release);
    }

    /// Returns whether the pool works by the standard library's code.
    #[pyo3(name = "_is_standard")]
    fn py_is_standard(&self) -> bool {
        self.is_standard()
    }

    /// Returns whether the engine has a pool for this executor.
    #[pyo3(name = "_has_started")]
    fn has_started(&self) -> bool {
        self.current().is_some()
    }

    /// Takes all calls from the engine. Its threads call `successor` after their running tasks, and the
    /// pending tasks are returned. The pool works by the standard library's code from now on.
    #[pyo3(name = "_give_up")]
    fn give_up<'py>(this: &Bound<'py, Self>, successor: Py<PyAny>) -> PyResult<Vec<GivenUp<'py>>> {
        let (py, this_ref) = (this.py(), this.get());
        let started = Self::started(this)?;
        // The standard library's workers refer to the executor now and then. If a worker has the last reference, the
        // executor is to be freed at once, and not when this thread runs next.
        unbias(this.as_any());
        // Before the pool is closed: a thread that finds it so is to find this, too.
        started
            .threads
            .successor
            .set(py, successor)
            .map_err(|_| PyRuntimeError::new_err("the engine has given up this pool before"))?;
        this_ref.use_standard();
        started.pool.close();
        let mut given_up = Vec::new();
        while let Some(task) = started.pool.take_pending() {
            if ItemHandle::is_item(&task) {
                // SAFETY: it is not in the queue any more, so that no worker starts it.
                given_up.extend(unsafe { Item::give_up(py, task) }?);
                continue;
            }
            // SAFETY: the queue has had a reference to the future.
            let future = unsafe { Future::of(py, task.address()) };
            drop(task);
            // SAFETY: it is not in the queue any more, so that no worker starts it. It can be
            // cancelled meanwhile; then there is no call, or there soon will be none.
            match unsafe { Future::take_call(&future) } {
                Some(call) => {
                    let (function, arguments, keywords) = call.into_parts(py)?;
                    given_up.push((future, function, arguments, keywords));
                }
                None => Future::notify_cancel(&future, None).1?,
            }
        }
        Ok(given_up)
    }

    /// Returns whether the engine's pool, which may be the parent's, accepts no more tasks.
    #[pyo3(name = "_is_closed")]
    fn is_shut_down(&self) -> PyResult<bool> {
        Ok(self.current().ok_or_else(not_initialized)?.pool.is_closed())
    }

    /// Returns whether the engine's pool was made by the parent of this process, or by its parent.
    #[pyo3(name = "_is_inherited")]
    fn is_inherited(&self) -> bool {
        let current = self.current();
        current.is_some_and(|started| !started.is_of_this_process())
    }

    /// Returns False, or the reason why the pool is broken.
    #[pyo3(name = "_what_broke")]
    fn broken<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        match Self::started(this)?.pool.closed_error() {
            SubmitError::Broken(_) => Ok(stdlib::BROKEN.into_pyobject(py)?.into_any()),
            _ => Ok(false.into_pyobject(py)?.to_owned().into_any()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.current() {
            // Workers refer to the settings, too: if there are any, none of it is garbage.
            Some(started) if started.has_settings_alone() => started.threads.traverse(visit),
            _ => Ok(()),
        }
    }

    /// Gives up the settings, which may be all that keeps the executor: its own method as the initializer.
    fn __clear__(&self) {
        if self
            .current()
            .is_none_or(|started| !started.has_settings_alone())
        {
            // Workers let go of the settings when the executor is dropped.
            return;
        }
        let started = self.started.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: made by `_start`. The executor is garbage, so that no other code is using it.
        unsafe { Box::from_raw(started) }.end();
    }
}
