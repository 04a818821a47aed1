//! A thread pool as others see it: the detector of deadlocks, recordings, and descriptions for people.

use crate::recording::recorder;
use crate::recording::session::WorkerInfo;
use crate::runtime::crew::{Crew, Tally};
use crate::runtime::os::clock::now;
use crate::runtime::sync::{self, Arc};
#[cfg(not(loom_models))]
use crate::stats::view::{Inspect, PoolView, WorkerKind};
#[cfg(not(loom_models))]
use crate::task::header::VTable;
use crate::thread::pool::Pool;
use crate::thread::spare::{MAX_SPARES, Place, Why};
use crate::thread::worker::Role;
use std::io;

impl Crew for Pool {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn regular_workers(&self) -> usize {
        self.idle.threads()
    }

    fn max_workers(&self) -> usize {
        self.max_workers
    }

    fn has_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    fn number(&self) -> u32 {
        self.number
    }

    fn describe(&self, worker: u32, has_just_begun: bool) {
        self.describe_pool();
        recorder::describe_worker(WorkerInfo {
            number: worker,
            pool: self.number,
            name: self.spawner.worker_name(),
            pid: std::process::id(),
            machine: String::new(),
            start: has_just_begun.then(now),
            end: None,
        });
    }

    fn call_spare(self: Arc<Self>) -> io::Result<()> {
        if self.parked.call(Why::Order) {
            return Ok(());
        }
        let Some(place) = Place::take() else {
            return Err(io::Error::other(format!(
                "there are {MAX_SPARES} threads for tasks that others wait for"
            )));
        };
        sync::lock(&self.threads).spare.push(place);
        self.spawn_thread(Role::Spare)
            .inspect_err(|_| self.spare_ends())
    }
}

#[cfg(not(loom_models))]
impl Inspect for Pool {
    fn inspect(&self) -> Option<PoolView> {
        Some(PoolView {
            kind: WorkerKind::Threads,
            max_workers: self.max_workers,
            pending: self.stats().pending,
            // SAFETY: the workers note addresses of operations there.
            workers: (self.counts).threads(|at| unsafe { VTable::static_name_at(at) }),
        })
    }
}
