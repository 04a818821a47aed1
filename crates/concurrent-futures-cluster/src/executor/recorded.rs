//! The tasks of a Rust program in recordings and in errors: their names, their runs on hosts, and their ends.

#![forbid(unsafe_code)]

use crate::client::Arrived;
use crate::error::{self, HostLost, PoisonTask};
use crate::wire::Call;
use bytes::Bytes;
use concurrent_futures::engine::recorder::{self, Name, RunOutcome};
use concurrent_futures::engine::{
    RemoteEnd, RemoteLoss, RemotePool, RemoteRun, Unsent, name_error, number_of,
};
use concurrent_futures::{FutureId, TaskError};
use std::borrow::Cow;
use std::sync::Arc;

/// A task, as recordings and errors know it.
#[derive(Debug)]
pub(super) struct Recorded {
    pool: Arc<RemotePool>,
    task: FutureId,
    /// The name of the function; none of a task of an earlier client.
    name: Option<Cow<'static, str>>,
    /// When the task was submitted; 0 if that was not recorded.
    submitted: u64,
    items: usize,
    sent: usize,
    /// None while the task has no run, as most tasks that a client keeps are pending.
    runs: Option<Box<Runs>>,
}

/// The runs of a task.
#[derive(Debug, Default)]
struct Runs {
    last: Option<RemoteRun>,
    losses: Vec<RemoteLoss>,
}

impl Recorded {
    /// Records the submission of a task with so many calls, if anything is recorded.
    pub(super) fn of(
        pool: &Arc<RemotePool>,
        task: FutureId,
        function: &'static str,
        call: &Result<(Call, Vec<u8>), Unsent>,
        items: usize,
    ) -> Self {
        let (sent, named) = match call {
            Ok((Call::Named { name, .. }, bytes)) => (bytes.len(), Some(name)),
            Ok((_, bytes)) => (bytes.len(), None),
            Err(_) => (0, None),
        };
        let submitted = if recorder::is_on() {
            let name = named.map_or(Name::Static(function), |name| {
                Name::Index(recorder::text(name))
            });
            pool.submitted(task, name)
        } else {
            0
        };
        Self {
            name: Some(match named {
                Some(name) => Cow::Owned(name.clone()),
                None => Cow::Borrowed(function),
            }),
            submitted,
            items,
            sent,
            ..Self::of_earlier(pool, task)
        }
    }

    /// Makes the record of a task of an earlier client.
    pub(super) fn of_earlier(pool: &Arc<RemotePool>, task: FutureId) -> Self {
        Self {
            pool: Arc::clone(pool),
            task,
            name: None,
            submitted: 0,
            items: 1,
            sent: 0,
            runs: None,
        }
    }

    /// Gives an error that is not the call's own the name of the function.
    pub(super) fn named(&self, error: TaskError) -> TaskError {
        let Some(name) = &self.name else {
            return error;
        };
        let error = error::name_error(error, number_of(self.task), name.clone());
        name_error(error, self.task, name.clone())
    }

    /// Notes where and when the task has run.
    pub(super) fn note_run(&mut self, run: RemoteRun) {
        if recorder::is_on() {
            self.runs.get_or_insert_default().last = Some(run);
        }
    }

    /// Notes the runs of the task that gave no outcome.
    pub(super) fn note_losses(&mut self, losses: Vec<RemoteLoss>) {
        if recorder::is_on() {
            self.runs.get_or_insert_default().losses = losses;
        }
    }

    /// Returns the name of the function for a record; none if the record of the submission has it.
    fn record_name(&self) -> Option<Name> {
        self.name.as_ref().map(|name| match name {
            Cow::Borrowed(name) => Name::Static(name),
            Cow::Owned(name) => Name::Index(recorder::text(name)),
        })
    }

    /// Records that a task could not be sent, if anything is recorded.
    pub(super) fn note_unsent(&self, error: &TaskError) {
        if recorder::is_on() {
            let text = error.to_string();
            self.pool.failed(self.task, RunOutcome::Rejected, &text);
        }
    }

    /// Records the end of a task, if anything is recorded. `error_in` returns the first error in a value, as text.
    pub(super) fn note_end<T>(
        &self,
        arrived: &Arrived,
        outcome: &Result<T, TaskError>,
        error_in: impl FnOnce(&T) -> Option<String>,
    ) {
        if !recorder::is_on() {
            return;
        }
        let run = self.runs.as_ref().and_then(|runs| runs.last.as_ref());
        if let Some(runs) = &self.runs
            && !runs.losses.is_empty()
        {
            let next = run.map(|run| run.start);
            let named = (self.submitted, self.record_name());
            self.pool.lost(self.task, &runs.losses, next, named);
        }
        let error = match outcome {
            Ok(value) => error_in(value),
            Err(error) => Some(error.to_string()),
        };
        if let Arrived::Error(cause) = arrived {
            let text = error.unwrap_or_default();
            return self.pool.failed(self.task, without_run(cause), &text);
        }
        let kind = match outcome {
            Err(TaskError::WorkerDied(_)) => RunOutcome::WorkerDied,
            Err(TaskError::TimeLimit(_)) => RunOutcome::TimeLimit,
            Err(TaskError::Terminated) => RunOutcome::Terminated,
            _ if error.is_some() => RunOutcome::Failed,
            _ => RunOutcome::Finished,
        };
        let received = match arrived {
            Arrived::Value(bytes) | Arrived::Failure(bytes) => Bytes::len(bytes),
            Arrived::Error(_) => 0,
        };
        let end = RemoteEnd {
            submitted: self.submitted,
            name: self.record_name(),
            outcome: kind,
            error: error.as_deref(),
            items: self.items,
            sent: self.sent,
            received,
        };
        self.pool.ran(self.task, run, &end);
    }
}

/// Returns the outcome of a task whose runs, if there were any, are not known.
fn without_run(error: &TaskError) -> RunOutcome {
    let TaskError::Failed(cause) = error else {
        return RunOutcome::Rejected;
    };
    let cause: &(dyn std::error::Error + 'static) = &**cause;
    if cause.is::<HostLost>() || cause.is::<PoisonTask>() {
        RunOutcome::WorkerDied
    } else {
        RunOutcome::Rejected
    }
}
