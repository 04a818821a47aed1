//! Memory that two processes share: the positions of two streams, and their bytes.
//!
//! It is sealed at its size: a worker cannot cut it off under the supervisor, which would
//! be killed by `SIGBUS`. (Where the system has no such memory, see `runtime/os/files.rs`.)
//! Bytes that a worker writes to it are checked where they are read
//! (`ring.rs`), and copied out before they are looked at.

use crate::process::channel::flag::Flag;
use crate::process::channel::ring::Corrupt;
use crate::runtime::os::pages;
use crate::runtime::os::shared::{Region, Shared};
use std::io;
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Keeps the words of one side and the words of the other on different cache lines.
#[repr(C, align(128))]
struct Padded<T>(T);

/// The words that the writer publishes.
#[repr(C)]
struct Tail {
    position: AtomicU64,
    /// One more than the number of the CPU on which the writer ran.
    cpu: AtomicU32,
}

/// The positions of one stream. A stream begins with all positions zero.
#[repr(C)]
pub(crate) struct Positions {
    /// The number of bytes that were ever written; the writer's word.
    tail: Padded<Tail>,
    /// The number of bytes that were ever read; the reader's word.
    head: Padded<AtomicU64>,
    /// Whether the reader sleeps, and wants to be woken when there are bytes.
    reader_sleeps: Padded<Flag>,
    /// Whether the writer waits, and wants to be woken when there is room.
    writer_sleeps: Padded<Flag>,
    /// The writer's count of items and bytes beyond the tail.
    draft: Padded<DraftWords>,
}

/// The extent of a draft.
#[repr(C)]
pub(crate) struct DraftWords {
    /// The beginning of the draft: the tail of the stream, or the draft is over.
    pub(crate) position: AtomicU64,
    /// The counted part of the draft.
    pub(crate) progress: AtomicU64,
}

impl Positions {
    pub(crate) fn tail(&self) -> &AtomicU64 {
        &self.tail.0.position
    }

    /// Returns the word beside the tail, so that a side that looks at the tail has it in its cache.
    pub(crate) fn writer_cpu(&self) -> &AtomicU32 {
        &self.tail.0.cpu
    }

    pub(crate) fn head(&self) -> &AtomicU64 {
        &self.head.0
    }

    pub(crate) fn reader_sleeps(&self) -> &Flag {
        &self.reader_sleeps.0
    }

    pub(crate) fn writer_sleeps(&self) -> &Flag {
        &self.writer_sleeps.0
    }

    pub(crate) fn draft(&self) -> &DraftWords {
        &self.draft.0
    }
}

#[repr(C)]
struct Head {
    to_worker: Positions,
    from_worker: Positions,
}

/// The offset of the streams' bytes.
const DATA: usize = 4096;
const _: () = assert!(size_of::<Head>() <= DATA);

/// The direction of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToWorker,
    FromWorker,
}

/// The memory behind one channel, mapped.
#[derive(Debug)]
pub(crate) struct Memory {
    region: Region,
    capacity: usize,
}

impl Memory {
    /// Makes shared memory for two streams of `capacity` bytes each, a power of two.
    pub(crate) fn create(capacity: usize) -> io::Result<(Shared, Arc<Self>)> {
        let (shared, region) = Region::create("concurrent-futures", size(capacity))?;
        Ok((shared, Arc::new(Self { region, capacity })))
    }

    /// Attaches to the memory that the other side has made.
    pub(crate) fn attach(shared: &Shared, capacity: usize) -> io::Result<Arc<Self>> {
        if !capacity.is_power_of_two() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let region = Region::attach(shared, size(capacity))?;
        Ok(Arc::new(Self { region, capacity }))
    }

    fn start(&self) -> *mut u8 {
        self.region.start()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn positions(&self, direction: Direction) -> &Positions {
        let offset = match direction {
            Direction::ToWorker => offset_of!(Head, to_worker),
            Direction::FromWorker => offset_of!(Head, from_worker),
        };
        // SAFETY: the mapping begins with a `Head`, is aligned to a page, and stays as
        // long as `self`. All of it is atomic: any bytes that another process writes are
        // values of it.
        unsafe { &*self.start().add(offset).cast() }
    }

    /// Returns the start of the stream's `capacity` bytes, which stay as long as `self`.
    fn data(&self, direction: Direction) -> *mut u8 {
        let offset = match direction {
            Direction::ToWorker => DATA,
            Direction::FromWorker => DATA + self.capacity,
        };
        // SAFETY: the mapping is longer than that.
        unsafe { self.start().add(offset) }
    }

    /// Returns the stream's bytes from a position on: those up to the end of the memory, and the rest from
    /// the beginning, `length` together.
    fn pieces(&self, direction: Direction, position: u64, length: usize) -> [(*mut u8, usize); 2] {
        assert!(length <= self.capacity, "no more than there is");
        // The remainder is less than the capacity, which is an `usize`.
        #[expect(clippy::cast_possible_truncation, reason = "less than the capacity")]
        let start = (position % self.capacity as u64) as usize;
        let first = length.min(self.capacity - start);
        let data = self.data(direction);
        // SAFETY: `start` is less than the capacity.
        [(unsafe { data.add(start) }, first), (data, length - first)]
    }

    /// Copies bytes into the stream.
    pub(crate) fn write(&self, direction: Direction, position: u64, bytes: &[u8]) {
        let [(to, first), (rest_to, rest)] = self.pieces(direction, position, bytes.len());
        // SAFETY: the pieces are inside the mapping and together as long as `bytes`, which
        // are private memory. The other process does not look at these bytes before it is
        // told; if it does, what it sees is its own concern.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, first);
            ptr::copy_nonoverlapping(bytes.as_ptr().add(first), rest_to, rest);
        }
    }

    /// Copies bytes out of the stream, to the end of `bytes`.
    pub(crate) fn read(
        &self,
        direction: Direction,
        position: u64,
        length: usize,
        bytes: &mut Vec<u8>,
    ) {
        bytes.reserve(length);
        let [(from, first), (rest_from, rest)] = self.pieces(direction, position, length);
        // SAFETY: the pieces are inside the mapping, and `bytes` has room for both, which
        // are all bytes of the new length. Should the other process write at the same
        // time, against the protocol, we copy bytes of either kind: any is a `u8`.
        unsafe {
            let end = bytes.as_mut_ptr().add(bytes.len());
            ptr::copy_nonoverlapping(from, end, first);
            ptr::copy_nonoverlapping(rest_from, end.add(first), rest);
            bytes.set_len(bytes.len() + length);
        }
    }

    /// Returns a word of the stream, at a position that is a multiple of 8.
    pub(crate) fn word(&self, direction: Direction, position: u64) -> &AtomicU32 {
        assert!(position.is_multiple_of(8), "words are aligned");
        let [(word, length), _] = self.pieces(direction, position, 4);
        assert!(length == 4, "what is aligned is in one piece");
        // SAFETY: 4 bytes of the mapping, aligned as the mapping and the position are,
        // which stay as long as `self`. It is accessed as an atomic by both sides while
        // the frame is there, and copied into and out of only before and after that.
        unsafe { &*word.cast() }
    }
}

/// Makes room for `length` bytes in an empty buffer.
///
/// # Errors
/// A length that no memory has room for is not one.
pub(crate) fn reserve(bytes: &mut Vec<u8>, length: usize) -> Result<(), Corrupt> {
    /// The length from which on large pages are worth it: each small page costs a page fault.
    const LARGE: usize = 4 << 20;
    bytes.try_reserve_exact(length).map_err(|_| Corrupt)?;
    if length >= LARGE {
        pages::prefer_large_pages(bytes);
    }
    Ok(())
}

fn size(capacity: usize) -> usize {
    DATA + 2 * capacity
}
