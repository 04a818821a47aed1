//! `Future`, the handle of a task.

mod as_completed;
pub(crate) mod blocking;
mod callback;
pub(crate) mod driver;
#[cfg(all(test, loom_models))]
mod interrupted_models;
#[cfg(all(test, loom_models))]
mod models;
pub(crate) mod places;
mod promise;
pub(crate) mod ready;
#[cfg(all(feature = "process", unix))]
pub(crate) mod remote;
pub(crate) mod wait;
mod waker;

pub use as_completed::{AsCompleted, AsCompletedTimeout, as_completed};
pub use promise::{Promise, promise};
pub use wait::{DoneAndNotDone, ReturnWhen, Waitable};

use crate::error::{TaskError, TimeoutError};
use crate::id::FutureId;
use crate::runtime::sync::deadline_after;
use crate::task::state::Cancel;
use crate::task::{Outcome, Phase, TaskRef};
use blocking::{NEVER, wait_until_done};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use waker::Awaiting;

/// The result of a task that may not have run yet.
///
/// Made by an executor's `submit` and `spawn`, or by [`promise`]. A future is
/// *pending* until a worker starts its task, then *running*, then *finished*. A
/// pending future can be *cancelled*. The future is a handle that gives the value
/// away; [`peek`](Self::peek) looks at the value. Dropping the handle does not
/// cancel the task.
///
/// A future is also a [`std::future::Future`], for any runtime.
///
/// Source of the semantics: [`concurrent.futures.Future`][python]. In Rust, a
/// future counts as done only after its callbacks have run.
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#future-objects
///
/// # Examples
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new()?;
/// let hello = pool.spawn(|| "hello")?;
/// assert_eq!(hello.result()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a future does nothing for you unless you ask it for its result"]
pub struct Future<T> {
    task: TaskRef,
    awaiting: Awaiting,
    output: PhantomData<T>,
}

// SAFETY: the handle reads, moves and drops a `T` made on another thread, and
// runs callbacks that were checked to be `Send`.
unsafe impl<T: Send> Send for Future<T> {}
// SAFETY: a shared handle gives out `&T` only.
unsafe impl<T: Send + Sync> Sync for Future<T> {}

impl<T> Unpin for Future<T> {}

/// The outcome of a cancelled future.
static CANCELLED: TaskError = TaskError::Cancelled;
static TAKEN: TaskError = TaskError::Taken;
static UNFINISHED: TaskError = TaskError::Timeout;

impl<T> Future<T> {
    /// # Safety
    /// The task's output is a `T`, and this is its only handle.
    pub(crate) unsafe fn new(task: TaskRef) -> Self {
        Self {
            task,
            awaiting: Awaiting::default(),
            output: PhantomData,
        }
    }

    pub(crate) fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Returns the number of this future.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    /// use std::collections::HashMap;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let mut names = HashMap::new();
    /// let future = pool.spawn(|| 6 * 7)?;
    /// names.insert(future.id(), "the answer");
    /// assert_eq!(names[&future.id()], "the answer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> FutureId {
        self.task.id()
    }

    /// Tries to cancel the task. Succeeds while the task is pending, and while it is on its way to a worker
    /// process that has not begun it.
    ///
    /// Returns whether the future is cancelled now; false means that the task runs
    /// or has run. Callbacks run in the calling thread.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, promise};
    ///
    /// let (promise, future) = promise::<u32>();
    /// assert!(future.cancel());
    /// assert!(!promise.set_running_or_notify_cancel());
    /// assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    /// ```
    pub fn cancel(&self) -> bool {
        match self.task.cancel() {
            Cancel::Now => {
                driver::forget(self.task.pool_id(), self.id());
                true
            }
            Cancel::Before => true,
            Cancel::TooLate => !self.is_done() && driver::cancel(self.task.pool_id(), self.id()),
        }
    }

    /// Ends the task, whatever it is doing. Cancels a pending task. Kills the worker process of a running
    /// task; the future then fails with [`TaskError::Terminated`], and the pool replaces the worker.
    ///
    /// Returns whether the task was or will be ended by this; false if it has finished,
    /// or runs on a thread, which cannot be ended.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::new()?;
    /// fn spin(on: bool) {
    ///     while on {}
    /// }
    /// let endless = pool.submit(spin, true)?;
    /// while !endless.is_running() {
    ///     std::thread::yield_now();
    /// }
    /// assert!(!endless.cancel());
    /// assert!(endless.terminate());
    /// assert!(matches!(endless.result(), Err(TaskError::Terminated)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) -> bool {
        self.cancel() || driver::terminate(self.task.pool_id(), self.id())
    }

    /// Returns whether the future was cancelled.
    ///
    /// # Examples
    /// ```
    /// let (_promise, future) = concurrent_futures::promise::<u32>();
    /// assert!(!future.is_cancelled());
    /// future.cancel();
    /// assert!(future.is_cancelled() && future.is_done());
    /// ```
    #[must_use]
    #[doc(alias = "cancelled")]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self.task.state().phase(),
            Phase::Cancelling | Phase::Cancelled
        )
    }

    /// Returns whether the task is running.
    ///
    /// # Examples
    /// ```
    /// let (promise, future) = concurrent_futures::promise();
    /// assert!(!future.is_running());
    /// assert!(promise.set_running_or_notify_cancel());
    /// assert!(future.is_running());
    /// promise.set_result(1)?;
    /// assert!(!future.is_running());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[doc(alias = "running")]
    pub fn is_running(&self) -> bool {
        match self.task.state().phase() {
            // It may be on its way to a worker process.
            Phase::Running => driver::has_begun(self.task.pool_id(), self.id()),
            Phase::Setting | Phase::Finishing => true,
            _ => false,
        }
    }

    /// Returns whether the future is finished or cancelled, and its callbacks have run.
    ///
    /// # Examples
    /// ```
    /// let (promise, future) = concurrent_futures::promise();
    /// assert!(!future.is_done());
    /// promise.set_result(())?;
    /// assert!(future.is_done() && !future.is_running() && !future.is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[doc(alias = "done")]
    pub fn is_done(&self) -> bool {
        self.task.state().is_done()
    }

    /// Waits for the task, and returns its value.
    ///
    /// A thread pool cannot block itself by waiting. If all of its workers wait for tasks that are pending in
    /// the pool, it gets a spare worker for as long as they wait.
    ///
    /// # Errors
    /// The error that kept the task from returning a value; [`TaskError::Deadlock`] if the
    /// calling task and the one it waits for wait for each other.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let power = pool.submit(|exponent| 2_u64.pow(exponent), 10)?;
    /// assert_eq!(power.result()?, 1024);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn result(mut self) -> Result<T, TaskError> {
        wait_until_done(&self.task, None, NEVER)?;
        self.take()
    }

    /// Waits for the task up to `timeout`, and returns its value.
    ///
    /// # Errors
    /// [`TaskError::Timeout`] when the time has passed: the future is as it was,
    /// and can be asked again. Otherwise as [`result`](Self::result);
    /// [`TaskError::Taken`] if the value was returned before.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, promise};
    /// use std::time::Duration;
    ///
    /// let (promise, mut future) = promise();
    /// let early = future.result_timeout(Duration::from_millis(1));
    /// assert!(matches!(early, Err(TaskError::Timeout)));
    /// promise.set_result(7)?;
    /// assert_eq!(future.result_timeout(Duration::ZERO)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn result_timeout(&mut self, timeout: Duration) -> Result<T, TaskError> {
        self.result_until(deadline_after(timeout))
    }

    pub(crate) fn result_until(&mut self, deadline: Option<Instant>) -> Result<T, TaskError> {
        if wait_until_done(&self.task, deadline, NEVER)? {
            self.take()
        } else {
            Err(TaskError::Timeout)
        }
    }

    /// Waits for the task, and returns the error that kept it from returning a value, if there is one.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let page = pool.submit_fallible(std::fs::read, "/no/such/page")?;
    /// assert!(page.exception().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exception(&self) -> Option<TaskError> {
        match wait_until_done(&self.task, None, NEVER) {
            Ok(_) => self.look().err().cloned(),
            Err(deadlock) => Some(TaskError::Deadlock(deadlock)),
        }
    }

    /// Waits for the task up to `timeout`, and returns the error that kept it from returning a value, if
    /// there is one.
    ///
    /// # Errors
    /// [`TimeoutError`] when the time has passed.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::promise;
    /// use std::time::Duration;
    ///
    /// let (promise, future) = promise::<u32>();
    /// assert!(future.exception_timeout(Duration::from_millis(1)).is_err());
    /// promise.set_exception("no luck")?;
    /// let exception = future.exception_timeout(Duration::ZERO)?;
    /// assert_eq!(exception.unwrap().to_string(), "no luck");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exception_timeout(&self, timeout: Duration) -> Result<Option<TaskError>, TimeoutError> {
        match wait_until_done(&self.task, deadline_after(timeout), NEVER) {
            Ok(true) => Ok(self.look().err().cloned()),
            Ok(false) => Err(TimeoutError {
                unfinished: 1,
                total: 1,
            }),
            Err(deadlock) => Ok(Some(TaskError::Deadlock(deadlock))),
        }
    }

    /// Looks at the outcome without taking it. `None` while the future is not
    /// done; never blocks.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::promise;
    ///
    /// let (promise, future) = promise();
    /// assert!(future.peek().is_none());
    /// promise.set_result(String::from("here"))?;
    /// assert_eq!(future.peek().unwrap().unwrap(), "here");
    /// assert_eq!(future.result()?, "here");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek(&self) -> Option<Result<&T, &TaskError>> {
        self.is_done().then(|| self.look())
    }

    /// Calls `callback` with the outcome when the task has finished or was cancelled, or now if that has
    /// happened.
    ///
    /// Callbacks run in the order in which they were added, in the thread that
    /// completes the future, and before any waiting thread goes on. A callback that
    /// panics is logged (by `tracing`) and does not stop the next. A callback that
    /// waits for an event after this future is done waits forever. A callback may complete
    /// another future, whose callbacks then run inside it. Each level of such a chain takes
    /// some hundred bytes of the thread's stack.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    /// use std::sync::mpsc;
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let (sender, pages) = mpsc::channel();
    /// let page = pool.spawn(|| "<html></html>")?;
    /// page.add_done_callback(move |page| sender.send(page.unwrap().len()).unwrap());
    /// assert_eq!(pages.recv()?, 13);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_done_callback<F>(&self, callback: F)
    where
        F: FnOnce(Result<&T, &TaskError>) + Send + 'static,
    {
        callback::add(self, callback);
    }

    /// Returns the outcome of a future that is done.
    fn look(&self) -> Result<&T, &TaskError> {
        match self.task.state().phase() {
            Phase::Finished if self.task.taken() => Err(&TAKEN),
            // SAFETY: the outcome is written, and only this handle can take it away,
            // for which it must not be borrowed.
            Phase::Finished => unsafe { (*self.task.outcome::<T>()).as_ref() },
            Phase::Cancelling | Phase::Cancelled | Phase::Notified => Err(&CANCELLED),
            // No caller asks then; but memory safety must not depend on that.
            _ => Err(&UNFINISHED),
        }
    }

    /// Moves the outcome out of a future that is done.
    fn take(&mut self) -> Outcome<T> {
        match self.task.state().phase() {
            Phase::Finished if self.task.taken() => return Err(TaskError::Taken),
            Phase::Finished => {}
            Phase::Cancelling | Phase::Cancelled | Phase::Notified => {
                return Err(TaskError::Cancelled);
            }
            // As above.
            _ => return Err(TaskError::Timeout),
        }
        self.task.set_taken();
        // SAFETY: the outcome is there, ours, and marked as gone.
        unsafe { ptr::read(self.task.outcome::<T>()) }
    }
}

impl<T> Drop for Future<T> {
    fn drop(&mut self) {
        self.awaiting.stop(self.task.state());
        // Once it is finished, the outcome is ours to drop; before, the finishing thread's.
        // SAFETY: this is the handle, and it drops the outcome only if it is not flagged.
        let is_final = !unsafe { self.task.state().flag() };
        if is_final && self.task.state().phase() == Phase::Finished && !self.task.taken() {
            // SAFETY: the outcome is there and ours.
            unsafe { self.task.drop_outcome() };
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, TaskError>;

    /// Polls for the value of the task, with the errors of [`result`](Future::result). A pool whose workers
    /// poll gets no spare worker for that. Polled again after it gave its value away, a future returns
    /// [`TaskError::Taken`].
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.awaiting.poll(this.task.state(), context.waker()) {
            Poll::Ready(this.take())
        } else {
            Poll::Pending
        }
    }
}

impl<T> PartialEq for Future<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<T> Eq for Future<T> {}

impl<T> Hash for Future<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.task.state().phase();
        let state = match phase {
            Phase::Pending => "pending",
            Phase::Running | Phase::Setting | Phase::Finishing => "running",
            Phase::Cancelling | Phase::Cancelled | Phase::Notified => "cancelled",
            Phase::Finished if self.task.taken() => "finished, result taken",
            Phase::Finished if self.look().is_err() => "finished with an error",
            Phase::Finished => "finished",
        };
        write!(f, "<Future {} state={state}>", self.id())
    }
}
