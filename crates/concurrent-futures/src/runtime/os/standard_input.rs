//! The standard input of a process, through which a program that is started gets a socket.

#![forbid(unsafe_code)]

use rustix::fs::{FileType, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Returns the number by which [`take_socket`] knows a socket.
pub(crate) fn identity(socket: &OwnedFd) -> io::Result<u64> {
    crate::runtime::os::files::inode(socket.as_fd())
}

/// Takes the socket with this number, if it is the standard input, which is empty then.
pub(crate) fn take_socket(identity: u64) -> Option<OwnedFd> {
    let input = rustix::stdio::stdin();
    let stat = rustix::fs::fstat(input).ok()?;
    let is_ours =
        FileType::from_raw_mode(stat.st_mode) == FileType::Socket && stat.st_ino == identity;
    if !is_ours {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(input, 3).ok()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(nothing).ok()?;
    Some(socket)
}
