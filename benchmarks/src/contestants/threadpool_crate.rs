//! The crate `threadpool`.

use crate::pool::Pool;

/// `threadpool::ThreadPool::execute`; the task sends its result through a oneshot channel.
pub(crate) struct Threadpool(threadpool::ThreadPool);

impl Threadpool {
    /// Returns the pool itself, for tasks that send their result elsewhere.
    pub(crate) fn inner(&self) -> &threadpool::ThreadPool {
        &self.0
    }
}

impl Pool for Threadpool {
    const NAME: &'static str = "threadpool + oneshot";

    type Handle<T: Send + 'static> = oneshot::Receiver<T>;

    fn new(workers: usize) -> Self {
        Self(threadpool::ThreadPool::new(workers))
    }

    fn spawn<F, T>(&self, f: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.0.execute(move || drop(sender.send(f())));
        receiver
    }

    fn take<T: Send + 'static>(&self, handle: oneshot::Receiver<T>) -> T {
        handle.recv().expect("the task sends")
    }
}
