//! The one allocation behind a future: state, call, and then outcome.
//!
//! A task is shared by reference counts. One reference is that of the handle ([`Future`]). The other is that
//! of the side that completes the task: the queue and then the worker, or the promise. The counts govern the
//! memory only. The [state](super::state) decides which thread may access the fields:
//!
//! | field | accessed by |
//! |---|---|
//! | call | the creator; then the thread that wins `start` (takes it) or `cancel` (drops it) |
//! | outcome | the thread that started or claimed, until `finish`; when done, callbacks and the handle may read it, and the handle may take it |
//! | `taken` | the handle |
//!
//! [`Future`]: crate::Future

use crate::error::TaskError;
use crate::id::{FutureId, PoolId};
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::runtime::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use crate::stats::counts::Counts;
use crate::stats::directory;
use crate::task::panic;
use crate::task::state::{Advance, Cancel, Phase, State};
use std::borrow::Cow;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::{self, ManuallyDrop, offset_of};
use std::ptr::{self, NonNull};

/// The outcome of a task.
pub(crate) type Outcome<T> = Result<T, TaskError>;

/// The call of a task.
pub(crate) trait Call {
    type Output;

    fn call(self) -> Outcome<Self::Output>;

    /// Returns the name of the function, for error messages.
    fn name() -> &'static str;
}

/// The operations that depend on the kind of task: its types, or its frontend.
#[derive(Debug)]
pub struct VTable {
    execute: unsafe fn(NonNull<Header>) -> bool,
    finish: unsafe fn(NonNull<Header>),
    fail: unsafe fn(NonNull<Header>, TaskError),
    cancel: unsafe fn(NonNull<Header>) -> Cancel,
    skip: unsafe fn(NonNull<Header>),
    failed: unsafe fn(NonNull<Header>) -> bool,
    /// Returns the error of a task whose outcome is one, for recordings. Calls foreign code.
    error_text: unsafe fn(NonNull<Header>) -> Option<String>,
    free: unsafe fn(NonNull<Header>),
    name: unsafe fn(NonNull<Header>) -> Cow<'static, str>,
    /// The name of the function, if all tasks with these operations have the same; otherwise empty.
    static_name: fn() -> &'static str,
    /// Whether callbacks are kept elsewhere than in the list of the state.
    is_foreign: bool,
    /// Drops the outcome, for the handles of Rust.
    drop_outcome: unsafe fn(NonNull<Header>),
    body_offset: usize,
}

/// A task that is embedded in an object of another frontend.
///
/// The object has a [`Header`], by which the engine knows it. Each function gets the
/// header of such an object.
///
/// # Safety
/// An object whose header has a [`TaskRef`] stays until `free` is called.
pub unsafe trait ForeignTask {
    /// Calls the task's function, and claims its future for the outcome. Returns false if another thread has
    /// set an outcome.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(task: NonNull<Header>) -> bool;

    /// Makes the future done.
    ///
    /// # Safety
    /// `execute` returned true.
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

    /// Releases the object: the last [`TaskRef`] is gone.
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
}

impl VTable {
    /// Returns the name of the function of a task with these operations, if all such tasks have the same.
    ///
    /// # Safety
    /// The pointer is null, or came from [`TaskRef::operations`].
    pub(crate) unsafe fn static_name_at(operations: *const ()) -> &'static str {
        // SAFETY: a pointer that is not null came from `TaskRef::operations`, and so is never freed.
        let operations = unsafe { operations.cast::<Self>().as_ref() };
        operations.map_or("", |operations| (operations.static_name)())
    }
}

/// The part of a task that does not depend on its kind.
pub struct Header {
    state: State,
    vtable: &'static VTable,
    /// The next task in the queue of the pool.
    pub(crate) queue_next: AtomicPtr<Header>,
    /// The number of the pool whose queue the task is in; 0 for none.
    pool: AtomicUsize,
    id: FutureId,
    references: AtomicU32,
    /// Whether the outcome was moved out.
    taken: Cell<bool>,
}

impl Header {
    fn new(vtable: &'static VTable, pool: Option<PoolId>, references: u32) -> Self {
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

union Body<C: Call> {
    call: ManuallyDrop<C>,
    outcome: ManuallyDrop<Outcome<C::Output>>,
}

/// The whole allocation. `repr(C)`, so that a pointer to the allocation is a pointer to its header.
#[repr(C)]
struct Task<C: Call> {
    header: Header,
    body: UnsafeCell<Body<C>>,
}

impl<C: Call> Task<C> {
    const VTABLE: VTable = VTable {
        execute: Self::execute,
        finish: Self::finish,
        fail: Self::fail,
        cancel: Self::cancel,
        skip: |_| {},
        failed: Self::failed,
        error_text: Self::error_text,
        free: Self::free,
        name: |_| Cow::Borrowed(C::name()),
        static_name: C::name,
        is_foreign: false,
        drop_outcome: Self::drop_outcome,
        body_offset: offset_of!(Self, body),
    };

    unsafe fn body(header: NonNull<Header>) -> *mut Body<C> {
        // SAFETY: the vtable is reached through a header of this type only.
        unsafe { header.cast::<Self>().as_ref().body.get() }
    }

    /// Runs the call, and writes the outcome.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(header: NonNull<Header>) -> bool {
        // SAFETY: the caller has started the task, so no other thread takes the call.
        unsafe {
            let call = ptr::read(&raw const (*Self::body(header)).call);
            let outcome = panic::catch(|| ManuallyDrop::into_inner(call).call())
                .unwrap_or_else(|panic| Err(TaskError::Panicked(panic)));
            Self::set_outcome(header, outcome);
        }
        true
    }

    /// # Safety
    /// The caller has started or claimed the task, and the outcome is written.
    unsafe fn finish(header: NonNull<Header>) {
        // SAFETY: the caller has started or claimed the task, and the outcome is written, which are the
        // conditions of `State::finish`. The callbacks of this task expect this body.
        unsafe {
            let body = Self::body(header).cast_const().cast();
            let drop_outcome = || Self::drop_outcome(header);
            header.as_ref().state.finish(body, drop_outcome);
        }
    }

    /// # Safety
    /// The header is of a task of this type.
    unsafe fn cancel(header: NonNull<Header>) -> Cancel {
        // SAFETY: the call is dropped when the cancellation has won, so that it is ours.
        unsafe {
            let drop_call = || Self::drop_call(header);
            let cancelled = header.as_ref().state.cancel(drop_call);
            if cancelled == Cancel::Now {
                header.as_ref().note_cancelled();
            }
            cancelled
        }
    }

    /// # Safety
    /// The caller has started or claimed the task and taken the call.
    unsafe fn set_outcome(header: NonNull<Header>, outcome: Outcome<C::Output>) {
        // SAFETY: the body is the caller's, and holds no call.
        unsafe { (*Self::body(header)).outcome = ManuallyDrop::new(outcome) };
    }

    /// # Safety
    /// The caller has started the task.
    unsafe fn fail(header: NonNull<Header>, error: TaskError) {
        // SAFETY: the caller has started the task, so no other thread drops the call.
        unsafe {
            Self::drop_call(header);
            Self::set_outcome(header, Err(error));
            Self::finish(header);
        }
    }

    /// # Safety
    /// The call is there and the caller's.
    unsafe fn drop_call(header: NonNull<Header>) {
        // SAFETY: the call is there and the caller's, so that no other thread drops it.
        panic::drop_quietly(|| unsafe {
            ManuallyDrop::drop(&mut (*Self::body(header)).call);
        });
    }

    /// # Safety
    /// The outcome is there and the caller's.
    unsafe fn drop_outcome(header: NonNull<Header>) {
        // SAFETY: the outcome is there and the caller's, so that no other thread drops it.
        panic::drop_quietly(|| unsafe {
            ManuallyDrop::drop(&mut (*Self::body(header)).outcome);
        });
    }

    /// # Safety
    /// The outcome is there, and no thread changes it.
    unsafe fn failed(header: NonNull<Header>) -> bool {
        // SAFETY: the outcome is there, and no thread changes it while it is read.
        unsafe { (*Self::body(header)).outcome.is_err() }
    }

    /// # Safety
    /// The outcome is there, and no other thread changes it.
    unsafe fn error_text(header: NonNull<Header>) -> Option<String> {
        // SAFETY: the outcome is there, and no other thread changes it while it is read.
        let outcome = unsafe { &*(*Self::body(header)).outcome };
        let error = outcome.as_ref().err()?;
        // `Display` is foreign code.
        panic::catch(|| error.to_string()).ok()
    }

    /// # Safety
    /// There is no other reference to the task; call and outcome are gone.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the box that `TaskRef::new` made; `Body` drops nothing.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

/// A counted reference to a task.
#[allow(unreachable_pub, reason = "the sealed trait of `wait` mentions it")]
pub struct TaskRef(NonNull<Header>);

// SAFETY: a header's fields are atomic or follow the table in the module docs. Code that moves a task's call
// or output to another thread checks that the value may go there. `Future<T>` is `Send` only if `T` is, and
// executors require `Send`.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`: the fields are atomic or follow the table in the module docs.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Allocates a task, which `pool` will run if there is one, and returns its two references.
    pub(crate) fn pair<C: Call>(call: C, pool: Option<PoolId>) -> (Self, Self) {
        let task = Box::new(Task {
            header: Header::new(const { &Task::<C>::VTABLE }, pool, 2),
            body: UnsafeCell::new(Body {
                call: ManuallyDrop::new(call),
            }),
        });
        let header = NonNull::from(Box::leak(task)).cast::<Header>();
        (Self(header), Self(header))
    }

    /// Turns the reference into a pointer.
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `header` came from `into_raw`, and is turned back once.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> Self {
        Self(header)
    }

    fn header(&self) -> &Header {
        // SAFETY: the reference count keeps the task alive.
        unsafe { self.0.as_ref() }
    }

    /// Returns the first counted reference to a foreign task, which `pool` is going to run.
    ///
    /// # Safety
    /// The header is that of a foreign task which has no counted reference, and which
    /// no other thread knows yet. The object stays until its `free` is called.
    #[must_use]
    pub unsafe fn enlist(header: NonNull<Header>, pool: PoolId) -> Self {
        // SAFETY: the object of the header stays until its `free` is called, which the counted reference
        // prevents.
        let header_ref = unsafe { header.as_ref() };
        // ORDERING: Relaxed, no other thread knows the task yet.
        header_ref
            .pool
            .store(PoolId::number(Some(pool)), Ordering::Relaxed);
        header_ref.references.store(1, Ordering::Relaxed);
        Self(header)
    }

    /// Returns a reference to a foreign task that is not counted.
    ///
    /// # Safety
    /// The object stays until this and what is made of it are gone.
    #[must_use]
    pub unsafe fn borrow(header: NonNull<Header>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(header))
    }

    /// Returns another reference to the task, which is not counted.
    ///
    /// # Safety
    /// As for [`borrow`](Self::borrow).
    pub(crate) unsafe fn alias(&self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(self.0))
    }

    /// Starts the task if it is pending, and returns a counted reference to it, also if this reference is not
    /// counted. A superfluous reference that has become the last one goes to `dropped`.
    ///
    /// A pending task has a counted reference, which is its queue's. The queue's reference is dropped after a
    /// thread has started the task, or has seen that another thread has started it. So if we start the task,
    /// ours is counted before the queue's is dropped.
    ///
    /// # Safety
    /// The task stays meanwhile, and no two threads claim it at the same time. The caller
    /// sees to it that what is returned is run by a worker of its pool, or fails.
    pub(crate) unsafe fn claim(&self, dropped: &mut Vec<Self>) -> Option<Self> {
        if self.state().phase() != Phase::Pending {
            return None;
        }
        let ours = self.clone();
        // SAFETY: the caller runs the task.
        if unsafe { self.state().start() } {
            directory::count(self.pool_id(), Counts::claimed);
            return Some(ours);
        }
        // The queue's reference may be dropped at this moment, by a thread that took ours for an owner's
        // reference. Then ours is the last one, and the task stays until ours is dropped. Otherwise
        // nothing is left to drop.
        mem::forget(ours);
        let references = &self.header().references;
        // ORDERING: AcqRel, as in `drop`. Relaxed: no other thread has a reference then.
        if references.fetch_sub(1, Ordering::AcqRel) == 1 {
            references.store(1, Ordering::Relaxed);
            dropped.push(Self(self.0));
        }
        None
    }

    /// Returns the state of the task's future.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.header().state
    }

    /// Returns the address of the task, for its frontend.
    #[must_use]
    pub fn address(&self) -> NonNull<Header> {
        self.0
    }

    /// Returns the number of the task's future.
    #[must_use]
    pub fn id(&self) -> FutureId {
        self.header().id
    }

    /// Returns whether the task belongs to a pool, and not to a promise.
    #[must_use]
    pub fn has_pool(&self) -> bool {
        self.pool_id().is_some()
    }

    pub(crate) fn pool_id(&self) -> Option<PoolId> {
        // ORDERING: Relaxed, as nothing of the pool is published by its number.
        PoolId::from_number(self.header().pool.load(Ordering::Relaxed))
    }

    /// Takes the task out of its pool: other code will run the task, or no code will.
    pub fn leave_pool(&self) {
        // ORDERING: Relaxed, as nothing of the pool is published by its number.
        self.header()
            .pool
            .store(PoolId::number(None), Ordering::Relaxed);
    }

    /// Returns the address of the operations of the task's kind, which are never freed.
    pub(crate) fn operations(&self) -> *const () {
        ptr::from_ref(self.header().vtable).cast()
    }

    pub(crate) fn name(&self) -> Cow<'static, str> {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.name)(self.0) }
    }

    /// Runs the task's call. If true is returned, `finish` must follow.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn execute(&self) -> bool {
        // SAFETY: the caller has started the task, and the vtable is this task's.
        unsafe { (self.header().vtable.execute)(self.0) }
    }

    /// Notes that the task was no longer pending when its turn came.
    pub(crate) fn skip(&self) {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.skip)(self.0) }
    }

    /// Makes the future done if that calls no foreign code: there are no callbacks, and the handle is there.
    ///
    /// # Safety
    /// As for `finish`.
    pub unsafe fn finish_quietly(&self) -> bool {
        // SAFETY: the caller has started or claimed, and the outcome is written. A foreign task's list has no
        // callbacks, and the flag tells of everything else that is to be done.
        unsafe {
            self.state().finish_unobserved()
                || self.header().vtable.is_foreign
                    && self
                        .state()
                        .advance(&[Phase::Setting], Phase::Finished, false)
                        == Advance::Done
        }
    }

    /// Makes the future done.
    ///
    /// # Safety
    /// The caller has started or claimed the task, and the outcome is written.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: the caller has started or claimed, and the outcome is written; the vtable is this task's.
        unsafe { (self.header().vtable.finish)(self.0) }
    }

    /// Finishes the task with an error instead of running it.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn fail(&self, error: TaskError) {
        self.header().note_rejected(RunOutcome::Rejected);
        // SAFETY: the caller has started the task, and the vtable is this task's.
        unsafe { (self.header().vtable.fail)(self.0, error) }
    }

    /// Records and counts that the task failed without being started.
    pub(crate) fn note_rejected(&self, outcome: RunOutcome) {
        self.header().note_rejected(outcome);
    }

    /// Counts that the task has left the queue after it was cancelled.
    pub fn note_skipped(&self) {
        self.header().note_skipped();
    }

    /// Sets the outcome of a claimed promise, and finishes it.
    ///
    /// # Safety
    /// The caller has claimed the task, and `C` is its call's type, which needs
    /// no drop.
    pub(crate) unsafe fn set_outcome<C: Call>(&self, outcome: Outcome<C::Output>) {
        // SAFETY: the caller has claimed the task, and `C` is its call's type and needs no drop.
        // `write_outcome` writes the outcome that `finish` requires.
        unsafe {
            self.write_outcome::<C>(outcome);
            self.finish();
        }
    }

    /// Writes the outcome of a task whose call was carried out elsewhere; `finish` must follow.
    ///
    /// # Safety
    /// The caller has started or claimed the task, and `C` is its call's type, which needs
    /// no drop.
    pub(crate) unsafe fn write_outcome<C: Call>(&self, outcome: Outcome<C::Output>) {
        const { assert!(!mem::needs_drop::<C>()) };
        // SAFETY: the caller has started or claimed the task, and `C` is its call's type; a call that needs
        // no drop counts as taken.
        unsafe { Task::<C>::set_outcome(self.0, outcome) };
    }

    pub(crate) fn cancel(&self) -> Cancel {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.cancel)(self.0) }
    }

    /// Cancels a pending task, and gives its call back instead of dropping it.
    ///
    /// # Safety
    /// `C` is the type of the task's call.
    pub(crate) unsafe fn take_back<C: Call>(&self) -> Option<C> {
        let mut call = None;
        let cancelled = self.state().cancel(|| {
            // SAFETY: called when the cancellation has won, so the call is ours.
            call = Some(unsafe { ptr::read(Task::<C>::body(self.0).cast::<C>()) });
        });
        debug_assert_eq!(cancelled == Cancel::Now, call.is_some());
        call
    }

    /// Returns the place of the outcome, which may not be written yet.
    pub(crate) fn outcome<T>(&self) -> *mut Outcome<T> {
        self.body().cast_mut().cast()
    }

    fn body(&self) -> *const () {
        // SAFETY: the offset stays inside the allocation.
        let body = unsafe { self.0.byte_add(self.header().vtable.body_offset) };
        body.as_ptr().cast_const().cast()
    }

    /// Returns whether the outcome is an error.
    ///
    /// # Safety
    /// The future is finished and the outcome not taken.
    pub(crate) unsafe fn failed(&self) -> bool {
        // SAFETY: the future is finished and the outcome not taken, so the outcome is there and no thread
        // changes it.
        unsafe { (self.header().vtable.failed)(self.0) }
    }

    /// Returns the error as text, if the outcome is one. Calls foreign code.
    ///
    /// # Safety
    /// As for `failed`; or the outcome is written, and the caller's to finish.
    pub(crate) unsafe fn error_text(&self) -> Option<String> {
        // SAFETY: the outcome is there, and no other thread changes it.
        unsafe { (self.header().vtable.error_text)(self.0) }
    }

    /// Returns the name of the function if it is known from the beginning, as that of Rust's functions is.
    pub(crate) fn static_name(&self) -> Option<&'static str> {
        match self.name() {
            Cow::Borrowed(name) if !self.header().vtable.is_foreign => Some(name),
            _ => None,
        }
    }

    /// Returns whether the outcome was moved out. Only the handle may ask.
    pub(crate) fn taken(&self) -> bool {
        self.header().taken.get()
    }

    /// Notes that the outcome was moved out. Only the handle may do so.
    pub(crate) fn set_taken(&self) {
        self.header().taken.set(true);
    }

    /// Drops the outcome.
    ///
    /// # Safety
    /// The caller is the handle, and the outcome is there.
    pub(crate) unsafe fn drop_outcome(&self) {
        // SAFETY: the caller is the handle, which owns an outcome that is there.
        unsafe { (self.header().vtable.drop_outcome)(self.0) }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        // ORDERING: Relaxed, as a new reference is made from one that we hold.
        self.header().references.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        let references = &self.header().references;
        // ORDERING: Acquire pairs with the Release of the other references' decrements: what
        // they did to the task came before we free it. Seeing 1 means that the
        // others are gone, which saves the read-modify-write.
        if references.load(Ordering::Acquire) != 1 {
            if references.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            if cfg!(thread_sanitizer) {
                // The sanitizer knows no fences. The load synchronizes with the same decrements.
                references.load(Ordering::Acquire);
            } else {
                fence(Ordering::Acquire);
            }
        }
        // SAFETY: ours was the last reference, and call and outcome were taken or
        // dropped by those whom the state gave them to.
        unsafe { (self.header().vtable.free)(self.0) }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id(), self.name())
    }
}
