//! Counted references to a task, by which the engine handles tasks of every kind.
//!
//! One reference is that of the handle ([`Future`]). The other is that of the side that completes the task: the
//! queue and then the worker, or the promise. The counts govern the memory only; the [state](super::state)
//! decides which thread may access call and outcome.
//!
//! [`Future`]: crate::Future

use crate::error::TaskError;
use crate::id::{FutureId, PoolId};
use crate::recording::record::RunOutcome;
use crate::runtime::sync::atomic::{Ordering, fence};
use crate::stats::counts::Counts;
use crate::stats::directory;
use crate::task::body::{Call, Outcome, Task};
use crate::task::header::{Header, VTable};
use crate::task::state::{Advance, Cancel, Phase, State};
use std::borrow::Cow;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};

/// A counted reference to a task.
#[allow(unreachable_pub, reason = "the sealed trait of `wait` mentions it")]
pub struct TaskRef(NonNull<Header>);

// SAFETY: a header's fields are atomic; the other fields of a task follow the table in `body.rs`. Code that moves a task's call
// or output to another thread checks that the value may go there. `Future<T>` is `Send` only if `T` is, and
// executors require `Send`.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`: the fields are atomic, or follow the table in `body.rs`.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Allocates a task, which `pool` will run if there is one, and returns its two references.
    pub(crate) fn pair<C: Call>(call: C, pool: Option<PoolId>) -> (Self, Self) {
        let header = Task::allocate(call, pool);
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

    /// Returns whether the task is of the kind that has these operations.
    #[must_use]
    pub fn has_operations(&self, vtable: &'static VTable) -> bool {
        ptr::eq(self.header().vtable, vtable)
    }

    pub(crate) fn name(&self) -> Cow<'static, str> {
        // SAFETY: the vtable is this task's.
        unsafe { (self.header().vtable.name)(self.0) }
    }

    /// Runs the task's call. `finish` must follow, unless `Elsewhere` is returned.
    ///
    /// # Safety
    /// The caller has started it.
    pub(crate) unsafe fn execute(&self) -> RunOutcome {
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
            call = Some(unsafe { Task::<C>::take_call(self.0) });
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
