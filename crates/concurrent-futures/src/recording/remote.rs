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
    /// The place among the workers of that process, from 0; none if it is not known.
    pub place: Option<u32>,
    /// When the task began.
    pub start: u64,
    /// When it ended.
    pub end: u64,
}

/// A run without an outcome for its task, which runs again or has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLoss {
    /// The run. It ended when its loss was noticed, for all that is known.
    pub run: RemoteRun,
    /// The end of the run: the process was lost, or has ended the run.
    pub outcome: RunOutcome,
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
    /// The times of runs whose place is not known, by machine, process and lane.
    unplaced: Mutex<Unplaced>,
}

type Unplaced = HashMap<(Arc<str>, u32), Vec<Times>>;

/// The beginnings and ends of the runs of a lane.
type Times = Vec<(u64, u64)>;

/// The number of the first place that stands for one which is not known.
const UNPLACED: u32 = 1 << 31;

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
            unplaced: Mutex::default(),
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

    /// Returns a number for the place of a run that is not known. Runs that overlap have different ones.
    fn place_for(&self, run: &RemoteRun) -> u32 {
        let mut unplaced = self.unplaced.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(&run.machine), run.pid);
        let lanes = unplaced.entry(key).or_default();
        let is_free = |lane: &Times| {
            let mut runs = lane.iter();
            runs.all(|(start, end)| run.end <= *start || *end <= run.start)
        };
        let free = lanes.iter().position(is_free).unwrap_or(lanes.len());
        if free == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[free].push((run.start, run.end));
        UNPLACED + u32::try_from(free).unwrap_or(0)
    }

    /// Returns the number of the lane of a run.
    fn lane(&self, run: &RemoteRun) -> u32 {
        let place = run.place.unwrap_or_else(|| self.place_for(run));
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = lanes.entry((run.pid, place)).or_default();
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
            let RemoteRun { machine, pid, .. } = run;
            recorder::describe_worker(WorkerInfo {
                number: lane.number,
                pool: self.info.number,
                name: match place {
                    0 => format!("{machine} · {pid}"),
                    UNPLACED => format!("{machine} · {pid} · lost"),
                    place if place > UNPLACED => {
                        format!("{machine} · {pid} · lost {}", place - UNPLACED + 1)
                    }
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
        let (name, index) = parts_of(end.name);
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

    /// Records the runs of a task that gave no outcome, if anything is recorded. `next` is the beginning of the run that gave
    /// one, and `submitted` the moment of the submission, or 0 if that was not recorded.
    pub fn lost(
        &self,
        task: FutureId,
        losses: &[RemoteLoss],
        next: Option<u64>,
        (submitted, name): (u64, Option<Name>),
    ) {
        if !recorder::is_on() {
            return;
        }
        let pool = self.describe();
        let moment = now();
        let (name, index) = parts_of(name);
        for (at, RemoteLoss { run, outcome }) in losses.iter().enumerate() {
            let (start, end) = between((run.start, run.end), submitted, moment);
            let error = if *outcome == RunOutcome::Terminated {
                "the host has ended the run, as it was to end itself"
            } else {
                "the host was lost"
            };
            let record = Record {
                start,
                end,
                outcome: *outcome,
                name: index,
                text: text(Some(error)),
                pool,
                worker: self.lane(run),
                items: 1,
                ..Record::new(Kind::Run, task.number())
            };
            recorder::ran(&record, name);
            // The clocks of two hosts are known about, and this run was before the next one.
            let after = losses.get(at + 1).map(|loss| loss.run.start).or(next);
            let retried = Record {
                start: after.map_or(end, |after| after.min(end)).max(start + 1),
                outcome: RunOutcome::Pending,
                ..Record::new(Kind::Retry, task.number())
            };
            recorder::ran(&retried, None);
        }
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

/// Returns the parts of a name that records have.
fn parts_of(name: Option<Name>) -> (Option<&'static str>, u32) {
    match name {
        Some(Name::Static(name)) => (Some(name), 0),
        Some(Name::Index(index)) => (None, index),
        None => (None, 0),
    }
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
    fn runs_without_a_place_that_overlap_have_different_lanes() {
        let pool = RemotePool::new("remote");
        let place = |machine: &str, pid, start, end| {
            let run = RemoteRun {
                machine: machine.into(),
                pid,
                place: None,
                start,
                end,
            };
            pool.place_for(&run) - UNPLACED
        };
        assert_eq!(place("a", 1, 10, 20), 0);
        assert_eq!(place("a", 1, 15, 25), 1);
        assert_eq!(place("a", 1, 5, 10), 0);
        assert_eq!(place("a", 1, 0, 30), 2);
        assert_eq!(place("a", 1, 20, 21), 0);
        assert_eq!(place("b", 1, 10, 20), 0);
        assert_eq!(place("a", 2, 10, 20), 0);
    }

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
