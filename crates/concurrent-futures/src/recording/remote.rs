//! Pools whose workers are on other machines, as they describe themselves to recordings.
//!
//! Another machine tells when a task has run there, once the task is done. Each place that runs one task at a time has a
//! lane, with the name of its machine and the number of its process.

#![forbid(unsafe_code)]

use crate::id::FutureId;
use crate::recording::record::{Kind, Record, RunOutcome};
use crate::recording::recorder::{self, Name};
use crate::recording::session::{PoolInfo, PoolKind, WorkerInfo};
use crate::runtime::os::clock::now;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The run of a task on another machine. Times are nanoseconds of this process's clock of recordings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRun {
    /// The name of the machine.
    pub machine: Arc<str>,
    /// The process there that has the workers.
    pub pid: u32,
    /// The place among the workers of that process, from 0.
    pub place: u32,
    /// When the task began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// The number of processes that were lost before, while they ran the task.
    pub lost: u32,
}

/// The end of a task on another machine, as recordings show it.
#[derive(Clone, Copy, Debug)]
pub struct RemoteEnd<'a> {
    /// When the task was submitted; 0 if that was not recorded.
    pub submitted: u64,
    /// The name of the function; none if the record of the submission has it.
    pub name: Option<Name>,
    /// The outcome.
    pub outcome: RunOutcome,
    /// The error, if there was one.
    pub error: Option<&'a str>,
    /// The number of calls.
    pub items: usize,
    /// The bytes of the call; 0 if the record of the submission has their number.
    pub sent: usize,
    /// The bytes of the result.
    pub received: usize,
}

/// The lane of a place.
#[derive(Debug)]
struct RemoteLane {
    machine: Arc<str>,
    number: u32,
    /// The session to which the lane was described last.
    described: u64,
}

/// A pool whose workers are on other machines, as it describes itself to recordings.
#[derive(Debug)]
pub struct RemotePool {
    info: PoolInfo,
    /// The session to which the pool was described last.
    described: AtomicU64,
    /// By process and place.
    lanes: Mutex<HashMap<(u32, u32), Vec<RemoteLane>>>,
}

impl RemotePool {
    /// Makes the pool of an executor with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            info: PoolInfo {
                number: recorder::next_number(),
                kind: PoolKind::Processes,
                name: name.to_owned(),
                // Machines come and go.
                max_workers: 0,
            },
            described: AtomicU64::new(0),
            lanes: Mutex::default(),
        }
    }

    /// Describes the pool to the recorder, if it records and does not know the pool. Returns the pool's number.
    pub fn describe(&self) -> u32 {
        // ORDERING: Relaxed: describing it twice does no harm.
        if recorder::epoch() != self.described.load(Ordering::Relaxed) {
            recorder::describe_pool(&self.described, || self.info.clone());
        }
        self.info.number
    }

    /// Records that a task was submitted. Returns a moment that is not before that of the record.
    pub fn submitted(&self, task: FutureId, name: Name) -> u64 {
        recorder::submitted_with(task, self.describe(), name, 0, 0);
        now()
    }

    /// Returns the number of the lane of a run.
    fn lane(&self, run: &RemoteRun) -> u32 {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = lanes.entry((run.pid, run.place)).or_default();
        let known = lanes.iter().position(|lane| lane.machine == run.machine);
        let index = known.unwrap_or(lanes.len());
        if known.is_none() {
            lanes.push(RemoteLane {
                machine: Arc::clone(&run.machine),
                number: recorder::next_number(),
                described: 0,
            });
        }
        let lane = &mut lanes[index];
        let epoch = recorder::epoch();
        if lane.described != epoch {
            lane.described = epoch;
            let RemoteRun {
                machine,
                pid,
                place,
                ..
            } = run;
            recorder::describe_worker(WorkerInfo {
                number: lane.number,
                pool: self.info.number,
                name: match place {
                    0 => format!("{machine} · {pid}"),
                    place => format!("{machine} · {pid} · {}", place + 1),
                },
                pid: *pid,
                machine: machine.to_string(),
                start: None,
                end: None,
            });
        }
        lane.number
    }

    /// Records the run of a task that has ended, if anything is recorded. Without a run, the machine is not known.
    pub fn ran(&self, task: FutureId, run: Option<&RemoteRun>, end: &RemoteEnd<'_>) {
        // One whose submission is not known may have run at any time.
        if !recorder::is_on() || run.is_none() && end.submitted == 0 {
            return;
        }
        let pool = self.describe();
        let moment = now();
        let times = run.map_or((moment, moment), |run| (run.start, run.end));
        let times = between(times, end.submitted, moment);
        let lost = run.map_or(0, |run| run.lost);
        let retried = Record {
            start: times.0,
            outcome: RunOutcome::Pending,
            ..Record::new(Kind::Retry, task.number())
        };
        for _ in 0..lost.min(u8::MAX.into()) {
            recorder::ran(&retried, None);
        }
        let (name, index) = match end.name {
            Some(Name::Static(name)) => (Some(name), 0),
            Some(Name::Index(index)) => (None, index),
            None => (None, 0),
        };
        let record = Record {
            start: times.0,
            end: times.1,
            outcome: end.outcome,
            name: index,
            text: text(end.error),
            pool,
            worker: run.map_or(0, |run| self.lane(run)),
            items: end.items as u64,
            sent: narrow(end.sent),
            received: narrow(end.received),
            ..Record::new(Kind::Run, task.number())
        };
        recorder::ran(&record, name);
    }

    /// Records that a task has failed for a reason that no machine has told, if anything is recorded.
    pub fn failed(&self, task: FutureId, outcome: RunOutcome, error: &str) {
        if !recorder::is_on() {
            return;
        }
        self.describe();
        let record = Record {
            start: now(),
            outcome,
            text: text(Some(error)),
            ..Record::new(Kind::Reject, task.number())
        };
        recorder::ran(&record, None);
    }

    /// Records that a pending task was cancelled, if anything is recorded. For futures that are no pool's.
    pub fn cancelled(&self, task: FutureId) {
        if recorder::is_on() {
            self.describe();
            recorder::cancelled(task);
        }
    }
}

/// Puts the times of a run between its submission and a later moment: clocks of other machines are known about.
fn between((start, end): (u64, u64), submitted: u64, moment: u64) -> (u64, u64) {
    let moment = moment.max(submitted);
    let start = start.clamp(submitted, moment);
    (start, end.clamp(start, moment))
}

fn text(error: Option<&str>) -> u32 {
    error.map_or(0, |text| recorder::text(recorder::cut(text)))
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_clocks_are_between_submission_and_arrival() {
        assert_eq!(between((5, 7), 3, 9), (5, 7));
        assert_eq!(between((1, 2), 3, 9), (3, 3));
        assert_eq!(between((1, 12), 3, 9), (3, 9));
        assert_eq!(between((10, 12), 3, 9), (9, 9));
        assert_eq!(between((7, 5), 3, 9), (7, 7));
        assert_eq!(between((7, 5), 9, 3), (9, 9));
        assert_eq!(between((0, u64::MAX), 0, 9), (0, 9));
    }
}
