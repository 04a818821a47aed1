//! The handle of a process pool.

#![forbid(unsafe_code)]

use crate::error::process::{TransferError, TransferStep};
use crate::error::{BuildError, SubmitError, TaskError};
use crate::executor::{Executor, Function, Value, executor_by_own_methods};
use crate::future::Future;
use crate::future::blocking::NEVER;
use crate::limit::WhenFull;
use crate::map::{BufferedMap, Map, MapOptions, submit_items};
use crate::process::builder::{ProcessPoolExecutorBuilder, not_ours};
use crate::process::codec;
use crate::process::function::{self, Chunk, Fallible, Invoke, Plain};
use crate::process::options::TaskOptions;
use crate::process::pool::Pool;
use crate::process::pool::task::Task;
use crate::runtime::os::process::Signal;
use crate::shutdown::Shutdown;
use crate::stats::ExecutorStats;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// An executor whose workers are processes: the same program, started anew.
///
/// A task is a function, or a closure that captures nothing, and its argument. Argument and result are sent by
/// [`serde`] (`Vec<u8>`, `String` and `Box<[u8]>` unchanged). A task that crashes its worker, or is killed
/// for its time limit, fails its own future. The other tasks go on, and the pool replaces the worker. Tasks
/// start in the order in which they were submitted. Dropping the executor waits for its tasks and ends its
/// workers.
///
/// [`init`](crate::init) must be called first in `main`, as workers begin there.
///
/// # Workers
/// Workers are started when there are tasks for them. They get the arguments of this process and, unless the
/// [builder](ProcessPoolExecutorBuilder) says otherwise, its environment and its folder at that moment. Standard
/// output and error are those of this process; standard input is empty. A task's changes of its process (the
/// folder, statics, descriptors) stay for later tasks of the same worker. A worker may have pools of its own.
///
/// The pool also replaces workers that die before they can work. While another worker works, the pool tries
/// again after pauses that grow to 1.28 seconds; otherwise three consecutive deaths break the pool.
///
/// When this process ends, for whatever reason, its workers are killed. Workers ignore Ctrl-C in a terminal, which
/// is left to this process.
///
/// # Safety: values without size
/// The compiler cannot tell a closure that captures nothing from one that captures values without
/// size only: both have no size. The worker makes such a closure anew, together with its captures. For nearly all
/// types that is just a copy. But some libraries use a value without size as a *token*. The token exists only
/// after something was done in this process: a library was set up, or a privilege was checked. The library's
/// `unsafe` code relies on that. In the worker this was not done, and the token proves something false.
///
/// So no closure may capture a token, nor may an initializer. The task gets its token in the worker:
/// ```
/// mod library {
///     use std::sync::OnceLock;
///
///     static TABLE: OnceLock<Vec<u32>> = OnceLock::new();
///
///     /// Proves that the table is there in this process.
///     #[derive(Clone, Copy)]
///     pub struct Ready(());
///
///     pub fn set_up() -> Ready {
///         TABLE.get_or_init(|| vec![1, 1, 2, 3, 5]);
///         Ready(())
///     }
///
///     impl Ready {
///         pub fn entry(self, place: usize) -> u32 {
///             // Sound as long as every `Ready` comes from `set_up`.
///             unsafe { TABLE.get().unwrap_unchecked()[place] }
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// concurrent_futures::init();
/// let pool = concurrent_futures::ProcessPoolExecutor::new()?;
/// // Not `move |place| ready.entry(place)` with a `Ready` from here.
/// let entry = pool.submit(|place: usize| library::set_up().entry(place), 4)?;
/// assert_eq!(entry.result()?, 5);
/// # Ok(())
/// # }
/// ```
///
/// # Callbacks
/// Callbacks run one after the other, in a thread of the pool that does nothing else. A callback that takes
/// long delays other callbacks only. It may submit tasks and wait for them, but not for a future that has
/// callbacks itself, which run after it.
///
/// Source of the semantics:
/// [`concurrent.futures.ProcessPoolExecutor`][python].
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#processpoolexecutor
///
/// # Examples
/// ```
/// use concurrent_futures::ProcessPoolExecutor;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     concurrent_futures::init(); // worker processes begin here
///
///     let pool = ProcessPoolExecutor::new()?;
///     let lengths = pool.map(|word: String| word.len(), ["submit", "map"].map(String::from))?;
///     assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [6, 3]);
///     Ok(())
/// }
/// ```
///
/// A closure that captures is refused when the program is compiled:
/// ```compile_fail
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # concurrent_futures::init();
/// # let pool = concurrent_futures::ProcessPoolExecutor::new()?;
/// let factor = 3;
/// let product = pool.submit(move |n: u32| n * factor, 7)?;
/// # drop(product);
/// # Ok(())
/// # }
/// ```
pub struct ProcessPoolExecutor {
    pool: Arc<Pool>,
}

impl ProcessPoolExecutor {
    /// Makes a pool with the default settings; see [`ProcessPoolExecutorBuilder`].
    ///
    /// # Errors
    /// [`BuildError::NotInitialized`] when [`init`](crate::init) was not called;
    /// [`BuildError::System`] when the system refuses a resource that the pool needs.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// assert_eq!(pool.submit(f64::sqrt, 9.0)?.result()?, 3.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Makes a pool with other settings.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, StartMethod};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder()
    ///     .max_workers(2)
    ///     .start_method(StartMethod::ForkServer)
    ///     .env("LEVEL", "3")
    ///     .build()?;
    /// let level = pool.submit_fallible(|name: String| std::env::var(name), "LEVEL".into())?;
    /// assert_eq!(level.result()?, "3");
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ProcessPoolExecutorBuilder {
        ProcessPoolExecutorBuilder::default()
    }

    pub(crate) fn from_pool(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Returns the number of worker processes that the pool may have.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(3).build()?;
    /// assert_eq!(pool.max_workers(), 3);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.pool.settings.max_workers
    }

    /// Returns the figures of the pool since its start; see [`ExecutorStats`].
    ///
    /// Counts and busy time are kept always, and reading them takes some microseconds, however many tasks are
    /// pending. Times in the queue are measured from the first call on. To measure all tasks, call this once
    /// before the first.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    /// pool.submit(|n: u32| n + 1, 1)?.result()?;
    /// let stats = pool.stats();
    /// assert_eq!((stats.finished, stats.workers, stats.restarts), (1, 1, 0));
    /// # Ok(())
    /// # }
    /// ```
    #[allow(
        clippy::must_use_candidate,
        reason = "the first call begins to measure times"
    )]
    pub fn stats(&self) -> ExecutorStats {
        self.pool.stats(0)
    }

    /// Returns the process ids of the current workers.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    /// assert!(pool.worker_pids().is_empty());
    /// let pid = pool.submit(|()| std::process::id(), ())?.result()?;
    /// assert_eq!(pool.worker_pids(), [pid]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.pool.pids()
    }

    /// Submits the call `f(argument)`, and returns its future at once.
    ///
    /// An argument that does not serialise fails the future with
    /// [`TaskError::Transfer`].
    ///
    /// # Safety
    /// The compiler refuses a closure that captures values with a size. A captured value without size must
    /// not be a token, see [values without size](Self#safety-values-without-size).
    ///
    /// # Errors
    /// [`SubmitError`], when the pool was shut down or is broken. With
    /// [`max_pending`](ProcessPoolExecutorBuilder::max_pending), also when the call is in a task for which the
    /// pool's tasks wait, so that no room would ever come.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let root = pool.submit(f64::sqrt, 2.0)?;
    /// assert_eq!(root.result()?, 2_f64.sqrt());
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        self.submit_with(self.pool.settings.options, f, argument)
    }

    /// Submits a call as [`submit`](Self::submit) does, with a time limit or retries.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// See [`TaskOptions`].
    pub fn submit_with<F, A, T>(
        &self,
        options: TaskOptions,
        f: F,
        argument: A,
    ) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        self.submit_call::<Plain<F, A, T>, F, A>(options, f, argument)
    }

    /// Submits a call whose `Err` becomes the future's [`TaskError::Failed`], with its text
    /// and those of its sources; see [`RemoteError`](crate::RemoteError).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let port = pool.submit_fallible(|text: String| text.parse::<u16>(), "eighty".into())?;
    /// assert_eq!(port.result().unwrap_err().to_string(), "invalid digit found in string");
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit_fallible<F, A, T, E>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> Result<T, E> + Function,
        A: Value,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_fallible_with(self.pool.settings.options, f, argument)
    }

    /// Submits a call as [`submit_fallible`](Self::submit_fallible) does, with a time limit or retries.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// See [`TaskOptions`].
    pub fn submit_fallible_with<F, A, T, E>(
        &self,
        options: TaskOptions,
        f: F,
        argument: A,
    ) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> Result<T, E> + Function,
        A: Value,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_call::<Fallible<F, A, T, E>, F, A>(options, f, argument)
    }

    /// Submits a call for each item at once, and returns an iterator over their results
    /// in the order of the items. Use [`std::iter::zip`] for several iterables.
    ///
    /// Some thousands of items and more are grouped into chunks, each of which is a
    /// task; see [`map_with`](Self::map_with).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    /// use std::iter::zip;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let sums = pool.map(|(a, b): (i32, i32)| a + b, zip([1, 2, 3], [5, 6, 7]))?;
    /// assert_eq!(sums.collect::<Result<Vec<i32>, _>>()?, [6, 8, 10]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, I, T>(&self, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        self.map_with(MapOptions::new(), f, items)
    }

    /// Submits calls as [`map`](Self::map) does, with a time limit or a number of items a task.
    ///
    /// Each item has its own result, a panicking one too; but if the worker dies, all
    /// items of the chunk fail. Up to some thousands of items are a task each, unless a
    /// `chunksize` is given.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{MapOptions, ProcessPoolExecutor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let options = MapOptions::new().chunksize(10);
    /// let doubles = pool.map_with(options, |n: u64| 2 * n, 0..100)?;
    /// assert_eq!(doubles.map(Result::unwrap).sum::<u64>(), 9900);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_with<F, I, T>(
        &self,
        options: MapOptions,
        f: F,
        items: I,
    ) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        let task_options = self.pool.settings.options;
        submit_items(
            options,
            items.into_iter(),
            chunksize_for,
            |item| self.submit_call::<Plain<F, I::Item, T>, F, I::Item>(task_options, f, item),
            |chunk| {
                self.submit_call::<Chunk<F, I::Item, T>, F, Vec<I::Item>>(task_options, f, chunk)
            },
        )
    }

    /// Submits calls as [`map`](Self::map) does, at most `buffersize` tasks ahead of the yielded result: an
    /// endless iterator costs bounded memory.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit), from the first `buffersize` items (at least one); later it is an
    /// item of the iterator, [`TaskError::Rejected`].
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let squares = pool.map_buffered(16, |n: u64| n * n, 0..)?;
    /// let first: Result<Vec<_>, _> = squares.take(5).collect();
    /// assert_eq!(first?, [0, 1, 4, 9, 16]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_buffered<F, I, T>(
        &self,
        buffersize: usize,
        f: F,
        items: I,
    ) -> Result<BufferedMap<'_, I::IntoIter, T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        Executor::map_buffered(self, buffersize, f, items)
    }

    /// Refuses tasks from now on, and ends the workers; `how` decides whether pending tasks run,
    /// and whether the call waits.
    ///
    /// Called by one of the pool's own callbacks, it does not wait: the callback would wait
    /// for itself.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, Shutdown, SubmitError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// let answer = pool.submit(|n: u32| n, 42)?;
    /// pool.shutdown(Shutdown::Wait);
    /// assert!(answer.is_done() && pool.worker_pids().is_empty());
    /// assert!(matches!(pool.submit(|n: u32| n, 43), Err(SubmitError::Shutdown)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, how: Shutdown) {
        self.pool.shutdown(how.waits(), how.cancels_pending());
    }

    /// Ends all workers at once with `SIGTERM`, and accepts no more tasks. Running tasks fail with
    /// [`TaskError::Terminated`]; all others are cancelled.
    ///
    /// Source of the semantics: [`terminate_workers`][python], which Python has from 3.14 on.
    ///
    /// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ProcessPoolExecutor.terminate_workers
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    /// fn spin(on: bool) {
    ///     while on {}
    /// }
    /// let endless = pool.submit(spin, true)?;
    /// while !endless.is_running() {
    ///     std::thread::yield_now();
    /// }
    /// pool.terminate_workers();
    /// assert!(matches!(endless.result(), Err(TaskError::Terminated)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate_workers(&self) {
        self.pool.end_workers(Signal::TERM);
    }

    /// Ends all workers at once with `SIGKILL`, which no worker can ignore. Everything else is as in
    /// [`terminate_workers`](Self::terminate_workers).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, SubmitError, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// fn spin(on: bool) {
    ///     while on {}
    /// }
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    /// let endless = pool.submit(spin, true)?;
    /// while !endless.is_running() {
    ///     std::thread::yield_now();
    /// }
    /// pool.kill_workers();
    /// assert!(matches!(endless.result(), Err(TaskError::Terminated)));
    /// assert!(matches!(pool.submit(spin, false), Err(SubmitError::Shutdown)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill_workers(&self) {
        self.pool.end_workers(Signal::KILL);
    }

    /// Receives the replies that come while the calling thread spins once.
    pub(crate) fn receive_soon(&self) -> bool {
        self.pool.receive_soon()
    }

    /// Submits a call by the place of its trampoline; the value stays bytes.
    pub(crate) fn submit_place(
        &self,
        options: TaskOptions,
        place: u64,
        argument: Vec<u8>,
    ) -> Result<Future<Vec<u8>>, SubmitError> {
        let (mut task, future) =
            Task::new::<function::Opaque>(self.pool.id, place, argument, options);
        task.permit = self.pool.admit(WhenFull::Wait(NEVER))?;
        self.pool.submit(task)?;
        Ok(future)
    }

    fn submit_call<I: Invoke, F: Function, A: Value>(
        &self,
        options: TaskOptions,
        _f: F,
        argument: A,
    ) -> Result<Future<I::Output>, SubmitError> {
        let mut bytes = Vec::new();
        let encoded = crate::task::panic::catch(|| codec::encode(argument, &mut bytes));
        let place = function::place_of::<I>();
        let (mut task, future) = Task::new::<I>(self.pool.id, place.unwrap_or(0), bytes, options);
        let error = match (place, encoded) {
            (Some(_), Ok(Ok(()))) => {
                task.permit = self.pool.admit(WhenFull::Wait(NEVER))?;
                self.pool.submit(task)?;
                return Ok(future);
            }
            (None, _) => not_ours::<F>().into(),
            (_, Ok(Err(error))) => {
                TransferError::new::<A>(TransferStep::SendArgument, error).into()
            }
            (_, Err(panic)) => TaskError::Panicked(panic),
        };
        task.reject(error);
        Ok(future)
    }
}

/// Returns how many of `items` items make a task: one, unless there are so many items that the cost of a task
/// counts.
fn chunksize_for(items: usize) -> usize {
    const SINGLE: usize = 4096;
    const MOST: usize = 256;
    (items / SINGLE).min(MOST)
}

executor_by_own_methods!(ProcessPoolExecutor, stats);

impl Drop for ProcessPoolExecutor {
    fn drop(&mut self) {
        self.pool.shutdown(true, false);
    }
}

impl fmt::Debug for ProcessPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPoolExecutor")
            .field("max_workers", &self.max_workers())
            .field("worker_pids", &self.worker_pids())
            .finish_non_exhaustive()
    }
}
