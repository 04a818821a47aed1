//! The calls of `map`: tasks of the engine without a Python object for each.
//!
//! No program sees the futures of `map`, only results. So the task of an item is a small allocation with the engine's
//! header. It is queued, started, cancelled, waited for and counted by the engine's protocols, as every other task.
//! The interpreter and its garbage collector do not know the allocation, and one function serves many items without a
//! reference for each.
//!
//! # Protocol
//! An item has two counted references at first: the queue's, which the worker takes over, and the iterator's.
//!
//! | field | belongs to |
//! |---|---|
//! | `call` | its maker; then the thread that starts or cancels the task |
//! | `outcome` | the thread that has started the task; from the moment when it is finished, the iterator |
//! | `successor` | set once, by the thread that took the pending task out of the queue; then read by the iterator |
//!
//! # Invariants
//! 1. One thread at a time has the iterator, and no other code has a handle of the item. So the thread that has the
//!    iterator may move the outcome out.
//! 2. An item whose pool goes over to the standard library's code gets a future as its successor before it is made
//!    done. A thread that finds the item done without an outcome finds the successor.

use crate::dump::running::Running;
use crate::future::call::Call;
use crate::future::execute::with_traceback;
use crate::future::object::Future;
use crate::interp::attach::attached;
use crate::interp::bias::{unbias, unbias_all};
use crate::interp::deferred_drop::has_no_finalizer;
use crate::interp::fork::may_handle_signals;
use crate::interp::signals::hold;
use crate::interp::stdlib;
use crate::interp::turns::checkpoint_at_ticks;
use crate::recording::names;
use concurrent_futures::TaskError;
use concurrent_futures::engine::recorder::{self, RunOutcome};
use concurrent_futures::engine::{
    Cancel, ForeignTask, Header, Permit, Phase, PoolId, TaskRef, VTable,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFunction, PyTuple};
use pyo3::{PyTraverseError, PyVisit, ffi};
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The number of items that share one reference to their function. The count of a larger group would go to and fro
/// between workers.
const GROUP: usize = 64;

/// A call that a pool has given up: its future, function, arguments and keywords.
pub(crate) type GivenUp<'py> = (
    Bound<'py, Future>,
    Bound<'py, PyAny>,
    Bound<'py, PyTuple>,
    Bound<'py, PyDict>,
);

/// The function of some items.
pub(crate) struct Function {
    function: Py<PyAny>,
    /// Whether each item is the only argument. Otherwise an item is the tuple of all arguments.
    is_unary: bool,
}

/// Gives items their function.
pub(crate) struct Functions<'py> {
    function: Bound<'py, PyAny>,
    is_unary: bool,
    group: Arc<Function>,
    left: usize,
}

impl<'py> Functions<'py> {
    pub(crate) fn new(function: Bound<'py, PyAny>, is_unary: bool) -> Self {
        let group = Arc::new(Function {
            function: function.clone().unbind(),
            is_unary,
        });
        Self {
            function,
            is_unary,
            group,
            left: GROUP,
        }
    }

    pub(crate) fn function(&self) -> &Bound<'py, PyAny> {
        &self.function
    }

    pub(crate) fn is_unary(&self) -> bool {
        self.is_unary
    }

    fn next(&mut self) -> Arc<Function> {
        if self.left == 0 {
            *self = Self::new(self.function.clone(), self.is_unary);
        }
        self.left -= 1;
        Arc::clone(&self.group)
    }
}

/// The call of an item.
struct ItemCall {
    function: Arc<Function>,
    /// The argument, or the tuple of all arguments.
    argument: Py<PyAny>,
    /// The task's permit, if pending tasks are bounded.
    permit: Option<Permit>,
}

impl ItemCall {
    fn make(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        drop(self.permit);
        let function = self.function.function.bind(py);
        if recorder::is_on() {
            recorder::note_name(names::name_of(function));
        }
        if !function.is_exact_instance_of::<PyFunction>() {
            checkpoint_at_ticks(py)?;
        }
        let argument = self.argument.into_bound(py);
        let _running = Running::enter(function);
        if self.function.is_unary {
            return function.call1((argument,));
        }
        // SAFETY: the item is a tuple, as `zip` makes them.
        function.call1(unsafe { argument.cast_into_unchecked::<PyTuple>() })
    }

    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let argument = self.argument.bind(py);
        if self.function.is_unary {
            return PyTuple::new(py, [argument]);
        }
        Ok(argument.cast::<PyTuple>()?.clone())
    }

    /// Drops a call that will not be made; see `Call::abandon`.
    fn abandon(self, py: Python<'_>) {
        if !self.function.is_unary {
            let argument = self.argument.into_bound(py);
            // SAFETY: the item is a tuple, as `zip` makes them.
            let arguments = unsafe { argument.cast_into_unchecked::<PyTuple>() };
            return Call {
                function: self.function.function.clone_ref(py),
                arguments: arguments.unbind(),
                keywords: None,
                context: None,
                permit: self.permit,
            }
            .abandon(py);
        }
        let object = self.argument.as_ptr();
        // SAFETY: attached; the call keeps its objects alive.
        let runs_code = unsafe { !has_no_finalizer(object) && ffi::Py_REFCNT(object) <= 1 };
        let held = (may_handle_signals() && runs_code).then(|| hold(py));
        drop(self);
        drop(held);
    }
}

/// The result, or the exception, of a call.
type Outcome = Result<Py<PyAny>, Py<PyAny>>;

/// The task of an item.
#[repr(C)]
pub(crate) struct Item {
    header: Header,
    call: UnsafeCell<Option<ItemCall>>,
    outcome: UnsafeCell<Option<Outcome>>,
    /// The future that the standard library's code has got for the item.
    successor: PyOnceLock<Py<Future>>,
}

static VTABLE: VTable = VTable::of::<Item>();

/// The iterator's reference to an item.
pub(crate) struct ItemHandle(TaskRef);

// SAFETY: an item is made by `ItemHandle::new` and freed by `free`, after the last `TaskRef` is gone.
unsafe impl ForeignTask for Item {
    unsafe fn execute(task: NonNull<Header>) -> RunOutcome {
        attached(|py| {
            // SAFETY: the header is that of an item. The caller has started the task, so that call and outcome are
            // the caller's.
            let (call, place) = unsafe {
                let item = Self::at(task).as_ref();
                ((*item.call.get()).take(), item.outcome.get())
            };
            let made = call.map_or_else(|| Ok(py.None().into_bound(py)), |call| call.make(py));
            let (outcome, run) = match made {
                Ok(result) => {
                    unbias(&result);
                    (Ok(result.unbind()), RunOutcome::Finished)
                }
                Err(error) => {
                    let exception = with_traceback(py, error).into_value(py).into_any();
                    if recorder::is_on() {
                        recorder::note_error(&names::text_of(exception.bind(py)));
                    }
                    (Err(exception), RunOutcome::Failed)
                }
            };
            // SAFETY: the outcome is the caller's until it finishes the task.
            unsafe { *place = Some(outcome) };
            run
        })
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: `execute` has written the outcome. Items have no callbacks.
        unsafe { task.as_ref().state().finish(ptr::null(), || {}) };
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        attached(|py| {
            // SAFETY: the header is that of an item, which the caller has started.
            unsafe {
                let item = Self::at(task).as_ref();
                if let Some(call) = (*item.call.get()).take() {
                    call.abandon(py);
                }
                let error = stdlib::task_error(py, &error);
                *item.outcome.get() = Some(Err(error.into_value(py).into_any()));
                Self::finish(task);
            }
        });
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        attached(|py| {
            // SAFETY: the header is that of an item.
            let item = unsafe { Self::at(task).as_ref() };
            let cancel = item.header.state().cancel(|| {
                // SAFETY: ours is the cancellation, so the call is ours.
                if let Some(call) = unsafe { (*item.call.get()).take() } {
                    call.abandon(py);
                }
            });
            if cancel == Cancel::Now {
                item.header.note_cancelled();
            }
            cancel
        })
    }

    unsafe fn skip(_: NonNull<Header>) {}

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: the header is that of an item, which is finished.
        unsafe { matches!(*Self::at(task).as_ref().outcome.get(), Some(Err(_))) }
    }

    unsafe fn free(task: NonNull<Header>) {
        let item = Self::at(task);
        // SAFETY: no reference is left, so that no other thread has the item.
        let is_empty = unsafe {
            let Self { call, outcome, .. } = item.as_ref();
            (*call.get()).is_none() && (*outcome.get()).is_none()
        };
        // SAFETY: made by `ItemHandle::new`, and no reference is left. The caller is attached where that is needed.
        let free = || unsafe { memory::free(item) };
        if is_empty && !memory::NEEDS_INTERPRETER {
            free();
        } else {
            attached(|_| free());
        }
    }

    unsafe fn name(_: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

impl Item {
    fn at(task: NonNull<Header>) -> NonNull<Self> {
        // The header is the first field.
        task.cast()
    }

    /// Takes the call of a pending item that has left the queue, and gives the item a future in place of the call.
    /// Returns the future and its call; none if the item was cancelled.
    ///
    /// # Safety
    /// The task is an item's, and no other thread starts it.
    pub(crate) unsafe fn give_up<'py>(
        py: Python<'py>,
        task: TaskRef,
    ) -> PyResult<Option<GivenUp<'py>>> {
        // SAFETY: the task is an item's, which the reference keeps.
        let item = unsafe { Self::at(task.address()).as_ref() };
        // SAFETY: the task is made done below, by the future's callback.
        if !unsafe { item.header.state().start() } {
            task.note_skipped();
            return Ok(None);
        }
        // SAFETY: just started.
        let Some(call) = (unsafe { (*item.call.get()).take() }) else {
            return Ok(None);
        };
        let function = call.function.function.bind(py).clone();
        let arguments = call.arguments(py)?;
        let future = Future::create(py, Future::pending(None))?;
        // Set once, here.
        let _ = item.successor.set(py, future.clone().unbind());
        let done = Bound::new(py, SuccessorDone(ItemHandle(task)))?;
        future.call_method1("add_done_callback", (done,))?;
        Ok(Some((future, function, arguments, PyDict::new(py))))
    }
}

/// The callback of a future that has taken the place of an item.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct SuccessorDone(ItemHandle);

#[pymethods]
impl SuccessorDone {
    /// Wakes the thread that waits for the item.
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        // SAFETY: `give_up` has started the item; a future calls its callbacks once.
        unsafe { Item::finish(self.0.0.address()) };
    }
}

impl ItemHandle {
    /// Makes an item. Returns the queue's reference, and the iterator's.
    pub(crate) fn new(
        functions: &mut Functions<'_>,
        argument: Bound<'_, PyAny>,
        permit: Option<Permit>,
        pool: PoolId,
    ) -> (TaskRef, Self) {
        if functions.is_unary {
            unbias(&argument);
        } else {
            // SAFETY: the item is a tuple, as `zip` makes them.
            unbias_all(unsafe { argument.cast_unchecked::<PyTuple>() });
        }
        let py = argument.py();
        let item = Item {
            header: Header::foreign(&VTABLE),
            call: UnsafeCell::new(Some(ItemCall {
                function: functions.next(),
                argument: argument.unbind(),
                permit,
            })),
            outcome: UnsafeCell::new(None),
            successor: PyOnceLock::new(),
        };
        let header = memory::allocate(py, item).cast();
        // SAFETY: the header is that of an item that no other thread knows. It stays until `free` is called.
        let queued = unsafe { TaskRef::enlist(header, pool) };
        let handle = Self(queued.clone());
        (queued, handle)
    }

    /// Returns whether a task is an item's.
    pub(crate) fn is_item(task: &TaskRef) -> bool {
        task.has_operations(&VTABLE)
    }

    pub(crate) fn task(&self) -> &TaskRef {
        &self.0
    }

    fn item(&self) -> &Item {
        // SAFETY: the reference keeps the item.
        unsafe { Item::at(self.0.address()).as_ref() }
    }

    /// Returns the future that has taken the place of the item, if there is one.
    pub(crate) fn successor<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, Future>> {
        self.item().successor.get(py).map(|future| future.bind(py))
    }

    /// Moves the result out, if there is one.
    ///
    /// # Safety
    /// The caller has the iterator to itself.
    pub(crate) unsafe fn take_result<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let item = self.item();
        if item.header.state().phase() != Phase::Finished {
            return None;
        }
        // SAFETY: the task is finished, and the caller has the only handle.
        let outcome = unsafe { &mut *item.outcome.get() };
        match outcome.take() {
            Some(Ok(result)) => Some(result.into_bound(py)),
            other => {
                *outcome = other;
                None
            }
        }
    }

    /// Moves the outcome of an item out that is done and has no successor.
    ///
    /// # Safety
    /// As for `take_result`.
    pub(crate) unsafe fn take_outcome<'py>(
        &mut self,
        py: Python<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let item = self.item();
        if item.header.state().phase() != Phase::Finished {
            return Err(stdlib::cancelled(py));
        }
        // SAFETY: the task is finished, and the caller has the only handle.
        match unsafe { (*item.outcome.get()).take() } {
            Some(Ok(result)) => Ok(result.into_bound(py)),
            Some(Err(exception)) => Err(stdlib::raising(exception.bind(py))),
            None => Err(stdlib::cancelled(py)),
        }
    }

    /// Takes the argument of an item back that the queue has refused.
    pub(crate) fn take_back<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut call = None;
        self.item().header.state().cancel(|| {
            // SAFETY: ours is the cancellation, so the call is ours.
            call = unsafe { (*self.item().call.get()).take() };
        });
        Some(call?.argument.into_bound(py))
    }

    /// Cancels the item if it is pending.
    pub(crate) fn cancel(&self) {
        // SAFETY: the task is an item's.
        unsafe { Item::cancel(self.0.address()) };
    }

    /// Shows the outcome to the garbage collector.
    ///
    /// # Safety
    /// For `__traverse__` of the iterator, which no thread has.
    pub(crate) unsafe fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let item = self.item();
        if item.header.state().phase() != Phase::Finished {
            return Ok(());
        }
        // SAFETY: the task is finished, so that the outcome is the iterator's.
        match unsafe { &*item.outcome.get() } {
            Some(Ok(object) | Err(object)) => visit.call(object),
            None => Ok(()),
        }
    }
}

/// The memory of items.
///
/// A `map` makes many items, whose memory another thread may free. In free-threaded builds, the interpreter's allocator is
/// made for just that. In the others, it gives memory back to the system and gets it again: it takes longer than Rust's.
mod memory {
    use super::Item;
    use pyo3::prelude::*;
    use std::ptr::NonNull;

    /// Whether only attached threads may call `free` for an item without contents.
    pub(super) const NEEDS_INTERPRETER: bool = cfg!(Py_GIL_DISABLED);

    #[cfg(Py_GIL_DISABLED)]
    pub(super) fn allocate(_attached: Python<'_>, item: Item) -> NonNull<Item> {
        use std::alloc::{Layout, handle_alloc_error};

        // All memory of the interpreter has this alignment.
        const { assert!(align_of::<Item>() <= 8) };
        // SAFETY: attached.
        let place = unsafe { pyo3::ffi::PyMem_Malloc(size_of::<Item>()) };
        let Some(place) = NonNull::new(place.cast::<Item>()) else {
            handle_alloc_error(Layout::new::<Item>());
        };
        // SAFETY: the memory is ours, and large enough.
        unsafe { place.write(item) };
        place
    }

    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) fn allocate(_attached: Python<'_>, item: Item) -> NonNull<Item> {
        NonNull::from(Box::leak(Box::new(item)))
    }

    /// # Safety
    /// `allocate` has returned the item, and no other code uses it from now on. The caller is attached if the item has
    /// contents, or `NEEDS_INTERPRETER`.
    pub(super) unsafe fn free(item: NonNull<Item>) {
        #[cfg(Py_GIL_DISABLED)]
        // SAFETY: the item is the caller's, who is attached.
        unsafe {
            item.drop_in_place();
            pyo3::ffi::PyMem_Free(item.as_ptr().cast());
        }
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: the item is the caller's.
        drop(unsafe { Box::from_raw(item.as_ptr()) });
    }
}
