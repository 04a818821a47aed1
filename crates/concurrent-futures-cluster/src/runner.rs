//! The runner of a host: the pool of this machine that carries out tasks.

#![forbid(unsafe_code)]

use crate::wire::Call;
use bytes::Bytes;
use concurrent_futures::engine::{encode_error, is_entry, submit_entry};
use concurrent_futures::{Future, ProcessPoolExecutor, Shutdown, TaskError, TaskOptions};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The call has returned a value, as bytes.
    Value(Vec<u8>),
    /// The call has failed; the bytes are those of [`encode_error`](concurrent_futures::engine::encode_error) or of
    /// another frontend.
    Failure(Vec<u8>),
    /// The call was taken back before it began.
    Untouched,
}

/// The settings of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// The time that the call may run.
    pub time_limit: Option<Duration>,
    /// The number of times that the call is repeated if its worker dies.
    pub retries: u32,
}

/// A call that a runner carries out. The future ends with the call.
pub trait Running: std::future::Future<Output = Ended> + Send + Unpin {
    /// Takes the call back if it has not begun. Returns whether it will not begin.
    fn recall(&self) -> bool;

    /// Ends the call, together with its worker. Returns whether it will end.
    fn terminate(&self) -> bool;
}

/// A pool of one machine that carries out calls for a host: the seam for other frontends.
///
/// The host calls it in one thread, which must not be blocked.
pub trait Runner: Send + Sync + 'static {
    /// Returns the number of calls that run at once.
    fn workers(&self) -> usize;

    /// Returns whether the runner can make the call. The call may be any bytes.
    fn knows(&self, call: &Call) -> bool;

    /// Begins a call that the runner knows.
    fn run(&self, call: &Call, argument: Bytes, options: CallOptions) -> Box<dyn Running>;

    /// Ends the workers. Called once, when no call runs.
    fn close(&self);
}

/// The runner of Rust programs: a pool of worker processes, which are of the same build.
#[derive(Debug)]
pub(crate) struct Processes(pub(crate) ProcessPoolExecutor);

impl Runner for Processes {
    fn workers(&self) -> usize {
        self.0.max_workers()
    }

    fn knows(&self, call: &Call) -> bool {
        matches!(call, Call::Entry(entry) if is_entry(*entry))
    }

    fn run(&self, call: &Call, argument: Bytes, options: CallOptions) -> Box<dyn Running> {
        let submitted = match call {
            Call::Entry(entry) => {
                let mut settings = TaskOptions::new().retries(options.retries);
                if let Some(limit) = options.time_limit {
                    settings = settings.time_limit(limit);
                }
                submit_entry(&self.0, settings, *entry, argument.into())
            }
            Call::Opaque(_) => None,
        };
        Box::new(match submitted {
            Some(Ok(future)) => InProcess::Submitted(future),
            Some(Err(error)) => InProcess::Failed(TaskError::Rejected(error)),
            None => InProcess::Failed(TaskError::Abandoned),
        })
    }

    fn close(&self) {
        self.0.shutdown(Shutdown::NoWait);
    }
}

/// A call in a pool of processes.
enum InProcess {
    Submitted(Future<Vec<u8>>),
    Failed(TaskError),
}

impl std::future::Future for InProcess {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let error = match &mut *self {
            Self::Submitted(future) => match Pin::new(future).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(value)) => return Poll::Ready(Ended::Value(value)),
                Poll::Ready(Err(error)) => error,
            },
            Self::Failed(error) => error.clone(),
        };
        Poll::Ready(match error {
            TaskError::Cancelled => Ended::Untouched,
            error => Ended::Failure(encode_error(&error)),
        })
    }
}

impl Running for InProcess {
    fn recall(&self) -> bool {
        matches!(self, Self::Submitted(future) if future.cancel())
    }

    fn terminate(&self) -> bool {
        matches!(self, Self::Submitted(future) if future.terminate())
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted(future) => f.debug_tuple("Submitted").field(future).finish(),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}
