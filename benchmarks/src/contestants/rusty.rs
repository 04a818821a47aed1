//! The crate `rusty_pool`.

use std::time::Duration;

use crate::pool::Pool;

/// `rusty_pool::ThreadPool::evaluate`, whose handle waits for the result.
pub(crate) struct RustyPool(rusty_pool::ThreadPool);

impl Pool for RustyPool {
    const NAME: &'static str = "rusty_pool evaluate";

    type Handle<T: Send + 'static> = rusty_pool::JoinHandle<T>;

    fn new(workers: usize) -> Self {
        // As many core threads as threads at most, so that none ends for being idle.
        Self(rusty_pool::ThreadPool::new(
            workers,
            workers,
            Duration::from_mins(1),
        ))
    }

    fn spawn<F, T>(&self, f: F) -> rusty_pool::JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.evaluate(f)
    }

    fn take<T: Send + 'static>(&self, handle: rusty_pool::JoinHandle<T>) -> T {
        handle.await_complete()
    }
}
