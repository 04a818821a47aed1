//! What stands for the shared memory in models: loom's atomics.

#![forbid(unsafe_code)]

use super::flag::Flag;
use super::ring::Corrupt;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// As that of `memory.rs`.
#[derive(Debug)]
pub(in crate::process) enum Shared {
    File(OwnedFd),
    Segment(i32),
}

pub(super) struct Positions {
    tail: AtomicU64,
    writer_cpu: AtomicU32,
    head: AtomicU64,
    reader_sleeps: Flag,
    writer_sleeps: Flag,
    draft: DraftWords,
}

pub(super) struct DraftWords {
    pub(super) position: AtomicU64,
    pub(super) progress: AtomicU64,
}

impl Positions {
    fn new() -> Self {
        Self {
            tail: AtomicU64::new(0),
            writer_cpu: AtomicU32::new(0),
            head: AtomicU64::new(0),
            reader_sleeps: Flag::new(),
            writer_sleeps: Flag::new(),
            draft: DraftWords {
                position: AtomicU64::new(0),
                progress: AtomicU64::new(0),
            },
        }
    }

    pub(super) fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    pub(super) fn writer_cpu(&self) -> &AtomicU32 {
        &self.writer_cpu
    }

    pub(super) fn head(&self) -> &AtomicU64 {
        &self.head
    }

    pub(super) fn reader_sleeps(&self) -> &Flag {
        &self.reader_sleeps
    }

    pub(super) fn writer_sleeps(&self) -> &Flag {
        &self.writer_sleeps
    }

    pub(super) fn draft(&self) -> &DraftWords {
        &self.draft
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    ToWorker,
    FromWorker,
}

struct Stream {
    positions: Positions,
    /// Who reads a byte that was not published to it may see an older one.
    bytes: Vec<AtomicU8>,
    /// The words at multiples of 8, which are no bytes here.
    words: Vec<AtomicU32>,
}

impl Stream {
    fn new(capacity: usize) -> Self {
        Self {
            positions: Positions::new(),
            bytes: (0..capacity).map(|_| AtomicU8::new(0)).collect(),
            words: (0..capacity.div_ceil(8))
                .map(|_| AtomicU32::new(0))
                .collect(),
        }
    }
}

pub(in crate::process) struct Memory {
    streams: [Stream; 2],
    capacity: usize,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    pub(in crate::process) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            streams: [Stream::new(capacity), Stream::new(capacity)],
            capacity,
        })
    }

    /// There are no processes in models.
    pub(in crate::process) fn create(_: usize) -> io::Result<(Shared, Arc<Self>)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::process) fn attach(_: &Shared, _: usize) -> io::Result<Arc<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    fn stream(&self, direction: Direction) -> &Stream {
        &self.streams[direction as usize]
    }

    pub(super) fn positions(&self, direction: Direction) -> &Positions {
        &self.stream(direction).positions
    }

    fn place(&self, position: u64) -> usize {
        usize::try_from(position).unwrap() % self.capacity
    }

    pub(super) fn write(&self, direction: Direction, position: u64, bytes: &[u8]) {
        for (position, byte) in (position..).zip(bytes) {
            self.stream(direction).bytes[self.place(position)].store(*byte, Ordering::Relaxed);
        }
    }

    pub(super) fn read(
        &self,
        direction: Direction,
        position: u64,
        length: usize,
        bytes: &mut Vec<u8>,
    ) {
        for position in position..position + length as u64 {
            let byte = &self.stream(direction).bytes[self.place(position)];
            bytes.push(byte.load(Ordering::Relaxed));
        }
    }

    pub(super) fn word(&self, direction: Direction, position: u64) -> &AtomicU32 {
        &self.stream(direction).words[self.place(position) / 8]
    }
}

pub(in crate::process) fn reserve(bytes: &mut Vec<u8>, length: usize) -> Result<(), Corrupt> {
    bytes.try_reserve_exact(length).map_err(|_| Corrupt)
}
