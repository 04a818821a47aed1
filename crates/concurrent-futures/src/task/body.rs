//! The one allocation behind a future of Rust: the header, and then the call or its outcome.
//!
//! The [state](super::state) decides which thread may access the fields:
//!
//! | field | accessed by |
//! |---|---|
//! | call | the creator; then the thread that wins `start` (takes it) or `cancel` (drops it) |
//! | outcome | the thread that started or claimed, until `finish`; when done, callbacks and the handle may read it, and the handle may take it |
//! | `taken` of the header | the handle |
//!
//! [References](super::reference) are counted, and the counts govern the memory only.

use crate::error::TaskError;
use crate::id::PoolId;
use crate::recording::record::RunOutcome;
use crate::task::header::{Header, VTable};
use crate::task::panic;
use crate::task::state::Cancel;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, offset_of};
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

union Body<C: Call> {
    call: ManuallyDrop<C>,
    outcome: ManuallyDrop<Outcome<C::Output>>,
}

/// The whole allocation. `repr(C)`, so that a pointer to the allocation is a pointer to its header.
#[repr(C)]
pub(super) struct Task<C: Call> {
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

    /// Allocates a task with two counted references, which `pool` will run if there is one.
    pub(super) fn allocate(call: C, pool: Option<PoolId>) -> NonNull<Header> {
        let task = Box::new(Self {
            header: Header::new(const { &Self::VTABLE }, pool, 2),
            body: UnsafeCell::new(Body {
                call: ManuallyDrop::new(call),
            }),
        });
        NonNull::from(Box::leak(task)).cast()
    }

    /// Moves the call out of a task.
    ///
    /// # Safety
    /// The header is of a task of this type, and its call is there and the caller's.
    pub(super) unsafe fn take_call(header: NonNull<Header>) -> C {
        // SAFETY: the call is there and the caller's, so that no other thread takes or drops it.
        unsafe { ManuallyDrop::into_inner(ptr::read(&raw const (*Self::body(header)).call)) }
    }

    /// # Safety
    /// The header is of a task of this type.
    unsafe fn body(header: NonNull<Header>) -> *mut Body<C> {
        // SAFETY: the vtable is reached through a header of this type only.
        unsafe { header.cast::<Self>().as_ref().body.get() }
    }

    /// Runs the call, and writes the outcome.
    ///
    /// # Safety
    /// The caller has started the task.
    unsafe fn execute(header: NonNull<Header>) -> RunOutcome {
        // SAFETY: the caller has started the task, so no other thread takes the call.
        unsafe {
            let call = Self::take_call(header);
            let outcome = panic::catch(|| call.call())
                .unwrap_or_else(|panic| Err(TaskError::Panicked(panic)));
            let end = RunOutcome::of(&outcome);
            Self::set_outcome(header, outcome);
            end
        }
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
    pub(super) unsafe fn set_outcome(header: NonNull<Header>, outcome: Outcome<C::Output>) {
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
        // SAFETY: the box that `allocate` made; `Body` drops nothing.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}
