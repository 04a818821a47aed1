//! `Future`: the engine's state machine in a Python object.

use crate::future::call::Call;
use crate::future::observers::{Held, Observers};
use crate::future::plain;
use crate::future::remote::Remote;
use crate::interp::bias::unbias;
use crate::interp::fields::{Field, Former};
use crate::interp::nesting::drop_contents;
use concurrent_futures::FutureId;
use concurrent_futures::engine::{Header, Phase, PoolId, State, TaskRef, VTable};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop, offset_of};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The state, the outcome and the task of `concurrent_futures.Future`.
#[pyclass(
    name = "Future",
    module = "concurrent_futures._engine",
    subclass,
    frozen
)]
pub(crate) struct Future {
    header: Header,
    /// The call. The thread that starts or cancels the task takes it, and `has_call` before it.
    pub(super) call: UnsafeCell<Option<Call>>,
    /// The additional state of a task in another process.
    remote: Option<Box<Remote>>,
    pub(crate) result: Field,
    pub(crate) exception: Field,
    /// The observers. They are part of the object, as callbacks are too common to allocate for.
    observers: Observers,
    /// Whether a thread that finishes the future must look at the observers.
    observed: AtomicBool,
    /// Whether the future was given a method of its own.
    overridden: AtomicBool,
    /// Whether the callbacks are in a list, where they stay from then on. The flag is beside the others
    /// because there is room.
    has_list: AtomicBool,
    /// Whether a program has put a condition of its own there.
    has_foreign_condition: AtomicBool,
    /// Whether no thread has taken the call yet.
    has_call: AtomicBool,
}

// SAFETY: the header follows the engine's protocol. The call is touched by its creator, then by the one
// thread that wins the transition from `Pending`. The rest is atomic.
unsafe impl Send for Future {}
// SAFETY: as for `Send`: the header follows the engine's protocol, one thread wins the call, the rest is
// atomic.
unsafe impl Sync for Future {}

impl Drop for Future {
    fn drop(&mut self) {
        let call = self.call.get_mut().take();
        let outcome = (self.result.take(), self.exception.take());
        let observers = self.observed.get_mut().then(|| self.observers.take());
        drop_contents((call, outcome, observers));
    }
}

/// The offset of the Rust part in the Python object; measured once.
pub(super) static OFFSET: AtomicUsize = AtomicUsize::new(0);

impl Future {
    pub(crate) fn with(
        vtable: &'static VTable,
        call: Option<Call>,
        remote: Option<Box<Remote>>,
    ) -> Self {
        Self {
            header: Header::foreign(vtable),
            has_call: AtomicBool::new(call.is_some()),
            call: UnsafeCell::new(call),
            remote,
            result: Field::empty(),
            exception: Field::empty(),
            observers: Observers::default(),
            observed: AtomicBool::new(false),
            overridden: AtomicBool::new(false),
            has_list: AtomicBool::new(false),
            has_foreign_condition: AtomicBool::new(false),
        }
    }

    pub(crate) fn create(py: Python<'_>, this: Self) -> PyResult<Bound<'_, Self>> {
        let future_type = plain::future_type(py)?.as_type_ptr();
        // SAFETY: the type is a subclass of ours, which has nothing but a `Self` at this offset (see
        // `measure`). A call of the type does the same.
        unsafe {
            let object = ffi::PyType_GenericAlloc(future_type, 0);
            let object = Bound::from_owned_ptr_or_err(py, object)?;
            let place = object.as_ptr().byte_add(OFFSET.load(Ordering::Relaxed));
            place.cast::<Self>().write(this);
            Ok(object.cast_into_unchecked::<Self>())
        }
    }

    /// Returns the engine's part of the future.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn state(&self) -> &State {
        self.header.state()
    }

    /// Takes the call of the task.
    ///
    /// # Safety
    /// The caller has started or cancelled the future, and calls this once.
    pub(crate) unsafe fn take_call(this: &Bound<'_, Self>) -> Option<Call> {
        let future = this.get();
        // If the state was set back by hand, two threads can have started or cancelled the future.
        let has_call = if cfg!(Py_GIL_DISABLED) {
            // ORDERING: Relaxed: the state hands the call on.
            future.has_call.swap(false, Ordering::Relaxed)
        } else {
            let has_call = future.has_call.load(Ordering::Relaxed);
            future.has_call.store(false, Ordering::Relaxed);
            has_call
        };
        if !has_call {
            return None;
        }
        // SAFETY: the caller has started or cancelled the future, and has taken the flag.
        unsafe { (*future.call.get()).take() }
    }

    /// Returns whether the future is done for `wait` and `as_completed`.
    ///
    /// For the standard library's, one that is cancelled is not done before its executor
    /// has taken notice. For our futures that is so only if an executor of another library has the future.
    /// Our own executors will not start a cancelled task, and may take a while until they come across it.
    pub(crate) fn is_done_for_waiters(task: &TaskRef) -> bool {
        let phase = task.state().phase();
        phase.is_done() && (phase != Phase::Cancelled || task.has_pool())
    }

    /// Returns the exception that the task raised in this process, if it did.
    pub(crate) fn raised<'py>(this: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.get().exception.get(this.as_any())
    }

    pub(crate) fn has_exception(&self) -> bool {
        self.exception.is_set() || self.remote().is_some_and(Remote::has_failed)
    }

    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.as_deref()
    }

    /// Writes the result of a future that the caller has claimed. Returns the former result.
    pub(crate) fn fill_result<'py>(
        this: &Bound<'py, Self>,
        result: Bound<'py, PyAny>,
    ) -> Former<'py> {
        this.get().result.fill(this.as_any(), result)
    }

    /// Writes the exception of a future that the caller has claimed. Returns the former exception.
    pub(crate) fn fill_exception<'py>(
        this: &Bound<'py, Self>,
        exception: Bound<'py, PyAny>,
    ) -> Former<'py> {
        this.get().exception.fill(this.as_any(), exception)
    }

    /// Returns whether the future was given a method of its own.
    pub(crate) fn is_overridden(&self) -> bool {
        // ORDERING: Relaxed: a thread that gives it one while it is being finished may be too late.
        self.overridden.load(Ordering::Relaxed)
    }

    pub(crate) fn override_methods(&self) {
        self.overridden.store(true, Ordering::Relaxed);
    }

    /// Returns whether the callbacks are in a list.
    pub(crate) fn has_list(&self) -> bool {
        // ORDERING: Relaxed, here and below: of interest is what a callback has done itself.
        self.has_list.load(Ordering::Relaxed)
    }

    pub(crate) fn note_list(&self) {
        self.has_list.store(true, Ordering::Relaxed);
    }

    /// Returns the observers, if there may be some.
    pub(crate) fn observers(&self) -> Option<&Observers> {
        self.observed
            .load(Ordering::Acquire)
            .then_some(&self.observers)
    }

    /// Returns the observers, and notes that there will be some.
    pub(super) fn observers_to_be(&self) -> &Observers {
        self.observed.store(true, Ordering::Release);
        &self.observers
    }

    /// Returns whether threads wait for the future by a condition that a program has put there.
    pub(super) fn has_foreign_condition(&self) -> bool {
        self.has_foreign_condition.load(Ordering::Acquire)
    }

    /// Notes that a program has put a condition there.
    pub(super) fn set_foreign_condition(&self) {
        self.has_foreign_condition.store(true, Ordering::Release);
    }

    // ---- between the Python object, its Rust part, and the engine's header

    /// Returns the future's task, for the engine.
    ///
    /// # Safety
    /// The future stays until the reference, and what is made of it, is gone.
    pub(crate) unsafe fn task(&self) -> ManuallyDrop<TaskRef> {
        // SAFETY: the future, which contains the header, stays until the reference and what is made of it are
        // gone.
        unsafe { TaskRef::borrow(NonNull::from(&self.header)) }
    }

    /// Returns the number of the future.
    pub(crate) fn id(&self) -> FutureId {
        // SAFETY: the future stays until this returns.
        unsafe { self.task() }.id()
    }

    /// Returns the reference with which a task goes into the queue of a pool.
    ///
    /// # Safety
    /// The future was made by `of_call`, and is enlisted once, by its maker.
    pub(crate) unsafe fn enlist(this: &Bound<'_, Self>, pool: PoolId) -> TaskRef {
        let header = NonNull::from(&this.get().header);
        mem::forget(this.clone());
        // An object in the queue is no garbage, so that the garbage collector need not
        // look at it; `free` tracks it again.
        // SAFETY: attached; the object is of a type that takes part in garbage collection.
        unsafe { ffi::PyObject_GC_UnTrack(this.as_ptr().cast()) };
        // A worker gives up that reference.
        unbias(this.as_any());
        // SAFETY: the future was made by `of_call` and is enlisted once, so no counted reference exists. The
        // object has got one more reference, which `free` gives up.
        unsafe { TaskRef::enlist(header, pool) }
    }

    /// # Safety
    /// The header is that of a future.
    pub(crate) unsafe fn at(task: NonNull<Header>) -> NonNull<Self> {
        // SAFETY: the header is that of a future, at this offset.
        unsafe { task.byte_sub(offset_of!(Self, header)).cast() }
    }

    /// # Safety
    /// The header is that of a future.
    pub(crate) unsafe fn object_of(task: NonNull<Header>) -> *mut ffi::PyObject {
        // SAFETY: the header is that of a future; all objects of the type have the same layout.
        unsafe { Self::at(task).byte_sub(OFFSET.load(Ordering::Relaxed)) }
            .cast()
            .as_ptr()
    }

    /// # Safety
    /// The header is that of a future which is alive.
    pub(crate) unsafe fn of<'py>(py: Python<'py>, task: NonNull<Header>) -> Bound<'py, Self> {
        // SAFETY: the header is that of a future which is alive.
        unsafe { Bound::from_borrowed_ptr(py, Self::object_of(task)).cast_into_unchecked() }
    }

    /// Returns a future without a reference of its own: other threads count the future's references, too.
    ///
    /// # Safety
    /// The header is that of a future which stays as long as what is returned.
    pub(crate) unsafe fn borrowed<'a, 'py>(
        py: Python<'py>,
        task: NonNull<Header>,
    ) -> Borrowed<'a, 'py, Self> {
        // SAFETY: the header is that of a future which stays as long as what is returned.
        unsafe { Borrowed::from_ptr(py, Self::object_of(task)).cast_unchecked() }
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

    /// Returns the phase that Python code sees: a dispatched task is pending until a worker process has begun
    /// it.
    pub(super) fn visible_phase(&self) -> Phase {
        match (self.state().phase(), self.remote()) {
            (Phase::Running, Some(remote)) if !remote.has_begun(self) => Phase::Pending,
            // It may have been given back, or have finished, meanwhile.
            (Phase::Running, Some(_)) => self.state().phase(),
            (phase, _) => phase,
        }
    }

    pub(super) fn phase_of(name: &str) -> Option<Phase> {
        Some(match name {
            "PENDING" => Phase::Pending,
            "RUNNING" => Phase::Running,
            "CANCELLED" => Phase::Cancelled,
            "CANCELLED_AND_NOTIFIED" => Phase::Notified,
            "FINISHED" => Phase::Finished,
            _ => return None,
        })
    }

    /// Calls `look` while no other thread holds the future's condition, under which threads change it by hand.
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
