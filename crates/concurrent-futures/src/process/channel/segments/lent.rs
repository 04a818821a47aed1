//! The sender's side of segments: see `channel.rs`.

use crate::process::forks;
use crate::runtime::os::Errno;
use crate::runtime::os::segment::{self, Map};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sizes of segments are multiples of this, so that segments fit more than once.
const GRAIN: usize = 64 * 1024;

/// The segments of a sender, which are used again and again.
#[derive(Debug)]
pub struct Segments {
    kept: Mutex<Kept>,
    /// The number of bytes that are kept for further use.
    most_bytes: usize,
    /// The number of files that may be open; half of them are kept.
    most_files: usize,
}

#[derive(Debug, Default)]
struct Kept {
    free: Vec<Segment>,
    /// The bytes of all segments that are to be kept, used or free.
    bytes: usize,
    /// The number of these segments.
    number: usize,
    files: usize,
    /// Whether no segment is kept any more.
    is_closed: bool,
    next: u64,
}

/// A file in memory, mapped.
#[derive(Debug)]
struct Segment {
    file: OwnedFd,
    map: Map,
    number: u64,
    /// Whether the segment is used again.
    is_kept: bool,
}

impl Segments {
    /// Makes an empty set, which keeps `most_bytes` bytes for further use and has `most_files` files at most.
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

    /// Returns memory for `length` bytes.
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
            generation: forks::generation(),
        })
    }

    /// Frees the segments, and keeps none from now on.
    pub fn close(&self) {
        let mut kept = self.lock();
        kept.is_closed = true;
        let free = std::mem::take(&mut kept.free);
        for segment in &free {
            kept.forget(segment.map.len(), true);
        }
        drop(kept);
        drop(free);
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
        let is_kept = !kept.is_closed
            && kept.bytes + capacity <= self.most_bytes
            && kept.number < self.most_files / 2;
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

    /// Returns whether there are no segments, used or free.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let kept = self.lock();
        kept.files == 0 && kept.bytes == 0 && kept.free.is_empty()
    }

    /// Uncounts a segment that was freed.
    fn forget(&self, capacity: usize, is_kept: bool) {
        self.lock().forget(capacity, is_kept);
    }

    fn give_back(&self, segment: Segment, is_reusable: bool) {
        if segment.is_kept && is_reusable {
            let mut kept = self.lock();
            if !kept.is_closed {
                kept.free.push(segment);
                return;
            }
        }
        let (capacity, is_kept) = (segment.map.len(), segment.is_kept);
        drop(segment);
        self.forget(capacity, is_kept);
    }
}

impl Kept {
    /// Uncounts a segment that was freed.
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
        let (file, map) = segment::create(capacity)?;
        Ok(Self {
            file,
            map,
            number,
            is_kept,
        })
    }
}

/// The long buffers of a call or a reply, in a segment.
#[derive(Debug)]
pub struct Attachment {
    /// The segment; none once it is dropped.
    segment: Option<Segment>,
    length: usize,
    home: Arc<Segments>,
    /// Whether no process looks at the segment once it is released.
    is_reusable: AtomicBool,
    /// The generation of forks: in another one, the segment belongs to no process.
    generation: u64,
}

impl Attachment {
    /// Copies `length` bytes from `start` to a place in the segment.
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
        // SAFETY: the mapping is at least as long as `self.length`. No other process has the segment: the
        // segment was not sent, as it is not shared, or it was released. The source is promised.
        unsafe {
            let to = segment.map.as_mut_ptr().add(place);
            ptr::copy_nonoverlapping(start, to, length);
        }
    }

    /// Shortens the buffer to `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the file to pass to the receiver.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.segment.as_ref()?.file.as_fd())
    }

    /// Returns the number by which the receiver knows the segment.
    pub(crate) fn number(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.number)
    }

    /// Returns whether the sender of the attachment waits for its release.
    fn is_kept(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.is_kept)
    }

    /// Keeps the segment from being used again.
    fn retire(&self) {
        // ORDERING: Relaxed: the thread that drops the segment got hold of it after this store.
        self.is_reusable.store(false, Ordering::Relaxed);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(segment) = self.segment.take() else {
            return;
        };
        if self.generation != forks::generation() {
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
pub(crate) struct LentSegments(Vec<Arc<Attachment>>);

impl LentSegments {
    /// Adds an attachment that was sent.
    pub(crate) fn note(&mut self, attachment: &Arc<Attachment>) {
        self.0.push(Arc::clone(attachment));
    }

    /// Adds an attachment that was sent, unless its segment is given away.
    pub(crate) fn note_kept(&mut self, attachment: Arc<Attachment>) {
        if attachment.is_kept() {
            self.0.push(attachment);
        }
    }

    /// Takes the attachments that the bytes of a frame release.
    pub(crate) fn released(&mut self, bytes: &[u8]) -> Vec<Arc<Attachment>> {
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

impl Drop for LentSegments {
    fn drop(&mut self) {
        // Forks of the receiver may have them.
        self.0.iter().for_each(|lent| lent.retire());
    }
}
