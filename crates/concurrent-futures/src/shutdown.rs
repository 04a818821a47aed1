//! The ways in which an executor is shut down.

#![forbid(unsafe_code)]

/// The way in which an executor is shut down: see
/// [`ThreadPoolExecutor::shutdown`](crate::ThreadPoolExecutor::shutdown).
///
/// In Python, these are the combinations of `wait` and `cancel_futures` of [`Executor.shutdown`][python].
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Executor.shutdown
///
/// # Examples
/// ```
/// use concurrent_futures::{Shutdown, TaskError, ThreadPoolExecutor};
/// use std::sync::mpsc;
///
/// let pool = ThreadPoolExecutor::builder().max_workers(1).build()?;
/// let (started, has_started) = mpsc::channel();
/// let (go, gate) = mpsc::channel::<()>();
/// let running = pool.spawn(move || {
///     started.send(()).unwrap();
///     let _ = gate.recv();
/// })?;
/// let pending = pool.spawn(|| ())?;
/// has_started.recv()?;
/// pool.shutdown(Shutdown::CancelPendingNoWait);
/// assert!(matches!(pending.result(), Err(TaskError::Cancelled)));
/// drop(go);
/// running.result()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// Runs all pending tasks, and returns when all tasks are done and all workers have ended.
    #[default]
    Wait,
    /// Returns at once; the workers run all pending tasks, and then end.
    NoWait,
    /// Cancels all pending tasks, and returns when running tasks are done and all workers have ended.
    CancelPending,
    /// Cancels all pending tasks, and returns at once; the workers end after the running tasks.
    CancelPendingNoWait,
}

impl Shutdown {
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Wait | Self::CancelPending)
    }

    pub(crate) fn cancels_pending(self) -> bool {
        matches!(self, Self::CancelPending | Self::CancelPendingNoWait)
    }
}
