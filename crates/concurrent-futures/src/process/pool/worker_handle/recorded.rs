//! A worker process in recordings: the runs of its tasks, and its end.
//!
//! A worker stamps the begin and the end of each call itself, if the call asks for that. The parent makes the record
//! when it receives the answer. So a worker that dies in the middle leaves no half record: the parent then makes
//! the record by its own clock.

#![forbid(unsafe_code)]

use crate::error::process::WorkerExit;
use crate::process::channel::{Reply, ReplyKind};
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::WorkerHandle;
use crate::recording::processes::RecordedPool;
use crate::recording::record::{Kind, Record, RunOutcome};
use crate::recording::recorder;
use crate::recording::session::{WorkerEnd, WorkerInfo};
use crate::runtime::os::clock::now;
use std::cell::Cell;
use std::sync::Arc;

/// The identity of a worker in recordings.
#[derive(Debug)]
pub(crate) struct RecordedWorker {
    number: u32,
    pool: Arc<RecordedPool>,
    started: u64,
    /// The session to which the worker was described last.
    described: Cell<u64>,
}

impl RecordedWorker {
    pub(crate) fn new(pool: &Arc<RecordedPool>) -> Self {
        Self {
            number: recorder::next_number(),
            pool: Arc::clone(pool),
            started: now(),
            described: Cell::new(0),
        }
    }

    /// Describes the worker to the recorder, if it records and does not know the worker.
    fn describe(&self, pid: u32) {
        let epoch = recorder::epoch();
        if epoch == 0 || self.described.replace(epoch) == epoch {
            return;
        }
        self.pool.describe();
        recorder::describe_worker(WorkerInfo {
            number: self.number,
            pool: self.pool.number(),
            name: format!("process {pid}"),
            pid,
            machine: String::new(),
            start: Some(self.started),
            end: None,
        });
    }
}

/// Returns the begin and the end of a call, by the stamps of its worker. If these are of no use, the arrival of the
/// answer is the end.
fn times(stamp: Option<[u64; 2]>, arrived: u64, nanoseconds: u64) -> (u64, u64) {
    match stamp {
        Some([start, end]) if start <= end && end <= arrived => (start, end),
        // Not stamped; or its clock is another, as that of a container can be, or has jumped.
        _ => (arrived.saturating_sub(nanoseconds), arrived),
    }
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl WorkerHandle {
    /// Describes the worker to the recorder, if it records.
    pub(crate) fn describe(&self) {
        self.recorded.describe(self.child.pid());
    }

    /// Records the run of a task that was answered: by these bytes, and so many bytes of buffers.
    pub(crate) fn record_run(
        &self,
        task: &Task,
        reply: &Reply,
        stamp: Option<[u64; 2]>,
        (content, attached): (&[u8], usize),
    ) {
        if !recorder::is_on() {
            return;
        }
        let (start, end) = times(stamp, now(), reply.nanoseconds);
        let (has_failed, error) = if reply.kind == ReplyKind::Failure {
            (true, task.error_text(content))
        } else {
            let error = task.item_error_text(content);
            (error.is_some(), error)
        };
        let outcome = if has_failed {
            RunOutcome::Failed
        } else {
            RunOutcome::Finished
        };
        let error = error.map_or(0, |text| recorder::text(recorder::cut(&text)));
        let record = Record {
            start,
            end,
            outcome,
            text: error,
            received: narrow(content.len() + attached),
            ..self.run_of(task)
        };
        recorder::ran(&record, task.rust_name());
    }

    /// Records the run of a task that ends with the worker.
    pub(crate) fn record_death(&self, task: &Task, outcome: RunOutcome) {
        if !recorder::is_on() {
            return;
        }
        let end = now();
        let record = Record {
            start: if task.turn == 0 { end } else { task.turn },
            end,
            outcome,
            ..self.run_of(task)
        };
        recorder::ran(&record, task.rust_name());
    }

    fn run_of(&self, task: &Task) -> Record {
        self.describe();
        Record {
            pool: self.recorded.pool.number(),
            worker: self.recorded.number,
            items: task.items().into(),
            sent: narrow(task.sent()),
            ..Record::new(Kind::Run, task.id().number())
        }
    }

    /// Records the end of the worker.
    pub(crate) fn record_end(&self, exit: WorkerExit) {
        if !recorder::is_on() {
            return;
        }
        self.describe();
        let end = match exit {
            WorkerExit::Code(code) => WorkerEnd::Code(code),
            WorkerExit::Signal(signal) => WorkerEnd::Signal(signal),
            _ => WorkerEnd::Plain,
        };
        recorder::worker_ended(self.recorded.number, end);
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_a_clock_that_has_jumped_are_replaced_by_the_arrival() {
        assert_eq!(times(Some([5, 7]), 10, 3), (5, 7));
        assert_eq!(times(Some([10, 10]), 10, 3), (10, 10));
        // Back during the call; ahead of this process; not there.
        for stamp in [Some([7, 5]), Some([8, 11]), Some([u64::MAX, 0]), None] {
            assert_eq!(times(stamp, 10, 3), (7, 10));
        }
        assert_eq!(times(None, 10, 30), (0, 10));
    }
}
