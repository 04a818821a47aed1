//! The contract with a frontend whose workers are not this program started anew, but processes of a language
//! runtime.
//!
//! The frontend starts the worker processes and carries out calls in them. The pool, its supervisor, the
//! channel and the state machine are the engine's. The frontend implements these traits:
//!
//! | in the parent | |
//! |---|---|
//! | [`WorkerSpawner`] | starts worker processes, and tells how they ended |
//! | [`RemoteTask`] | a task of the frontend: it keeps the answer as it came, without foreign code |
//! | [`ProcessPool`](crate::process::frontend::ProcessPool) | the pool |
//!
//! | in a worker | |
//! |---|---|
//! | [`serve`](crate::process::frontend::serve) | the life of a worker, up to its end |
//! | [`Caller`] | carries out calls |
//!
//! A function that travels often is *defined* once for each worker. Each worker has a table with a place for
//! each [`Definition`]. The bytes of the definition go before the first call that needs them.
//!
//! A task may be a *span*: calls for several items. If each item has its own bytes ([`Items`]), a worker is
//! handed as many items as are worth a message, and may stop early. The items that it has not begun are a
//! span again. Items that are done are done even if the worker dies before it answers ([`Progress`]). Further
//! items may come while others are on their way.

use crate::error::TaskError;
use crate::error::process::WorkerExit;
pub use crate::process::channel::{Attachment, MappedSegment, Segments};
pub use crate::process::items::Items;
use crate::process::options::{OnWorkerDeath, TaskOptions};
use crate::task::header::{ForeignTask, Header};
use crate::task::log;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts worker processes, and is called around the supervisor's work.
///
/// The engine holds no lock while it calls these.
pub trait WorkerSpawner: Send + Sync {
    /// Starts a worker process, which is to call [`serve`](crate::process::frontend::serve) with this end of its
    /// channel. Returns none if the worker was requested, and comes later; see [`requests`](Self::requests).
    ///
    /// # Errors
    /// Why it could not be started.
    fn start(&self, channel: OwnedFd) -> io::Result<Option<StartedWorker>>;

    /// Returns the exit status of a worker that has ended.
    fn exit_of(&self, worker: &EndedWorker<'_>) -> WorkerExit;

    /// Returns the spawner's requests for workers; none if it starts each worker at once.
    fn requests(&self) -> Option<&dyn WorkerRequests> {
        None
    }

    /// Does the frontend's work before the supervisor sleeps. Returns when it is to be called again at the
    /// latest.
    fn before_sleep(&self) -> Option<Duration> {
        None
    }

    /// Logs an event: the engine goes a slower way than it could.
    fn log(&self, event: &str) {
        log::slower(event);
    }

    /// Returns whether kept answers still need the workers. A closed pool does not end its workers meanwhile;
    /// [`ProcessPool::settled`](crate::process::frontend::ProcessPool::settled) tells it when that is over.
    ///
    /// This one is called under the pool's lock, and calls nothing foreign.
    fn needs_workers(&self) -> bool {
        false
    }
}

/// The workers that a spawner has requested from another process.
///
/// The supervisor asks for them. Requests are answered in their order, each with one outcome.
pub trait WorkerRequests {
    /// Returns the descriptor that is readable when [`collect`](Self::collect) may have outcomes.
    fn readable(&self) -> Option<Arc<dyn AsFd + Send + Sync>>;

    /// Returns when [`collect`](Self::collect) is to be called at the latest.
    fn due(&self) -> Option<Instant>;

    /// Returns whether [`collect`](Self::collect) returns outcomes at once.
    fn has_outcomes(&self) -> bool;

    /// Takes the outcomes of requests.
    fn collect(&self) -> Vec<io::Result<StartedWorker>>;

    /// Forgets all requests, and ends their workers.
    fn abandon(&self);
}

/// A worker process that was started.
#[derive(Debug)]
pub struct StartedWorker {
    pub(crate) pid: u32,
    /// Whether the worker is a child of this process, whose handle the pool can open.
    pub(crate) is_child: bool,
    /// The handle of a worker that is no child of this process.
    pub(crate) pidfd: Option<OwnedFd>,
}

impl StartedWorker {
    /// Describes a worker that is a child of this process.
    #[must_use]
    pub fn child(pid: u32) -> Self {
        Self {
            pid,
            is_child: true,
            pidfd: None,
        }
    }

    /// Makes the worker of a child of another process, which has sent the pidfd if the system has one.
    #[must_use]
    pub fn of_other(pid: u32, pidfd: Option<OwnedFd>) -> Self {
        Self {
            pid,
            is_child: false,
            pidfd,
        }
    }
}

/// A worker process that has ended, and whose exit status is to be taken.
pub struct EndedWorker<'a> {
    pid: u32,
    is_replaced: bool,
    reap: &'a dyn Fn() -> WorkerExit,
}

impl<'a> EndedWorker<'a> {
    pub(crate) fn new(pid: u32, is_replaced: bool, reap: &'a dyn Fn() -> WorkerExit) -> Self {
        Self {
            pid,
            is_replaced,
            reap,
        }
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns whether the pool goes on without the worker.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// Takes the exit status of a child of this process.
    #[must_use]
    pub fn reap(&self) -> WorkerExit {
        (self.reap)()
    }
}

impl fmt::Debug for EndedWorker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedWorker")
            .field("pid", &self.pid)
            .field("is_replaced", &self.is_replaced)
            .finish_non_exhaustive()
    }
}

/// An answer, or a part of it, as a [`RemoteTask`] gets it.
#[derive(Debug)]
pub enum RemoteAnswer<'a> {
    /// The call returned a value.
    Value {
        /// The value, as the frontend encodes it.
        bytes: Cow<'a, [u8]>,
        /// The out-of-band buffers, or why they failed.
        attachment: Option<io::Result<MappedSegment>>,
    },
    /// The call raised an exception.
    Failure(Cow<'a, [u8]>),
    /// The call was not carried out to its end.
    Error(TaskError),
}

/// The result of giving an answer to a [`RemoteTask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// More is to come, or another thread of the frontend completes the task.
    Partly,
    /// The outcome is complete.
    Whole,
    /// Like `Partly`, once the pool has called [`settle`](RemoteTask::settle).
    ToSettle,
}

/// A foreign task that a worker process carries out.
///
/// # Safety
/// As for [`ForeignTask`].
pub unsafe trait RemoteTask: ForeignTask {
    /// Keeps an answer; for a span, the answer for these of its items. The outcome is not complete as long as
    /// items of a span are missing. A task that is no span is claimed, and stays claimed until the frontend
    /// finishes it if the answer is not the whole outcome.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    ///
    /// # Safety
    /// The task was started by the pool, and has no complete outcome. For tasks that are no
    /// spans, the caller has claimed it.
    unsafe fn answer(task: NonNull<Header>, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept;

    /// Lets a thread of the frontend make values of the answers that were kept. It may call foreign code.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn settle(task: NonNull<Header>);

    /// Releases the permit of the task, which is being dispatched.
    ///
    /// It calls no foreign code, and is called under the pool's lock.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn leave(task: NonNull<Header>);

    /// Returns whether no thread waits for the rest of a span that was begun.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn is_abandoned(task: NonNull<Header>) -> bool;

    /// Returns the error of a failed call as text, by the bytes of its failure; none if they tell none.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    fn error_text(failure: &[u8]) -> Option<String>;

    /// Returns the error of the first failed item of a span as text, by the bytes of the results; none if no item
    /// has failed.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    fn item_error_text(results: &[u8]) -> Option<String>;

    /// Returns the name of the function of a task that has no [`Definition`]; none if the task has no name.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn call_name(task: NonNull<Header>) -> Option<String>;

    /// Returns the name of a function, by the bytes of its [`Definition`]; none if they tell none.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    fn function_name(definition: &[u8]) -> Option<String>;
}

/// A function that workers know by a number.
#[derive(Debug)]
pub struct Definition {
    /// The place in the table of functions, less than [`PLACES`](Self::PLACES).
    pub place: u16,
    /// Distinguishes the function from other functions that have had this place.
    pub number: u64,
    /// The bytes from which the [`Caller`] makes the function.
    pub bytes: Vec<u8>,
}

impl Definition {
    /// The number of functions that a worker knows at a time.
    pub const PLACES: u16 = 256;
    /// The length of the longest function that is defined, rather than sent with each call.
    pub const LONGEST: usize = 4096;
}

/// The bytes of a call.
#[derive(Clone)]
pub enum Argument {
    /// The bytes are the task's own.
    Own(Vec<u8>),
    /// The bytes belong to another object, and stay as they are.
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl std::ops::Deref for Argument {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => (**bytes).as_ref(),
        }
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A call for a worker, on its way from the frontend to the pool.
#[derive(Debug)]
pub struct RemoteCall {
    /// The function, if it is defined separately.
    pub definition: Option<Arc<Definition>>,
    /// A number less than 16, which is passed to the [`Caller`] unchanged.
    pub tag: u8,
    /// The rest of the call.
    pub argument: Argument,
    /// The long buffers of the call.
    pub attachment: Option<Attachment>,
    /// The items, if the task is a span.
    pub span: Option<CallSpan>,
    /// The time limit and the retries.
    pub options: TaskOptions,
    /// Whether the task holds a permit, as pending tasks are bounded.
    pub has_place: bool,
}

/// The items of a span.
#[derive(Debug)]
pub enum CallSpan {
    /// A number of calls that are one task, with one piece as their argument.
    Whole(u32),
    /// The items that no task has yet, and those that are pushed until a worker has all of them. Each item is
    /// a task by itself, and workers get as many as are worth a message. The call has no argument and no
    /// attachment of its own.
    Tail(Arc<Items>),
}

/// The settings of a frontend's pool.
#[derive(Debug)]
pub struct PoolSettings {
    /// The number of workers that the pool may have.
    pub max_workers: usize,
    /// The number of tasks after which a worker is replaced.
    pub max_tasks_per_child: Option<usize>,
    /// The number of tasks that may be pending.
    pub max_pending: Option<usize>,
    /// The memory that each worker may take for data.
    pub memory_limit: Option<u64>,
    /// The effect of a worker's death on the pool.
    pub on_worker_death: OnWorkerDeath,
}

/// The bytes of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// The first bytes of the answer.
    pub bytes: Vec<u8>,
    /// The bytes that follow, left where they are, so that long values need not be copied.
    pub tail: Option<Argument>,
    /// The long buffers of the answer.
    pub attachment: Option<Attachment>,
}

impl Answer {
    /// Clears the answer, for the next call.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.tail = None;
        self.attachment = None;
    }
}

/// The outcome of a call in a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// The call returned: the value is in the buffer.
    Returned,
    /// The call has stopped before the last items of its span, of which there are this many.
    StoppedBefore(u32),
    /// The value of the item before this one is in the buffer. The values before it were sent; when the
    /// buffer is sent, too, the call is to go on with this item.
    PausedBefore(u32),
    /// The call raised an exception: the failure is in the buffer.
    Raised,
    /// The worker is to end without an answer.
    Ended,
    /// No function has the number: the frame makes no sense.
    Garbled,
}

/// The description of a call that a worker receives besides the bytes of the argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOrder {
    /// The place where the function was defined; [`Definition::PLACES`] if the call brings its own function.
    pub place: u16,
    /// The tag, as in [`RemoteCall`].
    pub tag: u8,
    /// The items of a span.
    pub items: Range<u32>,
    /// All of the above as one number, for frontends that number their functions otherwise.
    pub(crate) function: u64,
}

/// Packs the place of a function and the tag, less than 2^16, and the items of a span, less than 2^24.
pub(crate) fn pack(function: u64, items: &Range<u32>) -> u64 {
    function | u64::from(items.start) << 16 | u64::from(items.end - items.start) << 40
}

/// Returns the order that [`pack`] has packed.
pub(crate) fn unpack(packed: u64) -> CallOrder {
    let bytes = packed.to_le_bytes();
    let function = u16::from_le_bytes([bytes[0], bytes[1]]);
    let start = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], 0]);
    let length = u32::from_le_bytes([bytes[5], bytes[6], bytes[7], 0]);
    CallOrder {
        place: function & 0x0fff,
        tag: (function >> 12).to_le_bytes()[0],
        items: start..start + length,
        function: packed,
    }
}

/// The progress of a worker in a span. Items that were counted keep their results if the worker dies.
pub trait Progress {
    /// Counts one more item, whose result was appended to the bytes of the answer. Returns false if that is
    /// all of the answer for now, and the call is to pause.
    fn note(&mut self, answer: &mut Answer) -> bool;

    /// Sends the counted results, and takes them out of the answer. Returns false if the answer cannot be
    /// sent: then the call is to return.
    fn send(&mut self, answer: &mut Answer) -> bool;
}

/// Carries out calls in a worker.
pub trait Caller {
    /// Learns a function, which later calls name by its number.
    fn define(&mut self, place: u16, bytes: &[u8]) {
        let _ = (place, bytes);
    }

    /// Carries out a call, with the out-of-band buffers of its argument, or why they failed. A caller that does
    /// not pause may take the argument.
    fn call(
        &mut self,
        order: CallOrder,
        argument: &mut Cow<'_, [u8]>,
        attachment: Option<io::Result<MappedSegment>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Called;

    /// Turns attachments of answers off: this worker has no channel for segments.
    fn send_no_attachments(&mut self) {}

    /// Calls `wait`, in which the worker waits without calling foreign code.
    fn idle(&mut self, wait: &mut dyn FnMut()) {
        wait();
    }
}
