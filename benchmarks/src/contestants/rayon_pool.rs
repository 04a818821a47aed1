//! The crate `rayon`.

use crate::pool::Pool;

/// `rayon::ThreadPool::spawn`; the task sends its result through a oneshot channel.
pub(crate) struct Rayon(rayon::ThreadPool);

impl Rayon {
    /// Returns the pool itself, for `install` and for tasks that send their result elsewhere.
    pub(crate) fn inner(&self) -> &rayon::ThreadPool {
        &self.0
    }
}

impl Pool for Rayon {
    const NAME: &'static str = "rayon spawn + oneshot";

    type Handle<T: Send + 'static> = oneshot::Receiver<T>;

    fn new(workers: usize) -> Self {
        Self(
            rayon::ThreadPoolBuilder::new()
                .num_threads(workers)
                .build()
                .expect("the pool builds"),
        )
    }

    fn spawn<F, T>(&self, f: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || drop(sender.send(f())));
        receiver
    }

    fn take<T: Send + 'static>(&self, handle: oneshot::Receiver<T>) -> T {
        handle.recv().expect("the task sends")
    }
}
