//! The crate `tokio`, in two ways: tasks of the runtime, and its threads for blocking work.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::pool::{Awaitable, Pool};

/// Makes a runtime with `workers` threads for tasks, and as many for blocking work.
fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(workers)
        .build()
        .expect("the runtime builds")
}

/// Makes a runtime whose threads of both kinds have run some tasks, as [`Pool::warm`] does, for workloads
/// that need the runtime itself.
pub(crate) fn warm_runtime(workers: usize) -> Runtime {
    let runtime = runtime(workers);
    let tasks = (0..1_000).map(|_| runtime.spawn(async {})).collect();
    join_all(&runtime, tasks, |()| ());
    let tasks = (0..1_000).map(|_| runtime.spawn_blocking(|| ())).collect();
    join_all(&runtime, tasks, |()| ());
    runtime
}

/// `Runtime::spawn` of a future that runs the closure, as an async program does with work that never blocks.
pub(crate) struct TokioTasks(Runtime);

/// `Runtime::spawn_blocking`, as an async program does with work that may block like a thread pool's task.
pub(crate) struct TokioBlocking(Runtime);

impl Pool for TokioTasks {
    const NAME: &'static str = "tokio spawn";

    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn new(workers: usize) -> Self {
        Self(runtime(workers))
    }

    fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn(async { f() })
    }

    fn take<T: Send + 'static>(&self, handle: JoinHandle<T>) -> T {
        self.0.block_on(handle).expect("the task returns")
    }

    fn take_all<T: Send + 'static>(&self, handles: Vec<JoinHandle<T>>, each: impl FnMut(T)) {
        join_all(&self.0, handles, each);
    }
}

impl Pool for TokioBlocking {
    const NAME: &'static str = "tokio spawn_blocking";

    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn new(workers: usize) -> Self {
        Self(runtime(workers))
    }

    fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn_blocking(f)
    }

    fn take<T: Send + 'static>(&self, handle: JoinHandle<T>) -> T {
        self.0.block_on(handle).expect("the task returns")
    }

    fn take_all<T: Send + 'static>(&self, handles: Vec<JoinHandle<T>>, each: impl FnMut(T)) {
        join_all(&self.0, handles, each);
    }
}

fn join_all<T>(runtime: &Runtime, handles: Vec<JoinHandle<T>>, mut each: impl FnMut(T)) {
    runtime.block_on(async {
        for handle in handles {
            each(handle.await.expect("the task returns"));
        }
    });
}

impl<T> Awaitable<T> for JoinHandle<T> {
    fn value(output: Self::Output) -> T {
        output.expect("the task returns")
    }
}
