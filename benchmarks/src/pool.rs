//! The interface of a thread pool that takes part: it runs a closure, and gives the closure's result to the
//! holder of the handle.

use crate::harness::Role;

/// A thread pool of any crate.
///
/// A peer whose spawning returns nothing gets a oneshot channel for the result: that is what its users write by hand.
pub(crate) trait Pool: Send + Sync + Sized + 'static {
    /// The name in the report, and on the command line of a child process.
    const NAME: &'static str;

    /// The pool's role.
    const ROLE: Role = Role::Peer;

    /// A handle for the result to come.
    type Handle<T: Send + 'static>: Send;

    /// Builds a pool with this number of workers.
    fn new(workers: usize) -> Self;

    /// Submits a task.
    fn spawn<F, T>(&self, f: F) -> Self::Handle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static;

    /// Waits for one result, outside the pool.
    fn take<T: Send + 'static>(&self, handle: Self::Handle<T>) -> T;

    /// Waits for the results in the order of the handles.
    ///
    /// A pool made for async programs overrides this to enter its executor once, not once for each result.
    fn take_all<T: Send + 'static>(&self, handles: Vec<Self::Handle<T>>, mut each: impl FnMut(T)) {
        for handle in handles {
            each(self.take(handle));
        }
    }

    /// Builds a pool and runs some tasks on it, so that starting threads is not part of what is timed.
    fn warm(workers: usize) -> Self {
        let pool = Self::new(workers);
        let handles = (0..1_000).map(|_| pool.spawn(|| ())).collect();
        pool.take_all(handles, |()| ());
        pool
    }
}

/// A handle that can be awaited.
pub(crate) trait Awaitable<T>: Future + Unpin {
    /// Returns the task's value from the output of awaiting the handle.
    fn value(output: Self::Output) -> T;
}
