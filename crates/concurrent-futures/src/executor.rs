//! The `Executor` trait, the interface that all executors share.

#![forbid(unsafe_code)]

use crate::error::SubmitError;
use crate::future::Future;
use crate::map::{BufferedMap, Map, MapOptions};
use crate::shutdown::Shutdown;
use crate::stats::ExecutorStats;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;

/// An argument or a result that any executor takes: it can be sent to another thread and, by serde, to
/// another process.
///
/// Implemented for every type that can.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// fn norm(executor: &impl Executor, point: Point) -> Result<f64, Box<dyn std::error::Error>> {
///     Ok(executor.submit(|p: Point| p.x.hypot(p.y), point)?.result()?)
/// }
///
/// assert_eq!(norm(&ThreadPoolExecutor::new()?, Point { x: 3.0, y: 4.0 })?, 5.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// A function that can run anywhere: a function, or a closure that captures nothing.
///
/// Implemented for all functions and closures that are `Copy`. A closure that captures a number is one of
/// these, but executors of processes refuse it at compile time. They cannot refuse a closure that captures
/// values without size. Such values must not be tokens that prove something about this process; see
/// [`Executor::submit`].
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Function, ThreadPoolExecutor};
///
/// fn twice<F>(executor: &impl Executor, f: F, n: u32) -> Result<u32, Box<dyn std::error::Error>>
/// where
///     F: Fn(u32) -> u32 + Function,
/// {
///     let once = executor.submit(f, n)?.result()?;
///     Ok(executor.submit(f, once)?.result()?)
/// }
///
/// assert_eq!(twice(&ThreadPoolExecutor::new()?, |n| n + 1, 40)?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Function: Copy + Send + Sync + 'static {}

impl<F: Copy + Send + Sync + 'static> Function for F {}

/// Runs tasks, and returns their futures: the interface for generic code.
///
/// The methods have the names and the semantics of Python's
/// [`concurrent.futures.Executor`][python]. Executors have methods of their own
/// besides, with less strict bounds where they can.
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#executor-objects
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, SubmitError, ThreadPoolExecutor};
///
/// fn is_prime(n: u64) -> bool {
///     n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)
/// }
///
/// fn count_primes(executor: &impl Executor, up_to: u64) -> Result<usize, SubmitError> {
///     let primes = executor.map(is_prime, 1..=up_to)?;
///     Ok(primes.filter(|prime| matches!(prime, Ok(true))).count())
/// }
///
/// assert_eq!(count_primes(&ThreadPoolExecutor::new()?, 100)?, 25);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Executor {
    /// Submits the call `f(argument)`, and returns its future at once.
    ///
    /// # Safety
    /// The executor may make `f` anew in another process, together with its captures, which then have no size.
    /// No capture may be a token whose existence proves that something was done in this process, if `unsafe`
    /// code relies on it. `ProcessPoolExecutor` has an example.
    ///
    /// # Errors
    /// [`SubmitError`], when the executor was shut down, is broken, or cannot start
    /// a worker.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// fn root(executor: &impl Executor, n: f64) -> Result<f64, Box<dyn std::error::Error>> {
    ///     Ok(executor.submit(f64::sqrt, n)?.result()?)
    /// }
    ///
    /// assert_eq!(root(&ThreadPoolExecutor::new()?, 9.0)?, 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value;

    /// Submits a call whose `Err` becomes the future's
    /// [`TaskError::Failed`](crate::TaskError::Failed).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, SubmitError, TaskError, ThreadPoolExecutor};
    ///
    /// fn port(executor: &impl Executor, text: &str) -> Result<Result<u16, TaskError>, SubmitError> {
    ///     let port = executor.submit_fallible(|text: String| text.parse::<u16>(), text.to_owned())?;
    ///     Ok(port.result())
    /// }
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// assert_eq!(port(&pool, "8080")??, 8080);
    /// assert!(matches!(port(&pool, "eighty")?, Err(TaskError::Failed(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn submit_fallible<F, A, T, E>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> Result<T, E> + Function,
        A: Value,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>;

    /// Submits a call for each item at once, and returns an iterator over their results
    /// in the order of the items. Use [`std::iter::zip`] for several iterables.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// fn sums(executor: &impl Executor) -> Result<Vec<i32>, Box<dyn std::error::Error>> {
    ///     let pairs = std::iter::zip([1, 2, 3], [5, 6, 7]);
    ///     Ok(executor.map(|(a, b): (i32, i32)| a + b, pairs)?.collect::<Result<_, _>>()?)
    /// }
    ///
    /// assert_eq!(sums(&ThreadPoolExecutor::new()?)?, [6, 8, 10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map<F, I, T>(&self, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        self.map_with(MapOptions::new(), f, items)
    }

    /// Submits calls as [`map`](Self::map) does, with a time limit or several items a task.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, MapOptions, ThreadPoolExecutor};
    ///
    /// fn total(executor: &impl Executor) -> Result<u64, Box<dyn std::error::Error>> {
    ///     let options = MapOptions::new().chunksize(100);
    ///     let mut total = 0;
    ///     for square in executor.map_with(options, |n: u64| n * n, 0..1000)? {
    ///         total += square?;
    ///     }
    ///     Ok(total)
    /// }
    ///
    /// assert_eq!(total(&ThreadPoolExecutor::new()?)?, 332_833_500);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map_with<F, I, T>(&self, options: MapOptions, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value;

    /// Submits calls as [`map`](Self::map) does, at most `buffersize` tasks ahead of the yielded result: an
    /// endless iterator costs bounded memory.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit), from the first `buffersize` items (at least one); later it is an
    /// item of the iterator, [`TaskError::Rejected`](crate::TaskError::Rejected).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// fn first(executor: &impl Executor) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    ///     let squares = executor.map_buffered(4, |n: u64| n * n, 1..)?;
    ///     Ok(squares.take(3).collect::<Result<_, _>>()?)
    /// }
    ///
    /// assert_eq!(first(&ThreadPoolExecutor::new()?)?, [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map_buffered<F, I, T>(
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
        BufferedMap::new(buffersize, items.into_iter(), move |item| {
            self.submit(f, item)
        })
    }

    /// Returns the figures of the executor since its start.
    ///
    /// An executor that keeps no figures returns zeros.
    fn stats(&self) -> ExecutorStats {
        ExecutorStats::default()
    }

    /// Refuses tasks from now on, and ends the workers; `how` decides whether pending tasks run,
    /// and whether the call waits.
    ///
    /// A second call may cancel the tasks that the first left pending. A call by an executor's own task does not
    /// wait, as the task would wait for itself.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, Shutdown, SubmitError, ThreadPoolExecutor};
    ///
    /// fn finish(executor: &impl Executor) {
    ///     executor.shutdown(Shutdown::Wait);
    ///     assert!(matches!(executor.submit(f64::sqrt, 2.0), Err(SubmitError::Shutdown)));
    /// }
    ///
    /// finish(&ThreadPoolExecutor::new()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "cancel_futures")]
    fn shutdown(&self, how: Shutdown);
}

/// Implements [`Executor`] by the type's own methods of the same names, whose bounds are not stricter. Executors of
/// this project in other crates use it as well. One without figures of its own leaves `stats` out.
#[doc(hidden)]
#[macro_export]
macro_rules! __executor_by_own_methods {
    ($executor:ty $(, $stats:ident)?) => {
        impl $crate::Executor for $executor {
            fn submit<F, A, T>(
                &self,
                f: F,
                argument: A,
            ) -> Result<$crate::Future<T>, $crate::SubmitError>
            where
                F: Fn(A) -> T + $crate::Function,
                A: $crate::Value,
                T: $crate::Value,
            {
                self.submit(f, argument)
            }

            fn submit_fallible<F, A, T, E>(
                &self,
                f: F,
                argument: A,
            ) -> Result<$crate::Future<T>, $crate::SubmitError>
            where
                F: Fn(A) -> Result<T, E> + $crate::Function,
                A: $crate::Value,
                T: $crate::Value,
                E: Into<Box<dyn std::error::Error + Send + Sync>>,
            {
                self.submit_fallible(f, argument)
            }

            fn map_with<F, I, T>(
                &self,
                options: $crate::MapOptions,
                f: F,
                items: I,
            ) -> Result<$crate::Map<T>, $crate::SubmitError>
            where
                F: Fn(I::Item) -> T + $crate::Function,
                I: IntoIterator<Item: $crate::Value>,
                T: $crate::Value,
            {
                self.map_with(options, f, items)
            }

            $(fn $stats(&self) -> $crate::ExecutorStats {
                self.$stats()
            })?

            fn shutdown(&self, how: $crate::Shutdown) {
                self.shutdown(how);
            }
        }
    };
}
pub(crate) use __executor_by_own_methods as executor_by_own_methods;
