//! How a process is watched, signalled and reaped.
//!
//! The system's own handle of a process, a pidfd, is the first choice. Sandboxes and old kernels refuse
//! the call, and at the limit of descriptors there is none left. Then a process is known by its number
//! only:
//!
//! | step | with a pidfd | by number |
//! |---|---|---|
//! | notice the end | the pidfd is readable | [`Handle::has_ended`] asks, at most [`CHECK`] later |
//! | signal | never hits another process | asks first whether the process is there |
//! | take the exit status | `waitid` by pidfd | `waitid` by number |
//!
//! # Invariants
//! 1. A number is signalled only before the process was reaped here: both steps are under one lock.
//! 2. The exit status is taken once.

#![forbid(unsafe_code)]

use super::error::WorkerExit;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest time between two looks at processes that are known by number.
pub(super) const CHECK: Duration = Duration::from_millis(50);
/// The same for those that have closed their socket, and so are about to end.
pub(super) const CHECK_SOON: Duration = Duration::from_millis(2);

/// A process, until its exit status is taken.
#[derive(Debug)]
pub(super) struct Handle {
    pid: Pid,
    /// None where the system has none to give.
    pidfd: Option<OwnedFd>,
    /// Whether this process has taken the exit status.
    reaped: Mutex<bool>,
}

impl Handle {
    /// Opens a process that was started and not reaped.
    pub(super) fn open(pid: Pid) -> Self {
        // Without a pidfd, for any reason, the number is enough.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        Self::new(pid, pidfd)
    }

    /// Keeps a process by its number, which costs no descriptor.
    pub(super) fn by_number(pid: Pid) -> Self {
        Self::new(pid, None)
    }

    /// Keeps a process whose pidfd another one has sent, if it had one.
    pub(super) fn new(pid: Pid, pidfd: Option<OwnedFd>) -> Self {
        Self {
            pid,
            pidfd,
            reaped: Mutex::new(false),
        }
    }

    /// Returns the descriptor that is readable once the process has ended; none without a pidfd.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether the process has ended, be it reaped or not.
    pub(super) fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.pid), look) {
            Ok(status) => status.is_some(),
            // It is no child of this process, or somebody else has reaped it.
            Err(Errno::CHILD) => {
                let there = rustix::process::test_kill_process(self.pid);
                there == Err(Errno::SRCH)
            }
            Err(_) => false,
        }
    }

    /// Sends a signal. Nothing happens if the process has ended.
    ///
    /// # Errors
    /// Why the system refuses.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let sent = match &self.pidfd {
            Some(pidfd) => rustix::process::pidfd_send_signal(pidfd, signal),
            None => Err(Errno::NOSYS),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => return Ok(()),
            // The call itself may be refused.
            Err(_) => {}
        }
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if *reaped || self.has_ended() {
            return Ok(());
        }
        match rustix::process::kill_process(self.pid, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Waits for the end of a child of this process, and takes its exit status.
    pub(super) fn reap(&self) -> WorkerExit {
        if let Some(pidfd) = self.readable() {
            match wait_for(&WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
                Ok(exit) => return exit,
                // Somebody else has taken it.
                Err(Errno::CHILD) => return WorkerExit::Unknown,
                // The call is refused.
                Err(_) => {}
            }
        }
        let by_number = &WaitId::Pid(self.pid);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        if wait_for(by_number, look).is_err() {
            return WorkerExit::Unknown;
        }
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *reaped = true;
        let take = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        wait_for(by_number, take).unwrap_or(WorkerExit::Unknown)
    }
}

fn wait_for(id: &WaitId<'_>, options: WaitIdOptions) -> Result<WorkerExit, Errno> {
    loop {
        match rustix::process::waitid(id.clone(), options) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) => return Ok(WorkerExit::Unknown),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn exit_of(status: &WaitIdStatus) -> WorkerExit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => WorkerExit::Code(code),
        (None, Some(signal)) => WorkerExit::Signal(signal),
        (None, None) => WorkerExit::Unknown,
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::Instant;

    /// A process that lives until its standard input ends.
    fn cat() -> (Child, Pid) {
        let child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        (child, pid)
    }

    fn both(pid: Pid) -> [Handle; 2] {
        [Handle::open(pid), Handle::by_number(pid)]
    }

    #[test]
    fn a_process_is_signalled_and_reaped_with_a_pidfd_and_without() {
        for place in 0..2 {
            let (_child, pid) = cat();
            let handle = &both(pid)[place];
            assert!(!handle.has_ended());
            handle.signal(Signal::KILL).unwrap();
            let exit = handle.reap();
            assert_eq!(exit, WorkerExit::Signal(Signal::KILL.as_raw()));
            assert!(handle.has_ended());
            // Its number is anybody's now.
            assert_eq!(handle.signal(Signal::KILL), Ok(()));
            assert_eq!(handle.reap(), WorkerExit::Unknown);
        }
    }

    #[test]
    fn the_end_of_a_process_is_noticed_before_it_is_reaped() {
        for place in 0..2 {
            let (mut child, pid) = cat();
            let handle = &both(pid)[place];
            drop(child.stdin.take());
            let start = Instant::now();
            while !handle.has_ended() {
                assert!(start.elapsed() < Duration::from_mins(1));
                thread::yield_now();
            }
            assert_eq!(handle.reap(), WorkerExit::Code(0));
        }
    }
}
