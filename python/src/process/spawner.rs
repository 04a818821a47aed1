//! The worker processes of the engine's pools: processes of `multiprocessing`.
//!
//! The module `concurrent_futures.process` starts the processes, keeps them, and reads their exit codes, as only
//! `multiprocessing` may take the exit status of its own children.

use crate::future::remote::Unopened;
use crate::interp::attach::attached;
use crate::interp::jobs::Jobs;
use crate::interp::signals::hold_for_worker;
use crate::interp::{deferred_drop, interned, stdlib};
use crate::process::callbacks::Callbacks;
use crate::process::feeder::Fed;
use concurrent_futures::WorkerExit;
use concurrent_futures::engine::{EndedWorker, StartedWorker, WorkerSpawner};
use pyo3::prelude::*;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The workers of a pool, and the other objects that its supervisor looks after.
pub(crate) struct Processes {
    /// The pool's `concurrent_futures._process_workers.Workers`.
    pub(crate) workers: Py<PyAny>,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) feeder: Arc<Jobs<Fed>>,
    pub(crate) opener: Arc<Jobs<Unopened>>,
}

impl WorkerSpawner for Processes {
    fn start(&self, channel: OwnedFd) -> io::Result<Option<StartedWorker>> {
        attached(|py| {
            let _held = hold_for_worker(py);
            let workers = self.workers.bind(py);
            let started = workers.call_method1(interned::start(py), (channel.as_raw_fd(),));
            let pid = started
                .and_then(|started| started.extract::<u32>())
                .map_err(io::Error::other)?;
            Ok(Some(StartedWorker::child(pid)))
        })
    }

    fn exit_of(&self, worker: &EndedWorker<'_>) -> WorkerExit {
        attached(|py| {
            let workers = self.workers.bind(py);
            let exit = workers
                .call_method1(interned::exit_of(py), (worker.pid(), worker.is_replaced()))
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

    fn log(&self, event: &str) {
        attached(|py| {
            let logged = stdlib::logger(py)
                .and_then(|logger| logger.call_method1("info", ("%s", event)).map(drop));
            if let Err(error) = logged {
                error.write_unraisable(py, None);
            }
        });
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
        match (deferred_drop::drop_old(), help) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }
}
