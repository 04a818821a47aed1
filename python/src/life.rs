//! Workers end when their parent does, however it does.
//!
//! The parent has the writing end of a pipe that nothing is ever written to. A worker opens the
//! reading end anew, and asks the system for a signal when something happens to it, which is
//! only that the last writing end is closed; for the signal, it asks for `SIGKILL`. So there is no
//! thread in the worker, and it makes no difference what the worker is doing.
//!
//! Forks of the parent close the writing end at once.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Life {
    reading: OwnedFd,
    /// Closed by the end of the process.
    _writing: OwnedFd,
}

static LIFE: Mutex<Option<Life>> = Mutex::new(None);

fn life() -> MutexGuard<'static, Option<Life>> {
    LIFE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reading end of this process's pipe, for its workers.
#[pyfunction]
pub(crate) fn life_of_this_process() -> PyResult<i32> {
    let mut life = life();
    if let Some(life) = &*life {
        return Ok(life.reading.as_raw_fd());
    }
    let (reading, writing) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let life = life.insert(Life {
        reading,
        _writing: writing,
    });
    Ok(life.reading.as_raw_fd())
}

/// Has this process killed at the end of the one whose pipe it is.
#[pyfunction]
pub(crate) fn live_no_longer_than(pipe: i32) -> PyResult<()> {
    /// Not in `libc` for all systems: which signal is sent for a file.
    const F_SETSIG: i32 = 10;
    // SAFETY: the pipe is open while this runs: the caller has it.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let own = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    let fd = own.as_raw_fd();
    // SAFETY: calls that set properties of a file of ours.
    let set = unsafe {
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, F_SETSIG, libc::SIGKILL) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) == 0
    };
    if !set {
        return Err(PyOSError::new_err(io::Error::last_os_error().to_string()));
    }
    // It may have ended before.
    if matches!(rustix::io::read(&own, &mut [0; 1]), Ok(0)) {
        // SAFETY: it has no conditions.
        unsafe { libc::_exit(1) };
    }
    // It is open as long as the process.
    mem::forget(own);
    Ok(())
}

/// In the child of a fork: its end is not the parent's.
pub(crate) fn forget() {
    if let Ok(mut life) = LIFE.try_lock()
        && let Some(life) = life.take()
    {
        // The reading end may be what the child becomes a worker with.
        mem::forget(life.reading);
    }
}
