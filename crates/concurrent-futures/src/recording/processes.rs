//! A pool of processes, as it describes itself to recordings.

#![forbid(unsafe_code)]

use crate::recording::recorder;
use crate::recording::session::{PoolInfo, PoolKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// A pool of processes, as it describes itself to recordings.
#[derive(Debug)]
pub(crate) struct RecordedPool {
    info: PoolInfo,
    /// The session to which the pool was described last.
    described: AtomicU64,
}

impl RecordedPool {
    pub(crate) fn processes(max_workers: usize) -> Self {
        Self {
            info: PoolInfo {
                number: recorder::next_number(),
                kind: PoolKind::Processes,
                name: "ProcessPoolExecutor".to_owned(),
                max_workers,
            },
            described: AtomicU64::new(0),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.info.number
    }

    /// Describes the pool to the recorder, if it records and does not know the pool.
    pub(crate) fn describe(&self) {
        // ORDERING: Relaxed: describing it twice does no harm.
        if recorder::epoch() != self.described.load(Ordering::Relaxed) {
            recorder::describe_pool(&self.described, || self.info.clone());
        }
    }
}
