//! The shared memory of models, made of loom's atomics.

#![forbid(unsafe_code)]

use crate::process::channel::flag::Flag;
use crate::process::channel::ring::Corrupt;
use crate::runtime::os::shared::Shared;
use crate::runtime::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::io;
use std::sync::Arc;

pub(crate) struct Positions {
    tail: AtomicU64,
    writer_cpu: AtomicU32,
    head: AtomicU64,
    reader_sleeps: Flag,
    writer_sleeps: Flag,
    draft: DraftWords,
}

pub(crate) struct DraftWords {
    pub(crate) position: AtomicU64,
    pub(crate) progress: AtomicU64,
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

    pub(crate) fn tail(&self) -> &AtomicU64 {
        &self.tail
    }

    pub(crate) fn writer_cpu(&self) -> &AtomicU32 {
        &self.writer_cpu
    }

    pub(crate) fn head(&self) -> &AtomicU64 {
        &self.head
    }

    pub(crate) fn reader_sleeps(&self) -> &Flag {
        &self.reader_sleeps
    }

    pub(crate) fn writer_sleeps(&self) -> &Flag {
        &self.writer_sleeps
    }

    pub(crate) fn draft(&self) -> &DraftWords {
        &self.draft
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    ToWorker,
    FromWorker,
}

struct Stream {
    positions: Positions,
    /// The bytes of the stream. A reader that reads an unpublished byte may see an older value.
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

pub(crate) struct Memory {
    streams: [Stream; 2],
    capacity: usize,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            streams: [Stream::new(capacity), Stream::new(capacity)],
            capacity,
        })
    }

    /// Fails: models have no processes.
    pub(crate) fn create(_: usize) -> io::Result<(Shared, Arc<Self>)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn attach(_: &Shared, _: usize) -> io::Result<Arc<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn stream(&self, direction: Direction) -> &Stream {
        &self.streams[direction as usize]
    }

    pub(crate) fn positions(&self, direction: Direction) -> &Positions {
        &self.stream(direction).positions
    }

    fn place(&self, position: u64) -> usize {
        usize::try_from(position).unwrap() % self.capacity
    }

    pub(crate) fn write(&self, direction: Direction, position: u64, bytes: &[u8]) {
        for (position, byte) in (position..).zip(bytes) {
            self.stream(direction).bytes[self.place(position)].store(*byte, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(
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

    pub(crate) fn word(&self, direction: Direction, position: u64) -> &AtomicU32 {
        &self.stream(direction).words[self.place(position) / 8]
    }
}

pub(crate) fn reserve(bytes: &mut Vec<u8>, length: usize) -> Result<(), Corrupt> {
    bytes.try_reserve_exact(length).map_err(|_| Corrupt)
}
