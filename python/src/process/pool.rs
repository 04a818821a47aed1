//! `ProcessPool`, the native base class of `ProcessPoolExecutor`.

use crate::future::object::Future;
use crate::future::remote::Remote;
use crate::interp::aside::aside;
use crate::interp::deferred_drop::drop_released;
use crate::interp::fields::Field;
use crate::interp::fork::generation;
use crate::interp::jobs::Jobs;
use crate::interp::signals::{cannot_be_told, hold, hold_in_drop, raise_kept};
use crate::interp::{attach, interned, process_errors, stdlib, waiting};
use crate::pickle::calls::{AS_ONE, Pickled};
use crate::pickle::definitions::Functions;
use crate::pickle::objects::Pickling;
use crate::process::callbacks::Callbacks;
use crate::process::feeder::Fed;
use crate::process::map::{self, SpanIterator};
use crate::process::shared::start_worker;
use crate::process::shared::{Closing, FILES, KEPT, Shared};
use crate::process::spawner::Processes;
use crate::process::task;
use crate::recording::calls::Recorded;
use crate::stats::{Figures, figures};
use concurrent_futures::engine::{
    CallSpan, Permit, PoolSettings, ProcessPool as Engine, RemoteCall, Segments, TaskRef,
};
use concurrent_futures::{BuildError, OnWorkerDeath, SubmitError, TaskOptions};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The settings with which an executor was made.
struct Settings {
    pool: PoolSettings,
    options: TaskOptions,
    by_value: bool,
}

struct Started {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    /// Whether the supervisor was started, which the first task does.
    has_begun: AtomicBool,
    /// Whether the pool was ever used: it belongs to its process from then on.
    is_used: AtomicBool,
    submitted: AtomicUsize,
    options: TaskOptions,
}

impl Started {
    fn new(settings: Arc<Settings>, workers: Py<PyAny>, py: Python<'_>) -> PyResult<Self> {
        let callbacks = Arc::new(Callbacks::default());
        let feeder = Arc::new(Jobs::default());
        let opener = Arc::new(Jobs::default());
        let host = Arc::new(Processes {
            workers: workers.clone_ref(py),
            callbacks: Arc::clone(&callbacks),
            feeder: Arc::clone(&feeder),
            opener: Arc::clone(&opener),
        });
        let pool = Engine::new(&settings.pool, host).map_err(|error| match error {
            BuildError::System(error) => process_errors::not_made(&error),
            error => PyValueError::new_err(error.to_string()),
        })?;
        // Where descriptors are few, long buffers go through the streams.
        let files = if pool.is_lean() { 0 } else { FILES };
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                functions: Functions::default(),
                generation: generation(),
                pickling: Pickling {
                    by_value: settings.by_value,
                    segments: Segments::new(KEPT, files),
                },
                callbacks,
                feeder,
                room: Arc::default(),
                closing: Mutex::new(Closing::Open),
                max_workers: settings.pool.max_workers,
                opener,
                workers,
            }),
            has_begun: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            submitted: AtomicUsize::new(0),
            options: settings.options,
            settings,
        })
    }

    /// Returns whether the pool was made before this process became a fork, and was not used.
    #[inline]
    fn is_inherited(&self) -> bool {
        // ORDERING: Relaxed: what happened before the fork is in the child's memory.
        !self.is_used.load(Ordering::Relaxed) && !self.shared.is_of_this_process()
    }
}

/// A pool of processes, without the attributes that Python code adds.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct ProcessPool {
    /// The engine's pool and its settings, set by `_start`. A value that a second `__init__` replaces is
    /// never freed, as other threads may be using it.
    started: AtomicPtr<Started>,
    /// The settings of workers. Only this field refers to them, so that the garbage collector finds a pool to
    /// which its initializer refers. The pool's processes refer to the settings weakly.
    task: Field,
    /// Whether `submit` is left to Python code. That is so for pools that work by the standard library's
    /// code, and for pools whose lock or state other code has got at.
    is_plain: AtomicBool,
}

impl ProcessPool {
    #[inline]
    fn started(&self) -> PyResult<&Started> {
        let address = self.started.load(Ordering::Acquire);
        // SAFETY: see the field.
        match unsafe { address.as_ref() } {
            Some(started) if !started.is_inherited() => Ok(started),
            Some(inherited) => self.begin_afresh(address, inherited),
            None => Err(not_initialized()),
        }
    }

    /// Makes the parts anew in a fork, if no code has used them before. The parent's parts are not touched,
    /// as threads may have been using them that are not in this process.
    #[cold]
    #[inline(never)]
    fn begin_afresh(&self, address: *mut Started, inherited: &Started) -> PyResult<&Started> {
        let own = Python::attach(|py| {
            let workers = inherited.shared.workers.clone_ref(py);
            Started::new(Arc::clone(&inherited.settings), workers, py)
        })?;
        let own = Box::into_raw(Box::new(own));
        let replaced =
            self.started
                .compare_exchange(address, own, Ordering::AcqRel, Ordering::Acquire);
        let current = match replaced {
            Ok(_) => own,
            Err(others) => {
                // SAFETY: just made, and no other code has it.
                drop(unsafe { Box::from_raw(own) });
                others
            }
        };
        // SAFETY: see the field.
        Ok(unsafe { &*current })
    }

    pub(crate) fn shared(&self) -> PyResult<&Arc<Shared>> {
        Ok(&self.started()?.shared)
    }

    pub(crate) fn default_options(&self) -> PyResult<TaskOptions> {
        Ok(self.started()?.options)
    }

    /// Raises an exception if the pool accepts no tasks. Prepares the parts that must be there before the
    /// first task.
    pub(crate) fn prepare(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        drop_released(py);
        let started = this.get().started()?;
        started.shared.check_fork()?;
        started.is_used.store(true, Ordering::Relaxed);
        if let Some(refusal) = started.shared.refusal() {
            return Err(process_errors::submit_error(py, &refusal));
        }
        if attach::is_exiting() {
            return Err(stdlib::submit_error(py, &SubmitError::Shutdown));
        }
        if !started.has_begun.load(Ordering::Acquire) {
            let held = hold(py);
            this.call_method0(interned::begin(py))?;
            drop(held);
            raise_kept().map_err(|error| Self::supervise_after(this, error))?;
        }
        Ok(())
    }

    /// Starts the supervisor after the first submission: the workers are on their way to the task meanwhile.
    fn supervise(this: &Bound<'_, Self>) -> PyResult<()> {
        let has_begun = &this.get().started()?.has_begun;
        if !has_begun.load(Ordering::Acquire) {
            let _held = hold(this.py());
            this.call_method0(interned::supervise(this.py()))?;
            has_begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Starts the supervisor after a failed submission: there may be workers all the same.
    fn supervise_after(this: &Bound<'_, Self>, error: PyErr) -> PyErr {
        if let Err(other) = Self::supervise(this) {
            cannot_be_told(other, this.py(), Some(this));
        }
        raise_kept().err().unwrap_or(error)
    }

    /// Submits a call that is pickled already, or the calls of a chunk of items.
    fn submit_pickled<'py>(
        this: &Bound<'py, Self>,
        remote: Remote,
        pickled: Pickled,
        chunk: Option<u32>,
        options: TaskOptions,
        recorded: Option<Recorded<'_, 'py>>,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        let started = this.get().started()?;
        let shared = &started.shared;
        let future = task::make(py, remote)?;
        if let Some(recorded) = recorded {
            let number = shared.pool.describe();
            recorded.note(number, future.get().id(), Some(&pickled));
        }
        let call = RemoteCall {
            definition: pickled.definition,
            tag: match chunk {
                Some(_) => pickled.tag as u8 | AS_ONE,
                None => pickled.tag as u8,
            },
            argument: pickled.argument,
            attachment: pickled.attachment,
            span: chunk.map(CallSpan::Whole),
            options,
            has_place: future.get().remote().is_some_and(Remote::has_place),
        };
        let submitted = task::submit(py, &future, shared, call);
        if submitted.is_ok() {
            started.submitted.fetch_add(1, Ordering::Relaxed);
        }
        Self::after_submit(this, &future, submitted)?;
        Ok(future)
    }

    /// Submits the items of a span, which has a future already.
    pub(crate) fn submit_items(
        this: &Bound<'_, Self>,
        future: &Bound<'_, Future>,
        task: &TaskRef,
        call: RemoteCall,
    ) -> PyResult<()> {
        let py = this.py();
        let shared = this.get().shared()?;
        let submitted = task::submit_task(py, task.clone(), shared, call);
        Self::after_submit(this, future, submitted)
    }

    /// Starts a worker if one is to be started, and the supervisor if there is none.
    fn after_submit(
        this: &Bound<'_, Self>,
        future: &Bound<'_, Future>,
        submitted: Result<bool, SubmitError>,
    ) -> PyResult<()> {
        let py = this.py();
        let shared = this.get().shared()?;
        let needs_worker = submitted.map_err(|error| {
            Self::supervise_after(this, process_errors::submit_error(py, &error))
        })?;
        let worked = if needs_worker {
            start_worker(py, shared)
        } else {
            Ok(())
        };
        let worked = worked.and_then(|()| Self::supervise(this));
        if let Err(error) = worked {
            let (_, told) = Future::cancel_pending(future);
            shared.pool.reconsider();
            let error = told.err().unwrap_or(error);
            return Err(raise_kept().err().unwrap_or(error));
        }
        raise_kept()
    }

    /// Submits calls for several items as one task, if they are plain, and no call must come first.
    pub(crate) fn submit_plain_chunk<'py>(
        this: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        items: &[Bound<'py, PyAny>],
        is_single: bool,
        options: TaskOptions,
    ) -> PyResult<Option<Bound<'py, Future>>> {
        let py = this.py();
        Self::prepare(this)?;
        let started = this.get().started()?;
        let shared = &started.shared;
        if shared.feeder.left() > 0 {
            return Ok(None);
        }
        let Some(pickled) = shared.functions.plain_chunk(function, items, is_single)? else {
            return Ok(None);
        };
        let permit = (started.permit(py)).map_err(|error| Self::supervise_after(this, error))?;
        let count = u32::try_from(items.len())?;
        let remote = Remote::of_span(Shared::of_futures(shared), count, permit);
        let recorded = Recorded::of(function, None);
        Self::submit_pickled(this, remote, pickled, Some(count), options, recorded).map(Some)
    }

    pub(crate) fn submit_call<'py>(
        this: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        options: TaskOptions,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        Self::prepare(this)?;
        let started = this.get().started()?;
        let permit = (started.permit(py)).map_err(|error| Self::supervise_after(this, error))?;
        let shared = &started.shared;
        let functions = &shared.functions;
        let recorded = Recorded::of(function, Some((arguments, keywords)));
        let plain = functions.pickle_plain(function, arguments, keywords, &shared.pickling)?;
        let call = (function, arguments, keywords);
        Self::submit_with_plain(this, call, plain, permit, options, recorded)
    }

    /// Submits a call, of which there may be bytes already.
    pub(crate) fn submit_with_plain<'py>(
        this: &Bound<'py, Self>,
        (function, arguments, keywords): Call<'_, 'py>,
        plain: Option<Pickled>,
        permit: Option<Permit>,
        options: TaskOptions,
        recorded: Option<Recorded<'_, 'py>>,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        let shared = this.get().shared()?;
        let remote = Remote::new(Shared::of_futures(shared), permit);
        match plain {
            Some(pickled) if shared.feeder.left() == 0 => {
                Self::submit_pickled(this, remote, pickled, None, options, recorded)
            }
            plain => {
                let future = task::make(py, remote)?;
                if let Some(recorded) = recorded {
                    let number = shared.pool.describe();
                    recorded.note(number, future.get().id(), plain.as_ref());
                }
                let task = task::enlist(&future, shared);
                let call = match plain {
                    Some(pickled) => Fed::bytes(shared, task, pickled, options),
                    None => Fed::objects(shared, task, function, arguments, keywords, options),
                };
                Self::feed(this, &future, call)?;
                Ok(future)
            }
        }
    }

    /// Adds a call to the feeder, which pickles and then submits it.
    fn feed(this: &Bound<'_, Self>, future: &Bound<'_, Future>, call: Fed) -> PyResult<()> {
        let py = this.py();
        let started = this.get().started()?;
        let shared = &started.shared;
        let Ok(is_thread_wanted) = shared.feeder.add(call) else {
            let error = stdlib::submit_error(py, &SubmitError::Shutdown);
            return Err(Self::supervise_after(this, error));
        };
        started.submitted.fetch_add(1, Ordering::Relaxed);
        if is_thread_wanted {
            shared.start_feeder(py);
        }
        // As in the standard library, the submitting thread starts workers.
        let worked = if shared.pool.want_another_worker() {
            start_worker(py, shared)
        } else {
            Ok(())
        };
        worked
            .and_then(|()| Self::supervise(this))
            .map_err(|error| {
                let (_, told) = Future::cancel_pending(future);
                shared.pool.reconsider();
                told.err().unwrap_or(error)
            })
    }

    /// Raises an exception if the pool accepts no more tasks.
    pub(crate) fn check_open(this: &Bound<'_, Self>) -> PyResult<()> {
        match this.get().shared()?.refusal() {
            Some(refusal) => Err(process_errors::submit_error(this.py(), &refusal)),
            None => Ok(()),
        }
    }

    /// Counts tasks that are submitted.
    pub(crate) fn note_submitted(&self, number: usize) -> PyResult<()> {
        self.started()?
            .submitted
            .fetch_add(number, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn max_workers(&self) -> PyResult<usize> {
        Ok(self.shared()?.max_workers)
    }
}

impl Started {
    /// Takes a permit for one more pending task; none if pending tasks are not bounded.
    fn permit(&self, py: Python<'_>) -> PyResult<Option<Permit>> {
        waiting::permit(py, |when_full| self.shared.pool.admit(when_full))?
            .map_err(|error| process_errors::submit_error(py, &error))
    }

    fn close(&self, py: Python<'_>, cancel_futures: bool) {
        self.shared.close(py, cancel_futures);
        self.shared.pool.stop_admitting();
    }
}

/// A function, its arguments and keywords.
type Call<'a, 'py> = (
    &'a Bound<'py, PyAny>,
    &'a Bound<'py, PyTuple>,
    Option<&'a Bound<'py, PyDict>>,
);

fn not_initialized() -> PyErr {
    PyRuntimeError::new_err("ProcessPoolExecutor.__init__ has not been called")
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

impl Drop for ProcessPool {
    fn drop(&mut self) {
        let started = *self.started.get_mut();
        if started.is_null() {
            return;
        }
        // SAFETY: made by `_start`; no other reference to the object exists.
        let started = unsafe { Box::from_raw(started) };
        if started.shared.generation == generation() {
            // The workers finish what is pending.
            aside(|py| {
                let workers = started.shared.workers.bind(py);
                // There may be workers still to be started.
                hold_in_drop(py, || {
                    let task = self.task.take();
                    if let Err(error) = workers.call_method1(interned::keep(py), (task,)) {
                        error.write_unraisable(py, Some(workers));
                    }
                });
                started.close(py, false);
                hold_in_drop(py, || drop(started));
            });
        } else {
            mem::forget(started);
        }
    }
}

#[pymethods]
impl ProcessPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            started: AtomicPtr::new(ptr::null_mut()),
            task: Field::empty(),
            is_plain: AtomicBool::new(true),
        }
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
        let started = Box::new(Started::new(settings, workers, py)?);
        self.started
            .store(Box::into_raw(started), Ordering::Release);
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
        // SAFETY: all tasks of the pool are futures of ours, which it refers to meanwhile.
        let mut show = |task| futures.push(unsafe { Future::of(py, task) });
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
        Ok(Supervisor(Arc::clone(self.shared()?)))
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

fn check_keywords(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let are_strings = |keywords: &Bound<'_, PyDict>| {
        keywords
            .keys()
            .iter()
            .all(|key| key.is_instance_of::<PyString>())
    };
    if keywords.is_some_and(|keywords| !are_strings(keywords)) {
        return Err(PyTypeError::new_err("keywords must be strings"));
    }
    Ok(())
}

/// The body of a pool's supervisor thread.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Supervisor(Arc<Shared>);

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
