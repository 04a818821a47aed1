//! Direct calls of another native module, which need neither the interpreter nor a future of Python.
//!
//! The engine's `process/direct.rs` has the interface and the protocol. A task here is an object of its own, which the
//! engine knows by its header.
//!
//! # Invariants
//! 1. `done` is called once for each accepted call. The thread that moves the task to its last phase calls it.
//! 2. The outcome is written before that, by the thread that has claimed the task.
//! 3. The flag of the state is set from the start. So the engine calls `finish` for each task.

use crate::interp::attach::{attached, is_exiting};
use crate::interp::process_errors;
use crate::pickle::callee::Callee;
use crate::pickle::calls::{Tag, arguments_of};
use crate::pickle::{buffers, unpickling};
use crate::process::pool::Started;
use crate::process::shared::{Shared, start_worker};
use concurrent_futures::engine::recorder::{self, RunOutcome};
use concurrent_futures::engine::{
    Advance, Argument, CAPSULE, Cancel, Definition, DirectCall, DirectCalls, DirectEnd, DirectTask,
    Done, ForeignTask, Header, Kept, MappedSegment, Phase, RemoteAnswer, RemoteCall, RemoteTask,
    Submitted, TaskRef, VTable,
};
use concurrent_futures::{TaskError, TaskOptions};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use std::borrow::Cow;
use std::ffi::c_void;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A pool and the function that is called, as another module knows them.
struct Direct {
    pool: KeptPool,
    definition: Arc<Definition>,
}

/// A counted reference to a pool, which any thread may drop.
struct KeptPool(ManuallyDrop<Arc<Shared>>);

impl KeptPool {
    fn of(pool: &Arc<Shared>) -> Self {
        Self(ManuallyDrop::new(Arc::clone(pool)))
    }
}

impl Drop for KeptPool {
    fn drop(&mut self) {
        // SAFETY: it is not used afterwards.
        let pool = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(last) = Arc::into_inner(pool) {
            // It refers to objects of Python.
            attached(|_| drop(last));
        }
    }
}

/// The outcome of a call.
enum Outcome {
    Missing,
    /// The bytes of a reply, and its buffers.
    Value(Vec<u8>, Option<Arc<MappedSegment>>),
    Failure(Vec<u8>),
    Error(TaskError),
    /// The buffers of the reply were not received.
    Lost(io::Error),
    /// An exception of this process.
    Raised(PyErr),
}

impl Outcome {
    fn of(answer: RemoteAnswer<'_>) -> Self {
        match answer {
            RemoteAnswer::Value { bytes, attachment } => match attachment.transpose() {
                Ok(attachment) => Self::Value(bytes.into_owned(), attachment.map(Arc::new)),
                Err(error) => Self::Lost(error),
            },
            RemoteAnswer::Failure(bytes) => Self::Failure(bytes.into_owned()),
            RemoteAnswer::Error(error) => Self::Error(error),
        }
    }

    /// Returns the content of a `bytes` object, if the reply consists of it.
    fn bytes_object(&self) -> Option<&[u8]> {
        match self {
            Self::Value(bytes, None) => match bytes.split_first() {
                Some((&unpickling::BYTES, content)) => Some(content),
                _ => None,
            },
            _ => None,
        }
    }

    /// Makes an object.
    ///
    /// # Errors
    /// The exception of the call, or why there is no outcome.
    fn into_object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Value(bytes, attachment) => unpickling::value(py, &bytes, attachment.as_ref()),
            Self::Failure(bytes) => Err(PyErr::from_value(unpickling::failure(py, &bytes)?)),
            Self::Error(error) => Err(process_errors::task_error(py, &error)),
            Self::Lost(error) => Err(buffers::lost(&error)),
            Self::Raised(error) => Err(error),
            Self::Missing => Err(PyRuntimeError::new_err("the outcome was taken before")),
        }
    }
}

/// The task of a direct call.
#[repr(C)]
struct Task {
    header: Header,
    pool: KeptPool,
    outcome: Mutex<Outcome>,
    context: *mut c_void,
    done: Done,
}

/// The operations of direct calls.
static VTABLE: VTable = VTable::of::<Task>();

impl Task {
    /// Makes a task that no other thread knows, and returns its first reference.
    fn make(pool: &KeptPool, context: *mut c_void, done: Done) -> TaskRef {
        let task = Box::new(Self {
            header: Header::foreign(&VTABLE),
            pool: KeptPool::of(&pool.0),
            outcome: Mutex::new(Outcome::Missing),
            context,
            done,
        });
        // SAFETY: no thread waits for the state. The flag tells that `finish` is to be called.
        unsafe { task.header.state().flag() };
        let header = NonNull::from(Box::leak(task)).cast::<Header>();
        // SAFETY: made just now, and freed by `free`.
        unsafe { TaskRef::enlist(header, pool.0.pool.id()) }
    }

    /// # Safety
    /// The header is that of such a task, which stays for this lifetime.
    unsafe fn at<'a>(header: NonNull<Header>) -> &'a Self {
        // SAFETY: the header is the first field.
        unsafe { header.cast::<Self>().as_ref() }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        // No foreign code runs under the lock.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the other module the end of the call, whose outcome is written unless the call was cancelled.
    ///
    /// # Safety
    /// The caller has a counted reference to such a task, has moved it to its last phase, and so calls this once.
    unsafe fn tell(header: NonNull<Header>, is_cancelled: bool) {
        // SAFETY: the caller has a counted reference.
        let (this, reference) = unsafe { (Self::at(header), TaskRef::borrow(header)) };
        let task = into_direct((*reference).clone());
        let outcome = mem::replace(&mut *this.outcome(), Outcome::Missing);
        let (end, kept, outcome) = match outcome.bytes_object() {
            _ if is_cancelled => (DirectEnd::CANCELLED, Outcome::Missing, None),
            Some(_) => (DirectEnd::VALUE, Outcome::Missing, Some(outcome)),
            None => (DirectEnd::OTHER, outcome, None),
        };
        *this.outcome() = kept;
        let bytes = outcome
            .as_ref()
            .and_then(Outcome::bytes_object)
            .unwrap_or_default();
        // SAFETY: the module that has submitted the call has promised that the function may be called so.
        unsafe { (this.done)(this.context, task, end, bytes.as_ptr(), bytes.len()) };
    }

    /// Cancels a pending task, and tells that. Returns how it went.
    ///
    /// # Safety
    /// The caller has a counted reference to such a task.
    unsafe fn cancel_pending(header: NonNull<Header>) -> Cancel {
        // SAFETY: the caller has the reference. Any thread may cancel a pending task, which has no outcome.
        let (this, advance) = unsafe {
            let this = Self::at(header);
            let state = this.header.state();
            let advance = state.advance(&[Phase::Pending], Phase::Cancelled, true);
            (this, advance)
        };
        match advance {
            Advance::Done => {
                this.header.note_cancelled();
                this.pool.0.room.note_departure();
                // SAFETY: cancelled just now.
                unsafe { Self::tell(header, true) };
                Cancel::Now
            }
            Advance::Other(Phase::Cancelled | Phase::Notified) => Cancel::Before,
            _ => Cancel::TooLate,
        }
    }
}

// SAFETY: the objects are boxes whose first field is the header; `free` takes the box back. The state's protocol lets
// one thread write the outcome, and one thread tell the end. The pool, the outcome and the functions of the other module
// may be used by any thread.
unsafe impl ForeignTask for Task {
    /// Fails: no thread of this process calls the task.
    unsafe fn execute(_: NonNull<Header>) -> RunOutcome {
        RunOutcome::Elsewhere
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: the caller has claimed the task, whose outcome is written, and has a reference to it.
        unsafe {
            let state = Self::at(task).header.state();
            let advance = state.advance(&[Phase::Setting], Phase::Finished, true);
            if advance == Advance::Done {
                Self::tell(task, false);
            }
        }
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        // SAFETY: the caller has started the task, so that it may claim and finish.
        unsafe {
            if Self::at(task).header.state().claim().is_ok() {
                Self::answer(task, 0..1, RemoteAnswer::Error(error));
                Self::finish(task);
            }
        }
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        // SAFETY: the caller has a reference to the task.
        unsafe { Self::cancel_pending(task) }
    }

    unsafe fn skip(task: NonNull<Header>) {
        // SAFETY: the caller has a reference to the task. A cancelled task may be noticed.
        unsafe {
            let task = Self::at(task);
            let state = task.header.state();
            state.advance(&[Phase::Cancelled], Phase::Notified, true);
        }
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: the caller has a reference to the task.
        let outcome = unsafe { Self::at(task) }.outcome();
        !matches!(*outcome, Outcome::Missing | Outcome::Value(..))
    }

    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: the last reference to the box is gone.
        drop(unsafe { Box::from_raw(task.cast::<Self>().as_ptr()) });
    }

    unsafe fn name(_: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

// SAFETY: as above; the functions call nothing foreign.
unsafe impl RemoteTask for Task {
    unsafe fn answer(task: NonNull<Header>, _: Range<u32>, answer: RemoteAnswer<'_>) -> Kept {
        // SAFETY: the pool has a reference to the task, and has claimed it.
        let task = unsafe { Self::at(task) };
        *task.outcome() = Outcome::of(answer);
        task.pool.0.room.note_departure();
        Kept::Whole
    }

    unsafe fn settle(_: NonNull<Header>) {}

    unsafe fn leave(_: NonNull<Header>) {}

    unsafe fn is_abandoned(_: NonNull<Header>) -> bool {
        false
    }

    fn error_text(failure: &[u8]) -> Option<String> {
        unpickling::failure_text(failure).map(str::to_owned)
    }

    fn item_error_text(_: &[u8]) -> Option<String> {
        None
    }

    unsafe fn call_name(_: NonNull<Header>) -> Option<String> {
        None
    }

    fn function_name(definition: &[u8]) -> Option<String> {
        Callee::name(definition)
    }
}

/// Returns a reference as the other module has it.
fn into_direct(task: TaskRef) -> DirectTask {
    DirectTask(ManuallyDrop::new(task).address().as_ptr().cast())
}

/// Returns a reference of the other module as ours, which is not counted.
///
/// # Safety
/// The other module has the reference meanwhile.
unsafe fn of_direct(task: DirectTask) -> Option<ManuallyDrop<TaskRef>> {
    let header = NonNull::new(task.0.cast_mut().cast::<Header>())?;
    // SAFETY: the other module has the reference meanwhile.
    Some(unsafe { TaskRef::borrow(header) })
}

/// Returns a capsule for direct calls of a function. None if the pool is not to be used so.
pub(super) fn offer<'py>(
    started: &Started,
    is_plain: bool,
    function: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyCapsule>>> {
    let shared = &started.shared;
    let has_begun = started.has_begun.load(Ordering::Acquire);
    if !has_begun || !is_plain || shared.pool.is_bounded() || shared.refusal().is_some() {
        return Ok(None);
    }
    let Some(definition) = shared.functions.definition_for_items(function)? else {
        return Ok(None);
    };
    let pool = Arc::new(Direct {
        pool: KeptPool::of(shared),
        definition,
    });
    let calls = Offered(DirectCalls {
        pool: Arc::into_raw(pool).cast(),
        hold,
        release_pool,
        submit,
        start_worker: start_worker_for,
        receive_soon,
        cancel,
        terminate,
        take,
        release_task,
    });
    PyCapsule::new_with_value(function.py(), calls, CAPSULE).map(Some)
}

/// The content of a capsule.
#[repr(transparent)]
struct Offered(DirectCalls);

// SAFETY: any thread may use the table.
unsafe impl Send for Offered {}

impl Drop for Offered {
    fn drop(&mut self) {
        // SAFETY: the table has a counted reference.
        unsafe { release_pool(self.0.pool) };
    }
}

unsafe extern "C" fn hold(pool: *const c_void) {
    // SAFETY: the caller has a counted reference to this pool.
    unsafe { Arc::increment_strong_count(pool.cast::<Direct>()) };
}

unsafe extern "C" fn release_pool(pool: *const c_void) {
    // SAFETY: the caller gives a counted reference to this pool up.
    drop(unsafe { Arc::from_raw(pool.cast::<Direct>()) });
}

unsafe extern "C" fn submit(pool: *const c_void, call: *const DirectCall) -> Submitted {
    // SAFETY: the caller has a reference to this pool, and a call.
    let (direct, call) = unsafe { (&*pool.cast::<Direct>(), &*call) };
    let refused = Submitted {
        task: DirectTask(ptr::null()),
        wants_worker: false,
    };
    let shared = &direct.pool.0;
    // Those that wait for their pickling come first, and Python code names the tasks of a recording.
    let must_wait = shared.feeder.left() > 0 || recorder::is_on();
    if !shared.is_of_this_process() || is_exiting() || must_wait || shared.refusal().is_some() {
        return refused;
    }
    // SAFETY: the caller has such an argument.
    let argument = unsafe { slice::from_raw_parts(call.argument, call.length) };
    let mut options = TaskOptions::new().retries(call.retries);
    if call.time_limit > 0 {
        options = options.time_limit(Duration::from_nanos(call.time_limit));
    }
    let task = Task::make(&direct.pool, call.context, call.done);
    let remote = RemoteCall {
        definition: Some(Arc::clone(&direct.definition)),
        tag: Tag::Arguments as u8,
        argument: Argument::Own(arguments_of(argument, call.token)),
        attachment: None,
        span: None,
        options,
        has_place: false,
    };
    // SAFETY: it is a task of ours.
    match unsafe { shared.pool.submit::<Task>(task.clone(), remote) } {
        Ok(wants_worker) => Submitted {
            task: into_direct(task),
            wants_worker,
        },
        // The pool has given the task up, and tells no end.
        Err(_) => refused,
    }
}

unsafe extern "C" fn start_worker_for(task: DirectTask) -> bool {
    // SAFETY: the caller has the reference.
    let Some(task) = (unsafe { of_direct(task) }) else {
        return true;
    };
    // SAFETY: tasks of other modules are ours.
    let ours = unsafe { Task::at(task.address()) };
    let shared = &ours.pool.0;
    attached(|py| {
        let Err(error) = start_worker(py, shared) else {
            return true;
        };
        // SAFETY: the pool lets other code set outcomes. As in `submit` of Python, a task that no worker has fails.
        unsafe {
            let state = ours.header.state();
            let advance = state.advance(&[Phase::Pending], Phase::Setting, true);
            if advance == Advance::Done {
                *ours.outcome() = Outcome::Raised(error.clone_ref(py));
                <Task as ForeignTask>::finish(task.address());
            }
        }
        shared.pool.reconsider();
        error.restore(py);
        false
    })
}

unsafe extern "C" fn receive_soon(pool: *const c_void) {
    // SAFETY: the caller has a reference to this pool.
    let shared = unsafe { &(*pool.cast::<Direct>()).pool.0 };
    shared.pool.receive_soon();
}

unsafe extern "C" fn cancel(task: DirectTask) -> bool {
    // SAFETY: the caller has the reference.
    let Some(task) = (unsafe { of_direct(task) }) else {
        return false;
    };
    let address = task.address();
    // SAFETY: tasks of other modules are ours, and the caller has the reference.
    let cancel = || unsafe { Task::cancel_pending(address) };
    let mut cancelled = cancel();
    // SAFETY: as above.
    let pool = unsafe { &Task::at(address).pool.0 };
    if cancelled == Cancel::TooLate && pool.is_of_this_process() {
        pool.pool.recall(&task, || cancelled = cancel());
    }
    cancelled != Cancel::TooLate
}

unsafe extern "C" fn terminate(task: DirectTask) -> bool {
    // SAFETY: the caller has the reference.
    let Some(task) = (unsafe { of_direct(task) }) else {
        return false;
    };
    // SAFETY: tasks of other modules are ours.
    let shared = unsafe { &Task::at(task.address()).pool.0 };
    shared.is_of_this_process() && shared.pool.terminate(&task)
}

unsafe extern "C" fn take(task: DirectTask) -> *mut c_void {
    attached(|py| {
        // SAFETY: the caller has the reference.
        let object = match unsafe { of_direct(task) } {
            Some(task) => {
                // SAFETY: tasks of other modules are ours.
                let task = unsafe { Task::at(task.address()) };
                let outcome = mem::replace(&mut *task.outcome(), Outcome::Missing);
                outcome.into_object(py)
            }
            None => Err(PyRuntimeError::new_err("there is no task")),
        };
        match object {
            Ok(object) => object.into_ptr().cast(),
            Err(error) => {
                error.restore(py);
                ptr::null_mut()
            }
        }
    })
}

unsafe extern "C" fn release_task(task: DirectTask) {
    // SAFETY: the caller gives its reference up.
    if let Some(task) = unsafe { of_direct(task) } {
        drop(ManuallyDrop::into_inner(task));
    }
}
