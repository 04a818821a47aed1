//! Descriptors that no program inherits, and the identity of files.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Returns the numbers that identify a file.
///
/// # Errors
/// When there is no such descriptor.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        reason = "the types differ between systems"
    )]
    Ok((stat.st_dev as u64, stat.st_ino as u64))
}

/// Makes a pipe: the reading end and the writing end.
///
/// # Errors
/// When the system has no descriptors left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    return Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?);
    #[cfg(target_vendor = "apple")]
    {
        let (reading, writing) = rustix::pipe::pipe()?;
        keep_private(&reading)?;
        keep_private(&writing)?;
        Ok((reading, writing))
    }
}

/// Keeps programs from inheriting a descriptor. A program that is started between the making of the descriptor and
/// this call inherits it.
#[cfg(target_vendor = "apple")]
pub(crate) fn keep_private(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?)
}
