//! Pools whose workers are on other machines, as other packages describe them to recordings.
//!
//! A native module of another package has a recorder of its own, which nothing reads. So it tells the one of this module,
//! by an object.

use crate::future::object::Future;
use crate::recording::names;
use concurrent_futures::engine::recorder::{self, RunOutcome};
use concurrent_futures::engine::{self, RemoteEnd, RemoteLoss, RemoteRun, recording_clock};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The outcomes that other packages tell, by their numbers in the columns of recordings.
fn outcome_of(number: u8) -> RunOutcome {
    match number {
        2 => RunOutcome::Finished,
        5 => RunOutcome::Rejected,
        6 => RunOutcome::WorkerDied,
        7 => RunOutcome::TimeLimit,
        8 => RunOutcome::Terminated,
        _ => RunOutcome::Failed,
    }
}

/// The machine, the process, the place there, and the times of a run.
type Run = (String, u32, Option<u32>, u64, u64);

fn remote((machine, pid, place, start, end): Run) -> RemoteRun {
    RemoteRun {
        machine: machine.into(),
        pid,
        place,
        start,
        end,
    }
}

/// A pool whose workers are on other machines, as recordings show it.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct RemotePool(engine::RemotePool);

#[pymethods]
impl RemotePool {
    #[new]
    fn new(name: &str) -> Self {
        Self(engine::RemotePool::new(name))
    }

    /// Returns whether anything is recorded.
    #[staticmethod]
    fn is_on() -> bool {
        recorder::is_on()
    }

    /// Returns the name of a function, as recordings have it. Runs no foreign code.
    #[staticmethod]
    fn name(function: &Bound<'_, PyAny>) -> String {
        names::text_of_callee(function)
    }

    /// Returns the time of the recordings' clock if anything is recorded, or else 0.
    #[staticmethod]
    fn begin() -> u64 {
        if recorder::is_on() {
            recording_clock()
        } else {
            0
        }
    }

    /// Records that a call was submitted, which was pickled since `began`. Returns the moment.
    #[pyo3(signature = (future, began, length, function, arguments = None, keywords = None))]
    fn submitted(
        &self,
        future: &Bound<'_, Future>,
        began: u64,
        length: usize,
        function: &Bound<'_, PyAny>,
        arguments: Option<&Bound<'_, PyTuple>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> u64 {
        let task = future.get().id();
        recorder::pickled(task, began, length);
        let arguments = arguments.map(|arguments| (arguments, keywords));
        names::note_submitted(task, self.0.describe(), function, arguments);
        recording_clock()
    }

    /// Records a run that has ended: its machine, process, place and times.
    #[allow(clippy::too_many_arguments, reason = "as recordings have them")]
    fn ran(
        &self,
        future: &Bound<'_, Future>,
        submitted: u64,
        items: usize,
        run: Option<Run>,
        outcome: u8,
        error: Option<&Bound<'_, PyAny>>,
        received: usize,
    ) {
        let run = run.map(remote);
        let error = error.map(names::text_of);
        let end = RemoteEnd {
            submitted,
            name: None,
            outcome: outcome_of(outcome),
            error: error.as_deref(),
            items,
            sent: 0,
            received,
        };
        self.0.ran(future.get().id(), run.as_ref(), &end);
    }

    /// Records runs without an outcome, each with the number of its end. The next run begins at `next`, if there is one.
    fn lost(
        &self,
        future: &Bound<'_, Future>,
        submitted: u64,
        losses: Vec<(Run, u8)>,
        next: Option<u64>,
    ) {
        let losses = losses.into_iter().map(|(run, outcome)| RemoteLoss {
            run: remote(run),
            outcome: outcome_of(outcome),
        });
        let losses: Vec<RemoteLoss> = losses.collect();
        self.0
            .lost(future.get().id(), &losses, next, (submitted, None));
    }

    /// Records that a call has failed for a reason that no machine has told.
    fn failed(&self, future: &Bound<'_, Future>, outcome: u8, error: &Bound<'_, PyAny>) {
        let error = names::text_of(error);
        self.0
            .failed(future.get().id(), outcome_of(outcome), &error);
    }

    /// Records that a pending call was cancelled.
    fn cancelled(&self, future: &Bound<'_, Future>) {
        self.0.cancelled(future.get().id());
    }
}
