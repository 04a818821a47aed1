//! Long buffers: segments of shared memory that are passed from process to process.
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

use super::socket::{Packet, Socket};
use crate::process::os;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Segments have a multiple of this for their size, so that they fit more than once.
const GRAIN: usize = 64 * 1024;

/// The segments of a sender, which it uses again and again.
#[derive(Debug)]
pub struct Segments {
    kept: Mutex<Kept>,
    /// How many bytes are kept for further use.
    most_bytes: usize,
    /// How many files may be open; half of them are kept.
    most_files: usize,
}

#[derive(Debug, Default)]
struct Kept {
    free: Vec<Segment>,
    /// Of all that are to be kept, used or free.
    bytes: usize,
    /// The same.
    number: usize,
    files: usize,
    next: u64,
}

/// A file in memory, mapped.
#[derive(Debug)]
struct Segment {
    file: OwnedFd,
    map: MmapRaw,
    number: u64,
    /// Whether it is used again.
    is_kept: bool,
}

impl Segments {
    /// Keeps so many bytes for further use, and has so many files at most.
    #[must_use]
    pub fn new(most_bytes: usize, most_files: usize) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            most_bytes,
            most_files,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for `length` bytes.
    ///
    /// # Errors
    /// When there are too many files already, or the system refuses memory or a file: the bytes
    /// can be sent another way.
    pub fn allocate(self: &Arc<Self>, length: usize) -> io::Result<Attachment> {
        let capacity = length
            .max(1)
            .checked_next_multiple_of(GRAIN)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let segment = match self.reserve(capacity)? {
            Reserved::Free(segment) => segment,
            Reserved::New { number, is_kept } => Segment::create(capacity, number, is_kept)
                .inspect_err(|_| self.forget(capacity, is_kept))?,
        };
        Ok(Attachment {
            segment: Some(segment),
            length,
            home: Arc::clone(self),
            is_reusable: AtomicBool::new(true),
            generation: os::generation(),
        })
    }

    fn reserve(&self, capacity: usize) -> io::Result<Reserved> {
        let mut dropped = Vec::new();
        let mut kept = self.lock();
        let fits = |segment: &&Segment| (capacity..=2 * capacity).contains(&segment.map.len());
        let best = kept
            .free
            .iter()
            .filter(fits)
            .min_by_key(|segment| segment.map.len())
            .map(|segment| segment.number);
        if let Some(place) = kept
            .free
            .iter()
            .position(|segment| Some(segment.number) == best)
        {
            return Ok(Reserved::Free(kept.free.swap_remove(place)));
        }
        // Those that do not fit make room for one that does.
        while (kept.bytes + capacity > self.most_bytes && capacity <= self.most_bytes)
            || kept.files >= self.most_files
        {
            let Some(segment) = kept.free.pop() else {
                break;
            };
            kept.forget(segment.map.len(), true);
            dropped.push(segment);
        }
        if kept.files >= self.most_files {
            return Err(Errno::MFILE.into());
        }
        let is_kept =
            kept.bytes + capacity <= self.most_bytes && kept.number < self.most_files / 2;
        if is_kept {
            kept.bytes += capacity;
            kept.number += 1;
        }
        kept.files += 1;
        kept.next += 1;
        let number = kept.next;
        drop(kept);
        drop(dropped);
        Ok(Reserved::New { number, is_kept })
    }

    /// A segment is there no more.
    fn forget(&self, capacity: usize, is_kept: bool) {
        self.lock().forget(capacity, is_kept);
    }

    fn give_back(&self, segment: Segment, is_reusable: bool) {
        if segment.is_kept && is_reusable {
            self.lock().free.push(segment);
            return;
        }
        let (capacity, is_kept) = (segment.map.len(), segment.is_kept);
        drop(segment);
        self.forget(capacity, is_kept);
    }
}

impl Kept {
    /// A segment is there no more.
    fn forget(&mut self, capacity: usize, is_kept: bool) {
        self.files -= 1;
        if is_kept {
            self.bytes -= capacity;
            self.number -= 1;
        }
    }
}

enum Reserved {
    Free(Segment),
    New { number: u64, is_kept: bool },
}

impl Segment {
    fn create(capacity: usize, number: u64, is_kept: bool) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("concurrent-futures-buffer", flags)?;
        // All of its pages: to be refused one later is to be killed.
        loop {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, capacity as u64) {
                Err(Errno::INTR) => {}
                allocated => break allocated?,
            }
        }
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
        let map = MmapOptions::new()
            .len(capacity)
            .populate()
            .map_raw(&file.as_fd())?;
        Ok(Self {
            file,
            map,
            number,
            is_kept,
        })
    }
}

/// Bytes that go with a call or an answer, in a segment.
#[derive(Debug)]
pub struct Attachment {
    /// None once it is dropped.
    segment: Option<Segment>,
    length: usize,
    home: Arc<Segments>,
    /// Whether nobody else may be looking at it once it is released.
    is_reusable: AtomicBool,
    /// Of forks: in another, it belongs to nobody.
    generation: u64,
}

impl Attachment {
    /// Copies `length` bytes from `start` to a place in it.
    ///
    /// # Panics
    /// When they do not fit in.
    ///
    /// # Safety
    /// There are so many bytes to read.
    pub unsafe fn fill(&mut self, place: usize, start: *const u8, length: usize) {
        let room = self.length.checked_sub(place);
        assert!(
            room.is_some_and(|room| length <= room),
            "buffers fit into their segment"
        );
        let Some(segment) = &self.segment else {
            return;
        };
        // SAFETY: the mapping is at least as long as `self.length`. Nobody else has the segment:
        // it was not sent, as it is not shared, or it was released. The source is promised.
        unsafe {
            let to = segment.map.as_mut_ptr().add(place);
            ptr::copy_nonoverlapping(start, to, length);
        }
    }

    /// Has it end earlier than it was allocated for.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    fn number(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.number)
    }

    /// Whether its sender waits for its release.
    fn is_kept(&self) -> bool {
        self.segment
            .as_ref()
            .is_some_and(|segment| segment.is_kept)
    }

    /// Has its segment not be used again.
    fn retire(&self) {
        // ORDERING: Relaxed: who drops it has got hold of it after that.
        self.is_reusable.store(false, Ordering::Relaxed);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(segment) = self.segment.take() else {
            return;
        };
        if self.generation != os::generation() {
            // Another thread may have held the lock when the process forked.
            return;
        }
        let is_reusable = *self.is_reusable.get_mut();
        self.home.give_back(segment, is_reusable);
    }
}

/// Attachments that were sent, and not released.
///
/// Those that are there in the end are not used again.
#[derive(Debug, Default)]
pub(in crate::process) struct Lent(Vec<Arc<Attachment>>);

impl Lent {
    /// Notes an attachment that was sent.
    pub(in crate::process) fn note(&mut self, attachment: &Arc<Attachment>) {
        self.0.push(Arc::clone(attachment));
    }

    /// The same, unless it is given away.
    pub(in crate::process) fn note_kept(&mut self, attachment: Arc<Attachment>) {
        if attachment.is_kept() {
            self.0.push(attachment);
        }
    }

    /// Takes those that the bytes of a frame release.
    pub(in crate::process) fn released(&mut self, bytes: &[u8]) -> Vec<Arc<Attachment>> {
        let mut released = Vec::new();
        for release in bytes.chunks_exact(size_of::<u64>()) {
            let release = release.try_into().map_or(0, u64::from_ne_bytes);
            let (number, is_reusable) = (release >> 1, release & 1 == 1);
            let place = self.0.iter().position(|lent| lent.number() == number);
            // One that we do not know was given away.
            if let Some(place) = place {
                let attachment = self.0.swap_remove(place);
                if !is_reusable {
                    attachment.retire();
                }
                released.push(attachment);
            }
        }
        released
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Forks of the receiver may have them.
        self.0.iter().for_each(|lent| lent.retire());
    }
}

/// What a receiver has released since it last told.
#[derive(Debug, Default)]
pub(in crate::process) struct Releases {
    numbers: Mutex<Vec<u64>>,
    /// Whether there are some.
    any: AtomicBool,
}

impl Releases {
    /// The most that one frame tells.
    pub(in crate::process) const MOST: usize = 64;

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, number: u64, is_reusable: bool) {
        let mut numbers = self.lock();
        numbers.push(number << 1 | u64::from(is_reusable));
        // ORDERING: Relaxed: a hint. Who misses it looks again with the next frame.
        self.any.store(true, Ordering::Relaxed);
    }

    /// The bytes of a frame that tells; none if there is nothing to tell.
    pub(in crate::process) fn take(&self) -> Option<Vec<u8>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut numbers = self.lock();
        let rest = numbers.len().saturating_sub(Self::MOST);
        let told = numbers.split_off(rest);
        self.any.store(rest > 0, Ordering::Relaxed);
        Some(told.into_iter().flat_map(u64::to_ne_bytes).collect())
    }
}

/// An attachment as it was received.
#[derive(Debug)]
pub struct Received {
    memory: Memory,
    length: usize,
    number: u64,
    releases: Arc<Releases>,
    /// How often the process had forked, and which fork it was.
    forks: u64,
    generation: u64,
}

#[derive(Debug)]
enum Memory {
    Mapped(MmapRaw),
    /// Where it could not be mapped.
    Copied(Vec<u8>),
}

impl Received {
    fn new(file: OwnedFd, length: u64, number: u64, releases: &Arc<Releases>) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let is_whole = u64::try_from(size).is_ok_and(|size| size >= length);
        if !is_whole || !seals.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // Before it is there: a fork meanwhile has it, or not.
        let forks = os::forks();
        Ok(Self {
            memory: Memory::of(file, length)?,
            length,
            number,
            releases: Arc::clone(releases),
            forks,
            generation: os::generation(),
        })
    }

    /// Where it is. What is written there is for nobody else.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        match &self.memory {
            Memory::Mapped(map) => map.as_mut_ptr(),
            Memory::Copied(bytes) => bytes.as_ptr().cast_mut(),
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Memory {
    fn of(file: OwnedFd, length: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(length.max(1));
        // SAFETY: the file cannot be cut off, as it is sealed. Its sender does not write to it
        // before the release; should it do so against the protocol, its bytes are any bytes.
        match unsafe { options.map_copy(&file.as_fd()) } {
            Ok(map) => {
                // All pages at once, which are there: each fault would cost more. That the
                // advice is not taken does no harm.
                let _ = map.advise(memmap2::Advice::PopulateRead);
                Ok(Self::Mapped(map.into()))
            }
            Err(_) => {
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(length)
                    .map_err(|_| io::ErrorKind::OutOfMemory)?;
                bytes.resize(length, 0);
                File::from(file).read_exact_at(&mut bytes, 0)?;
                Ok(Self::Copied(bytes))
            }
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.generation == os::generation() {
            let is_reusable = self.forks == os::forks();
            self.releases.push(self.number, is_reusable);
        }
    }
}

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
        let message = [number, (attachment.length as u64).to_ne_bytes()].concat();
        let file = attachment
            .segment
            .as_ref()
            .map(|segment| segment.file.as_fd());
        let begun = Instant::now();
        loop {
            match self.socket.try_send(&message, file) {
                Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOMEM | Errno::NOBUFS)
                    if begun.elapsed() < patience =>
                {
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
        let spare = Spare::take();
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
        spare.put_back(self.socket.as_fd());
        Ok(received)
    }
}

/// A file descriptor that is kept for the moment in which there is no other: without one, an
/// attachment could not be received, and would be lost.
struct Spare;

/// The descriptor, or -1.
static SPARE: AtomicI32 = AtomicI32::new(-1);

impl Spare {
    fn take() -> Self {
        let fd = SPARE.swap(-1, Ordering::AcqRel);
        if fd >= 0 {
            // SAFETY: it was put there for whoever takes it, which nobody else has.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        Self
    }

    fn put_back(self, any: BorrowedFd<'_>) {
        if let Ok(fd) = any.try_clone_to_owned() {
            let former = SPARE.swap(fd.into_raw_fd(), Ordering::AcqRel);
            if former >= 0 {
                // SAFETY: as above.
                drop(unsafe { OwnedFd::from_raw_fd(former) });
            }
        }
    }
}
