//! The engine of this repository.

use concurrent_futures::{Future, ThreadPoolExecutor};

use crate::harness::Role;
use crate::pool::{Awaitable, Pool};

/// `ThreadPoolExecutor`, for which `spawn` returns the future.
pub(crate) struct Ours(ThreadPoolExecutor);

impl Ours {
    /// Returns the executor, for workloads that only it can do.
    pub(crate) fn executor(&self) -> &ThreadPoolExecutor {
        &self.0
    }
}

impl Pool for Ours {
    const NAME: &'static str = "concurrent-futures";

    const ROLE: Role = Role::Ours;

    type Handle<T: Send + 'static> = Future<T>;

    fn new(workers: usize) -> Self {
        Self(
            ThreadPoolExecutor::builder()
                .max_workers(workers)
                .build()
                .expect("the pool builds"),
        )
    }

    fn spawn<F, T>(&self, f: F) -> Future<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn(f).expect("the pool is open")
    }

    fn take<T: Send + 'static>(&self, handle: Future<T>) -> T {
        handle.result().expect("the task returns")
    }
}

impl<T> Awaitable<T> for Future<T> {
    fn value(output: <Self as std::future::Future>::Output) -> T {
        output.expect("the task returns")
    }
}
