//! The death of a worker together with its parent.
//!
//! | choice | is |
//! |---|---|
//! | first | the system kills the worker when the thread that started it ends (`PR_SET_PDEATHSIG`) |
//! | first, for workers that any thread may start | the system sends `SIGKILL` when something happens to a pipe of the parent (`F_SETSIG`), which can only be its end |
//! | portable | a thread of the worker waits for the end of its sockets and pipes, and kills the worker |
//!
//! The other ends belong to the parent alone, and their end is the parent's. The process that forks workers has one
//! thread, which reads from its socket between forks, and so notices the end by itself. The process has a [`Life`], whose
//! end is that of its workers.
//!
//! # A parent that ends while a worker starts
//! No system tells a process of an end that came before the process has asked. So each process looks once after it has
//! asked: whether its sockets and pipes have ended, and whether its parent is another process now. A worker that starts
//! without a parent ends before it runs any code of a program. The initializer may be there already, or a call that takes
//! forever. If the parent was about to start one more process at its end, that process has the other ends until it
//! executes its program. Then a worker that was started by a program in between, or might have been, ends a moment later.

use crate::runtime::os::backend;
use crate::runtime::os::descriptors;
#[cfg(target_os = "linux")]
use crate::runtime::os::fallback::{self, Job};
use crate::runtime::os::poll::{has_end, wait_for_end};
use crate::runtime::os::process::Pid;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::thread;

/// Asks the system to kill this process when the thread that started it ends. Returns whether the system does so.
fn ask_system() -> bool {
    #[cfg(target_os = "linux")]
    if !backend::is_portable() {
        let signal = Some(rustix::process::Signal::KILL);
        match rustix::process::set_parent_process_death_signal(signal) {
            Ok(()) => return true,
            Err(error) => fallback::note(Job::ParentDeath, &error),
        }
    }
    false
}

/// The process that the calling process is to end with.
#[derive(Debug)]
pub(crate) enum Parent {
    /// The process has forked this one.
    Forker(Forker),
    /// The process has started this one, maybe by another program. Its number, if that is known.
    Starter(Option<Pid>),
}

/// Kills this process when its parent ends, which has the other ends of these descriptors. Returns false if the parent
/// has ended before.
///
/// # Errors
/// When there can be no thread for it.
pub(crate) fn end_with_parent(ends: &[BorrowedFd<'_>], parent: &Parent) -> io::Result<bool> {
    let by_system = ask_system();
    let pipe = match parent {
        Parent::Forker(forker) => forker.pipe.as_ref(),
        Parent::Starter(_) => None,
    };
    let ends: Vec<BorrowedFd<'_>> = ends.iter().copied().chain(pipe.map(AsFd::as_fd)).collect();
    if has_end(&ends) {
        return Ok(false);
    }
    let is_there = match parent {
        Parent::Forker(forker) if !is_parent(forker.pid) => return Ok(false),
        Parent::Forker(_) => true,
        // Another one is a program in between, for whose end the system has been asked, or the parent has ended. In
        // this case, a process that the parent was about to start has the other ends for a moment.
        Parent::Starter(pid) => pid.is_some_and(is_parent),
    };
    if !(by_system && is_there) {
        let ends: io::Result<Vec<OwnedFd>> =
            ends.iter().map(BorrowedFd::try_clone_to_owned).collect();
        watch(ends?)?;
    }
    Ok(true)
}

/// Kills this process when the owner of a pipe ends, which never writes to the pipe. Returns a descriptor that must stay
/// open for that, if there is one.
///
/// `forker` is the number of the owner if it has forked this process. Other forks of the owner may have the pipe for a
/// moment, so that its end comes later than the owner's.
///
/// # Errors
/// When there can be no thread for it.
pub fn end_with_pipe(pipe: BorrowedFd<'_>, forker: Option<i32>) -> io::Result<Option<OwnedFd>> {
    // The choice of the pool is known only later: both read the same environment.
    let _ = backend::choose();
    #[cfg(target_os = "linux")]
    if !backend::is_portable() {
        match ask_for_signal(pipe) {
            Ok(own) => {
                end_without(pipe, forker);
                return Ok(Some(own));
            }
            Err(error) => fallback::note(Job::ParentDeath, &error),
        }
    }
    end_without(pipe, forker);
    watch(vec![pipe.try_clone_to_owned()?])?;
    Ok(None)
}

/// Ends this process if the owner of the pipe has ended before.
fn end_without(pipe: BorrowedFd<'_>, forker: Option<i32>) {
    let pid = forker.and_then(Pid::from_raw);
    if has_end(&[pipe]) || pid.is_some_and(|pid| !is_parent(pid)) {
        end();
    }
}

/// Returns whether a process is the parent of this one. A process that has forked this one is its parent until its end.
fn is_parent(pid: Pid) -> bool {
    rustix::process::getppid() == Some(pid)
}

/// Asks the system to send a signal to this process when the pipe comes to its end. Opens the pipe anew, by its name in
/// `/proc`, as the property is that of the open file.
#[cfg(target_os = "linux")]
fn ask_for_signal(pipe: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    /// The command that sets the signal of a file; `libc` does not have it for all systems.
    const F_SETSIG: i32 = 10;
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let own = rustix::fs::open(path, flags, Mode::empty())?;
    let fd = own.as_raw_fd();
    // SAFETY: calls that set properties of a file of ours.
    let set = unsafe {
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, F_SETSIG, libc::SIGKILL) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) == 0
    };
    if !set {
        return Err(io::Error::last_os_error());
    }
    Ok(own)
}

/// Starts a thread that kills this process at the end of one of the descriptors.
fn watch(ends: Vec<OwnedFd>) -> io::Result<()> {
    /// The size of the thread's stack.
    const STACK: usize = 64 * 1024;
    let wait = move || {
        let ends: Vec<BorrowedFd<'_>> = ends.iter().map(AsFd::as_fd).collect();
        if wait_for_end(&ends) {
            end();
        }
    };
    // Signals are for the other threads: the new thread has all of them blocked.
    let blocked = block_signals(None);
    let started = thread::Builder::new()
        .name(String::from("cf-parent"))
        .stack_size(STACK)
        .spawn(wait);
    block_signals(Some(&blocked));
    started.map(drop)
}

/// The life of a process that forks workers: the workers end with it.
#[derive(Debug)]
pub(crate) struct Life {
    pid: Pid,
    /// Both ends of a pipe, if the system does not see to the end of the workers.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Life {
    /// Makes the calling process, which has one thread, end with its parent, which has the other end of the socket.
    /// Returns none if the parent has ended before.
    ///
    /// # Errors
    /// Why there is no pipe for it.
    pub(crate) fn begin(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let by_system = ask_system();
        if has_end(&[socket]) {
            return Ok(None);
        }
        let pipe = if by_system {
            None
        } else {
            Some(descriptors::pipe()?)
        };
        let pid = rustix::process::getpid();
        Ok(Some(Self { pid, pipe }))
    }

    /// Returns what a fork of the process knows of it. To be called in the fork.
    pub(crate) fn of_parent(self) -> Forker {
        Forker {
            pid: self.pid,
            // The writing end is the parent's only.
            pipe: self.pipe.map(|(reading, _)| reading),
        }
    }
}

/// The process that has forked this one.
#[derive(Debug)]
pub(crate) struct Forker {
    pid: Pid,
    /// The descriptor that ends with the process; none if the system sees to the end of its forks.
    pipe: Option<OwnedFd>,
}

/// Blocks all signals for the calling thread, or these ones. Returns the signals that were blocked before.
fn block_signals(only: Option<&libc::sigset_t>) -> libc::sigset_t {
    // SAFETY: the sets are ours, and initialised: by `sigfillset`, by an earlier call, or by zeros,
    // which are an empty set.
    unsafe {
        let mut former: libc::sigset_t = mem::zeroed();
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        let set = only.map_or(&raw const all, ptr::from_ref);
        libc::pthread_sigmask(libc::SIG_SETMASK, set, &raw mut former);
        former
    }
}

/// Ends this process as the signal would have.
fn end() -> ! {
    // SAFETY: they have no conditions.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        libc::_exit(1)
    }
}
