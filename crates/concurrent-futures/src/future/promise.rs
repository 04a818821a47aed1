//! `Promise`, the side of a future that sets its outcome, for code that implements executors.

use crate::error::{InvalidStateError, TaskError};
use crate::future::Future;
use crate::id::PoolId;
use crate::task::state::Phase;
use crate::task::{Call, Outcome, TaskRef};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

/// Makes a pending future, and the promise that sets its outcome.
///
/// # Examples
/// ```
/// let (promise, future) = concurrent_futures::promise();
/// std::thread::spawn(move || promise.set_result(42));
/// assert_eq!(future.result()?, 42);
/// # Ok::<(), concurrent_futures::TaskError>(())
/// ```
pub fn promise<T>() -> (Promise<T>, Future<T>) {
    pair(None)
}

/// Makes a pending future of a pool, if there is one, and the promise that sets its outcome.
pub(super) fn pair<T>(pool: Option<PoolId>) -> (Promise<T>, Future<T>) {
    let (ours, handle) = TaskRef::pair(Promised(PhantomData::<T>), pool);
    let promise = Promise {
        task: ours,
        output: PhantomData,
    };
    // SAFETY: the call's output is `T`, and this is the task's only handle.
    (promise, unsafe { Future::new(handle) })
}

/// Takes the place of a call, in a task that other code completes.
pub(super) struct Promised<T>(PhantomData<T>);

impl<T> Call for Promised<T> {
    type Output = T;

    fn call(self) -> Outcome<T> {
        Err(TaskError::Abandoned)
    }

    fn name() -> &'static str {
        "promise"
    }
}

/// Sets the outcome of the [`Future`] that it was made with, once.
///
/// Its methods are those that Python's `Future` has for executors. A promise that
/// is dropped without an outcome fails the future with [`TaskError::Abandoned`].
///
/// Source of the semantics: [`Future.set_running_or_notify_cancel`][python], `set_result` and `set_exception`.
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Future.set_running_or_notify_cancel
///
/// # Examples
/// ```
/// use concurrent_futures::{Future, promise};
///
/// /// Runs each task in a thread of its own.
/// fn submit<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Future<T> {
///     let (promise, future) = promise();
///     std::thread::spawn(move || {
///         if promise.set_running_or_notify_cancel() {
///             promise.set_result(f())
///         } else {
///             Ok(())
///         }
///     });
///     future
/// }
///
/// assert_eq!(submit(|| 6 * 7).result()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Promise<T> {
    pub(super) task: TaskRef,
    // It takes a `T`: one that takes long-lived values must not be turned into one that
    // takes any.
    output: PhantomData<fn(T) -> T>,
}

/// The compiler refuses a promise of a value that lives too short:
/// ```compile_fail
/// use concurrent_futures::{Promise, promise};
///
/// let (promise, future) = promise::<&'static str>();
/// {
///     let short_lived = String::from("gone");
///     let promise: Promise<&str> = promise;
///     promise.set_result(&short_lived).unwrap();
/// }
/// println!("{}", future.result().unwrap());
/// ```
#[cfg(doctest)]
struct TakesLongLivedValuesOnly;

// SAFETY: the promise moves a `T` to the thread that takes it, and with `&self`
// from any thread: one setter wins.
unsafe impl<T: Send> Send for Promise<T> {}
// SAFETY: with `&self`, one setter wins and moves a `T`; the promise never gives out a reference to the
// value.
unsafe impl<T: Send> Sync for Promise<T> {}

impl<T> Promise<T> {
    /// Begins the work, so that the future cannot be cancelled any more.
    ///
    /// Returns false when the future was cancelled, and there is nothing to do;
    /// also when it was running or finished before.
    ///
    /// # Examples
    /// ```
    /// let (promise, future) = concurrent_futures::promise::<u32>();
    /// assert!(promise.set_running_or_notify_cancel());
    /// assert!(future.is_running());
    /// assert!(!future.cancel());
    /// ```
    #[must_use = "work that was cancelled should not be done"]
    pub fn set_running_or_notify_cancel(&self) -> bool {
        // SAFETY: a promise begins and sets what it stands for.
        unsafe { self.task.state().start() }
    }

    /// Gives the future its value.
    ///
    /// # Errors
    /// [`InvalidStateError`] when the future was cancelled, or has an outcome.
    ///
    /// # Examples
    /// ```
    /// let (promise, future) = concurrent_futures::promise();
    /// promise.set_result(1)?;
    /// assert!(promise.set_result(2).is_err());
    /// assert_eq!(future.result()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_result(&self, value: T) -> Result<(), InvalidStateError> {
        self.set_outcome(Ok(value))
    }

    /// Fails the future with [`TaskError::Failed`] and this cause.
    ///
    /// # Errors
    /// As for [`set_result`](Self::set_result).
    ///
    /// # Examples
    /// ```
    /// let (promise, future) = concurrent_futures::promise::<u32>();
    /// promise.set_exception("no luck")?;
    /// assert_eq!(future.result().unwrap_err().to_string(), "no luck");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_exception<E>(&self, error: E) -> Result<(), InvalidStateError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.set_outcome(Err(TaskError::failed(error)))
    }

    pub(crate) fn set_outcome(&self, outcome: Outcome<T>) -> Result<(), InvalidStateError> {
        // SAFETY: a promise completes its own task, whose call needs no drop.
        let claimed = unsafe { self.task.state().claim() };
        claimed.map_err(|phase| InvalidStateError {
            state: match phase {
                Phase::Cancelling | Phase::Cancelled => "cancelled",
                _ => "finished",
            },
        })?;
        // SAFETY: claimed; the call's type is that of `promise`.
        unsafe { self.task.set_outcome::<Promised<T>>(outcome) };
        Ok(())
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        // Without an outcome the future would never be done. With one, this is
        // refused, and there is nothing to do.
        let _ = self.set_outcome(Err(TaskError::Abandoned));
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Promise {}>", self.task.id())
    }
}
