//! The differences between the tasks of the frontends: functions that know the future's type, and policies.

use crate::error::TaskError;
use crate::future::Future;
use crate::id::PoolId;
use crate::process::channel::MappedSegment;
use crate::process::codec::Bytes;
use crate::process::contract::{Kept, RemoteAnswer, RemoteTask};
use crate::process::failure::Failure;
use crate::process::function::Invoke;
use crate::task::header::Header;
use crate::task::{Call, Outcome, TaskRef, panic};
use std::borrow::Cow;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

/// The outcome of a task, as it came.
#[derive(Debug)]
pub(crate) enum Ending<'a> {
    /// A value, as bytes, and its out-of-band buffers.
    Value(Bytes<'a>, Option<io::Result<MappedSegment>>),
    /// The bytes of a [`Failure`].
    Failure(Bytes<'a>),
    Error(TaskError),
}

impl<'a> Ending<'a> {
    /// Returns the ending in the form for other frontends.
    fn into_remote(self) -> RemoteAnswer<'a> {
        match self {
            Self::Value(bytes, attachment) => RemoteAnswer::Value {
                bytes: bytes.into_cow(),
                attachment,
            },
            Self::Failure(bytes) => RemoteAnswer::Failure(bytes.into_cow()),
            Self::Error(error) => RemoteAnswer::Error(error),
        }
    }
}

/// The call of a task that a worker process carries out.
struct Remote<I>(PhantomData<I>);

impl<I: Invoke> Call for Remote<I> {
    type Output = I::Output;

    fn call(self) -> Outcome<I::Output> {
        Err(TaskError::Abandoned)
    }

    fn name() -> &'static str {
        I::name()
    }
}

/// The frontend that a task belongs to, with the functions that know the type of its future.
///
/// A value of this type is as good as its functions: each is called for futures of that type only. `Task`
/// keeps both together, and so do the two constructors here.
#[derive(Clone, Copy)]
pub(super) enum Frontend {
    Rust {
        /// Writes an outcome of the future's type.
        ///
        /// # Safety
        /// The future is this task's, and the caller has started or claimed it.
        write: unsafe fn(&TaskRef, Ending<'_>),
        /// Returns the name of the function.
        name: fn() -> &'static str,
        /// Whether making the value calls no foreign code.
        is_plain: bool,
    },
    /// A task of another frontend, with the functions of its [`RemoteTask`].
    Foreign {
        /// [`RemoteTask::answer`]: keeps an answer for some items.
        ///
        /// # Safety
        /// The address is that of this task's future. The pool has started the future, which has no complete
        /// outcome. If the task is no span, the caller has claimed the future.
        answer: unsafe fn(NonNull<Header>, Range<u32>, RemoteAnswer<'_>) -> Kept,
        /// [`RemoteTask::settle`]: lets a thread of the frontend make values of answers.
        ///
        /// # Safety
        /// The address is that of this task's future. The caller holds no lock, as foreign code may run.
        settle: unsafe fn(NonNull<Header>),
        /// [`RemoteTask::is_abandoned`]: returns whether no thread waits for the rest of a span.
        ///
        /// # Safety
        /// The address is that of this task's future, which is the future of a span.
        is_abandoned: unsafe fn(NonNull<Header>) -> bool,
        /// [`RemoteTask::leave`]: releases the permit of the task.
        ///
        /// # Safety
        /// The address is that of this task's future.
        leave: unsafe fn(NonNull<Header>),
        /// [`RemoteTask::error_text`]: returns an error as text, by the bytes of the failure.
        error_text: fn(&[u8]) -> Option<String>,
        /// [`RemoteTask::item_error_text`]: returns the error of a failed item as text, by the bytes of the results.
        item_error_text: fn(&[u8]) -> Option<String>,
        /// [`RemoteTask::call_name`]: returns the name of the function of a task without a definition.
        ///
        /// # Safety
        /// The address is that of this task's future.
        call_name: unsafe fn(NonNull<Header>) -> Option<String>,
        /// [`RemoteTask::function_name`]: returns the name of a function, by the bytes of its definition.
        function_name: fn(&[u8]) -> Option<String>,
    },
}

impl Frontend {
    /// Makes the future of a call, with the functions for it.
    pub(super) fn rust<I: Invoke>(pool: PoolId) -> (Self, TaskRef, Future<I::Output>) {
        let (ours, handle) = TaskRef::pair(Remote::<I>(PhantomData), Some(pool));
        let face = Self::Rust {
            write: write::<I>,
            name: I::name,
            is_plain: I::is_plain(),
        };
        // SAFETY: the call's output is this type, and this is the task's only handle.
        (face, ours, unsafe { Future::new(handle) })
    }

    /// Returns the functions for futures that are `T`s.
    pub(super) fn foreign<T: RemoteTask>() -> Self {
        Self::Foreign {
            answer: T::answer,
            settle: T::settle,
            is_abandoned: T::is_abandoned,
            leave: T::leave,
            error_text: T::error_text,
            item_error_text: T::item_error_text,
            call_name: T::call_name,
            function_name: T::function_name,
        }
    }

    /// Returns the name of the function of a task of the Rust frontend.
    pub(super) fn rust_name(self) -> Option<&'static str> {
        match self {
            Self::Rust { name, .. } => Some(name()),
            Self::Foreign { .. } => None,
        }
    }

    /// Returns the error of a failed call as text, by the bytes of the failure.
    pub(super) fn error_text(self, failure: &[u8]) -> Option<String> {
        match self {
            Self::Rust { .. } => Some(Failure::decode(failure).to_string()),
            Self::Foreign { error_text, .. } => error_text(failure),
        }
    }

    /// Returns the error of the first failed item of a span as text, by the bytes of the results.
    pub(super) fn item_error_text(self, results: &[u8]) -> Option<String> {
        match self {
            // No spans.
            Self::Rust { .. } => None,
            Self::Foreign {
                item_error_text, ..
            } => item_error_text(results),
        }
    }

    /// Returns the name of the function, which may be defined by these bytes.
    ///
    /// # Safety
    /// The future is this task's.
    pub(super) unsafe fn function_name(
        self,
        future: &TaskRef,
        definition: Option<&[u8]>,
    ) -> Option<Cow<'static, str>> {
        match self {
            Self::Rust { name, .. } => Some(Cow::Borrowed(name())),
            Self::Foreign {
                call_name,
                function_name,
                ..
            } => match definition {
                Some(definition) => function_name(definition),
                // SAFETY: the future is this task's.
                None => unsafe { call_name(future.address()) },
            }
            .map(Cow::Owned),
        }
    }

    /// Returns whether any thread may make the value of the answer, as that calls no foreign code.
    pub(super) fn is_plain(self) -> bool {
        match self {
            Self::Rust { is_plain, .. } => is_plain,
            // As promised; see `RemoteTask`.
            Self::Foreign { .. } => true,
        }
    }

    /// Returns whether other code than the pool may set the outcome of the future, as Python's futures allow.
    /// So the pool claims the future before it answers.
    pub(super) fn has_other_setters(self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Returns whether the frontend is told when the pool takes a cancelled task out of its queue.
    pub(super) fn notices_cancellation(self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Returns whether the caller of `submit` completes the future of a task that the pool has not accepted.
    pub(super) fn completes_declined(self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Writes the outcome of the Rust frontend, or lets another frontend keep the answer for these items.
    ///
    /// # Safety
    /// The future is this task's. The pool has started it, or the caller has claimed it, and it has no complete
    /// outcome. If the frontend has other setters and the task is no span, the caller has claimed it.
    pub(super) unsafe fn answer(
        self,
        future: &TaskRef,
        items: Range<u32>,
        ending: Ending<'_>,
    ) -> Kept {
        match self {
            // SAFETY: the future is this task's, and the caller has started or claimed it.
            Self::Rust { write, .. } => unsafe {
                write(future, ending);
                Kept::Whole
            },
            // SAFETY: the conditions are those of this function.
            Self::Foreign { answer, .. } => unsafe {
                answer(future.address(), items, ending.into_remote())
            },
        }
    }

    /// Lets a thread of the frontend make values of answers that were [kept to settle](Kept::ToSettle).
    ///
    /// # Safety
    /// The future is this task's.
    pub(super) unsafe fn settle(self, future: &TaskRef) {
        if let Self::Foreign { settle, .. } = self {
            // SAFETY: the future is this task's.
            unsafe { settle(future.address()) };
        }
    }

    /// Returns whether no thread waits for the rest of a span that was begun.
    ///
    /// # Safety
    /// The future is this task's.
    pub(super) unsafe fn is_abandoned(self, future: &TaskRef) -> bool {
        match self {
            Self::Rust { .. } => false,
            // SAFETY: the future is this task's.
            Self::Foreign { is_abandoned, .. } => unsafe { is_abandoned(future.address()) },
        }
    }

    /// Releases the permit that the future holds.
    ///
    /// # Safety
    /// The future is this task's.
    pub(super) unsafe fn leave(self, future: &TaskRef) {
        if let Self::Foreign { leave, .. } = self {
            // SAFETY: the future is this task's.
            unsafe { leave(future.address()) };
        }
    }
}

/// Writes the outcome of a call.
///
/// # Safety
/// The task is a `Remote<I>`, and the caller has started or claimed it.
unsafe fn write<I: Invoke>(task: &TaskRef, ending: Ending<'_>) {
    let outcome = match ending {
        Ending::Value(bytes, _) => panic::catch(|| I::receive(bytes))
            .unwrap_or_else(|panic| Err(TaskError::Panicked(panic))),
        Ending::Failure(bytes) => Err(Failure::decode(bytes.as_slice())),
        Ending::Error(error) => Err(error),
    };
    // SAFETY: the task is a `Remote<I>`, whose call needs no drop, and the caller has started or claimed it.
    unsafe { task.write_outcome::<Remote<I>>(outcome) };
}
