//! The life of a worker thread.

use crate::deadlock;
use crate::error::{BrokenExecutor, TaskError};
use crate::recording::recorder;
use crate::recording::session::WorkerEnd;
use crate::runtime::crew::Crew;
use crate::runtime::os::signal::Signal;
use crate::runtime::spin::Spin;
use crate::runtime::sync::{Arc, deadline_after};
use crate::stats::counts::Counts;
use crate::task::current::Worker;
use crate::task::{TaskRef, panic};
use crate::thread::idle::ParkOutcome;
use crate::thread::pool::Pool;
use crate::thread::spare;

/// The role in which a worker thread begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A regular worker, which is counted as searching.
    Regular,
    /// A spare worker, which the detector of deadlocks counts as awake.
    Spare,
}

/// Runs tasks until the pool is closed and its queue empty, or the thread is not
/// needed any more.
pub(super) fn run(pool: &Arc<Pool>, role: Role) {
    let crew: Arc<dyn Crew> = Arc::clone(pool) as _;
    let counts: &Counts = &pool.counts;
    let counts = (counts, counts.add_worker(pool.spawner.thread_label()));
    let worker = Worker::new(pool.id(), &crew, pool.observer.as_deref(), Some(counts));
    // The code of a frontend there is foreign code.
    let initialize = || pool.spawner.initialize();
    let initialize =
        || panic::catch(initialize).unwrap_or_else(|panic| Err(BrokenExecutor::new(panic)));
    worker.describe(true);
    worker.enter(|| match (initialize(), role) {
        (Ok(()), Role::Regular) => run_tasks(pool, &worker),
        (Ok(()), Role::Spare) => {
            if spare::run(pool, &worker) {
                run_tasks(pool, &worker);
            } else {
                pool.spare_ends();
            }
        }
        (Err(broken), Role::Regular) => {
            pool.break_with(broken);
            pool.idle.stop_searching();
            pool.end();
        }
        (Err(broken), Role::Spare) => {
            pool.break_with(broken);
            pool.spawner.idle(&mut || deadlock::spare_ends(&**pool));
            pool.spare_ends();
        }
    });
    recorder::worker_ended(worker.number, WorkerEnd::Plain);
}

fn run_tasks(pool: &Arc<Pool>, worker: &Worker<'_>) {
    let signal = Arc::new(Signal::new());
    let mut searching = true;
    loop {
        searching = run_batch(pool, worker, searching);
        if pool.queue.is_finished() {
            // Nothing can come any more.
            if searching {
                pool.idle.stop_searching();
            }
            return pool.end();
        }
        let mut awake = ParkOutcome::Called;
        pool.spawner.idle(&mut || {
            let has_work = || !pool.queue.is_empty() || pool.queue.is_closed();
            searching = searching || pool.idle.start_searching();
            if searching && Spin::Thread.until(has_work) {
                return;
            }
            let deadline = pool.keep_alive.and_then(deadline_after);
            awake = pool.idle.sleep(&signal, searching, has_work, deadline);
            searching = true;
        });
        if awake == ParkOutcome::Expired && pool.expire() {
            return;
        }
        if pool.spawner.ends_worker() {
            return pool.quit();
        }
    }
}

/// Runs tasks until the queue is empty. Returns whether the worker is searching afterwards.
fn run_batch(pool: &Arc<Pool>, worker: &Worker<'_>, mut searching: bool) -> bool {
    loop {
        if deadlock::may_be_crowded(&**pool) {
            if searching {
                stop_searching(pool);
                searching = false;
            }
            pool.spawner.idle(&mut || deadlock::hold_back(&**pool));
        }
        let Some((task, number)) = pool.queue.pop_counted() else {
            return searching;
        };
        if searching {
            stop_searching(pool);
        }
        searching = run_task(pool, worker, &task, number);
    }
}

/// Runs a task, which was taken from the queue as this number, unless it was cancelled. Returns whether the
/// worker is searching afterwards.
fn run_task(pool: &Arc<Pool>, worker: &Worker<'_>, task: &TaskRef, number: u64) -> bool {
    // SAFETY: the thread that takes a task out of the queue runs the task, or fails it.
    if !unsafe { task.state().start() } {
        pool.skip(task);
        return false;
    }
    if let Some(broken) = pool.broken() {
        // SAFETY: just started.
        unsafe { task.fail(TaskError::Broken(broken)) };
        return false;
    }
    // SAFETY: just started; `finish` finishes it.
    unsafe { worker.run_and_finish(task, number, || finish(pool, task)) }.unwrap_or(false)
}

/// Makes the future done. If there is nothing else to do, the worker searches from before that moment. The
/// thread that waits for the result often submits the next task at once: it must find a searching worker, and
/// not wake another.
///
/// # Safety
/// The task was started and executed.
unsafe fn finish(pool: &Arc<Pool>, task: &TaskRef) -> bool {
    // An observer is still to be called, which is foreign code.
    let nothing_else = pool.queue.seems_empty() && pool.observer.is_none();
    if nothing_else && pool.idle.start_searching() {
        // SAFETY: the task was started and executed, so the outcome is written.
        if unsafe { task.finish_quietly() } {
            return true;
        }
        // There are callbacks, perhaps: no searching meanwhile.
        stop_searching(pool);
    }
    // SAFETY: the task was started and executed, so the outcome is written.
    unsafe {
        if !task.finish_quietly() {
            task.finish();
        }
    }
    false
}

/// Counts the worker as busy, as it has found a task.
fn stop_searching(pool: &Arc<Pool>) {
    if pool.idle.stop_searching() && !pool.queue.is_empty() {
        // Without another, this worker and those that are busy do it all.
        let _ = pool.call_worker(None);
    }
}
