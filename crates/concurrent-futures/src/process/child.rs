//! A worker process, as its supervisor holds it: process id, pidfd, socket.

#![forbid(unsafe_code)]

use super::channel::Socket;
use super::error::WorkerExit;
use super::host::StartedWorker;
use crate::log;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A process of ours, which is there until its exit status is taken.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    /// Readable once the process has ended.
    pidfd: OwnedFd,
    pub(super) socket: Socket,
    /// Why it could not be signalled, until that is logged.
    unsignalled: Mutex<Option<Errno>>,
}

impl Child {
    /// A process that this one has started.
    pub(super) fn new(pid: u32, socket: Socket) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self::with_pidfd(pid, pidfd, socket))
    }

    /// A process that a host has started.
    pub(super) fn of_host(started: &StartedWorker, socket: Socket) -> io::Result<Self> {
        let raw = i32::try_from(started.pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = match (
            rustix::process::pidfd_open(raw, PidfdFlags::empty()),
            &started.sentinel,
        ) {
            (Ok(pidfd), _) => pidfd,
            // It has ended, and whoever is its parent has taken notice.
            (Err(Errno::SRCH), Some(sentinel)) => sentinel.try_clone()?,
            (Err(error), _) => return Err(error.into()),
        };
        Ok(Self::with_pidfd(started.pid, pidfd, socket))
    }

    /// A process whose pidfd another one has sent.
    pub(super) fn with_pidfd(pid: u32, pidfd: OwnedFd, socket: Socket) -> Self {
        Self {
            pid,
            pidfd,
            socket,
            unsignalled: Mutex::new(None),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable once the process has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal; nothing happens if the process has ended. This is called under locks: a
    /// failure is noted, and [`tell`](Self::tell) logs it.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, signal)
            && error != Errno::SRCH
        {
            *self.unsignalled() = Some(error);
        }
    }

    fn unsignalled(&self) -> MutexGuard<'_, Option<Errno>> {
        self.unsignalled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`tell`](Self::tell) has something to log.
    pub(super) fn is_unsignalled(&self) -> bool {
        self.unsignalled().is_some()
    }

    /// Logs that the process could not be signalled, if that is so. The caller holds no lock.
    pub(super) fn tell(&self) {
        let failed = self.unsignalled().take();
        if let Some(error) = failed {
            log::process_not_signalled(self.pid, &error);
        }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for the end of a process that this one has started, and takes its exit
    /// status.
    pub(super) fn reap(&self) -> WorkerExit {
        exit_of(self.pidfd.as_fd())
    }
}

/// Waits for the end of a child, and takes its exit status.
pub(super) fn exit_of(pidfd: BorrowedFd<'_>) -> WorkerExit {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => WorkerExit::Code(code),
                    (None, Some(signal)) => WorkerExit::Signal(signal),
                    (None, None) => WorkerExit::Unknown,
                };
            }
            Err(Errno::INTR) => {}
            // Somebody else has taken it.
            Ok(None) | Err(_) => return WorkerExit::Unknown,
        }
    }
}
