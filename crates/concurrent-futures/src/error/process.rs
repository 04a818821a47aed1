//! The errors of worker processes.

#![forbid(unsafe_code)]

use crate::error::TaskError;
use crate::id::FutureId;
use crate::runtime::os::posix_signals;
use crate::runtime::os::process::Exit;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The way in which a process ended.
///
/// # Examples
/// ```
/// use concurrent_futures::WorkerExit;
///
/// assert_eq!(WorkerExit::Code(3).to_string(), "exited with code 3");
/// assert_eq!(WorkerExit::Signal(9).to_string(), "was killed by signal 9 (SIGKILL)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerExit {
    /// The process ended by itself, with this exit code.
    Code(i32),
    /// The process was killed by this signal.
    Signal(i32),
    /// Another part of the program has taken the exit status: the program waits for all children, or ignores
    /// `SIGCHLD`.
    Unknown,
}

impl From<Exit> for WorkerExit {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(signal) => Self::Signal(signal),
            Exit::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match posix_signals::name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => {
                f.write_str("ended; other code of this process has taken its exit status")
            }
        }
    }
}

/// A worker process died while it ran a task.
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, TaskError, WorkerExit};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// let pool = ProcessPoolExecutor::new()?;
/// fn leave(code: i32) {
///     std::process::exit(code)
/// }
/// let future = pool.submit(leave, 3)?;
/// let Some(TaskError::WorkerDied(death)) = future.exception() else { panic!() };
/// assert_eq!(death.exit(), WorkerExit::Code(3));
/// assert_eq!(death.task(), Some(future.id()));
/// assert!(!pool.worker_pids().contains(&death.pid()));
/// assert_eq!(pool.submit(|n: u32| n + 1, 1)?.result()?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WorkerDied {
    pub(crate) task: Option<(FutureId, Cow<'static, str>)>,
    pub(crate) pid: u32,
    pub(crate) exit: WorkerExit,
    pub(crate) memory_limit: Option<u64>,
    /// A further remark of the supervisor on the death.
    pub(crate) note: Option<Arc<str>>,
}

impl WorkerDied {
    /// Returns the future of the task that the worker was running.
    ///
    /// # Examples
    /// See [`WorkerDied`].
    #[must_use]
    pub fn task(&self) -> Option<FutureId> {
        self.task.as_ref().map(|(id, _)| *id)
    }

    /// Returns the worker's process id.
    ///
    /// # Examples
    /// See [`WorkerDied`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the way in which the worker ended.
    ///
    /// # Examples
    /// See [`WorkerDied`].
    #[must_use]
    pub fn exit(&self) -> WorkerExit {
        self.exit
    }
}

impl fmt::Display for WorkerDied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker process {} {}", self.pid, self.exit)?;
        if let Some((id, name)) = &self.task {
            write!(f, " while it ran task {id} ({name})")?;
        }
        if let Some(note) = &self.note {
            write!(f, ": {note}")?;
        }
        // A process that cannot allocate memory aborts.
        if let (Some(limit), WorkerExit::Signal(posix_signals::ABORT)) =
            (self.memory_limit, self.exit)
        {
            write!(f, "; its memory was limited to {limit} bytes")?;
        }
        Ok(())
    }
}

impl Error for WorkerDied {}

/// A task ran longer than its time limit, and its worker was killed for it.
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, TaskError, TaskOptions};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// fn spin(on: bool) {
///     while on {}
/// }
/// let pool = ProcessPoolExecutor::new()?;
/// let limit = Duration::from_millis(10);
/// let endless = pool.submit_with(TaskOptions::new().time_limit(limit), spin, true)?;
/// let Err(TaskError::TimeLimit(exceeded)) = endless.result() else { panic!() };
/// assert_eq!(exceeded.limit(), limit);
/// assert_ne!(exceeded.pid(), std::process::id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TimeLimitExceeded {
    pub(crate) task: FutureId,
    pub(crate) name: Cow<'static, str>,
    pub(crate) pid: u32,
    pub(crate) limit: Duration,
}

impl TimeLimitExceeded {
    /// Returns the time limit.
    ///
    /// # Examples
    /// See [`TimeLimitExceeded`].
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns the process id of the worker that was killed.
    ///
    /// # Examples
    /// See [`TimeLimitExceeded`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl fmt::Display for TimeLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            name,
            pid,
            limit,
        } = self;
        write!(
            f,
            "task {task} ({name}) ran longer than its time limit of {limit:?}; worker process \
             {pid} was killed"
        )
    }
}

impl Error for TimeLimitExceeded {}

/// The error that a task returned in another process, as text: the error's message, and those of its sources.
///
/// It is the cause in [`TaskError::Failed`]. The error's type and its other data do not travel.
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, RemoteError, TaskError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// let pool = ProcessPoolExecutor::new()?;
/// let port = pool.submit_fallible(|text: String| text.parse::<u16>(), "eighty".to_owned())?;
/// let Err(TaskError::Failed(cause)) = port.result() else { panic!() };
/// // Not `ParseIntError`, which stays in the worker.
/// let remote = cause.downcast_ref::<RemoteError>().unwrap();
/// assert_eq!(remote.to_string(), "invalid digit found in string");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RemoteError {
    text: String,
    source: Option<Box<RemoteError>>,
}

impl RemoteError {
    /// Makes an error of its text, and those of its sources.
    pub(crate) fn new(texts: Vec<String>) -> Self {
        let mut source = None;
        let mut texts = texts.into_iter();
        let text = texts.next().unwrap_or_default();
        for text in texts.rev() {
            source = Some(Box::new(Self { text, source }));
        }
        Self { text, source }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_deref()?)
    }
}

/// The step at which the transfer of a value failed.
///
/// # Examples
/// See [`TransferError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferStep {
    /// The argument did not serialise.
    SendArgument,
    /// The argument did not deserialise in the worker.
    ReceiveArgument,
    /// The result did not serialise in the worker.
    SendResult,
    /// The result did not deserialise.
    ReceiveResult,
    /// The function is not in the executable but in a shared library.
    Function,
}

/// An argument or a result did not travel between processes.
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, TaskError, TransferStep};
/// use std::cell::RefCell;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// let pool = ProcessPoolExecutor::new()?;
/// let borrowed = RefCell::new(1);
/// std::mem::forget(borrowed.borrow_mut());
/// let error = pool.submit(|cell: RefCell<i32>| cell.into_inner(), borrowed)?.result();
/// let Err(TaskError::Transfer(error)) = error else { panic!() };
/// assert_eq!(error.step(), TransferStep::SendArgument);
/// assert_eq!(error.type_name(), "core::cell::RefCell<i32>");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TransferError {
    step: TransferStep,
    type_name: String,
    error: String,
}

impl TransferError {
    pub(crate) fn new<T>(step: TransferStep, error: String) -> Self {
        Self::named(step, std::any::type_name::<T>().to_owned(), error)
    }

    pub(crate) fn named(step: TransferStep, type_name: String, error: String) -> Self {
        Self {
            step,
            type_name,
            error,
        }
    }

    pub(crate) fn error(&self) -> &str {
        &self.error
    }

    /// Returns the step at which the transfer failed.
    ///
    /// # Examples
    /// See [`TransferError`].
    #[must_use]
    pub fn step(&self) -> TransferStep {
        self.step
    }

    /// Returns the type of the value, or of the function.
    ///
    /// # Examples
    /// See [`TransferError`].
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            TransferStep::SendArgument => "the argument does not serialise",
            TransferStep::ReceiveArgument => "the argument does not deserialise in the worker",
            TransferStep::SendResult => "the result does not serialise in the worker",
            TransferStep::ReceiveResult => "the result does not deserialise",
            TransferStep::Function => "the function cannot be called in another process",
        };
        write!(f, "{what}: {}: {}", self.type_name, self.error)
    }
}

impl Error for TransferError {}

impl From<TransferError> for TaskError {
    fn from(error: TransferError) -> Self {
        Self::Transfer(Arc::new(error))
    }
}
