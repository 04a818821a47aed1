//! What worker processes live in: processes of `multiprocessing`.
//!
//! The module `concurrent_futures.process` starts them, keeps them, and reads their exit
//! codes, as only `multiprocessing` may take the exit status of its own children.

use crate::name;
use crate::process::attached;
use crate::released;
use concurrent_futures::WorkerExit;
use concurrent_futures::engine::{StartedWorker, WorkerHost};
use pyo3::prelude::*;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The workers of a pool; `concurrent_futures.process.Workers`.
pub(crate) struct Processes(pub(crate) Py<PyAny>);

impl WorkerHost for Processes {
    fn start(&self, channel: OwnedFd) -> io::Result<StartedWorker> {
        attached(|py| {
            let workers = self.0.bind(py);
            let started = workers.call_method1(name::start(py), (channel.as_raw_fd(),));
            let (pid, sentinel) = started
                .and_then(|started| started.extract::<(u32, i32)>())
                .map_err(io::Error::other)?;
            // SAFETY: it is open: `start` has just asked the process for it.
            let sentinel = unsafe { BorrowedFd::borrow_raw(sentinel) };
            Ok(StartedWorker {
                pid,
                sentinel: sentinel.try_clone_to_owned().ok(),
            })
        })
    }

    fn exit_of(&self, pid: u32, replaced: bool) -> WorkerExit {
        attached(|py| {
            let workers = self.0.bind(py);
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

    fn before_sleep(&self) -> Option<Duration> {
        released::drop_old()
    }
}
