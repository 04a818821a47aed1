//! A session: what is recorded while at least one recording runs.
//!
//! Each thread that has an event gets a lane of the session. A thread that ends gives its lane back, and another
//! thread may go on with the lane. Names, pools and workers are in tables under a lock, as they are few.

#![forbid(unsafe_code)]

use crate::recording::buffer::Buffer;
use crate::recording::times::Times;
use crate::runtime::os::clock::now;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest number of entries of a table.
const MOST: usize = 1 << 20;

/// The kinds of pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "other frontends use it")]
pub enum PoolKind {
    /// The workers are threads.
    Threads,
    /// The workers are processes.
    Processes,
}

/// A pool, as recordings show it.
#[derive(Clone, Debug)]
#[allow(unreachable_pub, reason = "other frontends use it")]
pub struct PoolInfo {
    /// The number of the pool in this process.
    pub number: u32,
    /// The kind of its workers.
    pub kind: PoolKind,
    /// The name of the pool.
    pub name: String,
    /// The number of workers that the pool may have.
    pub max_workers: usize,
}

/// The end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// A thread ended, or a process in a way that is not known.
    Plain,
    Code(i32),
    Signal(i32),
}

/// A worker, as recordings show it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerInfo {
    pub(crate) number: u32,
    pub(crate) pool: u32,
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// The name of the machine; empty for that of the program.
    pub(crate) machine: String,
    /// When the worker was started; none if it was there before.
    pub(crate) start: Option<u64>,
    pub(crate) end: Option<(u64, WorkerEnd)>,
}

/// The tables of a session.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) strings: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
    pub(crate) pools: Vec<PoolInfo>,
    pub(crate) workers: Vec<WorkerInfo>,
    of_workers: HashMap<u32, usize>,
    /// The places of workers, each time that one is added or ends.
    pub(crate) changes: Vec<usize>,
}

impl Tables {
    /// Returns the index of a string, which is added if it is new.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        if self.strings.len() >= MOST {
            return 0;
        }
        let place = u32::try_from(self.strings.len()).unwrap_or(0);
        let text: Arc<str> = text.into();
        self.strings.push(Arc::clone(&text));
        self.places.insert(text, place);
        place
    }

    fn add_worker(&mut self, worker: WorkerInfo) {
        if self.workers.len() < MOST && !self.of_workers.contains_key(&worker.number) {
            self.of_workers.insert(worker.number, self.workers.len());
            self.changes.push(self.workers.len());
            self.workers.push(worker);
        }
    }
}

/// The lane of a thread.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) buffer: Buffer,
    /// Whether a thread writes to the lane.
    is_owned: AtomicBool,
}

impl Entry {
    /// Gives the lane back: another thread may write to it.
    pub(crate) fn give_back(&self) {
        // ORDERING: Release: the next owner sees the records of this one.
        self.is_owned.store(false, Ordering::Release);
    }
}

/// The state that recordings and threads share.
#[derive(Debug)]
pub(crate) struct Session {
    /// The number of the session, which threads compare.
    pub(crate) epoch: u64,
    /// The number of records that a lane keeps.
    records: usize,
    pub(crate) times: Times,
    lanes: Mutex<Vec<Arc<Entry>>>,
    tables: Mutex<Tables>,
    /// The longest `repr` of arguments; 0 if none is wanted.
    pub(crate) argument_length: AtomicU64,
}

impl Session {
    pub(crate) fn new(epoch: u64, records: usize) -> Self {
        let mut tables = Tables::default();
        tables.intern("");
        Self {
            epoch,
            records,
            times: Times::new(),
            lanes: Mutex::default(),
            tables: Mutex::new(tables),
            argument_length: AtomicU64::new(0),
        }
    }

    /// Returns a lane for the calling thread.
    pub(crate) fn enter(&self) -> Arc<Entry> {
        let mut lanes = self.lanes();
        let is_free = |entry: &&Arc<Entry>| {
            // ORDERING: Acquire pairs with the Release of `give_back`.
            !entry.is_owned.swap(true, Ordering::Acquire)
        };
        if let Some(entry) = lanes.iter().find(is_free) {
            return Arc::clone(entry);
        }
        let entry = Arc::new(Entry {
            buffer: Buffer::new(self.records),
            is_owned: AtomicBool::new(true),
        });
        lanes.push(Arc::clone(&entry));
        entry
    }

    pub(crate) fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_pool(&self, info: PoolInfo) {
        let mut tables = self.tables();
        if tables.pools.len() < MOST && tables.pools.iter().all(|pool| pool.number != info.number) {
            tables.pools.push(info);
        }
    }

    pub(crate) fn add_worker(&self, worker: WorkerInfo) {
        self.tables().add_worker(worker);
    }

    pub(crate) fn end_worker(&self, number: u32, end: WorkerEnd) {
        let mut tables = self.tables();
        if let Some(index) = tables.of_workers.get(&number).copied() {
            tables.workers[index].end = Some((now(), end));
            tables.changes.push(index);
        }
    }
}
