//! What the workers of a pool live in: threads of the standard library, or those of a
//! language runtime.

use super::pool::{Initializer, Pool};
use super::worker::{self, Role};
use crate::error::BrokenExecutor;
use crate::panic;
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

/// Starts the threads of a pool, and surrounds what they do.
///
/// The engine holds no lock while it calls these.
pub trait Host: Send + Sync {
    /// Starts the thread with this number, which is to call [`WorkerThread::run`]. Returns
    /// its handle if the pool is to join it.
    ///
    /// # Errors
    /// Why it could not be started. The worker was dropped then.
    fn start_thread(
        &self,
        number: usize,
        worker: WorkerThread,
    ) -> io::Result<Option<JoinHandle<()>>>;

    /// Called first in each worker.
    ///
    /// # Errors
    /// Why no worker can work: it breaks the pool.
    fn initialize(&self) -> Result<(), BrokenExecutor>;

    /// Calls `wait`, in which the calling worker waits for tasks, and at most starts threads.
    fn idle(&self, wait: &mut dyn FnMut()) {
        wait();
    }

    /// Whether the calling worker is to end, although it may be needed: the host was told so while
    /// the worker was idle. Another thread takes its place then.
    fn ends_worker(&self) -> bool {
        false
    }

    /// Whether a thread is started for each task that no idle worker is there for, at
    /// once. Otherwise a worker that is about to look for tasks is expected to ask for
    /// another when it finds several.
    fn starts_eagerly(&self) -> bool {
        false
    }
}

/// What a worker thread does.
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

/// Threads of the standard library.
pub(super) struct Threads {
    pub(super) name_prefix: String,
    pub(super) stack_size: Option<usize>,
    pub(super) initializer: Option<Initializer>,
}

impl Host for Threads {
    fn start_thread(
        &self,
        number: usize,
        worker: WorkerThread,
    ) -> io::Result<Option<JoinHandle<()>>> {
        let mut builder = thread::Builder::new().name(format!("{}_{number}", self.name_prefix));
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder.spawn(move || worker.run()).map(Some)
    }

    fn initialize(&self) -> Result<(), BrokenExecutor> {
        let Some(initializer) = &self.initializer else {
            return Ok(());
        };
        let cause = match panic::catch(initializer) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Arc::from(error),
            Err(panic) => panic as _,
        };
        Err(BrokenExecutor::new(cause))
    }
}
