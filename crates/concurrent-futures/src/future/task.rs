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
use super::state::{Cancel, State};
use crate::error::TaskError;
use crate::panic;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};
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

/// The operations that depend on the types of the call and of its output.
pub(crate) struct VTable {
    execute: unsafe fn(NonNull<Header>),
    drop_call: unsafe fn(NonNull<Header>),
    drop_outcome: unsafe fn(NonNull<Header>),
    set_error: unsafe fn(NonNull<Header>, TaskError),
    failed: unsafe fn(NonNull<Header>) -> bool,
    free: unsafe fn(NonNull<Header>),
    name: fn() -> &'static str,
    body_offset: usize,
}

/// The part of a task that does not depend on its types.
pub(crate) struct Header {
    state: State,
    vtable: &'static VTable,
    /// The task behind this one in the queue of its pool.
    pub(crate) queue_next: AtomicPtr<Header>,
    /// Identifies the pool whose queue the task is in; never followed.
    home: *const (),
    id: FutureId,
    references: AtomicU32,
    /// Whether the outcome was moved out.
    taken: Cell<bool>,
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
        drop_call: Self::drop_call,
        drop_outcome: Self::drop_outcome,
        set_error: Self::set_error,
        failed: Self::failed,
        free: Self::free,
        name: C::name,
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
    unsafe fn execute(header: NonNull<Header>) {
        // SAFETY: who has started the task takes the call, once.
        unsafe {
            let call = ptr::read(&raw const (*Self::body(header)).call);
            let outcome = panic::catch(|| ManuallyDrop::into_inner(call).call())
                .unwrap_or_else(|panic| Err(TaskError::Panicked(panic)));
            Self::set_outcome(header, outcome);
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
    unsafe fn set_error(header: NonNull<Header>, error: TaskError) {
        // SAFETY: who has started the task may drop the call, once.
        unsafe {
            Self::drop_call(header);
            Self::set_outcome(header, Err(error));
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
            header: Header {
                state: State::new(),
                vtable: const { &Task::<C>::VTABLE },
                queue_next: AtomicPtr::new(ptr::null_mut()),
                home,
                id: FutureId::next(),
                references: AtomicU32::new(2),
                taken: Cell::new(false),
            },
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

    pub(crate) fn state(&self) -> &State {
        &self.header().state
    }

    pub(crate) fn id(&self) -> FutureId {
        self.header().id
    }

    pub(crate) fn home(&self) -> *const () {
        self.header().home
    }

    pub(crate) fn name(&self) -> &'static str {
        (self.header().vtable.name)()
    }

    /// Calls the task's call; `finish` must follow.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn execute(&self) {
        // SAFETY: promised by the caller.
        unsafe { (self.header().vtable.execute)(self.0) }
    }

    /// Makes the future done.
    ///
    /// # Safety
    /// The caller has started or claimed the task, and the outcome is written.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: promised by the caller.
        unsafe {
            let drop_outcome = || (self.header().vtable.drop_outcome)(self.0);
            self.state().finish(self.body(), drop_outcome);
        }
    }

    /// Finishes the task with an error instead of running it.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn fail(&self, error: TaskError) {
        // SAFETY: promised by the caller.
        unsafe {
            (self.header().vtable.set_error)(self.0, error);
            self.finish();
        }
    }

    /// Finishes a claimed promise.
    ///
    /// # Safety
    /// The caller has claimed the task, and `C` is its call's type, which needs
    /// no drop.
    pub(crate) unsafe fn set_outcome<C: Call>(&self, outcome: Outcome<C::Output>) {
        const { assert!(!mem::needs_drop::<C>()) };
        // SAFETY: promised by the caller.
        unsafe {
            Task::<C>::set_outcome(self.0, outcome);
            self.finish();
        }
    }

    pub(crate) fn cancel(&self) -> Cancel {
        // SAFETY: called when the cancellation has won, so the call is ours.
        let drop_call = || unsafe { (self.header().vtable.drop_call)(self.0) };
        self.state().cancel(drop_call)
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
