//! Memory that two processes share: the positions of two streams, and their bytes.
//!
//! It is sealed at its size: a worker cannot cut it off under the supervisor, which would
//! be killed by `SIGBUS`. (Where the system has no such memory, see `backing.rs` and `system_v.rs`.)
//! Bytes that a worker writes to it are checked where they are read
//! (`ring.rs`), and copied out before they are looked at.

use super::backing;
use super::flag::Flag;
use super::ring::Corrupt;
use super::system_v::Attached;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::SealFlags;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Keeps what one side writes apart from what the other does.
#[repr(C, align(128))]
struct Padded<T>(T);

/// What the writer says.
#[repr(C)]
struct Tail {
    position: AtomicU64,
    /// One more than the number of the CPU on which it ran.
    cpu: AtomicU32,
}

/// The positions of one stream. Zero is how a stream begins.
#[repr(C)]
pub(super) struct Positions {
    /// How many bytes were ever written; the writer's.
    tail: Padded<Tail>,
    /// How many bytes were ever read; the reader's.
    head: Padded<AtomicU64>,
    /// Whether the reader sleeps, and wants to be woken when there are bytes.
    reader_sleeps: Padded<Flag>,
    /// Whether the writer waits, and wants to be woken when there is room.
    writer_sleeps: Padded<Flag>,
    /// What the writer has written beyond the tail; the writer's.
    draft: Padded<DraftWords>,
}

/// Says what there is of a draft.
#[repr(C)]
pub(super) struct DraftWords {
    /// Where it begins: the tail of the stream, or the draft is over.
    pub(super) position: AtomicU64,
    /// How much of it counts.
    pub(super) progress: AtomicU64,
}

impl Positions {
    pub(super) fn tail(&self) -> &AtomicU64 {
        &self.tail.0.position
    }

    /// Beside the tail, which who looks at this looks at, too.
    pub(super) fn writer_cpu(&self) -> &AtomicU32 {
        &self.tail.0.cpu
    }

    pub(super) fn head(&self) -> &AtomicU64 {
        &self.head.0
    }

    pub(super) fn reader_sleeps(&self) -> &Flag {
        &self.reader_sleeps.0
    }

    pub(super) fn writer_sleeps(&self) -> &Flag {
        &self.writer_sleeps.0
    }

    pub(super) fn draft(&self) -> &DraftWords {
        &self.draft.0
    }
}

#[repr(C)]
struct Head {
    to_worker: Positions,
    from_worker: Positions,
}

/// Where the bytes of the streams begin.
const DATA: usize = 4096;
const _: () = assert!(size_of::<Head>() <= DATA);

/// Which of the two streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    ToWorker,
    FromWorker,
}

/// A reference by which another process gets the same memory.
#[derive(Debug)]
pub(in crate::process) enum Shared {
    /// A file.
    File(OwnedFd),
    /// The number of a segment.
    Segment(i32),
}

/// Memory where it is in this process.
#[derive(Debug)]
enum Map {
    File(MmapRaw),
    Segment(Attached),
}

/// The memory behind one channel, mapped.
#[derive(Debug)]
pub(in crate::process) struct Memory {
    map: Map,
    capacity: usize,
}

impl Memory {
    /// Makes shared memory for two streams of `capacity` bytes each, a power of two.
    pub(in crate::process) fn create(capacity: usize) -> io::Result<(Shared, Arc<Self>)> {
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let refused = match backing::create("concurrent-futures", size(capacity), seals) {
            Ok(file) => {
                let memory = Self::map(&file, capacity)?;
                return Ok((Shared::File(file), memory));
            }
            Err(error) => error,
        };
        // That it is refused, too, tells less than why there is no file.
        let (number, attached) = Attached::create(size(capacity)).map_err(|_| refused)?;
        let map = Map::Segment(attached);
        Ok((Shared::Segment(number), Arc::new(Self { map, capacity })))
    }

    /// Attaches to the memory that the other side has made.
    pub(in crate::process) fn attach(shared: &Shared, capacity: usize) -> io::Result<Arc<Self>> {
        match shared {
            Shared::File(file) => Self::map(file, capacity),
            Shared::Segment(number) => {
                if !capacity.is_power_of_two() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let map = Map::Segment(Attached::attach(*number, size(capacity))?);
                Ok(Arc::new(Self { map, capacity }))
            }
        }
    }

    fn map(file: &OwnedFd, capacity: usize) -> io::Result<Arc<Self>> {
        let length = rustix::fs::fstat(file)?.st_size;
        let is_whole = u64::try_from(length).is_ok_and(|length| length >= size(capacity) as u64);
        if !capacity.is_power_of_two() || !is_whole {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let fd = file.as_fd();
        let map = MmapOptions::new().len(size(capacity)).map_raw(&fd)?;
        let map = Map::File(map);
        Ok(Arc::new(Self { map, capacity }))
    }

    fn start(&self) -> *mut u8 {
        match &self.map {
            Map::File(map) => map.as_mut_ptr(),
            Map::Segment(attached) => attached.start(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn positions(&self, direction: Direction) -> &Positions {
        let offset = match direction {
            Direction::ToWorker => offset_of!(Head, to_worker),
            Direction::FromWorker => offset_of!(Head, from_worker),
        };
        // SAFETY: the mapping begins with a `Head`, is aligned to a page, and stays as
        // long as `self`. All of it is atomic: any bytes that another process writes are
        // values of it.
        unsafe { &*self.start().add(offset).cast() }
    }

    /// The stream's bytes, `capacity` of them; they stay as long as `self`.
    fn data(&self, direction: Direction) -> *mut u8 {
        let offset = match direction {
            Direction::ToWorker => DATA,
            Direction::FromWorker => DATA + self.capacity,
        };
        // SAFETY: the mapping is longer than that.
        unsafe { self.start().add(offset) }
    }

    /// The stream's bytes from a position on, up to the end of the memory, and those from
    /// its beginning, `length` together.
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
    pub(super) fn write(&self, direction: Direction, position: u64, bytes: &[u8]) {
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
    pub(super) fn read(
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

    /// A word of the stream, at a position that is a multiple of 8.
    pub(super) fn word(&self, direction: Direction, position: u64) -> &AtomicU32 {
        assert!(position.is_multiple_of(8), "words are aligned");
        let [(word, length), _] = self.pieces(direction, position, 4);
        assert!(length == 4, "what is aligned is in one piece");
        // SAFETY: 4 bytes of the mapping, aligned as the mapping and the position are,
        // which stay as long as `self`. It is accessed as an atomic by both sides while
        // the frame is there, and copied into and out of only before and after that.
        unsafe { &*word.cast() }
    }
}

/// Makes room for so many bytes in an empty buffer.
///
/// # Errors
/// A length that no memory has room for is not one.
pub(in crate::process) fn reserve(bytes: &mut Vec<u8>, length: usize) -> Result<(), Corrupt> {
    /// From here on, large pages are worth it: each small one costs a page fault.
    const LARGE: usize = 4 << 20;
    const PAGE: usize = 4096;
    bytes.try_reserve_exact(length).map_err(|_| Corrupt)?;
    if length >= LARGE {
        let start = bytes.as_mut_ptr();
        let skipped = start.align_offset(PAGE);
        let whole = (bytes.capacity() - skipped) / PAGE * PAGE;
        // SAFETY: whole pages inside the buffer's room; the advice changes no content. That
        // it is not taken does no harm.
        unsafe {
            let pages = start.add(skipped).cast();
            let _ = rustix::mm::madvise(pages, whole, rustix::mm::Advice::LinuxHugepage);
        }
    }
    Ok(())
}

fn size(capacity: usize) -> usize {
    DATA + 2 * capacity
}
