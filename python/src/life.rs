//! Workers end when their parent does, however it does.
//!
//! The parent has the writing end of a pipe that nothing is ever written to. A worker opens the
//! reading end anew, and asks the system for a signal when something happens to it, which is
//! only that the last writing end is closed; for the signal, it asks for `SIGKILL`. So there is no
//! thread in the worker, and it makes no difference what the worker is doing.
//!
//! To open the reading end anew needs `/proc`, and some sandboxes have no such signals. There, a thread of
//! the worker reads from the pipe, and kills the worker when it comes to the end of it.
//!
//! Forks of the parent close the writing end at once.
//!
//! A program may close descriptors that it does not know (`os.closerange`), and other files may have their
//! numbers then. So the pipe is known by its inode, and there is another if it is not there any more.

use crate::process_errors::os_error;
use pyo3::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

struct Life {
    reading: OwnedFd,
    /// Closed by the end of the process.
    writing: OwnedFd,
    /// The pipe, which tells both ends from other files.
    inode: (u64, u64),
}

impl Life {
    fn begin() -> io::Result<Self> {
        let (reading, writing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let inode = inode(reading.as_fd()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            reading,
            writing,
            inode,
        })
    }

    /// Whether nobody has closed the descriptors.
    fn is_there(&self) -> bool {
        let is_ours = |end: &OwnedFd| inode(end.as_fd()) == Some(self.inode);
        is_ours(&self.reading) && is_ours(&self.writing)
    }

    /// Leaves the descriptors alone that others may have by now, and closes what is still there.
    fn abandon(self) {
        for end in [self.reading, self.writing] {
            if inode(end.as_fd()) != Some(self.inode) {
                mem::forget(end);
            }
        }
    }
}

/// Returns the numbers that tell a file from others; none if there is no file.
fn inode(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(fd).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

static LIFE: Mutex<Option<Life>> = Mutex::new(None);

fn life() -> MutexGuard<'static, Option<Life>> {
    LIFE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reading end of this process's pipe, for its workers.
#[pyfunction]
pub(crate) fn life_of_this_process() -> PyResult<i32> {
    let mut life = life();
    if let Some(closed) = life.take_if(|life| !life.is_there()) {
        closed.abandon();
    }
    if let Some(life) = &*life {
        return Ok(life.reading.as_raw_fd());
    }
    let life = life.insert(Life::begin().map_err(|error| os_error(&error))?);
    Ok(life.reading.as_raw_fd())
}

/// Has this process killed at the end of the one whose pipe it is.
#[pyfunction]
pub(crate) fn live_no_longer_than(pipe: i32) -> PyResult<()> {
    // SAFETY: the pipe is open while this runs: the caller has it.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    let kept = match ask_for_signal(pipe) {
        Ok(own) => own,
        Err(_) => watch_by_thread(pipe).map_err(|error| os_error(&error))?,
    };
    // It is open as long as the process.
    mem::forget(kept);
    Ok(())
}

/// Asks the system to send a signal to this process when the pipe comes to its end.
fn ask_for_signal(pipe: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    /// Not in `libc` for all systems: which signal is sent for a file.
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
    // It may have ended before.
    if matches!(rustix::io::read(&own, &mut [0; 1]), Ok(0)) {
        end();
    }
    Ok(Some(own))
}

/// Starts a thread that waits for the end of the pipe, and then ends this process.
fn watch_by_thread(pipe: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    /// It needs next to nothing.
    const STACK: usize = 64 * 1024;
    let own = pipe.try_clone_to_owned()?;
    let wait = move || {
        loop {
            match rustix::io::read(&own, &mut [0; 1]) {
                Ok(0) => end(),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Somebody has closed it: what was to be watched is gone.
                Err(_) => return,
            }
        }
    };
    // Signals are for the threads of the interpreter: the new thread has all of them blocked.
    let blocked = block_signals(None);
    let started = thread::Builder::new()
        .name(String::from("cf-parent"))
        .stack_size(STACK)
        .spawn(wait);
    block_signals(Some(&blocked));
    started.map(|_| None)
}

/// Blocks all signals for the calling thread, or those that are given. Returns which were blocked.
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

/// Ends this process as the system would have.
fn end() -> ! {
    // SAFETY: they have no conditions.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        libc::_exit(1)
    }
}

/// In the child of a fork: its end is not the parent's.
pub(crate) fn forget() {
    if let Ok(mut life) = LIFE.try_lock()
        && let Some(life) = life.take()
    {
        if !life.is_there() {
            life.abandon();
            return;
        }
        // The reading end may be what the child becomes a worker with.
        mem::forget(life.reading);
    }
}
