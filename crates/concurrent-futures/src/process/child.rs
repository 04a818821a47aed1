//! A worker process, as its supervisor holds it: process and socket.

#![forbid(unsafe_code)]

use super::channel::Socket;
use super::error::WorkerExit;
use super::handle::Handle;
use crate::log;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A process of ours, which is there until its exit status is taken.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    handle: Handle,
    pub(super) socket: Socket,
    /// Why it could not be signalled, until that is logged.
    unsignalled: Mutex<Option<Errno>>,
}

impl Child {
    /// A process that this one has started, or a host. It costs no more descriptors than the
    /// socket if it is to be `lean`.
    pub(super) fn new(pid: u32, socket: Socket, lean: bool) -> io::Result<Self> {
        let raw = number(pid)?;
        let handle = if lean {
            Handle::by_number(raw)
        } else {
            Handle::open(raw)
        };
        Ok(Self::with_handle(pid, handle, socket))
    }

    /// A process that another one has started, which has sent its pidfd, if it has one.
    pub(super) fn with_pidfd(pid: u32, pidfd: Option<OwnedFd>, socket: Socket) -> io::Result<Self> {
        let handle = Handle::new(number(pid)?, pidfd);
        Ok(Self::with_handle(pid, handle, socket))
    }

    fn with_handle(pid: u32, handle: Handle, socket: Socket) -> Self {
        Self {
            pid,
            handle,
            socket,
            unsignalled: Mutex::new(None),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the descriptor that is readable once the process has ended; see [`Handle`].
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.handle.readable()
    }

    /// Returns whether the process has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Sends a signal; nothing happens if the process has ended. This is called under locks: a
    /// failure is noted, and [`tell`](Self::tell) logs it.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = self.handle.signal(signal) {
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
        self.handle.reap()
    }
}

fn number(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
