//! The channel for segments of shared memory, which are passed from process to process.
//!
//! | file | holds |
//! |---|---|
//! | `lent.rs` | segments, as their sender has them |
//! | `mapped.rs` | segments, as their receiver has them |
//!
//! # Protocol
//! A buffer that is too long for the stream is an *attachment* of a frame. The sender copies the buffer into a
//! segment, a file in memory. It passes the file through a socket that carries nothing else, before it writes the
//! frame. Frames say whether they have an attachment. Stream and socket both keep the order, so that each frame
//! finds its own attachment.
//!
//! The receiver maps the segment *privately*. The receiver's writes stay in its process, and a fork gets a
//! copy, as of any other memory. The receiver closes the file at once, and unmaps the memory when the buffer
//! is not used any more. Then it *releases* the segment, by a frame before the next that goes back anyway.
//! The sender fills the segment again, and the system need not find and clear pages for it. Segments beyond a
//! limit are given away instead: the sender forgets them, and the memory is free when the receiver has
//! unmapped it.
//!
//! # Invariants
//! 1. The sender does not touch a segment between passing it and its release.
//! 2. Segments that were mapped while the receiver forked are not used again: the fork may still read them.
//! 3. Segments are sealed against being cut off, and the receiver checks the seal. So no reader of a segment
//!    is killed by `SIGBUS`. Sockets of bytes carry files without seals: these have no name by which another
//!    process could cut them off. All pages are there before anything is written.
//! 4. A process that is a fork has no part in the protocol, and takes no lock of this module.

use crate::process::channel::segments::lent::Attachment;
use crate::process::channel::segments::mapped::{MappedSegment, Releases};
use crate::runtime::os::socket::{Packet, Socket};
use crate::runtime::os::{Errno, files};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// One end of the socket that attachments come through.
#[derive(Debug)]
pub(crate) struct SegmentChannel {
    socket: Socket,
    releases: Arc<Releases>,
}

impl SegmentChannel {
    /// Makes both ends: ours, and the descriptor of the worker's end.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = Socket::pair()?;
        Ok((Self::new(ours), theirs.into_fd()))
    }

    /// Makes the end that a worker has received.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
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

    /// Returns the releases that the sender has not been told of.
    pub(crate) fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Passes an attachment. If there are too many on their way, waits up to `patience`.
    ///
    /// # Errors
    /// When the other side is there no more.
    pub(crate) fn send(&self, attachment: &Attachment, patience: Duration) -> io::Result<()> {
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
    pub(crate) fn receive(&self) -> io::Result<io::Result<MappedSegment>> {
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
            // The makers of sockets of bytes have no files that are sealed.
            let must_be_sealed = !self.socket.carries_bytes();
            MappedSegment::new(file, length, number, &self.releases, must_be_sealed)
        });
        SPARE.open(self.socket.as_fd());
        Ok(received)
    }
}

/// A descriptor in reserve, for a process that has no other: without it, an attachment could not be received,
/// and would be lost.
///
/// A program may close descriptors that it does not know, and another file may get the number then. So the
/// descriptor is closed only if it is still that of the kept socket. The lock is only tried, as another
/// thread may have held it when the process forked. A thread that does not get the lock does without the
/// descriptor.
struct Spare(Mutex<Option<(OwnedFd, u64)>>);

static SPARE: Spare = Spare(Mutex::new(None));

impl Spare {
    fn is_there(&self) -> bool {
        self.0.try_lock().is_ok_and(|kept| kept.is_some())
    }

    fn close(&self) {
        let kept = self.0.try_lock().ok().and_then(|mut kept| kept.take());
        if let Some((fd, socket)) = kept
            && files::inode(fd.as_fd()).ok() != Some(socket)
        {
            mem::forget(fd);
        }
    }

    fn open(&self, any: BorrowedFd<'_>) {
        self.close();
        if let (Ok(fd), Ok(socket)) = (any.try_clone_to_owned(), files::inode(any))
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
    use crate::process::channel::{LentSegments, Segments};

    const LENGTH: usize = 200_000;

    struct Ends {
        segments: Arc<Segments>,
        sender: SegmentChannel,
        receiver: SegmentChannel,
        lent: LentSegments,
    }

    impl Ends {
        fn new(segments: Arc<Segments>) -> Self {
            let (sender, receiver) = SegmentChannel::pair().unwrap();
            let receiver = SegmentChannel::from_fd(receiver).unwrap();
            let lent = LentSegments::default();
            Self {
                segments,
                sender,
                receiver,
                lent,
            }
        }

        /// Passes an attachment of `LENGTH` bytes of this value.
        fn pass(&mut self, byte: u8) -> (u64, MappedSegment) {
            let bytes = vec![byte; LENGTH];
            let mut attachment = self.segments.allocate(LENGTH).unwrap();
            // SAFETY: `bytes` holds `LENGTH` bytes.
            unsafe { attachment.fill(0, bytes.as_ptr(), LENGTH) };
            self.sender.send(&attachment, Duration::ZERO).unwrap();
            let number = attachment.number();
            self.lent.note_kept(Arc::new(attachment));
            let received = self.receiver.receive().unwrap().unwrap();
            assert!(content(&received).iter().all(|there| *there == byte));
            (number, received)
        }

        /// Tells the sender which segments were released.
        fn tell(&mut self) -> usize {
            let released = self.receiver.releases().take().unwrap_or_default();
            self.lent.released(&released).len()
        }
    }

    fn content(received: &MappedSegment) -> &[u8] {
        // SAFETY: `MappedSegment` maps `len` bytes from `start`.
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
    fn the_receivers_writes_do_not_reach_the_sender() {
        let mut ends = Ends::new(roomy());
        let mut attachment = ends.segments.allocate(8).unwrap();
        // SAFETY: the text has eight bytes.
        unsafe { attachment.fill(0, b"original".as_ptr(), 8) };
        let received = |ends: &mut Ends| {
            ends.sender.send(&attachment, Duration::ZERO).unwrap();
            ends.receiver.receive().unwrap().unwrap()
        };
        let first = received(&mut ends);
        // SAFETY: both sides have eight bytes, and no other thread or process writes to the mapping.
        unsafe { std::ptr::copy_nonoverlapping(b"scribble".as_ptr(), first.start(), 8) };
        assert_eq!(content(&first), b"scribble");
        // As for a task that is repeated.
        assert_eq!(content(&received(&mut ends)), b"original");
    }

    #[test]
    fn segments_beyond_the_limit_are_given_away() {
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
    fn an_allocation_larger_than_any_memory_is_refused() {
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
    fn a_file_that_can_be_cut_off_is_refused_where_there_are_others() {
        let ends = Ends::new(roomy());
        if ends.receiver.socket.carries_bytes() {
            return;
        }
        let file = files::unsealed(8);
        let message = [1_u64.to_ne_bytes(), 8_u64.to_ne_bytes()].concat();
        ends.sender
            .socket
            .send(&message, Some(file.as_fd()))
            .unwrap();
        let refused = ends.receiver.receive().unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn receiving_without_an_attachment_is_an_error() {
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
