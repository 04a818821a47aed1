//! Waiting for descriptors.

#![forbid(unsafe_code)]

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Waits until a descriptor is readable or the time is over. Returns which descriptors are readable, at their places.
/// A place without a descriptor is never readable.
///
/// # Errors
/// `EINTR` when a signal of the system came first; another error when the system has no memory.
pub(crate) fn poll(
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<Duration>,
) -> Result<Vec<bool>, Errno> {
    let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut watched: Vec<PollFd<'_>> = fds.iter().copied().flatten().map(watch).collect();
    // A time that the system cannot tell is none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    rustix::event::poll(&mut watched, timeout.as_ref())?;
    let mut ready = watched.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds
        .iter()
        .map(|fd| fd.is_some() && ready.next() == Some(true))
        .collect())
}

/// Waits until the other end of a socket or pipe is closed. Returns false if the descriptors are none any more, as the
/// program has closed them.
pub(crate) fn wait_for_end(fds: &[BorrowedFd<'_>]) -> bool {
    loop {
        if let Some(found) = look_for_end(fds, None) {
            return found;
        }
    }
}

/// Returns whether the other end of a socket or pipe is closed now, be there something left to read or not.
pub(crate) fn has_end(fds: &[BorrowedFd<'_>]) -> bool {
    look_for_end(fds, Some(&Timespec::default())).unwrap_or(false)
}

/// Looks for an end until the time is over. Returns none if the look has found nothing.
fn look_for_end(fds: &[BorrowedFd<'_>], timeout: Option<&Timespec>) -> Option<bool> {
    let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::empty());
    let mut watched: Vec<PollFd<'_>> = fds.iter().copied().map(watch).collect();
    match rustix::event::poll(&mut watched, timeout) {
        Ok(_) => {}
        Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => return None,
        Err(_) => return Some(false),
    }
    let found = |flags| watched.iter().any(|fd| fd.revents().intersects(flags));
    if found(PollFlags::HUP | PollFlags::ERR) {
        return Some(true);
    }
    found(PollFlags::NVAL).then_some(false)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_end_is_seen_before_what_was_written_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"unread").unwrap();
        assert!(!has_end(&[ours.as_fd()]));
        drop(theirs);
        assert!(has_end(&[ours.as_fd()]));
        assert!(wait_for_end(&[ours.as_fd()]));
    }
}
