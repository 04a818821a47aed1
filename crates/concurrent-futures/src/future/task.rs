//! The one allocation behind a future: state, call, and then outcome.
//!
//! A task is shared by reference counts: one for the handle ([`Future`]), one
//! for whoever completes it (the queue and then the worker, or the promise).
//! The counts govern the memory only. Who may touch what is inside follows from
//! the [state](super::state):
//!
//! | field   | who                                                                   |
//! |---------|-----------------------------------------------------------------------|
//! | call    | the creator; then who wins `start` (takes it) or `cancel` (drops it)   |
//! | outcome | who started or claimed, until `finish`; callbacks and, when done, the |
//! |         | handle may look; the handle may take it when done                     |
//! | `taken` | the handle                                                            |
//!
//! [`Future`]: super::Future

use super::id::FutureId;
use super::state::{Advance, Cancel, Phase, State};
use crate::error::TaskError;
use crate::panic;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};
use std::borrow::Cow;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::{self, ManuallyDrop, offset_of};
use std::ptr::{self, NonNull};

/// What a task comes to.
pub(crate) type Outcome<T> = Result<T, TaskError>;

/// What a task does.
pub(crate) trait Call {
    type Output;

    fn call(self) -> Outcome<Self::Output>;

    /// The name of the function, for error messages.
    fn name() -> &'static str;
}

/// The operations that depend on what the task is: of which types, or of which face.
#[derive(Debug)]
pub struct VTable {
    execute: unsafe fn(NonNull<Header>) -> bool,
    finish: unsafe fn(NonNull<Header>),
    fail: unsafe fn(NonNull<Header>, TaskError),
    cancel: unsafe fn(NonNull<Header>) -> Cancel,
    skip: unsafe fn(NonNull<Header>),
    failed: unsafe fn(NonNull<Header>) -> bool,
    free: unsafe fn(NonNull<Header>),
    name: unsafe fn(NonNull<Header>) -> Cow<'static, str>,
    /// Whether callbacks are kept elsewhere than in the list of the state.
    is_foreign: bool,
    /// For the handles of Rust.
    drop_outcome: unsafe fn(NonNull<Header>),
    body_offset: usize,
}

/// A task that is embedded in an object of another face.
///
/// The object has a [`Header`], by which the engine knows it. Each function gets the
/// header of such an object.
///
/// # Safety
/// An object whose header has a [`TaskRef`] stays until `free` is called.
pub unsafe trait ForeignTask {
    /// Calls what the task is to call, and claims its future for the outcome. False
    /// when somebody else has set one.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(task: NonNull<Header>) -> bool;

    /// Makes the future done.
    ///
    /// # Safety
    /// `execute` returned true.
    unsafe fn finish(task: NonNull<Header>);

    /// Makes the future done with an error instead.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn fail(task: NonNull<Header>, error: TaskError);

    /// Cancels the task if it is pending.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn cancel(task: NonNull<Header>) -> Cancel;

    /// Takes notice of a task that came out of the queue and was pending no more.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn skip(task: NonNull<Header>);

    /// Whether the outcome is an error.
    ///
    /// # Safety
    /// The future is finished.
    unsafe fn failed(task: NonNull<Header>) -> bool;

    /// The last [`TaskRef`] is gone.
    ///
    /// # Safety
    /// It was that of such an object.
    unsafe fn free(task: NonNull<Header>);

    /// The name of the function, for error messages.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn name(task: NonNull<Header>) -> Cow<'static, str>;
}

impl VTable {
    /// The operations of a foreign task.
    #[must_use]
    pub const fn of<F: ForeignTask>() -> Self {
        Self {
            execute: F::execute,
            finish: F::finish,
            fail: F::fail,
            cancel: F::cancel,
            skip: F::skip,
            failed: F::failed,
            free: F::free,
            name: F::name,
            is_foreign: true,
            drop_outcome: |_| {},
            body_offset: 0,
        }
    }
}

/// The part of a task that does not depend on what it is.
pub struct Header {
    state: State,
    vtable: &'static VTable,
    /// The task behind this one in the queue of its pool.
    pub(crate) queue_next: AtomicPtr<Header>,
    /// Identifies the pool whose queue the task is in; never followed.
    home: AtomicPtr<()>,
    id: FutureId,
    references: AtomicU32,
    /// Whether the outcome was moved out.
    taken: Cell<bool>,
}

impl Header {
    fn new(vtable: &'static VTable, home: *const (), references: u32) -> Self {
        Self {
            state: State::new(),
            vtable,
            queue_next: AtomicPtr::new(ptr::null_mut()),
            home: AtomicPtr::new(home.cast_mut()),
            id: FutureId::next(),
            references: AtomicU32::new(references),
            taken: Cell::new(false),
        }
    }

    /// The header of a foreign task, which has no counted reference.
    #[must_use]
    pub fn foreign(vtable: &'static VTable) -> Self {
        Self::new(vtable, ptr::null(), 0)
    }

    /// The state of the task's future.
    pub fn state(&self) -> &State {
        &self.state
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

/// The whole allocation. `repr(C)`, so that a pointer to it is one to its header.
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
        free: Self::free,
        name: |_| Cow::Borrowed(C::name()),
        is_foreign: false,
        drop_outcome: Self::drop_outcome,
        body_offset: offset_of!(Self, body),
    };

    unsafe fn body(header: NonNull<Header>) -> *mut Body<C> {
        // SAFETY: the vtable is reached through a header of this type only.
        unsafe { header.cast::<Self>().as_ref().body.get() }
    }

    /// Calls the call, and writes the outcome.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(header: NonNull<Header>) -> bool {
        // SAFETY: who has started the task takes the call, once.
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
        // SAFETY: promised by the caller.
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
            header.as_ref().state.cancel(drop_call)
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
        // SAFETY: who has started the task may drop the call, once.
        unsafe {
            Self::drop_call(header);
            Self::set_outcome(header, Err(error));
            Self::finish(header);
        }
    }

    /// # Safety
    /// The call is there and the caller's.
    unsafe fn drop_call(header: NonNull<Header>) {
        // SAFETY: promised by the caller.
        panic::drop_quietly(|| unsafe {
            ManuallyDrop::drop(&mut (*Self::body(header)).call);
        });
    }

    /// # Safety
    /// The outcome is there and the caller's.
    unsafe fn drop_outcome(header: NonNull<Header>) {
        // SAFETY: promised by the caller.
        panic::drop_quietly(|| unsafe {
            ManuallyDrop::drop(&mut (*Self::body(header)).outcome);
        });
    }

    /// # Safety
    /// The outcome is there, and nobody changes it.
    unsafe fn failed(header: NonNull<Header>) -> bool {
        // SAFETY: promised by the caller.
        unsafe { (*Self::body(header)).outcome.is_err() }
    }

    /// # Safety
    /// Nobody else refers to the task; call and outcome are gone.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the box that `TaskRef::new` made; `Body` drops nothing.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

/// A counted reference to a task.
#[allow(unreachable_pub, reason = "the sealed trait of `wait` mentions it")]
pub struct TaskRef(NonNull<Header>);

// SAFETY: a header's fields are atomic or follow the table in the module docs.
// Whoever moves a task's call or output to another thread checks that they may
// go there: `Future<T>` is `Send` only if `T` is, and executors ask for it.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Allocates a task, and returns its two references. `home` identifies the
    /// pool that will run it, or is null.
    pub(crate) fn pair<C: Call>(call: C, home: *const ()) -> (Self, Self) {
        let task = Box::new(Task {
            header: Header::new(const { &Task::<C>::VTABLE }, home, 2),
            body: UnsafeCell::new(Body {
                call: ManuallyDrop::new(call),
            }),
        });
        let header = NonNull::from(Box::leak(task)).cast::<Header>();
        (Self(header), Self(header))
    }

    /// Gives the reference away as a pointer.
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

    /// The first counted reference to a foreign task, which `home` is going to run.
    ///
    /// # Safety
    /// The header is that of a foreign task which has no counted reference, and which
    /// no other thread knows yet. The object stays until its `free` is called.
    #[must_use]
    pub unsafe fn enlist(header: NonNull<Header>, home: *const ()) -> Self {
        // SAFETY: promised by the caller.
        let header_ref = unsafe { header.as_ref() };
        // ORDERING: Relaxed, no other thread knows the task yet.
        header_ref.home.store(home.cast_mut(), Ordering::Relaxed);
        header_ref.references.store(1, Ordering::Relaxed);
        Self(header)
    }

    /// A reference to a foreign task that is not counted.
    ///
    /// # Safety
    /// The object stays until this and what is made of it are gone.
    #[must_use]
    pub unsafe fn borrow(header: NonNull<Header>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(header))
    }

    /// This reference once more, not counted.
    ///
    /// # Safety
    /// As for [`borrow`](Self::borrow).
    pub(crate) unsafe fn alias(&self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self(self.0))
    }

    /// Starts the task if it is pending, and returns a counted reference to it, also if this
    /// one is not counted. A reference that was made in vain and has become the last one goes
    /// to `dropped`.
    ///
    /// A pending task has a counted reference, which is its queue's. The queue's is dropped
    /// after somebody has started the task, or has seen that somebody else has. So if we start
    /// the task, ours is counted before the queue's is dropped.
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
            return Some(ours);
        }
        // The queue's reference may be dropped at this moment, by someone who took ours for
        // an owner's. Ours is then the last one, and what it stands for stays until it is
        // dropped. Otherwise nothing is left to drop.
        mem::forget(ours);
        let references = &self.header().references;
        if references.fetch_sub(1, Ordering::AcqRel) == 1 {
            references.store(1, Ordering::Relaxed);
            dropped.push(Self(self.0));
        }
        None
    }

    /// The state of the task's future.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.header().state
    }

    /// Where the task is, for its face.
    #[must_use]
    pub fn address(&self) -> NonNull<Header> {
        self.0
    }

    /// The number of the task's future.
    #[must_use]
    pub fn id(&self) -> FutureId {
        self.header().id
    }

    /// Whether the task is one of a pool, and not a promise.
    #[must_use]
    pub fn has_home(&self) -> bool {
        !self.home().is_null()
    }

    pub(crate) fn home(&self) -> *const () {
        // ORDERING: Relaxed, the pool is not followed; what is in it is not published by this.
        self.header().home.load(Ordering::Relaxed)
    }

    /// Belongs to no pool any more: somebody else will run the task, or nobody.
    pub fn leave_home(&self) {
        // ORDERING: Relaxed, as above.
        self.header().home.store(ptr::null_mut(), Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> Cow<'static, str> {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.name)(self.0) }
    }

    /// Calls the task's call. If true is returned, `finish` must follow.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn execute(&self) -> bool {
        // SAFETY: promised by the caller.
        unsafe { (self.header().vtable.execute)(self.0) }
    }

    /// Takes notice that the task was not pending any more when its turn came.
    pub(crate) fn skip(&self) {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.skip)(self.0) }
    }

    /// Makes the future done if that takes no foreign code: there are no callbacks, and the
    /// handle is there.
    ///
    /// # Safety
    /// As for `finish`.
    pub unsafe fn finish_quietly(&self) -> bool {
        // SAFETY: promised by the caller; a foreign task's list has no callbacks, and what
        // else is to be done is told by the flag.
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
        // SAFETY: promised by the caller.
        unsafe { (self.header().vtable.finish)(self.0) }
    }

    /// Finishes the task with an error instead of running it.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn fail(&self, error: TaskError) {
        // SAFETY: promised by the caller.
        unsafe { (self.header().vtable.fail)(self.0, error) }
    }

    /// Finishes a claimed promise.
    ///
    /// # Safety
    /// The caller has claimed the task, and `C` is its call's type, which needs
    /// no drop.
    pub(crate) unsafe fn set_outcome<C: Call>(&self, outcome: Outcome<C::Output>) {
        // SAFETY: promised by the caller.
        unsafe {
            self.write_outcome::<C>(outcome);
            self.finish();
        }
    }

    /// Writes the outcome of a task that something else than its call has carried out;
    /// `finish` must follow.
    ///
    /// # Safety
    /// The caller has started or claimed the task, and `C` is its call's type, which needs
    /// no drop.
    pub(crate) unsafe fn write_outcome<C: Call>(&self, outcome: Outcome<C::Output>) {
        const { assert!(!mem::needs_drop::<C>()) };
        // SAFETY: promised by the caller.
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

    /// Where the outcome is, or will be.
    pub(crate) fn outcome<T>(&self) -> *mut Outcome<T> {
        self.body().cast_mut().cast()
    }

    fn body(&self) -> *const () {
        // SAFETY: the offset stays inside the allocation.
        let body = unsafe { self.0.byte_add(self.header().vtable.body_offset) };
        body.as_ptr().cast_const().cast()
    }

    /// Whether the outcome is an error.
    ///
    /// # Safety
    /// The future is finished and the outcome not taken.
    pub(crate) unsafe fn failed(&self) -> bool {
        // SAFETY: promised by the caller.
        unsafe { (self.header().vtable.failed)(self.0) }
    }

    /// Whether the outcome was moved out; the handle's to ask.
    pub(crate) fn taken(&self) -> bool {
        self.header().taken.get()
    }

    /// Notes that the outcome was moved out; the handle's to say.
    pub(crate) fn set_taken(&self) {
        self.header().taken.set(true);
    }

    /// Drops the outcome.
    ///
    /// # Safety
    /// The caller is the handle, and the outcome is there.
    pub(crate) unsafe fn drop_outcome(&self) {
        // SAFETY: promised by the caller.
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
        // ORDERING: Acquire pairs with the Release of the others' decrements: what
        // they did to the task came before we free it. Seeing 1 means that the
        // others are gone, which saves the read-modify-write.
        if references.load(Ordering::Acquire) != 1 {
            if references.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
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
