//! Scopes: tasks that borrow from the caller's stack.

use crate::error::SubmitError;
use crate::future::Future;
use crate::future::blocking::{NEVER, wait_always};
use crate::limit::WhenFull;
use crate::runtime::sync::{Mutex, lock};
use crate::task::panic::AbortOnUnwind;
use crate::task::{Call, TaskRef};
use crate::thread::ThreadPoolExecutor;
use crate::thread::call::{Fallible, Plain};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Submits tasks that may borrow; see [`ThreadPoolExecutor::scope`].
///
/// # Examples
/// ```
/// use concurrent_futures::{Scope, SubmitError, ThreadPoolExecutor};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// fn count_words<'scope>(
///     scope: &'scope Scope<'scope, '_>,
///     lines: &'scope [&str],
///     total: &'scope AtomicUsize,
/// ) -> Result<(), SubmitError> {
///     for line in lines {
///         scope.spawn(move || {
///             let words = line.split_whitespace().count();
///             total.fetch_add(words, Ordering::Relaxed)
///         })?;
///     }
///     Ok(())
/// }
///
/// let total = AtomicUsize::new(0);
/// let lines = ["one word and", "more of them"];
/// ThreadPoolExecutor::new()?.scope(|scope| count_words(scope, &lines, &total))?;
/// assert_eq!(total.into_inner(), 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    executor: &'scope ThreadPoolExecutor,
    tasks: Mutex<Tasks>,
    // Invariant in both, as for `std::thread::Scope`.
    lifetimes: PhantomData<(&'scope mut &'scope (), &'env mut &'env ())>,
}

/// The tasks that were not done when they were last looked at.
struct Tasks {
    list: Vec<TaskRef>,
    /// The length of the list at which done tasks are removed.
    clean_at: usize,
}

impl<'scope> Scope<'scope, '_> {
    /// Submits a closure, which may borrow values that outlive the scope.
    ///
    /// # Errors
    /// As for [`ThreadPoolExecutor::spawn`].
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let words = vec!["submit", "map"];
    /// let longest = pool.scope(|scope| {
    ///     let longest = scope.spawn(|| words.iter().max_by_key(|word| word.len()))?;
    ///     Ok::<_, Box<dyn std::error::Error>>(longest.result()?)
    /// })?;
    /// assert_eq!(longest, Some(&"submit"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<F, T>(&'scope self, f: F) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.submit_call(Plain(f))
    }

    /// Submits a closure whose `Err` becomes the future's error.
    ///
    /// # Errors
    /// As for [`ThreadPoolExecutor::spawn`].
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let text = String::from("eighty");
    /// let port = pool.scope(|scope| Ok::<_, TaskError>(
    ///     scope.spawn_fallible(|| text.parse::<u16>()).map_err(TaskError::Rejected)?.exception(),
    /// ))?;
    /// assert!(matches!(port, Some(TaskError::Failed(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_fallible<F, T, E>(&'scope self, f: F) -> Result<Future<T>, SubmitError>
    where
        F: FnOnce() -> Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_call(Fallible(f))
    }

    fn submit_call<C>(&'scope self, call: C) -> Result<Future<C::Output>, SubmitError>
    where
        C: Call + Send + 'scope,
        C::Output: Send + 'scope,
    {
        // From here to the push, the task may be queued without being in the list.
        let guard = AbortOnUnwind;
        // SAFETY: `wait` keeps the borrowed alive until the task is done, as the guard makes
        // sure that the task gets into the list. By then its call is gone, and its output is the
        // handle's, which cannot outlive 'scope, or gone as well.
        let submitted = unsafe { self.executor.submit_call(call, WhenFull::Wait(NEVER)) };
        let future = match submitted {
            Ok(future) => future,
            Err((error, call)) => {
                guard.disarm();
                // Foreign code.
                drop(call);
                return Err(error);
            }
        };
        let mut tasks = lock(&self.tasks);
        if tasks.list.len() >= tasks.clean_at {
            tasks.list.retain(|task| !task.state().is_done());
            tasks.clean_at = (tasks.list.len() * 2).max(64);
        }
        tasks.list.push(future.task().clone());
        drop(tasks);
        guard.disarm();
        Ok(future)
    }

    /// Waits for all tasks, also those that tasks submit meanwhile.
    fn wait(&self) {
        loop {
            let task = lock(&self.tasks).list.pop();
            let Some(task) = task else { return };
            wait_always(&task);
        }
    }
}

/// Calls `f` with a scope, and returns when all its tasks are done.
pub(super) fn scope<'env, F, R>(executor: &ThreadPoolExecutor, f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope {
        executor,
        tasks: Mutex::new(Tasks {
            list: Vec::new(),
            clean_at: 64,
        }),
        lifetimes: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // Nothing may leave before the last task is done.
    let guard = AbortOnUnwind;
    scope.wait();
    guard.disarm();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("executor", &self.executor)
            .finish_non_exhaustive()
    }
}
