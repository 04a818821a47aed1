//! Long buffers: segments of shared memory that are passed from process to process.
//!
//! | file | holds |
//! |---|---|
//! | `segment.rs` | segments, as their sender has them |
//! | `received.rs` | the same as their receiver has them |
//!
//! # Protocol
//! What is too long to run through a stream with profit is an *attachment* of a frame. The sender
//! copies it into a segment, a file in memory, and passes the file through the *lane*, a socket
//! that carries nothing else, before it writes the frame. Frames say whether they have an
//! attachment; stream and lane both keep the order, so that each finds its own.
//!
//! The receiver maps the segment *privately*: what it writes is its own, and a fork of it has its
//! own copy, as of any other memory. It closes the file at once, and unmaps the memory when nobody
//! uses the buffer any more. Then it *releases* the segment, by a frame before the next that
//! goes back anyway, and the sender fills it again, without the system having to find and clear
//! pages for it. Segments beyond a limit are given away instead: the sender forgets them, and the
//! memory is free when the receiver has unmapped it.
//!
//! # Invariants
//! 1. The sender does not touch a segment between passing it and its release.
//! 2. What was mapped while the receiver forked is not used again: the fork may still read it.
//! 3. Segments are sealed against being cut off, which the receiver checks: who reads one is not
//!    killed for it by `SIGBUS`. Their pages are there before anything is written.
//! 4. A process that is a fork has no part in it, and takes no lock that is here.

use super::received::{Received, Releases};
use super::segment::Attachment;
use super::socket::{Packet, Socket};
use rustix::io::Errno;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// One end of the socket that attachments come through.
#[derive(Debug)]
pub(in crate::process) struct Lane {
    socket: Socket,
    releases: Arc<Releases>,
}

impl Lane {
    /// Both ends, the other as it is sent to a worker.
    pub(in crate::process) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = Socket::pair()?;
        Ok((Self::new(ours), theirs.into_fd()))
    }

    /// The end that a worker has got.
    pub(in crate::process) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Socket::from_fd(fd).map(Self::new)
    }

    fn new(socket: Socket) -> Self {
        if !SPARE.is_there() {
            SPARE.open(socket.as_fd());
        }
        Self {
            socket,
            releases: Arc::default(),
        }
    }

    /// What was released since it was told.
    pub(in crate::process) fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Passes an attachment. If there are too many on their way, waits up to `patience`.
    ///
    /// # Errors
    /// When the other side is there no more.
    pub(in crate::process) fn send(
        &self,
        attachment: &Attachment,
        patience: Duration,
    ) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(1);
        let number = attachment.number().to_ne_bytes();
        let message = [number, (attachment.len() as u64).to_ne_bytes()].concat();
        let file = attachment.file();
        let begun = Instant::now();
        loop {
            match self.socket.try_send(&message, file) {
                Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOMEM | Errno::NOBUFS)
                    if begun.elapsed() < patience =>
                {
                    // Nothing tells when there are fewer files on their way.
                    thread::sleep(PAUSE);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(()) => return Ok(()),
                // The other side shall know at least that there was one.
                Err(_) => return Ok(self.socket.try_send(&message, None)?),
            }
        }
    }

    /// Takes the next attachment, which must be there.
    ///
    /// # Errors
    /// When it is not, which is against the protocol. The inner error is why this one could not be
    /// had.
    pub(in crate::process) fn receive(&self) -> io::Result<io::Result<Received>> {
        SPARE.close();
        let Packet::Message(message, file) = self.socket.receive(false)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let parsed = message
            .split_first_chunk()
            .and_then(|(number, rest)| Some((*number, *rest.first_chunk()?)));
        let (number, length) = parsed.ok_or(io::ErrorKind::InvalidData)?;
        let file = file.ok_or_else(|| Errno::MFILE.into());
        let received = file.and_then(|file| {
            let (length, number) = (u64::from_ne_bytes(length), u64::from_ne_bytes(number));
            Received::new(file, length, number, &self.releases)
        });
        SPARE.open(self.socket.as_fd());
        Ok(received)
    }
}

/// A file descriptor that is kept for the moment in which there is no other: without one, an
/// attachment could not be received, and would be lost.
///
/// A program may close descriptors that it does not know, and another file may have the number then:
/// a descriptor is closed only if it is still that of the socket that was kept. The lock is only tried, as
/// another thread may have held it when the process forked: a thread that does not get the
/// lock does without the descriptor.
struct Spare(Mutex<Option<(OwnedFd, u64)>>);

static SPARE: Spare = Spare(Mutex::new(None));

/// Returns the number that tells a socket from others.
fn inode(socket: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino)
}

impl Spare {
    fn is_there(&self) -> bool {
        self.0.try_lock().is_ok_and(|kept| kept.is_some())
    }

    fn close(&self) {
        let kept = self.0.try_lock().ok().and_then(|mut kept| kept.take());
        if let Some((fd, socket)) = kept
            && inode(fd.as_fd()) != Some(socket)
        {
            mem::forget(fd);
        }
    }

    fn open(&self, any: BorrowedFd<'_>) {
        self.close();
        if let (Ok(fd), Some(socket)) = (any.try_clone_to_owned(), inode(any))
            && let Ok(mut kept) = self.0.try_lock()
            && kept.is_none()
        {
            *kept = Some((fd, socket));
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::process::channel::{Lent, Segments};

    const LENGTH: usize = 200_000;

    struct Ends {
        segments: Arc<Segments>,
        sender: Lane,
        receiver: Lane,
        lent: Lent,
    }

    impl Ends {
        fn new(segments: Arc<Segments>) -> Self {
            let (sender, receiver) = Lane::pair().unwrap();
            let receiver = Lane::from_fd(receiver).unwrap();
            let lent = Lent::default();
            Self {
                segments,
                sender,
                receiver,
                lent,
            }
        }

        /// Passes `LENGTH` such bytes.
        fn pass(&mut self, byte: u8) -> (u64, Received) {
            let bytes = vec![byte; LENGTH];
            let mut attachment = self.segments.allocate(LENGTH).unwrap();
            // SAFETY: there are so many.
            unsafe { attachment.fill(0, bytes.as_ptr(), LENGTH) };
            self.sender.send(&attachment, Duration::ZERO).unwrap();
            let number = attachment.number();
            self.lent.note_kept(Arc::new(attachment));
            let received = self.receiver.receive().unwrap().unwrap();
            assert!(content(&received).iter().all(|there| *there == byte));
            (number, received)
        }

        /// Tells the sender what was released.
        fn tell(&mut self) -> usize {
            let released = self.receiver.releases().take().unwrap_or_default();
            self.lent.released(&released).len()
        }
    }

    fn content(received: &Received) -> &[u8] {
        // SAFETY: so many are there.
        unsafe { std::slice::from_raw_parts(received.start(), received.len()) }
    }

    fn roomy() -> Arc<Segments> {
        Segments::new(1 << 24, 8)
    }

    #[test]
    fn a_segment_is_used_again_once_it_is_released() {
        let mut ends = Ends::new(roomy());
        let (first, received) = ends.pass(1);
        let (second, other) = ends.pass(2);
        assert_ne!(first, second);
        assert_eq!(ends.tell(), 0);
        assert!(content(&received).iter().all(|byte| *byte == 1));
        drop(received);
        assert_eq!(ends.tell(), 1);
        assert_eq!(ends.pass(3).0, first);
        assert!(content(&other).iter().all(|byte| *byte == 2));
    }

    #[test]
    fn what_the_receiver_writes_is_its_own() {
        let mut ends = Ends::new(roomy());
        let mut attachment = ends.segments.allocate(8).unwrap();
        // SAFETY: there are so many bytes.
        unsafe { attachment.fill(0, b"original".as_ptr(), 8) };
        let received = |ends: &mut Ends| {
            ends.sender.send(&attachment, Duration::ZERO).unwrap();
            ends.receiver.receive().unwrap().unwrap()
        };
        let first = received(&mut ends);
        // SAFETY: eight bytes are there, and nobody else has them.
        unsafe { std::ptr::copy_nonoverlapping(b"scribble".as_ptr(), first.start(), 8) };
        assert_eq!(content(&first), b"scribble");
        // As for a task that is repeated.
        assert_eq!(content(&received(&mut ends)), b"original");
    }

    #[test]
    fn what_is_too_much_to_be_kept_is_given_away() {
        let mut ends = Ends::new(Segments::new(LENGTH * 2, 8));
        let (kept, first) = ends.pass(1);
        let (given, second) = ends.pass(2);
        drop((first, second));
        assert_eq!(ends.tell(), 1);
        let (again, third) = ends.pass(3);
        let (other, fourth) = ends.pass(4);
        assert_eq!(again, kept);
        assert_ne!(other, given);
        assert!(content(&third).iter().all(|byte| *byte == 3));
        assert!(content(&fourth).iter().all(|byte| *byte == 4));
    }

    #[test]
    fn free_segments_make_room_for_one_of_another_length() {
        let mut ends = Ends::new(Segments::new(LENGTH * 2, 8));
        drop(ends.pass(1));
        assert_eq!(ends.tell(), 1);
        let long = ends.segments.allocate(LENGTH * 19 / 10).unwrap();
        assert_eq!(long.number(), 2);
        drop(long);
        assert_eq!(
            ends.segments.allocate(LENGTH * 19 / 10).unwrap().number(),
            2
        );
    }

    #[test]
    fn after_the_end_nothing_is_kept() {
        let mut ends = Ends::new(roomy());
        let (_, received) = ends.pass(1);
        drop(ends.pass(2));
        assert_eq!(ends.tell(), 1);
        ends.segments.close();
        drop(received);
        assert_eq!(ends.tell(), 1);
        assert!(ends.segments.is_empty());
        drop(ends.pass(3));
        assert!(ends.segments.is_empty());
    }

    #[test]
    fn there_are_no_more_files_than_allowed() {
        let segments = Segments::new(1 << 24, 4);
        let all: Vec<_> = (0..4).map(|_| segments.allocate(LENGTH).unwrap()).collect();
        assert!(segments.allocate(LENGTH).is_err());
        drop(all);
        assert!(segments.allocate(LENGTH).is_ok());
    }

    #[test]
    fn what_no_system_has_is_refused() {
        let segments = Segments::new(1 << 24, 4);
        assert!(segments.allocate(usize::MAX).is_err());
        assert!(segments.allocate(1 << 60).is_err());
        assert!(segments.allocate(LENGTH).is_ok());
    }

    #[test]
    fn an_attachment_without_its_file_is_lost_alone() {
        let mut ends = Ends::new(roomy());
        let message = [1_u64.to_ne_bytes(), 8_u64.to_ne_bytes()].concat();
        ends.sender.socket.send(&message, None).unwrap();
        assert!(ends.receiver.receive().unwrap().is_err());
        ends.pass(1);
    }

    #[test]
    fn a_file_that_can_be_cut_off_is_refused() {
        let ends = Ends::new(roomy());
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("test", flags).unwrap();
        rustix::fs::ftruncate(&file, 8).unwrap();
        let message = [1_u64.to_ne_bytes(), 8_u64.to_ne_bytes()].concat();
        ends.sender
            .socket
            .send(&message, Some(file.as_fd()))
            .unwrap();
        let refused = ends.receiver.receive().unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_not_there_is_against_the_protocol() {
        let ends = Ends::new(roomy());
        assert!(ends.receiver.receive().is_err());
        ends.sender.socket.wake().unwrap();
        assert!(ends.receiver.receive().is_err());
    }

    #[test]
    fn releases_are_told_some_at_a_time() {
        let segments = Segments::new(1 << 26, 400);
        let mut ends = Ends::new(segments);
        let all: Vec<_> = (0..100).map(|_| ends.pass(1)).collect();
        drop(all);
        assert_eq!(ends.tell(), Releases::MOST);
        assert_eq!(ends.tell(), 100 - Releases::MOST);
        assert_eq!(ends.tell(), 0);
    }
}
