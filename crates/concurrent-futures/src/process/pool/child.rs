//! A worker process as its supervisor holds it: process and socket.

#![forbid(unsafe_code)]

use crate::error::process::WorkerExit;
use crate::runtime::os::Errno;
use crate::runtime::os::process::{Handle, Pid, Signal};
use crate::runtime::os::socket::Socket;
use crate::task::log;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A process that this pool has started, up to the moment when its exit status is taken.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    handle: Handle,
    pub(crate) socket: Socket,
    /// The error of a signal that could not be sent, until it is logged.
    unsignalled: Mutex<Option<Errno>>,
}

impl Child {
    /// Makes the handle of a process that this process, or a frontend, has started. A `lean` handle costs no
    /// descriptor but the socket.
    pub(crate) fn new(pid: u32, socket: Socket, lean: bool) -> io::Result<Self> {
        let raw = number(pid)?;
        let handle = if lean {
            Handle::by_number(raw)
        } else {
            Handle::open(raw)
        };
        Ok(Self::with_handle(pid, handle, socket))
    }

    /// Makes the handle of a process that the fork server has started, which has sent its pidfd, if it has
    /// one.
    pub(crate) fn with_pidfd(pid: u32, pidfd: Option<OwnedFd>, socket: Socket) -> io::Result<Self> {
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

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the descriptor that is readable once the process has ended; see [`Handle`].
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.handle.readable()
    }

    /// Returns whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Sends a signal; nothing happens if the process has ended. To be called under locks: a failure is kept,
    /// and [`tell`](Self::tell) logs it.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = self.handle.signal(signal) {
            *self.unsignalled() = Some(error);
        }
    }

    fn unsignalled(&self) -> MutexGuard<'_, Option<Errno>> {
        self.unsignalled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether [`tell`](Self::tell) has something to log.
    pub(crate) fn is_unsignalled(&self) -> bool {
        self.unsignalled().is_some()
    }

    /// Logs that the process could not be signalled, if that is so. The caller holds no lock.
    pub(crate) fn tell(&self) {
        let failed = self.unsignalled().take();
        if let Some(error) = failed {
            log::process_not_signalled(self.pid, &error);
        }
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for the end of a process that this process has started, and takes its exit status.
    pub(crate) fn reap(&self) -> WorkerExit {
        self.handle.reap().into()
    }
}

fn number(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
