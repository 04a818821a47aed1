//! Ends workers when their parent ends, whatever its end.
//!
//! The parent has the writing end of a pipe, to which it never writes. The pipe ends with the parent, which kills
//! the worker, whatever the worker is doing: see the engine's `end_with_pipe`.
//!
//! Forks of the parent close the writing end at once.
//!
//! A program may close descriptors that it does not know (`os.closerange`), and other files may then get their
//! numbers. So the pipe is identified by its inode, and replaced by another if it is gone.

use crate::interp::fork::kept_across_forks;
use crate::interp::process_errors::os_error;
use concurrent_futures::engine::{end_with_pipe, identity, pipe};
use pyo3::prelude::*;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Life {
    reading: OwnedFd,
    /// The writing end, which the end of the process closes.
    writing: OwnedFd,
    /// The identity of the pipe, which distinguishes both ends from other files.
    inode: (u64, u64),
}

impl Life {
    fn begin() -> io::Result<Self> {
        let (reading, writing) = pipe()?;
        let inode = inode(reading.as_fd()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            reading,
            writing,
            inode,
        })
    }

    /// Returns whether the descriptors were not closed.
    fn is_there(&self) -> bool {
        let is_ours = |end: &OwnedFd| inode(end.as_fd()) == Some(self.inode);
        is_ours(&self.reading) && is_ours(&self.writing)
    }

    /// Leaves descriptors alone that another file may have by now, and closes those that are still ours.
    fn abandon(self) {
        for end in [self.reading, self.writing] {
            if inode(end.as_fd()) != Some(self.inode) {
                mem::forget(end);
            }
        }
    }
}

/// Returns the numbers that identify a file; none if there is no file.
fn inode(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    identity(fd).ok()
}

static LIFE: Mutex<Option<Life>> = Mutex::new(None);

fn life() -> MutexGuard<'static, Option<Life>> {
    LIFE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the reading end of this process's pipe, for its workers.
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

/// Kills this process when the owner of the pipe exits. `forker` is the owner's number, if the owner has forked this
/// process.
#[pyfunction]
#[pyo3(signature = (pipe, forker = None))]
pub(crate) fn live_no_longer_than(pipe: i32, forker: Option<i32>) -> PyResult<()> {
    // SAFETY: the pipe is open while this runs: the caller has it.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    let kept = end_with_pipe(pipe, forker).map_err(|error| os_error(&error))?;
    // It is open as long as the process.
    mem::forget(kept);
    Ok(())
}

// The child of a fork forgets the pipe, whose end is not the parent's.
kept_across_forks!(life(), Option<Life>, |life| {
    if let Some(life) = life.take() {
        if !life.is_there() {
            life.abandon();
            return;
        }
        // The reading end may be what the child becomes a worker with.
        mem::forget(life.reading);
    }
});
