//! The handle of a thread pool.

use crate::error::{BuildError, Rejected, SubmitError, TaskError};
#[cfg(feature = "process")]
use crate::executor::executor_by_own_methods;
use crate::future::Future;
use crate::future::blocking::NEVER;
use crate::limit::WhenFull;
use crate::map::{BufferedMap, Map, MapOptions, submit_items};
use crate::shutdown::Shutdown;
use crate::stats::ExecutorStats;
use crate::task::{Call, panic};
use crate::thread::builder::ThreadPoolExecutorBuilder;
use crate::thread::call::{Applied, AppliedFallible, Fallible, Limited, Plain};
use crate::thread::pool::Pool;
use crate::thread::scope::{self, Scope};
use std::error::Error;
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// An executor whose workers are threads of this process.
///
/// Tasks start in the order in which they were submitted. The pool starts threads when
/// there are tasks for them, and uses idle threads first. Dropping the executor waits
/// for its tasks and ends its threads. An executor that is dropped by one of its own
/// tasks does not wait.
///
/// The methods have looser bounds than the methods of the [`Executor`](crate::Executor) trait with the same
/// names: values need not be serialisable, and closures may capture.
///
/// Source of the semantics:
/// [`concurrent.futures.ThreadPoolExecutor`][python].
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#threadpoolexecutor
///
/// # Examples
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new()?;
/// let lengths = pool.map(|word: &str| word.len(), ["submit", "map", "shutdown"])?;
/// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [6, 3, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ThreadPoolExecutor {
    pool: Arc<Pool>,
}

impl ThreadPoolExecutor {
    /// Makes a pool with the default settings; see [`ThreadPoolExecutorBuilder`].
    ///
    /// # Errors
    /// None with the default settings.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// assert_eq!(pool.spawn(|| 6 * 7)?.result()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Makes a pool with other settings.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::builder()
    ///     .max_workers(3)
    ///     .thread_name_prefix("load")
    ///     .build()?;
    /// let name = pool.spawn(|| std::thread::current().name().map(str::to_owned))?;
    /// assert_eq!(name.result()?.as_deref(), Some("load_0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> ThreadPoolExecutorBuilder {
        ThreadPoolExecutorBuilder::default()
    }

    pub(super) fn from_pool(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Returns the number of threads that the pool may have.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    /// assert_eq!((pool.max_workers(), pool.workers()), (3, 0));
    /// pool.spawn(|| ())?.result()?;
    /// assert_eq!(pool.workers(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.pool.max_workers
    }

    /// Returns the number of threads that the pool has.
    ///
    /// # Examples
    /// See [`max_workers`](Self::max_workers).
    #[must_use]
    pub fn workers(&self) -> usize {
        self.pool.threads_alive()
    }

    /// Returns the figures of the pool since its start; see [`ExecutorStats`].
    ///
    /// Counts are kept always, and reading them takes about a microsecond, however many tasks are pending. Times are
    /// measured from the first call on, and cost each task some tenths of a microsecond from then on. To measure
    /// all tasks, call this once before the first.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    /// pool.stats(); // measures times from here on
    /// for result in pool.map(|n: u64| n * n, 0..100)? {
    ///     result?;
    /// }
    /// let stats = pool.stats();
    /// assert_eq!((stats.finished, stats.queued.count), (100, 100));
    /// println!("half of the tasks waited for at most {:?}", stats.queued.p50);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(
        clippy::must_use_candidate,
        reason = "the first call begins to measure times"
    )]
    pub fn stats(&self) -> ExecutorStats {
        self.pool.stats()
    }

    /// Submits the call `f(argument)`, and returns its future at once.
    ///
    /// # Errors
    /// [`SubmitError`], when the pool was shut down, is broken, or has no thread and cannot start one. With
    /// [`max_pending`](ThreadPoolExecutorBuilder::max_pending), also when the call is in a task for which the
    /// pool's tasks wait, so that no room would ever come.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let root = pool.submit(f64::sqrt, 2.0)?;
    /// assert_eq!(root.result()?, 2_f64.sqrt());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce(A) -> T + Send + 'static,
        A: Send + 'static,
        T: Send + 'static,
    {
        self.submit_static(Applied(f, argument))
    }

    /// Submits a call whose `Err` becomes the future's
    /// [`TaskError::Failed`](crate::TaskError::Failed).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let port = pool.submit_fallible(str::parse::<u16>, "8080")?;
    /// assert_eq!(port.result()?, 8080);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_fallible<F, A, T, E>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce(A) -> Result<T, E> + Send + 'static,
        A: Send + 'static,
        T: Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_static(AppliedFallible(f, argument))
    }

    /// Submits a closure, and returns its future at once.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let (a, b) = (2, 3);
    /// assert_eq!(pool.spawn(move || a + b)?.result()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<F, T>(&self, f: F) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_static(Plain(f))
    }

    /// Submits a closure whose `Err` becomes the future's
    /// [`TaskError::Failed`](crate::TaskError::Failed).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let page = pool.spawn_fallible(|| std::fs::read("/no/such/page"))?;
    /// assert!(matches!(page.result(), Err(TaskError::Failed(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_fallible<F, T, E>(&self, f: F) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_static(Fallible(f))
    }

    /// Submits a closure if there is room for it; see
    /// [`max_pending`](ThreadPoolExecutorBuilder::max_pending).
    ///
    /// # Errors
    /// [`Rejected`], which gives the closure back: with [`SubmitError::Full`] when there
    /// is no room, otherwise as for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{SubmitError, ThreadPoolExecutor};
    /// use std::sync::mpsc;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(1).max_pending(1).build()?;
    /// let (started, has_started) = mpsc::channel();
    /// let (go, gate) = mpsc::channel::<()>();
    /// let running = pool.spawn(move || { started.send(()).unwrap(); gate.recv() })?;
    /// has_started.recv()?;
    /// let pending = pool.try_spawn(|| 1).unwrap();
    /// let rejected = pool.try_spawn(|| 2).unwrap_err();
    /// assert!(matches!(rejected.error(), SubmitError::Full));
    /// go.send(())?;
    /// assert_eq!(pool.spawn(rejected.into_task())?.result()?, 2);
    /// # drop((running, pending));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_spawn<F, T>(&self, f: F) -> Result<Future<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: all is 'static.
        unsafe { self.submit_call(Plain(f), WhenFull::Refuse) }
            .map_err(|(error, call)| Rejected::new(error, call.0))
    }

    /// Submits a call for each item at once, and returns an iterator over their results
    /// in the order of the items. Use [`std::iter::zip`] for several iterables.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    /// use std::iter::zip;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let sums = pool.map(|(a, b)| a + b, zip([1, 2, 3], [5, 6, 7]))?;
    /// assert_eq!(sums.collect::<Result<Vec<i32>, _>>()?, [6, 8, 10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<F, I, T>(&self, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        I: IntoIterator<Item: Send + 'static>,
        T: Send + 'static,
    {
        self.map_with(MapOptions::new(), f, items)
    }

    /// Like [`map`](Self::map), with a time limit or several items a task.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{MapOptions, ThreadPoolExecutor};
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let options = MapOptions::new().chunksize(10).timeout(Duration::from_secs(60));
    /// let doubles = pool.map_with(options, |n: u64| 2 * n, 0..100)?;
    /// assert_eq!(doubles.len(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_with<F, I, T>(
        &self,
        options: MapOptions,
        f: F,
        items: I,
    ) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        I: IntoIterator<Item: Send + 'static>,
        T: Send + 'static,
    {
        let f = SharedFn::new(f);
        submit_items(
            options,
            items.into_iter(),
            |_| 1,
            |item| self.submit_static(MapItem { f: f.clone(), item }),
            |chunk| {
                let f = f.clone();
                self.submit_static(Plain(move || {
                    let call = |item| panic::catch(|| f.get()(item)).map_err(TaskError::Panicked);
                    chunk.into_iter().map(call).collect()
                }))
            },
        )
    }

    /// Like [`map`](Self::map), with at most `buffersize` tasks ahead of the result that is yielded, so that
    /// a long or endless iterator costs bounded memory.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit), from the first `buffersize` items (at least one); later it is an
    /// item of the iterator, [`TaskError::Rejected`].
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let squares = pool.map_buffered(16, |n: u64| n * n, 0..)?;
    /// let first: Result<Vec<_>, _> = squares.take(5).collect();
    /// assert_eq!(first?, [0, 1, 4, 9, 16]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_buffered<F, I, T>(
        &self,
        buffersize: usize,
        f: F,
        items: I,
    ) -> Result<BufferedMap<'_, I::IntoIter, T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        I: IntoIterator<Item: Send + 'static>,
        T: Send + 'static,
    {
        let f = SharedFn::new(f);
        BufferedMap::new(buffersize, items.into_iter(), move |item| {
            self.submit_static(MapItem { f: f.clone(), item })
        })
    }

    /// Calls `f` with a scope, whose tasks may borrow values of the caller, and returns
    /// when all tasks are done.
    ///
    /// A task that panics fails its future, as everywhere.
    ///
    /// # Panics
    /// If `f` panics: its panic goes on after all tasks are done.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let mut pages = vec![String::from("hello"), String::from("world")];
    /// pool.scope(|scope| {
    ///     for page in &mut pages {
    ///         scope.spawn(|| page.make_ascii_uppercase())?;
    ///     }
    ///     Ok::<(), concurrent_futures::SubmitError>(())
    /// })?;
    /// assert_eq!(pages, ["HELLO", "WORLD"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        scope::scope(self, f)
    }

    /// Refuses tasks from now on, and ends the workers; `how` decides whether pending tasks run,
    /// and whether the call waits.
    ///
    /// A call by one of the pool's own tasks does not wait, as the task would wait for itself.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Shutdown, SubmitError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let answer = pool.spawn(|| 42)?;
    /// pool.shutdown(Shutdown::Wait);
    /// assert!(answer.is_done());
    /// assert!(matches!(pool.spawn(|| 43), Err(SubmitError::Shutdown)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) {
        self.pool.shutdown(how.waits(), how.cancels_pending());
    }

    fn submit_static<C>(&self, call: C) -> Result<Future<C::Output>, SubmitError>
    where
        C: Call + Send + 'static,
        C::Output: Send + 'static,
    {
        // SAFETY: all is 'static.
        unsafe { self.submit_call(call, WhenFull::Wait(NEVER)) }.map_err(|(error, _)| error)
    }

    /// Submits a call. Gives it back with the error.
    ///
    /// # Safety
    /// The caller sees to it that what the call and its output borrow lives until the
    /// task is done.
    pub(super) unsafe fn submit_call<C>(
        &self,
        call: C,
        when_full: WhenFull<'_>,
    ) -> Result<Future<C::Output>, (SubmitError, C)>
    where
        C: Call + Send,
        C::Output: Send,
    {
        match self.pool.admit(when_full) {
            Ok(None) => self.pool.submit(call),
            Ok(Some(permit)) => self
                .pool
                .submit(Limited { permit, call })
                .map_err(|(error, limited)| (error, limited.call)),
            Err(error) => Err((error, call)),
        }
    }
}

/// A function that many tasks call.
struct SharedFn<F>(Option<Arc<F>>);

impl<F> SharedFn<F> {
    fn new(f: F) -> Self {
        if size_of::<F>() == 0 && !mem::needs_drop::<F>() {
            // There is nothing to share: all that a reference to it needs is not to
            // be null.
            mem::forget(f);
            Self(None)
        } else {
            Self(Some(Arc::new(f)))
        }
    }

    fn get(&self) -> &F {
        match &self.0 {
            Some(f) => f,
            // SAFETY: a value without size was forgotten in `new`, so that it exists;
            // any aligned address is its place.
            None => unsafe { NonNull::dangling().as_ref() },
        }
    }
}

impl<F> Clone for SharedFn<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// One item of `map`.
struct MapItem<F, A> {
    f: SharedFn<F>,
    item: A,
}

impl<F: Fn(A) -> T, A, T> Call for MapItem<F, A> {
    type Output = T;

    fn call(self) -> Result<T, TaskError> {
        Ok(self.f.get()(self.item))
    }

    fn name() -> &'static str {
        std::any::type_name::<F>()
    }
}

#[cfg(feature = "process")]
executor_by_own_methods!(ThreadPoolExecutor, stats);

impl Drop for ThreadPoolExecutor {
    fn drop(&mut self) {
        self.pool.shutdown(true, false);
    }
}

impl fmt::Debug for ThreadPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolExecutor")
            .field("max_workers", &self.max_workers())
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
