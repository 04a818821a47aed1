//! The builder of a thread pool.

#![forbid(unsafe_code)]

use crate::error::BuildError;
use crate::limit::PendingLimit;
use crate::observer::Observer;
#[cfg(feature = "recording")]
use crate::recording::Recording;
use crate::task::panic;
use crate::thread::ThreadPoolExecutor;
use crate::thread::pool::{self, Initializer, Pool};
use crate::thread::std_threads::Threads;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The result of an initializer: `()`, or a `Result` whose `Err` breaks the pool.
///
/// # Examples
/// ```
/// use concurrent_futures::{InitializerOutcome, ThreadPoolExecutor};
/// use std::error::Error;
///
/// enum Setup {
///     Ready,
///     Missing(&'static str),
/// }
///
/// impl InitializerOutcome for Setup {
///     fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
///         match self {
///             Self::Ready => Ok(()),
///             Self::Missing(what) => Err(format!("no {what}").into()),
///         }
///     }
/// }
///
/// let pool = ThreadPoolExecutor::builder().initializer(|| Setup::Ready).build()?;
/// assert_eq!(pool.spawn(|| 42)?.result()?, 42);
/// let pool = ThreadPoolExecutor::builder()
///     .initializer(|| Setup::Missing("database"))
///     .build()?;
/// assert!(pool.spawn(|| 42)?.result().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait InitializerOutcome {
    /// Returns the outcome as a `Result`.
    ///
    /// # Errors
    /// The error that the initializer returned.
    ///
    /// # Examples
    /// See [`InitializerOutcome`].
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl InitializerOutcome for () {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> InitializerOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}

/// Makes a [`ThreadPoolExecutor`]; see [`ThreadPoolExecutor::builder`].
///
/// # Examples
/// See [`ThreadPoolExecutor::builder`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ThreadPoolExecutorBuilder {
    max_workers: Option<usize>,
    thread_name_prefix: Option<String>,
    stack_size: Option<usize>,
    initializer: Option<Initializer>,
    keep_alive: Option<Duration>,
    max_pending: Option<usize>,
    observer: Option<Box<dyn Observer>>,
    #[cfg(feature = "recording")]
    recording: Option<Recording>,
}

impl ThreadPoolExecutorBuilder {
    /// Sets the number of tasks that run at once, and of threads that the pool may have. The default is 4
    /// more than the CPUs that the process may use, and at most 32.
    ///
    /// A pool whose workers all wait for its own pending tasks gets more threads. When
    /// tasks that waited go on, no other task starts before the number is kept again.
    ///
    /// # Examples
    /// See [`ThreadPoolExecutor::max_workers`].
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// Sets the prefix of the threads' names; an underscore and a number follow. The default is
    /// `ThreadPoolExecutor-` and the number of the pool. (Linux shows the first 15 bytes of a name.)
    ///
    /// # Examples
    /// See [`ThreadPoolExecutor::builder`].
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.thread_name_prefix = Some(prefix.into());
        self
    }

    /// Sets the size of each thread's stack in bytes. The default is that of [`std::thread`].
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// fn depth(n: u64) -> u64 {
    ///     if n == 0 { 0 } else { 1 + depth(std::hint::black_box(n - 1)) }
    /// }
    ///
    /// let pool = ThreadPoolExecutor::builder().stack_size(64 << 20).build()?;
    /// assert_eq!(pool.submit(depth, 100_000)?.result()?, 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Makes each worker call `initializer` before its first task.
    ///
    /// If it returns an error or panics, the pool is broken: pending futures fail with
    /// [`TaskError::Broken`](crate::TaskError::Broken), and so does `submit`.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::builder()
    ///     .initializer(|| Err::<(), _>("no database"))
    ///     .build()?;
    /// match pool.spawn(|| ())?.result() {
    ///     Err(TaskError::Broken(broken)) => {
    ///         assert_eq!(broken.cause().to_string(), "no database");
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn initializer<F, R>(mut self, initializer: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: InitializerOutcome,
    {
        self.initializer = Some(Box::new(move || initializer().into_result()));
        self
    }

    /// Ends threads that had nothing to do for this long. By default threads stay.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPoolExecutor::builder().keep_alive(Duration::from_millis(1)).build()?;
    /// pool.spawn(|| ())?.result()?;
    /// while pool.workers() > 0 {
    ///     std::thread::yield_now();
    /// }
    /// pool.spawn(|| ())?.result()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = Some(keep_alive);
        self
    }

    /// Bounds the number of pending tasks: `submit` and `spawn` wait for room, and
    /// [`try_spawn`](ThreadPoolExecutor::try_spawn) gives the task back. Running tasks do not count. The
    /// pool's own tasks may exceed the bound, as they would wait for themselves. By default there is no
    /// bound.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(2).max_pending(10).build()?;
    /// let mut sum = 0;
    /// for future in (0..1000).map(|n| pool.spawn(move || n)).collect::<Vec<_>>() {
    ///     sum += future?.result()?;
    /// }
    /// assert_eq!(sum, 499_500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_pending(mut self, max_pending: usize) -> Self {
        self.max_pending = Some(max_pending);
        self
    }

    /// Counts the pool among those of a recording that was started with
    /// [`only_named_pools`](crate::RecordingOptions::only_named_pools). Other recordings have all pools.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{RecordingOptions, ThreadPoolExecutor};
    ///
    /// let recording = RecordingOptions::new().only_named_pools().start();
    /// let pool = ThreadPoolExecutor::builder().recording(&recording).build()?;
    /// assert_eq!(pool.spawn(|| 42)?.result()?, 42);
    /// recording.stop();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "recording")]
    pub fn recording(mut self, recording: &Recording) -> Self {
        self.recording = Some(recording.clone());
        self
    }

    /// Reports the events of each task to `observer`.
    ///
    /// # Examples
    /// See [`Observer`].
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Makes the executor. Its threads are started when there are tasks.
    ///
    /// # Errors
    /// [`BuildError`] when a setting makes no sense.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{BuildError, ThreadPoolExecutor};
    ///
    /// let error = ThreadPoolExecutor::builder().max_workers(0).build().unwrap_err();
    /// assert!(matches!(error, BuildError::ZeroWorkers));
    /// ```
    pub fn build(self) -> Result<ThreadPoolExecutor, BuildError> {
        let max_workers = self.max_workers.unwrap_or_else(default_max_workers);
        pool::check(max_workers)?;
        let limit = PendingLimit::bound(self.max_pending)?;
        let thread_name_prefix = self.thread_name_prefix.unwrap_or_else(next_name);
        if thread_name_prefix.contains('\0') {
            return Err(BuildError::InvalidThreadName(thread_name_prefix));
        }
        panic::install_hook();
        let threads = Threads {
            name_prefix: thread_name_prefix,
            stack_size: self.stack_size,
            initializer: self.initializer,
        };
        let pool = Pool {
            keep_alive: self.keep_alive,
            limit,
            observer: self.observer,
            ..Pool::new(max_workers, Box::new(threads))
        };
        #[cfg(feature = "recording")]
        if let Some(recording) = &self.recording {
            recording.add_pool(pool.number);
        }
        Ok(ThreadPoolExecutor::from_pool(Pool::share(pool)))
    }
}

fn default_max_workers() -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    (cpus + 4).min(32)
}

fn next_name() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!(
        "ThreadPoolExecutor-{}",
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

impl fmt::Debug for ThreadPoolExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolExecutorBuilder")
            .field("max_workers", &self.max_workers)
            .field("thread_name_prefix", &self.thread_name_prefix)
            .field("stack_size", &self.stack_size)
            .field("keep_alive", &self.keep_alive)
            .field("max_pending", &self.max_pending)
            .finish_non_exhaustive()
    }
}
