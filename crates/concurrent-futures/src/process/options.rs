//! The options of single tasks, and the start methods.

#![forbid(unsafe_code)]

use std::time::Duration;

/// The ways to start worker processes, named after the start methods of Python's `multiprocessing`.
///
/// # Examples
/// See [`ProcessPoolExecutor::builder`](crate::ProcessPoolExecutor::builder).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// Each worker is this program, started anew.
    #[default]
    Spawn,
    /// Workers are forks of one process: this program, started anew, with a single thread that waits.
    /// Starting many workers is faster, and they share the memory that the start has touched.
    ForkServer,
}

/// The options of a task.
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
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) label: Option<&'static str>,
    /// Whether any thread may wake the task's wakers: they are short, and neither block nor call the pool.
    pub(crate) wakes_at_once: bool,
}

impl TaskOptions {
    /// Makes options without a time limit and without retries.
    ///
    /// # Examples
    /// See [`TaskOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time that the task may run, from the moment when a worker gets the task. When the time
    /// passes, the worker is killed and replaced, and the future fails with
    /// [`TaskError::TimeLimit`](crate::TaskError::TimeLimit).
    ///
    /// # Examples
    /// See [`TaskOptions`].
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets the label of the task in recordings; see [`Recording`](crate::Recording). For labels that are made
    /// while the program runs, see [`with_label`](crate::with_label).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, Recording, TaskOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let recording = Recording::start();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let root = pool.submit_with(TaskOptions::new().label("page 1"), f64::sqrt, 9.0)?;
    /// assert_eq!(root.result()?, 3.0);
    /// recording.stop();
    /// let mut trace = Vec::new();
    /// recording.write_trace(&mut trace)?;
    /// assert!(String::from_utf8(trace)?.contains("page 1"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn label(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    /// Declares that the task may safely be repeated. If its worker dies, the task runs again, up to
    /// `retries` times.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskOptions};
    /// use std::fs::{self, File};
    /// use std::path::PathBuf;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// /// Ends the process of the first call, which makes the file.
    /// fn crash_once(mark: PathBuf) -> u32 {
    ///     if File::create_new(mark).is_ok() {
    ///         std::process::exit(1);
    ///     }
    ///     42
    /// }
    /// let mark = std::env::temp_dir().join(format!("crashed-{}", std::process::id()));
    /// let pool = ProcessPoolExecutor::new()?;
    /// let answer = pool.submit_with(TaskOptions::new().retries(1), crash_once, mark.clone())?;
    /// assert_eq!(answer.result()?, 42);
    /// fs::remove_file(mark)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }
}

/// The effect of a worker's death on a pool: see [`ProcessPoolExecutorBuilder::on_worker_death`].
///
/// [`ProcessPoolExecutorBuilder::on_worker_death`]: crate::ProcessPoolExecutorBuilder::on_worker_death
///
/// # Examples
/// ```
/// use concurrent_futures::{OnWorkerDeath, ProcessPoolExecutor, SubmitError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// fn leave(code: i32) {
///     std::process::exit(code)
/// }
/// let pool = ProcessPoolExecutor::builder().on_worker_death(OnWorkerDeath::Break).build()?;
/// assert!(pool.submit(leave, 3)?.exception().is_some());
/// assert!(matches!(pool.submit(leave, 3), Err(SubmitError::Broken(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnWorkerDeath {
    /// The worker's task fails, and the pool replaces the worker.
    #[default]
    Isolate,
    /// All tasks fail, and the pool accepts no more, as in Python's standard library.
    Break,
}
