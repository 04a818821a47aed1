//! The crate `threadpool-executor`.

use std::panic::AssertUnwindSafe;

use threadpool_executor::{Expectation, ThreadPool};

use crate::pool::Pool;

/// `threadpool_executor::ThreadPool::execute`, whose handle waits for the result.
pub(crate) struct ThreadpoolExecutor(ThreadPool);

impl Pool for ThreadpoolExecutor {
    const NAME: &'static str = "threadpool-executor";

    type Handle<T: Send + 'static> = Expectation<T>;

    fn new(workers: usize) -> Self {
        Self(ThreadPool::new(workers))
    }

    fn spawn<F, T>(&self, f: F) -> Expectation<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0
            .execute(AssertUnwindSafe(f))
            .expect("the pool is open")
    }

    fn take<T: Send + 'static>(&self, mut handle: Expectation<T>) -> T {
        handle.get_result().expect("the task returns")
    }
}
