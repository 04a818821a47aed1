//! The error types: one type for each kind of failure.

#![forbid(unsafe_code)]

#[cfg(all(feature = "process", unix))]
pub(crate) mod process;

#[cfg(all(feature = "process", unix))]
use crate::error::process::{TimeLimitExceeded, TransferError, WorkerDied};
use crate::id::FutureId;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The largest number of workers that a pool can have: the counters of `thread/idle.rs` have 20 bits.
pub const MAX_WORKERS: usize = (1 << 20) - 1;

/// The reason why a future has no value: the counterpart of the exception that `result` raises in Python.
///
/// # Examples
/// ```
/// use concurrent_futures::{TaskError, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let port = pool.submit_fallible(str::parse::<u16>, "eighty")?;
/// match port.result() {
///     Err(TaskError::Failed(cause)) => assert!(cause.is::<std::num::ParseIntError>()),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The future was cancelled before a worker took the task.
    #[error("the task was cancelled before it started")]
    Cancelled,
    /// The task panicked.
    #[error(transparent)]
    Panicked(Arc<TaskPanic>),
    /// The task returned this error.
    #[error(transparent)]
    Failed(Arc<dyn Error + Send + Sync>),
    /// The executor broke before it could run the task.
    #[error(transparent)]
    Broken(#[from] BrokenExecutor),
    /// Waiting would never end: tasks wait for each other in a cycle.
    #[error(transparent)]
    Deadlock(#[from] Deadlock),
    /// The time limit of the call passed first. The future is as it was.
    #[error("the time limit passed before the task was done")]
    Timeout,
    /// The result was taken before.
    #[error(
        "the result of this future was taken before; `peek` looks at a result without taking it"
    )]
    Taken,
    /// The promise was dropped without a result.
    #[error("the promise was dropped before it set a result or an exception")]
    Abandoned,
    /// The executor did not accept the task; for iterators that submit as they go.
    #[error(transparent)]
    Rejected(SubmitError),
    /// The worker process died while it ran the task.
    #[cfg(all(feature = "process", unix))]
    #[error(transparent)]
    WorkerDied(Arc<WorkerDied>),
    /// The task ran longer than its own time limit, and its worker process was killed.
    #[cfg(all(feature = "process", unix))]
    #[error(transparent)]
    TimeLimit(Arc<TimeLimitExceeded>),
    /// The task was terminated while it ran, together with its worker process.
    #[error("the task was terminated while it ran")]
    Terminated,
    /// The argument or the result did not travel between processes.
    #[cfg(all(feature = "process", unix))]
    #[error(transparent)]
    Transfer(Arc<TransferError>),
}

impl TaskError {
    /// Wraps the error value of a task.
    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }
}

/// A panic of a task: its message, its location, and the backtrace.
///
/// # Examples
/// ```
/// use concurrent_futures::{TaskError, ThreadPoolExecutor};
///
/// # std::panic::set_hook(Box::new(|_| ()));
/// let pool = ThreadPoolExecutor::new()?;
/// let error = pool.spawn(|| panic!("no luck"))?.result().unwrap_err();
/// let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
/// assert_eq!(panic.message(), "no luck");
/// let place = panic.location().unwrap();
/// assert_eq!(panic.to_string(), format!("the task panicked: no luck, at {place}"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TaskPanic {
    message: String,
    location: Option<PanicLocation>,
    backtrace: PanicBacktrace,
}

/// The stack of a worker when its task panicked.
///
/// [`Display`](fmt::Display) shows it; symbols are looked up by then, or were in the worker
/// if that is another process.
///
/// # Examples
/// ```
/// use concurrent_futures::{TaskError, ThreadPoolExecutor};
/// use std::backtrace::BacktraceStatus;
///
/// # std::panic::set_hook(Box::new(|_| ()));
/// let pool = ThreadPoolExecutor::new()?;
/// let error = pool.spawn(|| panic!("no luck"))?.result().unwrap_err();
/// let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
/// match panic.backtrace().status() {
///     BacktraceStatus::Captured => println!("{}", panic.backtrace()),
///     _ => println!("set RUST_BACKTRACE=1 for a backtrace"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PanicBacktrace(Stack);

enum Stack {
    Here(Backtrace),
    #[cfg_attr(
        not(all(feature = "process", unix)),
        allow(dead_code, reason = "there is no other process")
    )]
    Elsewhere(String),
}

impl PanicBacktrace {
    /// Returns whether there is a backtrace.
    ///
    /// # Examples
    /// See [`PanicBacktrace`].
    #[must_use]
    pub fn status(&self) -> BacktraceStatus {
        match &self.0 {
            Stack::Here(backtrace) => backtrace.status(),
            Stack::Elsewhere(_) => BacktraceStatus::Captured,
        }
    }
}

impl fmt::Display for PanicBacktrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Stack::Here(backtrace) => backtrace.fmt(f),
            Stack::Elsewhere(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for PanicBacktrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Stack::Here(backtrace) => backtrace.fmt(f),
            Stack::Elsewhere(text) => f.write_str(text),
        }
    }
}

/// A place in the source code.
///
/// # Examples
/// ```
/// use concurrent_futures::PanicLocation;
///
/// let place = PanicLocation { file: "src/main.rs".to_owned(), line: 3, column: 7 };
/// assert_eq!(place.to_string(), "src/main.rs:3:7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicLocation {
    /// The file, as the compiler was given it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl fmt::Display for PanicLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl TaskPanic {
    pub(crate) fn new(
        payload: &(dyn Any + Send),
        location: Option<PanicLocation>,
        backtrace: Backtrace,
    ) -> Self {
        let message = if let Some(message) = payload.downcast_ref::<&str>() {
            (*message).to_owned()
        } else if let Some(message) = payload.downcast_ref::<String>() {
            message.clone()
        } else {
            String::from("a value that is not a string")
        };
        Self {
            message,
            location,
            backtrace: PanicBacktrace(Stack::Here(backtrace)),
        }
    }

    /// A panic in another process.
    #[cfg(all(feature = "process", unix))]
    pub(crate) fn from_elsewhere(
        message: String,
        location: Option<PanicLocation>,
        backtrace: Option<String>,
    ) -> Self {
        let stack = backtrace.map_or(Stack::Here(Backtrace::disabled()), Stack::Elsewhere);
        Self {
            message,
            location,
            backtrace: PanicBacktrace(stack),
        }
    }

    /// Returns the panic's message.
    ///
    /// # Examples
    /// See [`TaskPanic`].
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the location of the panic. `None` when the program has replaced the panic hook since the
    /// executor was made, or resumed an earlier panic.
    ///
    /// # Examples
    /// See [`TaskPanic`].
    #[must_use]
    pub fn location(&self) -> Option<&PanicLocation> {
        self.location.as_ref()
    }

    /// Returns the worker's stack at the panic; disabled where `location` is `None`.
    ///
    /// # Examples
    /// See [`PanicBacktrace`].
    pub fn backtrace(&self) -> &PanicBacktrace {
        &self.backtrace
    }
}

impl fmt::Display for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task panicked: {}", self.message)?;
        match &self.location {
            Some(location) => write!(f, ", at {location}"),
            None => Ok(()),
        }
    }
}

impl Error for TaskPanic {}

/// Tasks that wait for each other in a cycle.
///
/// [`Display`](fmt::Display) names the tasks in the order in which they wait.
///
/// # Examples
/// ```
/// use concurrent_futures::{Future, TaskError, ThreadPoolExecutor};
/// use std::sync::{Arc, OnceLock};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let own = Arc::new(OnceLock::<Future<Option<TaskError>>>::new());
/// let task = Arc::clone(&own);
/// let (sender, receiver) = std::sync::mpsc::channel::<()>();
/// let future = pool.spawn(move || {
///     receiver.recv().ok()?;
///     // Waits for itself:
///     task.get()?.exception()
/// })?;
/// own.set(future).unwrap();
/// sender.send(())?;
/// let future = own.get().unwrap();
/// assert!(future.exception().is_none());
/// let waited = future.peek().unwrap().unwrap();
/// let Some(TaskError::Deadlock(cycle)) = waited else { panic!("{waited:?}") };
/// assert!(cycle.futures().eq([future.id()]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Deadlock {
    cycle: Arc<Cycle>,
}

#[derive(Debug)]
struct Cycle {
    tasks: Box<[(FutureId, Cow<'static, str>)]>,
    /// The reason why a pool could not have another worker, which would have helped.
    refused: Option<Arc<io::Error>>,
}

impl Deadlock {
    /// The number of tasks that the message names.
    const SHOWN: usize = 16;

    pub(crate) fn new(
        tasks: &[(FutureId, Cow<'static, str>)],
        refused: Option<Arc<io::Error>>,
    ) -> Self {
        let tasks = tasks.into();
        let cycle = Arc::new(Cycle { tasks, refused });
        Self { cycle }
    }

    /// Returns the reason why a pool could not have another worker, which would have helped.
    pub(crate) fn refused(&self) -> Option<&Arc<io::Error>> {
        self.cycle.refused.as_ref()
    }

    /// Returns the futures of the cycle. Each waits for the next, and the last for the first, unless it waits
    /// for a worker.
    ///
    /// # Examples
    /// See [`Deadlock`].
    pub fn futures(&self) -> impl ExactSizeIterator<Item = FutureId> {
        self.cycle.tasks.iter().map(|(id, _)| *id)
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cycle { tasks, refused } = &*self.cycle;
        f.write_str("waiting would never end: ")?;
        for (index, (id, name)) in tasks.iter().take(Self::SHOWN).enumerate() {
            if index > 0 {
                f.write_str(" waits for ")?;
            }
            write!(f, "{id} ({name})")?;
        }
        match (tasks.len().checked_sub(Self::SHOWN), tasks.first()) {
            (Some(more @ 1..), _) => write!(f, ", and {more} more")?,
            (_, Some((id, _))) if refused.is_none() => write!(f, " waits for {id}")?,
            _ => {}
        }
        match refused {
            Some(error) => write!(f, "; no further worker can be started: {error}"),
            None => Ok(()),
        }
    }
}

impl Error for Deadlock {}

/// The executor broke: its initializer failed in a worker, or its worker processes died. The counterpart of
/// Python's `BrokenExecutor`.
///
/// # Examples
/// ```
/// use concurrent_futures::{SubmitError, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::builder()
///     .initializer(|| Err::<(), _>("no database"))
///     .build()?;
/// assert!(pool.spawn(|| ())?.exception().is_some());
/// let Err(SubmitError::Broken(broken)) = pool.spawn(|| ()) else { panic!() };
/// assert_eq!(broken.cause().to_string(), "no database");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BrokenExecutor {
    reason: Arc<Broken>,
}

#[derive(Debug)]
struct Broken {
    what: &'static str,
    cause: Arc<dyn Error + Send + Sync>,
}

impl BrokenExecutor {
    /// Makes the error of an executor whose initializer failed for this cause.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{BrokenExecutor, SubmitError};
    /// use std::sync::Arc;
    ///
    /// /// Refuses tasks, as an executor does whose set-up has failed.
    /// fn refuse(cause: std::io::Error) -> SubmitError {
    ///     BrokenExecutor::new(Arc::new(cause)).into()
    /// }
    ///
    /// let error = refuse(std::io::Error::other("no database"));
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the executor is broken: its initializer failed: no database",
    /// );
    /// ```
    #[must_use]
    pub fn new(cause: Arc<dyn Error + Send + Sync>) -> Self {
        Self::by("its initializer failed", cause)
    }

    /// Makes the error of an executor that broke for another reason.
    pub(crate) fn by(what: &'static str, cause: Arc<dyn Error + Send + Sync>) -> Self {
        let reason = Arc::new(Broken { what, cause });
        Self { reason }
    }

    /// Returns the cause: the initializer's error, its [`TaskPanic`], or how a worker process died.
    ///
    /// # Examples
    /// See [`BrokenExecutor`].
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.reason.cause
    }
}

impl fmt::Display for BrokenExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { what, cause } = &*self.reason;
        write!(f, "the executor is broken: {what}: {cause}")
    }
}

impl Error for BrokenExecutor {
    /// Returns the source of the cause. The cause itself is part of the message.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.cause.source()
    }
}

/// The reason why a task was not accepted.
///
/// # Examples
/// ```
/// use concurrent_futures::{Shutdown, SubmitError, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new()?;
/// pool.shutdown(Shutdown::Wait);
/// assert!(matches!(pool.spawn(|| 1), Err(SubmitError::Shutdown)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The executor was shut down.
    #[error("cannot submit to an executor that was shut down")]
    Shutdown,
    /// The executor broke.
    #[error(transparent)]
    Broken(#[from] BrokenExecutor),
    /// The executor has as many pending tasks as it may hold. Only from the calls that do not wait for room.
    #[error(
        "the executor has as many pending tasks as `max_pending` allows; submit again when one has started"
    )]
    Full,
    /// The pool has no worker, and the system refuses to start one.
    #[error("no worker could be started: {0}")]
    NoWorker(Arc<io::Error>),
}

/// A task that was not accepted, given back.
///
/// # Examples
/// ```
/// use concurrent_futures::{Shutdown, SubmitError, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new()?;
/// pool.shutdown(Shutdown::Wait);
/// let rejected = pool.try_spawn(|| 6 * 7).unwrap_err();
/// assert!(matches!(rejected.error(), SubmitError::Shutdown));
/// // The calling thread runs the task instead.
/// assert_eq!(rejected.into_task()(), 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rejected<F> {
    error: SubmitError,
    task: F,
}

impl<F> Rejected<F> {
    pub(crate) fn new(error: SubmitError, task: F) -> Self {
        Self { error, task }
    }

    /// Returns the reason why the task was not accepted.
    ///
    /// # Examples
    /// See [`Rejected`].
    pub fn error(&self) -> &SubmitError {
        &self.error
    }

    /// Returns the task.
    ///
    /// # Examples
    /// See [`Rejected`].
    pub fn into_task(self) -> F {
        self.task
    }
}

impl<F> fmt::Debug for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> Error for Rejected<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// The reason why an executor could not be made.
///
/// # Examples
/// ```
/// use concurrent_futures::{BuildError, ThreadPoolExecutor};
///
/// let error = ThreadPoolExecutor::builder().max_pending(0).build().unwrap_err();
/// assert!(matches!(error, BuildError::ZeroPending));
/// assert_eq!(error.to_string(), "max_pending must be greater than 0");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_workers` was zero.
    #[error("max_workers must be greater than 0")]
    ZeroWorkers,
    /// `max_workers` was above the largest number that the executor can count.
    #[error("max_workers is {0}, but may be at most {max}", max = MAX_WORKERS)]
    TooManyWorkers(usize),
    /// `max_pending` was zero: nothing could ever be submitted.
    #[error("max_pending must be greater than 0")]
    ZeroPending,
    /// The thread name prefix contains a zero byte, which no thread name can contain.
    #[error("thread_name_prefix {0:?} must not contain a zero byte")]
    InvalidThreadName(String),
    /// [`init`](crate::init) was not called: worker processes would run the program from
    /// its beginning, and start workers of their own.
    #[error(
        "concurrent_futures::init() was not called: it must be the first call in `main`, as \
         worker processes begin there"
    )]
    NotInitialized,
    /// `max_tasks_per_child` was zero: a worker could never run a task.
    #[error("max_tasks_per_child must be greater than 0")]
    ZeroTasks,
    /// The argument of the initializer does not serialise.
    #[cfg(all(feature = "process", unix))]
    #[error(transparent)]
    Transfer(TransferError),
    /// The system refused a resource that the executor needs.
    #[error("the executor cannot be set up: {0}")]
    System(#[from] io::Error),
}

/// The time limit of a call passed. No result is lost.
///
/// # Examples
/// ```
/// use concurrent_futures::{as_completed, promise};
/// use std::time::Duration;
///
/// let (promise_of_first, first) = promise();
/// let (_promise_of_second, second) = promise();
/// promise_of_first.set_result(1)?;
/// let mut futures = as_completed([first, second]).timeout(Duration::from_millis(1));
/// assert_eq!(futures.next().unwrap()?.result()?, 1);
/// let error = futures.next().unwrap().unwrap_err();
/// assert_eq!((error.unfinished(), error.total()), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time limit passed: {unfinished} of {total} futures unfinished")]
pub struct TimeoutError {
    pub(crate) unfinished: usize,
    pub(crate) total: usize,
}

impl TimeoutError {
    /// Returns the number of futures that were not done.
    ///
    /// # Examples
    /// See [`TimeoutError`].
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Returns the number of all futures.
    ///
    /// # Examples
    /// See [`TimeoutError`].
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

/// The outcome of a promise was set a second time: the counterpart of Python's `InvalidStateError`.
///
/// # Examples
/// ```
/// use concurrent_futures::promise;
///
/// let (promise, future) = promise();
/// assert!(future.cancel());
/// let error = promise.set_result(1).unwrap_err();
/// assert_eq!(error.to_string(), "the future is cancelled already");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the future is {state} already")]
pub struct InvalidStateError {
    pub(crate) state: &'static str,
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::{SubmitError, TaskError};

    #[test]
    fn an_error_takes_little_memory_as_each_future_has_room_for_one() {
        let word = size_of::<usize>();
        assert_eq!(size_of::<TaskError>(), 3 * word);
        assert_eq!(size_of::<Result<u64, TaskError>>(), 3 * word);
        assert_eq!(size_of::<SubmitError>(), 2 * word);
    }
}
