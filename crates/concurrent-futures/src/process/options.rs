//! Settings of single tasks, and how workers start.

#![forbid(unsafe_code)]

use std::time::Duration;

/// How worker processes are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// Each worker is the program, started anew.
    #[default]
    Spawn,
    /// One process is the program, started anew, and has nothing but one thread that
    /// waits; workers are its forks. Starting many of them is faster, and they share
    /// the memory that the start has touched.
    ForkServer,
}

/// How a task is run.
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, TaskError, TaskOptions};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// let pool = ProcessPoolExecutor::new()?;
/// let options = TaskOptions::new().time_limit(Duration::from_millis(10));
/// fn spin(on: bool) {
///     while on {}
/// }
/// let endless = pool.submit_with(options, spin, true)?;
/// assert!(matches!(endless.result(), Err(TaskError::TimeLimit(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    pub(super) time_limit: Option<Duration>,
    pub(super) retries: u32,
}

impl TaskOptions {
    /// No time limit, no retries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time that the task may run, from when a worker gets it. When it
    /// passes, the worker is killed and replaced, and the future fails with
    /// [`TaskError::TimeLimit`](crate::TaskError::TimeLimit).
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Declares that the task may safely be repeated, and has it run again, up to so many
    /// times, when its worker dies.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }
}
