//! The interface that all executors share.

#![forbid(unsafe_code)]

use crate::error::SubmitError;
use crate::future::Future;
use crate::map::{BufferedMap, Map, MapOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;

/// What can be an argument or a result in any executor: it can go to another thread
/// and, by serde, to another process.
///
/// Implemented for every type that can.
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// A function that can run anywhere: a function, or a closure that captures nothing.
///
/// Implemented for all that are `Copy`, which leaves room for a closure that captures
/// a number: executors of processes refuse that one at compile time. They cannot refuse one that
/// captures values without size, which must not be tokens of what was done in this process; see
/// [`Executor::submit`].
pub trait Function: Copy + Send + Sync + 'static {}

impl<F: Copy + Send + Sync + 'static> Function for F {}

/// Runs tasks, and gives out their futures: the interface to write generic code
/// against.
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
    /// The executor may make `f` anew in another process, with what it captures, which has no size
    /// then. None of that may be a token whose existence proves that something was done in this
    /// process, if `unsafe` code relies on it. An example is at `ProcessPoolExecutor`.
    ///
    /// # Errors
    /// [`SubmitError`], when the executor was shut down, is broken, or cannot start
    /// a worker.
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
    fn map<F, I, T>(&self, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        self.map_with(MapOptions::new(), f, items)
    }

    /// [`map`](Self::map) with a time limit or several items a task.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    fn map_with<F, I, T>(&self, options: MapOptions, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value;

    /// [`map`](Self::map) with at most `buffersize` tasks ahead of the result that is
    /// yielded, so that a long or endless iterator costs bounded memory.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit), from the first `buffersize` items; later it is an
    /// item of the iterator, [`TaskError::Rejected`](crate::TaskError::Rejected).
    fn map_buffered<F, I, T>(
        &self,
        f: F,
        items: I,
        buffersize: usize,
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

    /// Accepts nothing more. With `cancel_futures`, cancels what is pending; with `wait`,
    /// returns when all tasks are done and all workers have ended.
    ///
    /// Called by one of the executor's own tasks, it does not wait: the task would wait
    /// for itself.
    fn shutdown(&self, wait: bool, cancel_futures: bool);
}
