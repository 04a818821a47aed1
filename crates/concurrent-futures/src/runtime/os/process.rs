//! Handles of processes: watching, signalling and reaping.
//!
//! The first choice is a pidfd, the system's own handle of a process. Sandboxes and old kernels refuse it, and at
//! the limit of descriptors there is none left. Then a process is known by its number only:
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

#[cfg(target_os = "linux")]
use crate::runtime::os::{
    backend,
    fallback::{self, Job},
};
use rustix::io::Errno;
pub(crate) use rustix::process::{Pid, Signal};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest time between two looks at processes that are known by number.
pub(crate) const CHECK: Duration = Duration::from_millis(50);
/// The longest time between two looks at processes that have closed their socket, and so are about to end.
pub(crate) const CHECK_SOON: Duration = Duration::from_millis(2);

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The process ended by itself, with this exit code.
    Code(i32),
    /// The process was killed by this signal.
    Signal(i32),
    /// Other code of the program has taken the exit status.
    Unknown,
}

/// A process, until its exit status is taken.
#[derive(Debug)]
pub(crate) struct Handle {
    pid: Pid,
    /// The pidfd; none if the process is known by its number.
    pidfd: Option<OwnedFd>,
    /// Whether this process has taken the exit status.
    reaped: Mutex<bool>,
}

impl Handle {
    /// Opens a process that was started and not reaped.
    pub(crate) fn open(pid: Pid) -> Self {
        Self::new(pid, pidfd(pid))
    }

    /// Makes the handle of a process by its number, which costs no descriptor.
    pub(crate) fn by_number(pid: Pid) -> Self {
        Self::new(pid, None)
    }

    /// Makes the handle of a process whose pidfd another process has sent, if that process had one.
    pub(crate) fn new(pid: Pid, pidfd: Option<OwnedFd>) -> Self {
        Self {
            pid,
            pidfd,
            reaped: Mutex::new(false),
        }
    }

    /// Returns the descriptor that is readable once the process has ended; none without a pidfd.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether the process has ended, be it reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.pid), look) {
            Ok(status) => status.is_some(),
            // The process is no child of this one, or other code has reaped it.
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
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            match rustix::process::pidfd_send_signal(pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => return Ok(()),
                Err(error) => fallback::note(Job::Signals, &error),
            }
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
    pub(crate) fn reap(&self) -> Exit {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = self.readable() {
            match wait_for(&WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
                Ok(exit) => return exit,
                // Other code has taken the status.
                Err(Errno::CHILD) => return Exit::Unknown,
                // The call is refused.
                Err(_) => {}
            }
        }
        let by_number = &WaitId::Pid(self.pid);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        if wait_for(by_number, look).is_err() {
            return Exit::Unknown;
        }
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *reaped = true;
        let take = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        wait_for(by_number, take).unwrap_or(Exit::Unknown)
    }
}

/// Returns the pidfd of a process, if it can be had. The number is enough without one, for any reason.
#[cfg(target_os = "linux")]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    if backend::is_portable() {
        return None;
    }
    let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    opened
        .inspect_err(|error| fallback::note(Job::Watch, error))
        .ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

/// Gives a program the name by which it is listed.
pub(crate) fn name_as(command: &mut Command, name: &OsStr) {
    command.arg0(name);
}

fn wait_for(id: &WaitId<'_>, options: WaitIdOptions) -> Result<Exit, Errno> {
    loop {
        match rustix::process::waitid(id.clone(), options) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) => return Ok(Exit::Unknown),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::process::{Child, Stdio};
    use std::thread;
    use std::time::Instant;

    /// Starts a process that lives until its standard input ends.
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
            assert_eq!(exit, Exit::Signal(Signal::KILL.as_raw()));
            assert!(handle.has_ended());
            // The system may have given the number to another process.
            assert_eq!(handle.signal(Signal::KILL), Ok(()));
            assert_eq!(handle.reap(), Exit::Unknown);
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
                assert!(start.elapsed() < Duration::from_secs(60));
                thread::yield_now();
            }
            assert_eq!(handle.reap(), Exit::Code(0));
        }
    }
}
