//! The tasks of a Rust program in recordings and in errors: their names, their runs on hosts, and their ends.

#![forbid(unsafe_code)]

use crate::client::Arrived;
use crate::error::{self, HostLost, PoisonTask};
use crate::wire::Call;
use bytes::Bytes;
use concurrent_futures::engine::recorder::{self, Name, RunOutcome};
use concurrent_futures::engine::{
    EarlyParts, RemoteEnd, RemoteLoss, RemotePool, RemoteRun, Unsent, name_error, number_of,
};
use concurrent_futures::{FutureId, TaskError};
use std::borrow::Cow;
use std::sync::Arc;

/// A function, as recordings and errors know it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) pool: Arc<RemotePool>,
    /// The name of the function; none of a task of an earlier client.
    pub(super) name: Option<Cow<'static, str>>,
}

/// The part of a future that few need: recorded tasks, and tasks of several items.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// When the task was submitted; 0 if that was not recorded.
    submitted: u64,
    /// The number of items, and the parts of the value, of a task with several items.
    pub(super) span: Option<(usize, Arc<EarlyParts>)>,
    sent: usize,
    last: Option<RemoteRun>,
    losses: Vec<RemoteLoss>,
}

impl Extra {
    pub(super) fn new(submitted: u64, span: Option<(usize, Arc<EarlyParts>)>) -> Self {
        Self {
            submitted,
            span,
            ..Self::default()
        }
    }

    /// Notes where and when the task has run.
    pub(super) fn note_run(extra: &mut Option<Box<Self>>, run: RemoteRun) {
        if recorder::is_on() {
            extra.get_or_insert_default().last = Some(run);
        }
    }

    /// Notes the runs of the task that gave no outcome.
    pub(super) fn note_losses(extra: &mut Option<Box<Self>>, losses: Vec<RemoteLoss>) {
        if recorder::is_on() {
            extra.get_or_insert_default().losses = losses;
        }
    }

    /// Notes the length of the argument.
    pub(super) fn note_sent(extra: &mut Option<Box<Self>>, length: usize) {
        if recorder::is_on() {
            extra.get_or_insert_default().sent = length;
        }
    }
}

/// Records the submission of a task. Returns its time; 0 if nothing is recorded.
pub(super) fn note_submitted(
    pool: &RemotePool,
    task: FutureId,
    function: &'static str,
    call: &Result<(Call, Vec<u8>), Unsent>,
) -> u64 {
    if !recorder::is_on() {
        return 0;
    }
    let name = match call {
        Ok((Call::Named { name, .. }, _)) => Name::Index(recorder::text(name)),
        _ => Name::Static(function),
    };
    pool.submitted(task, name)
}

/// Records that a task could not be sent, if anything is recorded.
pub(super) fn note_unsent(pool: &RemotePool, task: FutureId, error: &TaskError) {
    if recorder::is_on() {
        pool.failed(task, RunOutcome::Rejected, &error.to_string());
    }
}

impl Named {
    /// Gives an error that is not the call's own the name of the function.
    pub(super) fn named(&self, task: FutureId, error: TaskError) -> TaskError {
        let Some(name) = &self.name else {
            return error;
        };
        let error = error::name_error(error, number_of(task), name.clone());
        name_error(error, task, name.clone())
    }

    /// Returns the name of the function for a record; none if the record of the submission has it.
    fn record_name(&self) -> Option<Name> {
        self.name.as_ref().map(|name| match name {
            Cow::Borrowed(name) => Name::Static(name),
            Cow::Owned(name) => Name::Index(recorder::text(name)),
        })
    }

    /// Records the end of a task, if anything is recorded. `error_in` returns the first error in a value, as text.
    pub(super) fn note_end<T>(
        &self,
        task: FutureId,
        extra: Option<&Extra>,
        arrived: &Arrived,
        outcome: &Result<T, TaskError>,
        error_in: impl FnOnce(&T) -> Option<String>,
    ) {
        if !recorder::is_on() {
            return;
        }
        let run = extra.and_then(|extra| extra.last.as_ref());
        let submitted = extra.map_or(0, |extra| extra.submitted);
        if let Some(extra) = extra
            && !extra.losses.is_empty()
        {
            let next = run.map(|run| run.start);
            let named = (submitted, self.record_name());
            self.pool.lost(task, &extra.losses, next, named);
        }
        let error = match outcome {
            Ok(value) => error_in(value),
            Err(error) => Some(error.to_string()),
        };
        if let Arrived::Error(cause) = arrived {
            let text = error.unwrap_or_default();
            return self.pool.failed(task, without_run(cause), &text);
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
            submitted,
            name: self.record_name(),
            outcome: kind,
            error: error.as_deref(),
            items: extra
                .and_then(|extra| extra.span.as_ref())
                .map_or(1, |(items, _)| *items),
            sent: extra.map_or(0, |extra| extra.sent),
            received,
        };
        self.pool.ran(task, run, &end);
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
