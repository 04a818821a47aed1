//! What worker processes live in: processes of `multiprocessing`.
//!
//! The module `concurrent_futures.process` starts them, keeps them, and reads their exit
//! codes, as only `multiprocessing` may take the exit status of its own children.

use crate::callbacks::Callbacks;
use crate::feeder::Fed;
use crate::interrupts::hold_for_worker;
use crate::jobs::Jobs;
use crate::name;
use crate::process::attached;
use crate::released;
use crate::remote::Unopened;
use concurrent_futures::WorkerExit;
use concurrent_futures::engine::{StartedWorker, WorkerHost};
use pyo3::prelude::*;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The workers of a pool, and what else its supervisor sees to.
pub(crate) struct Processes {
    /// `concurrent_futures.process.Workers`.
    pub(crate) workers: Py<PyAny>,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) feeder: Arc<Jobs<Fed>>,
    pub(crate) opener: Arc<Jobs<Unopened>>,
}

impl WorkerHost for Processes {
    fn start(&self, channel: OwnedFd) -> io::Result<StartedWorker> {
        attached(|py| {
            let _held = hold_for_worker(py);
            let workers = self.workers.bind(py);
            let started = workers.call_method1(name::start(py), (channel.as_raw_fd(),));
            let pid = started
                .and_then(|started| started.extract::<u32>())
                .map_err(io::Error::other)?;
            Ok(StartedWorker { pid })
        })
    }

    fn exit_of(&self, pid: u32, replaced: bool) -> WorkerExit {
        attached(|py| {
            let workers = self.workers.bind(py);
            let exit = workers
                .call_method1(name::exit_of(py), (pid, replaced))
                .and_then(|exit| exit.extract::<Option<i32>>());
            match exit {
                Ok(Some(code @ 0..)) => WorkerExit::Code(code),
                Ok(Some(signal)) => WorkerExit::Signal(-signal),
                Ok(None) => WorkerExit::Unknown,
                Err(error) => {
                    error.write_unraisable(py, Some(workers));
                    WorkerExit::Unknown
                }
            }
        })
    }

    fn needs_workers(&self) -> bool {
        // Answers may refer to something in the workers, and calls be on their way to them.
        self.opener.left() > 0 || self.feeder.left() > 0
    }

    fn before_sleep(&self) -> Option<Duration> {
        let until = |due: Instant| due.saturating_duration_since(Instant::now());
        let mut help = self.callbacks.help_is_due().map(until);
        if help.is_some_and(|left| left.is_zero()) {
            attached(|py| self.callbacks.help(py));
            help = None;
        }
        match (released::drop_old(), help) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }
}
