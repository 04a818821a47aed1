//! The seam for worker threads: a pool's workers are threads of the standard library, or threads of a
//! language runtime.

use crate::error::BrokenExecutor;
use crate::runtime::sync::Arc;
use crate::thread::pool::Pool;
use crate::thread::worker::{self, Role};
use std::fmt;
use std::io;
use std::thread::JoinHandle;

/// Starts the threads of a pool, and surrounds their work.
///
/// The engine holds no lock while it calls these.
pub trait ThreadSpawner: Send + Sync {
    /// Starts the thread with this number, which is to call [`WorkerThread::run`]. Returns its handle if the
    /// pool is to join the thread.
    ///
    /// # Errors
    /// Why it could not be started. The worker was dropped then.
    fn start_thread(
        &self,
        number: usize,
        worker: WorkerThread,
    ) -> io::Result<Option<JoinHandle<()>>>;

    /// Returns the name of the pool, for recordings.
    fn pool_name(&self) -> String {
        String::new()
    }

    /// Returns the name of the calling worker, for recordings.
    fn worker_name(&self) -> String {
        let thread = std::thread::current();
        thread.name().unwrap_or_default().to_owned()
    }

    /// Returns the calling thread, as people know it. Calls no foreign code.
    fn thread_label(&self) -> String {
        let thread = std::thread::current();
        format!("thread {}", thread.name().unwrap_or("without a name"))
    }

    /// Initializes the calling worker, before its first task.
    ///
    /// # Errors
    /// Why no worker can work: it breaks the pool.
    fn initialize(&self) -> Result<(), BrokenExecutor>;

    /// Calls `wait`, in which the calling worker waits for tasks, or starts threads.
    fn idle(&self, wait: &mut dyn FnMut()) {
        wait();
    }

    /// Returns whether the calling worker is to end, although it may be needed. Another thread takes its
    /// place then.
    fn ends_worker(&self) -> bool {
        false
    }

    /// Returns whether a thread is started at once for each task that finds no idle worker. Otherwise a
    /// worker that is about to look for tasks is expected to ask for another when it finds several.
    fn starts_eagerly(&self) -> bool {
        false
    }
}

/// The body of a worker thread.
pub struct WorkerThread(Arc<Pool>, Role);

impl WorkerThread {
    pub(super) fn new(pool: &Arc<Pool>, role: Role) -> Self {
        Self(Arc::clone(pool), role)
    }

    /// Runs tasks until the worker is not needed any more.
    pub fn run(self) {
        worker::run(&self.0, self.1);
    }
}

impl fmt::Debug for WorkerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerThread")
    }
}
