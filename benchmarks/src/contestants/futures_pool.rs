//! The thread pool of the crate `futures`.

use futures::executor::{ThreadPool, block_on};
use futures::future::{RemoteHandle, lazy};
use futures::task::SpawnExt;

use crate::pool::{Awaitable, Pool};

/// `ThreadPool::spawn_with_handle`, whose handle is a future that gets the result.
pub(crate) struct FuturesPool(ThreadPool);

impl Pool for FuturesPool {
    const NAME: &'static str = "futures ThreadPool";

    type Handle<T: Send + 'static> = RemoteHandle<T>;

    fn new(workers: usize) -> Self {
        Self(
            ThreadPool::builder()
                .pool_size(workers)
                .create()
                .expect("the pool builds"),
        )
    }

    fn spawn<F, T>(&self, f: F) -> RemoteHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0
            .spawn_with_handle(lazy(|_| f()))
            .expect("the pool is open")
    }

    fn take<T: Send + 'static>(&self, handle: RemoteHandle<T>) -> T {
        block_on(handle)
    }

    fn take_all<T: Send + 'static>(&self, handles: Vec<RemoteHandle<T>>, mut each: impl FnMut(T)) {
        block_on(async {
            for handle in handles {
                each(handle.await);
            }
        });
    }
}

impl<T: Send + 'static> Awaitable<T> for RemoteHandle<T> {
    fn value(output: T) -> T {
        output
    }
}
