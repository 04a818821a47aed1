//! The runner of a host: the pool of this machine that carries out tasks.

#![forbid(unsafe_code)]

use crate::register;
use crate::wire::Call;
use bytes::Bytes;
use concurrent_futures::engine::{encode_error, is_entry, receive_soon, submit_entry};
use concurrent_futures::{
    BuildError, Future, ProcessPoolExecutor, ProcessPoolExecutorBuilder, Shutdown, TaskError,
    TaskOptions,
};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The call has returned a value, as bytes.
    Value(Bytes),
    /// The call has failed; the bytes are those of [`encode_error`](concurrent_futures::engine::encode_error) or of
    /// another frontend.
    Failure(Bytes),
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
    /// The token of the call, under which its worker sends parts of its result.
    pub token: u64,
    /// Whether the call is one beyond [`workers`](Runner::workers), which is to wait for a worker.
    pub is_ahead: bool,
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

    /// Returns the number of calls that the runner can begin beyond [`workers`](Self::workers), while as many calls
    /// wait for others of a cluster.
    fn spares(&self) -> usize {
        0
    }

    /// Returns the number of calls that the runner takes ahead: beyond [`workers`](Self::workers), to wait for a worker. The
    /// host gives it such calls while calls are short, so that no worker waits for the host.
    fn ahead(&self) -> usize {
        0
    }

    /// Returns whether the runner can make the call. The call may be any bytes.
    fn knows(&self, call: &Call) -> bool;

    /// Returns why the runner does not know a call.
    fn why_unknown(&self, call: &Call) -> String {
        format!("{call:?}")
    }

    /// Begins a call that the runner knows.
    fn run(&self, call: &Call, argument: Bytes, options: CallOptions) -> Box<dyn Running>;

    /// Receives the ends of calls that come at once, if the runner can: for some dozen microseconds. Called after a short
    /// call has begun, while no other runs.
    fn receive_soon(&self) {}

    /// Ends the workers. Called once, when no call runs.
    fn close(&self);
}

/// The most calls of a host that wait for others without a slot.
const SPARES: usize = 256;
/// The most calls of a host that wait for a worker of the pool.
const AHEAD: usize = 256;

/// The runner of Rust programs: a pool of worker processes, which are of the same build.
#[derive(Debug)]
pub(crate) struct Processes {
    pool: ProcessPoolExecutor,
    /// The pool for calls that run while as many others wait. Its workers start when they are needed.
    spares: Option<ProcessPoolExecutor>,
    /// The number of calls in the first pool.
    busy: Arc<AtomicUsize>,
    /// Whether functions have names. A place in another build may be that of another function here.
    is_by_name: bool,
}

impl Processes {
    /// Makes the runner of a pool that the program has.
    pub(crate) fn of(pool: ProcessPoolExecutor) -> Self {
        Self {
            pool,
            spares: None,
            busy: Arc::default(),
            is_by_name: false,
        }
    }

    /// Sets whether functions have names.
    pub(crate) fn by_name(mut self, is_by_name: bool) -> Self {
        self.is_by_name = is_by_name;
        self
    }

    /// Returns the entry of a call.
    ///
    /// # Errors
    /// The reason why there is none.
    fn entry(&self, call: &Call) -> Result<u64, String> {
        match call {
            Call::Entry(_) | Call::Span(_) if self.is_by_name => Err(String::from(
                "it has no name, and this host may be of another build: see `register!` and `submit_named`",
            )),
            Call::Entry(entry) | Call::Span(entry) if is_entry(*entry) => Ok(*entry),
            Call::Named { name, types } => register::find(name, types),
            Call::Entry(_) | Call::Span(_) | Call::Opaque(_) => Err(format!("{call:?}")),
        }
    }

    /// Makes a runner whose pools have these settings.
    pub(crate) fn with(
        workers: Option<usize>,
        settings: impl Fn(ProcessPoolExecutorBuilder) -> ProcessPoolExecutorBuilder,
    ) -> Result<Self, BuildError> {
        let mut pool = settings(ProcessPoolExecutor::builder());
        if let Some(workers) = workers {
            pool = pool.max_workers(workers);
        }
        let spares = settings(ProcessPoolExecutor::builder()).max_workers(SPARES);
        Ok(Self {
            pool: pool.build()?,
            spares: Some(spares.build()?),
            busy: Arc::default(),
            is_by_name: false,
        })
    }

    /// Takes a place in the first pool, or else chooses the second one. A call ahead waits for the first pool.
    fn choose(&self, is_ahead: bool) -> (&ProcessPoolExecutor, Option<Place>) {
        let Some(spares) = &self.spares else {
            return (&self.pool, None);
        };
        // One thread begins calls. Meanwhile, calls may only end.
        if !is_ahead && self.busy.load(Ordering::SeqCst) >= self.pool.max_workers() {
            return (spares, None);
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        (&self.pool, Some(Place(Arc::clone(&self.busy))))
    }
}

/// The place of a call in the first pool.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Runner for Processes {
    fn workers(&self) -> usize {
        self.pool.max_workers()
    }

    fn spares(&self) -> usize {
        self.spares
            .as_ref()
            .map_or(0, ProcessPoolExecutor::max_workers)
    }

    fn ahead(&self) -> usize {
        AHEAD
    }

    fn knows(&self, call: &Call) -> bool {
        self.entry(call).is_ok()
    }

    fn why_unknown(&self, call: &Call) -> String {
        self.entry(call).err().unwrap_or_default()
    }

    fn run(&self, call: &Call, argument: Bytes, options: CallOptions) -> Box<dyn Running> {
        let (pool, place) = self.choose(options.is_ahead);
        let mut settings = TaskOptions::new().retries(options.retries);
        if let Some(limit) = options.time_limit {
            settings = settings.time_limit(limit);
        }
        let entry = self.entry(call).ok();
        let argument = if let Call::Span(_) = call {
            [&options.token.to_le_bytes()[..], &argument].concat()
        } else {
            argument.into()
        };
        let submitted = entry.and_then(|entry| submit_entry(pool, settings, entry, argument));
        Box::new(match submitted {
            Some(Ok(future)) => InProcess::Submitted(future, place, AtomicBool::new(false)),
            Some(Err(error)) => InProcess::Failed(TaskError::Rejected(error)),
            None => InProcess::Failed(TaskError::Abandoned),
        })
    }

    fn receive_soon(&self) {
        receive_soon(&self.pool);
    }

    fn close(&self) {
        self.pool.shutdown(Shutdown::NoWait);
        if let Some(spares) = &self.spares {
            spares.shutdown(Shutdown::NoWait);
        }
    }
}

/// A call in a pool of processes.
enum InProcess {
    /// The future, its place, and whether it is being terminated.
    Submitted(Future<Vec<u8>>, Option<Place>, AtomicBool),
    Failed(TaskError),
}

impl std::future::Future for InProcess {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let error = match &mut *self {
            Self::Submitted(future, place, is_terminated) => match Pin::new(future).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => {
                    drop(place.take());
                    match outcome {
                        Ok(value) => return Poll::Ready(Ended::Value(value.into())),
                        // No worker had begun it.
                        Err(TaskError::Cancelled) if *is_terminated.get_mut() => {
                            TaskError::Terminated
                        }
                        Err(error) => error,
                    }
                }
            },
            Self::Failed(error) => error.clone(),
        };
        Poll::Ready(match error {
            TaskError::Cancelled => Ended::Untouched,
            error => Ended::Failure(encode_error(&error).into()),
        })
    }
}

impl Running for InProcess {
    fn recall(&self) -> bool {
        matches!(self, Self::Submitted(future, ..) if future.cancel())
    }

    fn terminate(&self) -> bool {
        match self {
            Self::Submitted(future, _, is_terminated) => {
                // Noted before it counts.
                is_terminated.store(true, Ordering::Relaxed);
                let will_end = future.terminate();
                is_terminated.store(will_end, Ordering::Relaxed);
                will_end
            }
            Self::Failed(_) => false,
        }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted(future, ..) => f.debug_tuple("Submitted").field(future).finish(),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}
