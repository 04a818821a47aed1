//! `Future`: the engine's state machine in a Python object.

use crate::fields::Field;
use crate::name;
use crate::observers::{self, Held, Observers};
use crate::outcome::Outcome;
use crate::plain::InvokeCallbacks;
use crate::remote::{self, Remote};
use crate::stdlib;
use crate::task::Call;
use concurrent_futures::engine::{Advance, Cancel, Header, Phase, State, TaskRef, VTable};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static VTABLE: VTable = VTable::of::<Future>();

/// The state, the outcome and the task of `concurrent_futures.Future`.
#[pyclass(
    name = "Future",
    module = "concurrent_futures._engine",
    subclass,
    frozen
)]
pub(crate) struct Future {
    header: Header,
    /// Whoever starts or cancels the task takes it.
    call: UnsafeCell<Option<Call>>,
    /// What a task in another process needs besides.
    remote: Option<Box<Remote>>,
    pub(crate) result: Field,
    pub(crate) exception: Field,
    /// In here, as callbacks are too common to allocate for.
    observers: Observers,
    /// Whether to look at them.
    observed: AtomicBool,
    /// Whether it was given a method of its own.
    overridden: AtomicBool,
}

// SAFETY: the header follows the engine's protocol; the call is touched by its creator,
// then by the one thread that wins the transition from `Pending`; the rest is atomic.
unsafe impl Send for Future {}
// SAFETY: as above.
unsafe impl Sync for Future {}

/// How far into the Python object its Rust part is; found out by the first one.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

impl Future {
    fn pending(call: Option<Call>) -> Self {
        Self::with(&VTABLE, call, None)
    }

    fn with(vtable: &'static VTable, call: Option<Call>, remote: Option<Box<Remote>>) -> Self {
        Self {
            header: Header::foreign(vtable),
            call: UnsafeCell::new(call),
            remote,
            result: Field::empty(),
            exception: Field::empty(),
            observers: Observers::default(),
            observed: AtomicBool::new(false),
            overridden: AtomicBool::new(false),
        }
    }

    /// Makes the future of a task.
    pub(crate) fn of_call<'py>(py: Python<'py>, call: Call) -> PyResult<Bound<'py, Self>> {
        Self::create(py, Self::pending(Some(call)))
    }

    /// Makes the future of a task for another process.
    pub(crate) fn of_remote(py: Python<'_>, remote: Remote) -> PyResult<Bound<'_, Self>> {
        Self::create(
            py,
            Self::with(&remote::VTABLE, None, Some(Box::new(remote))),
        )
    }

    fn create(py: Python<'_>, this: Self) -> PyResult<Bound<'_, Self>> {
        let future_type = stdlib::future_type(py)?.as_type_ptr();
        // SAFETY: the type is a subclass of ours, which has nothing but a `Self` at this
        // offset (see `measure`); this is what a call of the type comes to.
        unsafe {
            let object = ffi::PyType_GenericAlloc(future_type, 0);
            let object = Bound::from_owned_ptr_or_err(py, object)?;
            let place = object.as_ptr().byte_add(OFFSET.load(Ordering::Relaxed));
            place.cast::<Self>().write(this);
            Ok(object.cast_into_unchecked::<Self>())
        }
    }

    pub(crate) fn state(&self) -> &State {
        self.header.state()
    }

    /// Takes what the task was to call.
    ///
    /// # Safety
    /// The caller has started or cancelled the future, and calls this once.
    pub(crate) unsafe fn take_call(this: &Bound<'_, Self>) -> Option<Call> {
        // If the state was set back by hand, there can be two who have started or cancelled it.
        with_critical_section(this.as_any(), || {
            // SAFETY: promised by the caller; one at a time.
            unsafe { (*this.get().call.get()).take() }
        })
    }

    /// Whether the future is done for `wait` and `as_completed`.
    ///
    /// For the standard library's, one that is cancelled is not done before its executor
    /// has taken notice. For ours that is so for executors of others only: those of ours
    /// will not start it, and may take a while until they come across it.
    pub(crate) fn is_done_for_waiters(task: &TaskRef) -> bool {
        let phase = task.state().phase();
        phase.is_done() && (phase != Phase::Cancelled || task.has_home())
    }

    /// The exception that the task raised in this process, if it did.
    pub(crate) fn raised<'py>(this: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.get().exception.get(this.as_any())
    }

    pub(crate) fn has_exception(&self) -> bool {
        self.exception.is_set() || self.remote().is_some_and(Remote::has_failed)
    }

    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.as_deref()
    }

    /// Writes the outcome of a future that the caller has claimed.
    pub(crate) fn fill_result<'py>(this: &Bound<'py, Self>, result: Bound<'py, PyAny>) {
        this.get().result.fill(this.as_any(), result);
    }

    /// Writes the outcome of a future that the caller has claimed.
    pub(crate) fn fill_exception<'py>(this: &Bound<'py, Self>, exception: Bound<'py, PyAny>) {
        this.get().exception.fill(this.as_any(), exception);
    }

    /// Whether it was given a method of its own.
    pub(crate) fn is_overridden(&self) -> bool {
        // ORDERING: Relaxed: a thread that gives it one while it is being finished may be too late.
        self.overridden.load(Ordering::Relaxed)
    }

    pub(crate) fn override_methods(&self) {
        self.overridden.store(true, Ordering::Relaxed);
    }

    /// The observers, if there may be some.
    pub(crate) fn observers(&self) -> Option<&Observers> {
        self.observed
            .load(Ordering::Acquire)
            .then_some(&self.observers)
    }

    /// The observers, of which there will be some.
    fn observers_to_be(&self) -> &Observers {
        self.observed.store(true, Ordering::Release);
        &self.observers
    }

    // ---- between the Python object, its Rust part, and the engine's header

    /// The future's task, for the engine.
    ///
    /// # Safety
    /// The future stays until the reference, and what is made of it, is gone.
    pub(crate) unsafe fn task(&self) -> ManuallyDrop<TaskRef> {
        // SAFETY: promised by the caller.
        unsafe { TaskRef::borrow(NonNull::from(&self.header)) }
    }

    /// The reference with which a task goes into the queue of the pool `home`.
    ///
    /// # Safety
    /// The future was made by `of_call`, and is enlisted once, by its maker.
    pub(crate) unsafe fn enlist(this: &Bound<'_, Self>, home: *const ()) -> TaskRef {
        let header = NonNull::from(&this.get().header);
        mem::forget(this.clone());
        // What the queue refers to is no garbage, so that the garbage collector need not
        // look at it; `free` tracks it again.
        // SAFETY: attached; the object is of a type that takes part in garbage collection.
        unsafe { ffi::PyObject_GC_UnTrack(this.as_ptr().cast()) };
        // SAFETY: promised by the caller; the object has got one more reference, which
        // `free` gives up.
        unsafe { TaskRef::enlist(header, home) }
    }

    /// # Safety
    /// The header is that of a future.
    pub(crate) unsafe fn at(task: NonNull<Header>) -> NonNull<Self> {
        // SAFETY: promised by the caller; the offset is that of the header in it.
        unsafe { task.byte_sub(offset_of!(Self, header)).cast() }
    }

    /// # Safety
    /// The header is that of a future.
    pub(crate) unsafe fn object_of(task: NonNull<Header>) -> *mut ffi::PyObject {
        // SAFETY: promised by the caller; all objects of the type have the same layout.
        unsafe { Self::at(task).byte_sub(OFFSET.load(Ordering::Relaxed)) }
            .cast()
            .as_ptr()
    }

    /// # Safety
    /// The header is that of a future which is alive.
    pub(crate) unsafe fn of<'py>(py: Python<'py>, task: NonNull<Header>) -> Bound<'py, Self> {
        // SAFETY: promised by the caller.
        unsafe { Bound::from_borrowed_ptr(py, Self::object_of(task)).cast_into_unchecked() }
    }

    /// Finds out the layout of the objects.
    pub(crate) fn measure(py: Python<'_>) -> PyResult<()> {
        let sample = Bound::new(py, Self::pending(None))?;
        let offset = ptr::from_ref(sample.get()).addr() - sample.as_ptr().addr();
        let size = py
            .get_type::<Self>()
            .getattr("__basicsize__")?
            .extract::<usize>()?;
        if size != offset + size_of::<Self>() {
            return Err(PyRuntimeError::new_err("futures have an unexpected layout"));
        }
        OFFSET.store(offset, Ordering::Relaxed);
        InvokeCallbacks::set(py)
    }

    // ---- phases and their names in Python

    pub(crate) fn state_name(phase: Phase) -> &'static str {
        match phase {
            Phase::Pending => "PENDING",
            Phase::Running | Phase::Setting | Phase::Finishing => "RUNNING",
            Phase::Cancelling | Phase::Cancelled => "CANCELLED",
            Phase::Notified => "CANCELLED_AND_NOTIFIED",
            Phase::Finished => "FINISHED",
        }
    }

    /// The phase, as it is told: a task that was handed to a worker process is pending until that
    /// has begun with it.
    fn visible_phase(&self) -> Phase {
        match (self.state().phase(), self.remote()) {
            (Phase::Running, Some(remote)) if !remote.has_begun(self) => Phase::Pending,
            // It may have been given back, or have finished, meanwhile.
            (Phase::Running, Some(_)) => self.state().phase(),
            (phase, _) => phase,
        }
    }

    fn phase_of(name: &str) -> Option<Phase> {
        Some(match name {
            "PENDING" => Phase::Pending,
            "RUNNING" => Phase::Running,
            "CANCELLED" => Phase::Cancelled,
            "CANCELLED_AND_NOTIFIED" => Phase::Notified,
            "FINISHED" => Phase::Finished,
            _ => return None,
        })
    }

    /// Calls `look` when nobody is in the middle of changing the future by hand, which is
    /// to say, holds its condition.
    pub(crate) fn looking<R>(this: &Bound<'_, Self>, look: impl FnOnce(&Self) -> R) -> PyResult<R> {
        let future = this.get();
        let condition = future
            .observers()
            .and_then(|observers| observers.existing_condition(this.py()));
        let Some(condition) = condition else {
            return Ok(look(future));
        };
        let held = Held::acquire(condition)?;
        let result = look(future);
        held.release()?;
        Ok(result)
    }
}

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::pending(None)
    }

    /// Cancels the future if possible.
    ///
    /// Returns True if the future is cancelled now, False if its task runs or has finished.
    fn cancel(this: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(Self::cancel_unbegun(this)? != Cancel::TooLate)
    }

    /// Returns True if the future was cancelled.
    fn cancelled(&self) -> bool {
        matches!(
            self.state().phase(),
            Phase::Cancelling | Phase::Cancelled | Phase::Notified
        )
    }

    /// Returns True if the task of the future is being run.
    fn running(&self) -> bool {
        matches!(
            self.visible_phase(),
            Phase::Running | Phase::Setting | Phase::Finishing
        )
    }

    /// Returns True if the future was cancelled or has finished.
    fn done(&self) -> bool {
        self.state().is_done()
    }

    /// Returns the result of the task, for which it waits if it must.
    ///
    /// Waits at most `timeout` seconds if that is given. Raises TimeoutError when they have
    /// passed, CancelledError if the future was cancelled, DeadlockError if the calling task
    /// and that of the future wait for each other, and what the task raised.
    ///
    /// A task that waits, without a timeout, for a pending task of its own pool runs it in
    /// place.
    #[pyo3(signature = (timeout = None))]
    fn result<'py>(
        this: &Bound<'py, Self>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::wait(this, timeout)?;
        Self::take_result(this)
    }

    /// Returns the exception that the task raised, or None, waiting as `result` does.
    #[pyo3(signature = (timeout = None))]
    fn exception<'py>(
        this: &Bound<'py, Self>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::wait(this, timeout)?;
        Ok(match Self::outcome(this)? {
            Outcome::Result(_) => None,
            Outcome::Exception(exception) => Some(exception),
        })
    }

    /// Has `fn` called with the future when it is done, or now if it is.
    ///
    /// Callbacks are called in the order in which they were added, by a thread of the
    /// process that added them. What they raise is logged.
    #[pyo3(signature = (r#fn))]
    fn add_done_callback<'py>(this: &Bound<'py, Self>, r#fn: Bound<'py, PyAny>) -> PyResult<()> {
        match this.get().observers_to_be().add_callback(this, r#fn)? {
            Ok(()) => Ok(()),
            Err(callback) => observers::call(this, &callback),
        }
    }

    /// Ends a call that a worker process runs, together with the process, which is replaced.
    ///
    /// Its future raises `TaskTerminatedError`. A pending one is cancelled. Returns whether it did
    /// either; calls that threads run cannot be ended.
    fn terminate(this: &Bound<'_, Self>) -> PyResult<bool> {
        let cancel = Self::cancel_unbegun(this)?;
        if cancel != Cancel::TooLate {
            return Ok(cancel == Cancel::Now);
        }
        let py = this.py();
        let future = this.get();
        Ok(py.detach(|| {
            future
                .remote()
                .is_some_and(|remote| remote.terminate(future))
        }))
    }

    /// Says that the task begins to run. For those who write executors.
    ///
    /// Returns False if the future was cancelled, and the task should not be run. Raises
    /// RuntimeError if it was called before, or the future has an outcome.
    fn set_running_or_notify_cancel(this: &Bound<'_, Self>) -> PyResult<bool> {
        let state = this.get().state();
        // SAFETY: in this face anyone may begin a future.
        if unsafe { state.start() } {
            return Ok(true);
        }
        let (advance, told) = Self::notify_cancel(this);
        told?;
        if advance == Advance::Done {
            return Ok(false);
        }
        let py = this.py();
        let message = name::unexpected_state(py);
        stdlib::logger(py)?.call_method1(
            name::critical(py),
            (
                message,
                this.as_ptr().addr(),
                Self::state_name(state.phase()),
            ),
        )?;
        Err(PyRuntimeError::new_err("Future in unexpected state"))
    }

    /// Gives the future its result. For those who write executors.
    ///
    /// Raises InvalidStateError if the future is done.
    fn set_result<'py>(this: &Bound<'py, Self>, result: Bound<'py, PyAny>) -> PyResult<()> {
        Self::set_outcome(this, || Self::fill_result(this, result))
    }

    /// Gives the future the exception that its task raised. For those who write executors.
    ///
    /// Raises InvalidStateError if the future is done.
    fn set_exception<'py>(this: &Bound<'py, Self>, exception: Bound<'py, PyAny>) -> PyResult<()> {
        Self::set_outcome(this, || {
            // `None` is no exception.
            if !exception.is_none() {
                Self::fill_exception(this, exception);
            }
        })
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        py.import("types")?
            .getattr("GenericAlias")?
            .call1((class, item))
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        let class = this.get_type().name()?;
        let address = this.as_ptr().addr();
        remote::open(this)?;
        let owner = this.as_any();
        Self::looking(this, |future| {
            let phase = future.visible_phase();
            let state = match phase {
                Phase::Notified => "cancelled".to_owned(),
                _ => Self::state_name(phase).to_lowercase(),
            };
            let outcome = match (phase, future.exception.get(owner)) {
                (Phase::Finished, Some(exception)) => {
                    format!(" raised {}", exception.get_type().name()?)
                }
                (Phase::Finished, None) => {
                    let result = future.result.get(owner);
                    let class = match &result {
                        Some(result) => result.get_type().name()?.to_string(),
                        None => "NoneType".to_owned(),
                    };
                    format!(" returned {class}")
                }
                _ => String::new(),
            };
            Ok(format!("<{class} at {address:#x} state={state}{outcome}>"))
        })?
    }

    // ---- what other code touches

    #[getter(_state)]
    fn get_state(&self) -> &'static str {
        Self::state_name(self.visible_phase())
    }

    /// Sets the state by hand, as tests of other libraries do.
    #[setter(_state)]
    fn set_state(&self, name: &str) -> PyResult<()> {
        let Some(phase) = Self::phase_of(name) else {
            return Err(PyValueError::new_err(format!("there is no state {name:?}")));
        };
        let all = [
            Phase::Pending,
            Phase::Running,
            Phase::Cancelled,
            Phase::Notified,
            Phase::Finished,
        ];
        // SAFETY: who sets the state by hand is responsible for the outcome, without which
        // the result is None.
        unsafe { self.state().advance(&all, phase, true) };
        Ok(())
    }

    #[getter(_result)]
    fn get_result<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        remote::open(this)?;
        Ok(this.get().result.get(this.as_any()))
    }

    #[setter(_result)]
    fn replace_result<'py>(this: &Bound<'py, Self>, result: Bound<'py, PyAny>) {
        let result = Some(result).filter(|result| !result.is_none());
        drop(this.get().result.replace(this.as_any(), result));
    }

    #[getter(_exception)]
    fn get_exception<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        remote::open(this)?;
        Ok(this.get().exception.get(this.as_any()))
    }

    #[setter(_exception)]
    fn replace_exception<'py>(this: &Bound<'py, Self>, exception: Bound<'py, PyAny>) {
        let exception = Some(exception).filter(|exception| !exception.is_none());
        drop(this.get().exception.replace(this.as_any(), exception));
    }

    #[getter(_condition)]
    fn condition<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().condition(this)
    }

    #[getter(_waiters)]
    fn waiters<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().waiters(this)
    }

    #[getter(_done_callbacks)]
    fn done_callbacks<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().callbacks(this)
    }

    #[setter(_condition)]
    fn replace_condition<'py>(this: &Bound<'py, Self>, condition: Bound<'py, PyAny>) {
        let observers = this.get().observers_to_be();
        observers.replace_condition(this, condition);
    }

    #[setter(_waiters)]
    fn replace_waiters<'py>(this: &Bound<'py, Self>, waiters: Bound<'py, PyAny>) -> PyResult<()> {
        let observers = this.get().observers_to_be();
        observers.replace_waiters(this, waiters)
    }

    #[setter(_done_callbacks)]
    fn replace_done_callbacks<'py>(this: &Bound<'py, Self>, callbacks: Bound<'py, PyAny>) {
        let observers = this.get().observers_to_be();
        observers.replace_callbacks(this, callbacks);
    }

    /// Calls the callbacks.
    #[pyo3(name = "_invoke_callbacks")]
    fn invoke_callbacks(this: &Bound<'_, Self>) -> PyResult<()> {
        observers::invoke_callbacks(this)
    }

    /// Whether the future is done, whether it was cancelled, its result, its exception.
    #[pyo3(name = "_get_snapshot")]
    fn snapshot<'py>(this: &Bound<'py, Self>) -> PyResult<Snapshot<'py>> {
        remote::open(this)?;
        let owner = this.as_any();
        Self::looking(this, |future| match future.state().phase() {
            Phase::Finished => (
                true,
                false,
                future.result.get(owner),
                future.exception.get(owner),
            ),
            phase => (phase.is_done(), phase.is_done(), None, None),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: while the garbage collector runs, nobody takes the call: whoever does is
        // attached, and in no call of Python's meanwhile.
        if let Some(call) = unsafe { &*self.call.get() } {
            call.traverse(visit)?;
        }
        self.result.traverse(visit)?;
        self.exception.traverse(visit)?;
        self.observers()
            .map_or(Ok(()), |observers| observers.traverse(visit))
    }

    fn __clear__(&self) {
        // The call stays: a task that waits for its worker is never garbage.
        drop(self.result.take());
        drop(self.exception.take());
        if let Some(observers) = self.observers() {
            observers.clear();
        }
    }
}

/// What `_get_snapshot` returns.
type Snapshot<'py> = (
    bool,
    bool,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);
