//! The life of a worker thread.

use super::idle::Awake;
use super::pool::Pool;
use crate::current::Worker;
use crate::error::{BrokenExecutor, TaskError};
use crate::future::TaskRef;
use crate::panic;
use crate::sync::{Arc, Signal, deadline_after, spin_until};
use std::ptr;

/// Runs tasks until the pool is closed and its queue empty, or the thread is not
/// needed any more. The thread is counted as searching.
pub(super) fn run(pool: &Arc<Pool>) {
    let home = ptr::from_ref::<Pool>(pool).cast();
    let worker = Worker::new(home, pool.max_workers, pool.observer.as_deref());
    worker.enter(|| match initialize(pool) {
        Ok(()) => run_tasks(pool, &worker),
        Err(broken) => {
            pool.break_with(broken);
            pool.idle.stop_searching();
            pool.end();
        }
    });
}

fn initialize(pool: &Pool) -> Result<(), BrokenExecutor> {
    let Some(initializer) = &pool.initializer else {
        return Ok(());
    };
    let cause = match panic::catch(initializer) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => Arc::from(error),
        Err(panic) => Arc::new(PanicCause(panic)) as _,
    };
    Err(BrokenExecutor { cause })
}

/// A panic as the cause of a broken executor.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct PanicCause(Arc<crate::error::TaskPanic>);

fn run_tasks(pool: &Arc<Pool>, worker: &Worker<'_>) {
    let signal = Arc::new(Signal::new());
    let mut searching = true;
    loop {
        if let Some(task) = pool.queue.pop() {
            if searching {
                searching = false;
                if pool.idle.stop_searching() && !pool.queue.is_empty() {
                    // Without another, this worker and those that are busy do it all.
                    drop(pool.call_worker(None));
                }
            }
            run_task(pool, worker, task);
            continue;
        }
        if pool.queue.is_finished() {
            // Nothing can come any more.
            if searching {
                pool.idle.stop_searching();
            }
            return pool.end();
        }
        searching = searching || pool.idle.start_searching();
        let has_work = || !pool.queue.is_empty() || pool.queue.is_closed();
        if searching && spin_until(has_work) {
            continue;
        }
        let deadline = pool.keep_alive.and_then(deadline_after);
        match pool.idle.sleep(&signal, searching, has_work, deadline) {
            Awake::Searching => searching = true,
            Awake::Expired => {
                if pool.expire() {
                    return;
                }
                searching = true;
            }
        }
    }
}

fn run_task(pool: &Pool, worker: &Worker<'_>, task: TaskRef) {
    if task.state().start() {
        if let Some(broken) = pool.broken() {
            // SAFETY: just started.
            unsafe { task.fail(TaskError::Broken(broken)) };
        } else {
            // SAFETY: just started.
            unsafe { worker.run(&task) };
        }
    }
}
