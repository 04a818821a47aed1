//! The header of a task: the part that does not depend on the kind of task.
//!
//! The engine knows a task by the header: its state, its link in the queue, its number, and the operations of its
//! kind ([`VTable`]). A task of Rust begins with its header ([`body`](super::body)). A task of another frontend has the
//! header in an object of that frontend ([`ForeignTask`]).

use crate::error::TaskError;
use crate::id::{FutureId, PoolId};
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::runtime::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::stats::counts::Counts;
use crate::stats::directory;
use crate::task::state::{Cancel, State};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::ptr::{self, NonNull};

/// The operations that depend on the kind of task: its types, or its frontend.
#[derive(Debug)]
pub struct VTable {
    pub(super) execute: unsafe fn(NonNull<Header>) -> RunOutcome,
    pub(super) finish: unsafe fn(NonNull<Header>),
    pub(super) fail: unsafe fn(NonNull<Header>, TaskError),
    pub(super) cancel: unsafe fn(NonNull<Header>) -> Cancel,
    pub(super) skip: unsafe fn(NonNull<Header>),
    pub(super) failed: unsafe fn(NonNull<Header>) -> bool,
    /// Returns the error of a task whose outcome is one, for recordings. Calls foreign code.
    pub(super) error_text: unsafe fn(NonNull<Header>) -> Option<String>,
    pub(super) free: unsafe fn(NonNull<Header>),
    pub(super) name: unsafe fn(NonNull<Header>) -> Cow<'static, str>,
    /// The name of the function, if all tasks with these operations have the same; otherwise empty.
    pub(super) static_name: fn() -> &'static str,
    /// Whether callbacks are kept elsewhere than in the list of the state.
    pub(super) is_foreign: bool,
    /// Drops the outcome, for the handles of Rust.
    pub(super) drop_outcome: unsafe fn(NonNull<Header>),
    pub(super) body_offset: usize,
}

/// A task that is embedded in an object of another frontend.
///
/// The object has a [`Header`], by which the engine knows it. Each function gets the
/// header of such an object.
///
/// # Safety
/// An object whose header has a [`TaskRef`](super::reference::TaskRef) stays until `free` is called.
pub unsafe trait ForeignTask {
    /// Calls the task's function, and claims its future for the outcome. Returns whether the call `Finished` or
    /// `Failed`, or `Elsewhere` if another thread has set an outcome.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(task: NonNull<Header>) -> RunOutcome;

    /// Makes the future done.
    ///
    /// # Safety
    /// `execute` returned `Finished` or `Failed`.
    unsafe fn finish(task: NonNull<Header>);

    /// Makes the future done with an error instead of an outcome of the call.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn fail(task: NonNull<Header>, error: TaskError);

    /// Cancels the task if it is pending.
    ///
    /// # Safety
    /// The header is that of an object of this type.
    unsafe fn cancel(task: NonNull<Header>) -> Cancel;

    /// Notes that a task came out of the queue and was no longer pending.
    ///
    /// # Safety
    /// The header is that of an object of this type.
    unsafe fn skip(task: NonNull<Header>);

    /// Returns whether the outcome is an error.
    ///
    /// # Safety
    /// The future is finished.
    unsafe fn failed(task: NonNull<Header>) -> bool;

    /// Releases the object: the last [`TaskRef`](super::reference::TaskRef) is gone.
    ///
    /// # Safety
    /// The header was that of an object of this type.
    unsafe fn free(task: NonNull<Header>);

    /// Returns the name of the function, for error messages.
    ///
    /// # Safety
    /// The header is that of an object of this type.
    unsafe fn name(task: NonNull<Header>) -> Cow<'static, str>;
}

impl VTable {
    /// Returns the operations of a foreign task.
    #[must_use]
    pub const fn of<F: ForeignTask>() -> Self {
        Self {
            execute: F::execute,
            finish: F::finish,
            fail: F::fail,
            cancel: F::cancel,
            skip: F::skip,
            failed: F::failed,
            error_text: |_| None,
            free: F::free,
            name: F::name,
            static_name: || "",
            is_foreign: true,
            drop_outcome: |_| {},
            body_offset: 0,
        }
    }

    /// Returns the name of the function of a task with these operations, if all such tasks have the same.
    ///
    /// # Safety
    /// The pointer is null, or came from `TaskRef::operations`.
    pub(crate) unsafe fn static_name_at(operations: *const ()) -> &'static str {
        // SAFETY: a pointer that is not null came from `TaskRef::operations`, and so is never freed.
        let operations = unsafe { operations.cast::<Self>().as_ref() };
        operations.map_or("", |operations| (operations.static_name)())
    }
}

/// The part of a task that does not depend on its kind.
pub struct Header {
    pub(super) state: State,
    pub(super) vtable: &'static VTable,
    /// The next task in the queue of the pool.
    pub(crate) queue_next: AtomicPtr<Header>,
    /// The number of the pool whose queue the task is in; 0 for none.
    pub(super) pool: AtomicUsize,
    pub(super) id: FutureId,
    pub(super) references: AtomicU32,
    /// Whether the outcome was moved out.
    pub(super) taken: Cell<bool>,
}

impl Header {
    pub(super) fn new(vtable: &'static VTable, pool: Option<PoolId>, references: u32) -> Self {
        Self {
            state: State::new(),
            vtable,
            queue_next: AtomicPtr::new(ptr::null_mut()),
            pool: AtomicUsize::new(PoolId::number(pool)),
            id: FutureId::next(),
            references: AtomicU32::new(references),
            taken: Cell::new(false),
        }
    }

    /// Makes the header of a foreign task, which has no counted reference.
    #[must_use]
    pub fn foreign(vtable: &'static VTable) -> Self {
        Self::new(vtable, None, 0)
    }

    /// Returns the state of the task's future.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Records and counts that the pending task was cancelled, if it is a pool's.
    pub fn note_cancelled(&self) {
        // ORDERING: Relaxed, as nothing of the pool is published by its number.
        let pool = PoolId::from_number(self.pool.load(Ordering::Relaxed));
        if pool.is_some() {
            recorder::cancelled(self.id);
            directory::count(pool, Counts::cancelled);
        }
    }

    /// Counts that the task has left the queue after it was cancelled.
    pub fn note_skipped(&self) {
        // ORDERING: Relaxed, as nothing of the pool is published by its number.
        let pool = PoolId::from_number(self.pool.load(Ordering::Relaxed));
        directory::count(pool, Counts::skipped);
    }

    /// Records and counts that the task failed without being started.
    pub fn note_rejected(&self, outcome: RunOutcome) {
        recorder::rejected(self.id, outcome);
        // ORDERING: Relaxed, as nothing of the pool is published by its number.
        let pool = PoolId::from_number(self.pool.load(Ordering::Relaxed));
        directory::count(pool, Counts::rejected);
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.id)
    }
}
