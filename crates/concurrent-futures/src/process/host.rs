//! What worker processes live in: the program started anew, or processes of a language
//! runtime, whose face of the engine starts them and carries out calls in them.
//!
//! The pool, its supervisor, the channel and the state machine are the same. What a face
//! brings is here:
//!
//! | in the parent | |
//! |---|---|
//! | [`WorkerHost`] | starts worker processes, and tells how they ended |
//! | [`RemoteTask`] | a task of the face: it keeps the answer as it came, without foreign code |
//! | [`ProcessPool`] | the pool |
//!
//! | in a worker | |
//! |---|---|
//! | [`serve`] | the life of a worker, up to its end |
//! | [`Caller`] | carries out calls |
//!
//! A function that travels often is *defined* once for each worker: a [`Definition`] has a place
//! in a table that each worker has, and its bytes go before the first call that needs them.
//!
//! A task may be a *span*: calls for several items. If each has its own bytes ([`Items`]), a worker is
//! handed as many of them as are worth a message, and may stop early; the items that it has not begun
//! are a span again. Items that are done are done even if the worker dies before it answers
//! ([`Progress`]). Further items may come while others are on their way.

use super::builder::Settings;
use super::channel::Socket;
pub use super::channel::{Attachment, Received, Segments};
use super::error::WorkerExit;
pub use super::items::Items;
use super::member::Member;
use super::options::TaskOptions;
use super::pool::Pool;
use super::supervisor;
use super::task::Task;
use super::worker;
use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::future::TaskRef;
use crate::future::driver::Driver;
use crate::future::task::{ForeignTask, Header};
use rustix::process::Signal;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// Starts worker processes, and surrounds what the supervisor does.
///
/// The engine holds no lock while it calls these.
pub trait WorkerHost: Send + Sync {
    /// Starts a worker process, which is to call [`serve`] with this end of its channel.
    ///
    /// # Errors
    /// Why it could not be started.
    fn start(&self, channel: OwnedFd) -> io::Result<StartedWorker>;

    /// The exit status of a worker that has ended. `replaced`, if the pool goes on without it.
    fn exit_of(&self, pid: u32, replaced: bool) -> WorkerExit;

    /// Called by the supervisor before it sleeps. Returns when it is to be called again
    /// at the latest.
    fn before_sleep(&self) -> Option<Duration> {
        None
    }

    /// Whether answers that were kept need the workers still: a pool that was closed does not end
    /// its workers meanwhile. [`ProcessPool::settled`] tells when that is over.
    ///
    /// This one is called under the pool's lock, and calls nothing foreign.
    fn needs_workers(&self) -> bool {
        false
    }
}

/// A worker process that was started.
#[derive(Debug)]
pub struct StartedWorker {
    /// Its process id.
    pub pid: u32,
}

/// An answer, or a part of it, as a [`RemoteTask`] gets it.
#[derive(Debug)]
pub enum RemoteAnswer<'a> {
    /// What the call has returned.
    Value {
        /// The value as the face has it.
        bytes: Cow<'a, [u8]>,
        /// What came beside it, or why it is lost.
        attachment: Option<io::Result<Received>>,
    },
    /// What the call has raised.
    Failure(Cow<'a, [u8]>),
    /// It was not carried out to its end.
    Error(TaskError),
}

/// The result of giving an answer to a [`RemoteTask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// More is to come, or another thread of the face completes the task.
    Partly,
    /// The outcome is complete.
    Whole,
    /// As `Partly`, once the pool has called [`settle`](RemoteTask::settle).
    ToSettle,
}

/// A foreign task that a worker process carries out.
///
/// # Safety
/// As for [`ForeignTask`].
pub unsafe trait RemoteTask: ForeignTask {
    /// Keeps an answer; that of a span is for these of its items. The outcome is not complete as long
    /// as items of a span are missing. A task that is no span is claimed, and stays so if the answer
    /// is not the whole outcome, until the face finishes it.
    ///
    /// It calls no foreign code, and the thread need not be attached.
    ///
    /// # Safety
    /// The task was started by the pool, and has no complete outcome. For tasks that are no
    /// spans, the caller has claimed it.
    unsafe fn answer(task: NonNull<Header>, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept;

    /// Lets a thread of the face make values of the answers that were kept. It may call foreign code.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn settle(task: NonNull<Header>);

    /// Gives up its place among pending tasks: it is handed to a worker.
    ///
    /// It calls no foreign code, and is called under the pool's lock.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn leave(task: NonNull<Header>);

    /// Whether nobody wants the rest of a span that was begun.
    ///
    /// # Safety
    /// It is such an object's.
    unsafe fn is_abandoned(task: NonNull<Header>) -> bool;
}

/// A function that workers know by a number.
#[derive(Debug)]
pub struct Definition {
    /// Its place in the table of functions, less than [`PLACES`](Self::PLACES).
    pub place: u16,
    /// Tells it from the others that have had this place.
    pub number: u64,
    /// What the [`Caller`] makes the function of.
    pub bytes: Vec<u8>,
}

impl Definition {
    /// How many functions a worker knows at a time.
    pub const PLACES: u16 = 256;
    /// The longest that is defined rather than sent with each call.
    pub const LONGEST: usize = 4096;
}

/// The bytes of a call.
#[derive(Clone)]
pub enum Argument {
    /// They are the task's own.
    Own(Vec<u8>),
    /// They belong to something else, and stay as they are.
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

/// What a worker is to do.
#[derive(Debug)]
pub struct RemoteCall {
    /// The function, if it is defined by itself.
    pub definition: Option<Arc<Definition>>,
    /// Less than 16, and given to the [`Caller`] as it is.
    pub tag: u8,
    /// All else.
    pub argument: Argument,
    /// Long buffers that go beside it.
    pub attachment: Option<Attachment>,
    /// Its items, if it is a span.
    pub span: Option<CallSpan>,
    /// Time limit and retries.
    pub options: TaskOptions,
    /// Whether it has a place among pending tasks, whose number is bounded.
    pub has_place: bool,
}

/// The items of a span.
#[derive(Debug)]
pub enum CallSpan {
    /// This many calls, whose argument is one piece: they are one task.
    Whole(u32),
    /// Those that no task has yet, and those that are pushed until a worker has all of them. Each is
    /// a task by itself, and workers are handed as many as are worth it. The call has no argument and
    /// no attachment of its own.
    Tail(Arc<Items>),
}

/// How a pool of a face is set up.
#[derive(Debug)]
pub struct PoolSettings {
    /// How many workers it may have.
    pub max_workers: usize,
    /// After how many tasks a worker is replaced.
    pub max_tasks_per_child: Option<usize>,
    /// How much memory each worker may take for data.
    pub memory_limit: Option<u64>,
    /// Whether the death of a worker breaks the pool.
    pub strict: bool,
}

/// A pool of worker processes for a face of the engine.
pub struct ProcessPool(Arc<Pool>);

impl ProcessPool {
    /// A pool without workers, and without a supervisor: some thread is to call
    /// [`supervise`](Self::supervise).
    ///
    /// # Errors
    /// When the system refuses what it needs.
    pub fn new(settings: &PoolSettings, host: Arc<dyn WorkerHost>) -> io::Result<Self> {
        Pool::new(Settings::of_host(settings, host)).map(Self)
    }

    /// Identifies the pool in its tasks.
    #[must_use]
    pub fn home(&self) -> *const () {
        self.0.home()
    }

    /// The supervisor's work, up to the end of the pool.
    pub fn supervise(&self) {
        supervisor::supervise(&self.0);
    }

    /// Submits a task. Returns whether a worker is to be started for it, by
    /// [`start_worker`](Self::start_worker).
    ///
    /// # Errors
    /// When the pool was closed or is broken. The future stays as it is then.
    ///
    /// # Safety
    /// The reference is that of a `T`.
    pub unsafe fn submit<T: RemoteTask>(
        &self,
        task: TaskRef,
        call: RemoteCall,
    ) -> Result<bool, SubmitError> {
        // SAFETY: promised by the caller.
        let task = unsafe { Task::foreign::<T>(task, call) };
        self.0.submit(task)
    }

    /// Notes that so many workers are wanted. Returns how many are to be started.
    #[must_use]
    pub fn want_workers(&self, number: usize) -> usize {
        self.0.want_workers(number)
    }

    /// Notes that one more worker is wanted, unless one is idle that has had tasks. Returns whether
    /// it is to be started.
    #[must_use]
    pub fn want_another_worker(&self) -> bool {
        self.0.want_another()
    }

    /// Starts a worker that is wanted.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn start_worker(&self) -> io::Result<()> {
        self.0.start_worker()
    }

    /// To be called after a worker could not be started, and the task that wanted it was
    /// cancelled: others may have relied on it.
    pub fn reconsider(&self) {
        self.0.reconsider();
    }

    /// How many workers have nothing to do.
    #[must_use]
    pub fn idle_workers(&self) -> usize {
        self.0.lock().idle_count()
    }

    /// How many tasks are not done.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let state = self.0.lock();
        let handed: usize = state.members.iter().map(Member::load).sum();
        state.queue.len() + handed
    }

    /// Shows the tasks that are not done, those that workers were handed first, the others in the
    /// order in which they will be started. The lock is held meanwhile: `show` runs no foreign code.
    pub fn show_unfinished(&self, mut show: impl FnMut(NonNull<Header>)) {
        let state = self.0.lock();
        let handed = state.members.iter().flat_map(Member::tasks);
        for task in handed.chain(&state.queue) {
            show(task.address());
        }
    }

    /// Changes how many workers the pool may have. Fewer than there are end none of them.
    pub fn set_max_workers(&self, number: usize) {
        self.0.lock().max_workers = number;
    }

    /// Why it accepts nothing, if it does not.
    #[must_use]
    pub fn refusal(&self) -> Option<SubmitError> {
        self.0.refusal()
    }

    /// Accepts nothing more. With `cancel_futures`, cancels what no worker has begun.
    pub fn close(&self, cancel_futures: bool) {
        self.0.shutdown(false, cancel_futures);
    }

    /// Tells the pool that answers no longer need its workers. A closed pool then looks at what is left.
    pub fn settled(&self) {
        self.0.settled();
    }

    /// Fails what is pending or running, and ends all workers.
    pub fn break_with(&self, broken: &BrokenExecutor) {
        self.0.break_with(broken);
    }

    /// Ends all workers by a signal, and cancels what they have not begun.
    pub fn end_workers(&self, kill: bool) {
        self.0
            .end_workers(if kill { Signal::KILL } else { Signal::TERM });
    }

    /// Takes the task of a future back, if the worker that it was handed to has not begun with it,
    /// and calls `cancel`, which is to cancel the future: it is pending. Returns whether it did.
    pub fn recall(&self, task: &TaskRef, cancel: impl FnOnce()) -> bool {
        let recalled = self.0.recall(task.id());
        let is_recalled = recalled.is_some();
        if is_recalled {
            cancel();
        }
        drop(recalled);
        is_recalled
    }

    /// Whether a worker has begun with a task that is running by its word.
    #[must_use]
    pub fn has_begun(&self, task: &TaskRef) -> bool {
        self.0.has_begun(task.id())
    }

    /// Ends the task of a future, together with its worker if it is running. Returns
    /// whether it will.
    #[must_use]
    pub fn terminate(&self, task: &TaskRef) -> bool {
        Driver::terminate(&*self.0, task.id())
    }

    /// How many tasks are pending, those that were handed to workers not counted.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.lock().queue.len()
    }

    /// The process ids of the workers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.0.pids()
    }

    /// Whether attachments do not travel, as the pool has to do with few descriptors.
    #[must_use]
    pub fn is_lean(&self) -> bool {
        self.0.settings.is_lean
    }

    /// Whether the death of a worker breaks the pool.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.0.settings.strict
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}

/// The bytes of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// What comes first.
    pub bytes: Vec<u8>,
    /// What follows, where it is: so that long values need not be copied.
    pub tail: Option<Argument>,
    /// Long buffers that go beside it.
    pub attachment: Option<Attachment>,
}

impl Answer {
    /// Begins anew.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.tail = None;
        self.attachment = None;
    }
}

/// What a worker's call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// It returned: the value is in the buffer.
    Returned,
    /// It has not begun with the last so many items of its span.
    StoppedBefore(u32),
    /// The value of the item before this one is in the buffer. Those before it were sent; when it is
    /// sent, too, the call is to go on with this one.
    PausedBefore(u32),
    /// It raised: the failure is in the buffer.
    Raised,
    /// The worker is to end without an answer.
    Ended,
}

/// What a worker is told of a call, besides the bytes of its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOrder {
    /// Where the function was defined; [`Definition::PLACES`] if the call brings its own.
    pub place: u16,
    /// As in [`RemoteCall`].
    pub tag: u8,
    /// The items of a span.
    pub items: Range<u32>,
}

/// What a worker has done of a span, which counts whatever becomes of the worker.
pub trait Progress {
    /// One more item is done, and its result was appended to the bytes of the answer. False if
    /// that is all of the answer now, and the call is to pause.
    fn note(&mut self, answer: &mut Answer) -> bool;

    /// Sends what was noted, and takes it out of the answer. False if the answer cannot be sent: the
    /// call is to return.
    fn send(&mut self, answer: &mut Answer) -> bool;
}

/// Carries out calls in a worker.
pub trait Caller {
    /// Learns a function.
    fn define(&mut self, place: u16, bytes: &[u8]);

    /// Carries out a call, with what came beside its argument, or why that is lost.
    fn call(
        &mut self,
        order: CallOrder,
        argument: &[u8],
        attachment: Option<io::Result<Received>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Called;

    /// Nothing goes beside the answers of this worker: they have no attachments.
    fn send_no_attachments(&mut self);

    /// Calls `wait`, in which the worker waits, and calls nothing foreign.
    fn idle(&mut self, wait: &mut dyn FnMut());
}

/// The life of a worker: carries out calls until the pool, or its process, ends.
///
/// # Errors
/// When the channel is corrupt, or the system refuses what the worker needs.
///
/// # Safety
/// The other end of the channel is a pool of this very library, which has started this process. Its
/// memory is shared with that one.
pub unsafe fn serve(channel: OwnedFd, caller: &mut dyn Caller) -> io::Result<()> {
    worker::serve_face(&Socket::from_fd(channel)?, caller)
}

/// Tells the pool that the worker cannot work, which is to end then: no other could either.
///
/// # Errors
/// When nobody is there to be told.
pub fn refuse(channel: OwnedFd, why: &str) -> io::Result<()> {
    worker::refuse(&Socket::from_fd(channel)?, why)
}
