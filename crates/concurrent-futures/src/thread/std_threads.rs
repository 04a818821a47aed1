//! Worker threads of the standard library.

#![forbid(unsafe_code)]

use crate::error::BrokenExecutor;
use crate::task::panic;
use crate::thread::pool::Initializer;
use crate::thread::spawner::{ThreadSpawner, WorkerThread};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Starts workers as threads of the standard library.
pub(crate) struct Threads {
    pub(crate) name_prefix: String,
    pub(crate) stack_size: Option<usize>,
    pub(crate) initializer: Option<Initializer>,
}

impl ThreadSpawner for Threads {
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

    fn pool_name(&self) -> String {
        self.name_prefix.clone()
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
