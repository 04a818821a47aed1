//! The burial of a worker that has ended: what becomes of its tasks, and of the pool.

#![forbid(unsafe_code)]

use crate::error::process::{TimeLimitExceeded, WorkerDied, WorkerExit};
use crate::error::{BrokenExecutor, TaskError};
use crate::process::pool::batch::Batch;
use crate::process::pool::child::Child;
use crate::process::pool::start;
use crate::process::pool::supervisor::Supervisor;
use crate::process::pool::task::{Ending, Task};
use crate::process::pool::worker_handle::{Kill, Orphan, Stage, WorkerHandle};
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::task::log;
use std::sync::Arc;

impl Supervisor {
    /// Buries a worker that has ended: fails its running task, and gives its other tasks to other workers.
    pub(super) fn bury(&mut self, child: &Arc<Child>) {
        let pid = child.pid();
        if !self.silent.contains(&pid) {
            self.listen(child);
        }
        let (mut worker, mut batch, replaced) = {
            let mut state = self.pool.lock();
            let place = |worker: &WorkerHandle| Arc::ptr_eq(&worker.child, child);
            let Some(index) = state.workers.iter().position(place) else {
                return;
            };
            // The answers that the worker has sent count.
            let mut batch = Batch::default();
            state.receive_last(index, &mut batch);
            let is_over = state.broken.is_some() || !state.open && state.queue.is_empty();
            let worker = state.workers.remove(index);
            if state.open {
                self.pool.counts.worker_goes();
            }
            // No other is started in its place before its exit status is taken.
            state.starting += 1;
            (worker, batch, !is_over)
        };
        let settings = &self.pool.settings;
        let is_last =
            settings.breaks_by_death() && worker.stage != Stage::Closing && worker.killed.is_none();
        let exit = start::exit_of(&*self.pool.spawner, child, replaced && !is_last);
        worker.record_end(exit);
        self.pool.lock().starting -= 1;
        self.silent.retain(|silent| *silent != pid);
        let note: Option<Arc<str>> = match (self.refusals.remove(&pid), &worker.killed) {
            (Some(refusal), _) => Some(refusal.into()),
            (None, Some(Kill::Fault(note))) => Some(Arc::clone(note)),
            _ => None,
        };
        let death = WorkerDied {
            task: None,
            pid,
            exit,
            memory_limit: self.pool.settings.memory_limit,
            note,
        };
        let orphans = worker.orphans();
        self.pool.deliver(batch.take_foreign());
        for task in batch.end() {
            task.finish_by(self.pool.callbacks());
        }
        let is_expected = worker.stage == Stage::Closing && orphans.is_empty();
        let is_running = |orphan: &Orphan| matches!(orphan, Orphan::Running(_));
        if worker.stage == Stage::Ready && worker.killed.is_none() {
            if orphans.iter().any(is_running) {
                self.quick_deaths = 0;
            } else {
                self.note_idle_death(worker.ready_since);
            }
        }
        if !is_expected || worker.killed.as_ref().is_some_and(is_fault) {
            let death = death.clone();
            self.log(move || log::process_died(&death));
        }
        let policy = self.pool.settings.policy;
        let is_refused =
            policy.refusals_are_final && death.note.is_some() && worker.killed.is_none();
        if worker.stage == Stage::Starting && worker.killed.as_ref().is_none_or(is_fault) {
            let note = death.note.clone();
            let cause = Arc::new(WorkerDied {
                note: note.or_else(|| Some(hint(exit, policy.workers_are_this_program).into())),
                ..death.clone()
            });
            // A refusal of one worker would be the refusal of any other.
            self.fail_start(cause, is_refused);
        }
        // First, so that a thread that sees a task fail for this death finds the pool broken.
        let is_strict =
            self.pool.settings.breaks_by_death() && !is_expected && worker.killed.is_none();
        if is_strict && worker.stage != Stage::Starting {
            let cause = Arc::new(death.clone());
            let broken = BrokenExecutor::by("a worker process died", cause);
            self.pool.break_with(&broken);
        }
        self.settle(orphans, &worker, &death);
    }

    /// Decides whether the tasks of a dead worker fail or run again.
    fn settle(&self, orphans: Vec<Orphan>, worker: &WorkerHandle, death: &WorkerDied) {
        let killed = worker.killed.as_ref();
        let outcome = match killed {
            Some(Kill::TimeLimit) => RunOutcome::TimeLimit,
            Some(Kill::Terminated) => RunOutcome::Terminated,
            Some(Kill::Fault(_)) | None => RunOutcome::WorkerDied,
        };
        let mut again = Vec::new();
        let mut failed = Vec::new();
        for orphan in orphans {
            match orphan {
                // The caller of `terminate` could not know that the task was not begun.
                Orphan::NotBegun(task) if matches!(killed, Some(Kill::Terminated)) => {
                    task.note_rejected(outcome);
                    failed.push(task);
                }
                Orphan::NotBegun(task) => again.push(task),
                Orphan::Running(mut task) => {
                    worker.record_death(&task, outcome);
                    let repeats = killed.is_none_or(is_fault)
                        && task.options.retries > 0
                        && !self.pool.settings.breaks_by_death();
                    if repeats {
                        task.options.retries -= 1;
                        task.turn = 0;
                        recorder::retried(task.id());
                        again.push(task);
                    } else {
                        self.pool.counts.failed(task.items().into());
                        failed.push(task);
                    }
                }
            }
        }
        let (cancelled, broken) = {
            let mut state = self.pool.lock();
            again.reverse();
            state.requeue(again);
            let cancelled = if state.cancelling || state.broken.is_some() {
                state.take_pending(0)
            } else {
                state.refill();
                Vec::new()
            };
            (cancelled, state.broken.clone())
        };
        for task in failed {
            let error = self.error_of(&task, killed, death);
            if let Some(task) = task.end(Ending::Error(error)) {
                task.finish_by(self.pool.callbacks());
            }
        }
        if cancelled.is_empty() {
            return;
        }
        let cancel = move || {
            for task in cancelled {
                match &broken {
                    Some(broken) => task.reject(TaskError::Broken(broken.clone())),
                    None => task.cancel(),
                }
            }
        };
        match self.pool.callbacks() {
            Some(callbacks) => callbacks.run(Box::new(cancel)),
            None => cancel(),
        }
    }

    fn error_of(&self, task: &Task, killed: Option<&Kill>, death: &WorkerDied) -> TaskError {
        let id = task.id();
        if let Some(broken) = &self.pool.lock().broken {
            return TaskError::Broken(broken.clone());
        }
        match (killed, task.options.time_limit) {
            (Some(Kill::Terminated), _) => TaskError::Terminated,
            (Some(Kill::TimeLimit), Some(limit)) => {
                TaskError::TimeLimit(Arc::new(TimeLimitExceeded {
                    task: id,
                    name: task.function_name(),
                    pid: death.pid,
                    limit,
                }))
            }
            _ => {
                let death = WorkerDied {
                    task: Some((id, task.function_name())),
                    ..death.clone()
                };
                if self.pool.settings.breaks_by_death() {
                    let cause = Arc::new(death);
                    TaskError::Broken(BrokenExecutor::by("a worker process died", cause))
                } else {
                    TaskError::WorkerDied(Arc::new(death))
                }
            }
        }
    }
}

fn is_fault(kill: &Kill) -> bool {
    matches!(kill, Kill::Fault(_))
}

/// Returns a hint at the reason why a worker has ended before it could work.
fn hint(exit: WorkerExit, is_this_program: bool) -> &'static str {
    match exit {
        WorkerExit::Code(_) if is_this_program => {
            "it ended before it could work: does `main` call concurrent_futures::init() first?"
        }
        _ => "it ended before it could work",
    }
}
