//! A description of all pools, for people who look at a program that stands still.
//!
//! The description is made while the program goes on, or stands still with locks held. No lock is waited for that
//! could be held for long: a pool whose lock is not to be had is said to be busy.

#![forbid(unsafe_code)]

use crate::deadlock::{self, WaitView};
use crate::id::FutureId;
use crate::stats::directory;
use crate::stats::view::{PoolView, WorkerKind, WorkerView};
use std::fmt::{self, Write as _};

fn write_worker(text: &mut String, worker: &WorkerView, waits: &[WaitView]) -> fmt::Result {
    write!(text, "  {}", worker.name)?;
    let Some(task) = &worker.task else {
        return writeln!(
            text,
            " {}",
            if worker.is_ready { "is idle" } else { "starts" }
        );
    };
    write!(text, " runs task #{}", task.number)?;
    if !task.name.is_empty() {
        write!(text, " ({})", task.name)?;
    }
    write!(text, " {}", task.time)?;
    if worker.behind > 0 {
        write!(text, "; behind it: {}", worker.behind)?;
    }
    writeln!(text)?;
    for wait in waits {
        if wait.waiter.map(FutureId::number) == Some(task.number) {
            writeln!(text, "    {wait}")?;
        }
    }
    Ok(())
}

/// Returns a text that says what each worker of each pool runs, and what waits for what. Measures times from now
/// on.
pub fn describe() -> String {
    directory::measure_all();
    let waits = deadlock::waits();
    let mut text = String::new();
    let pools = directory::pools();
    // Writing to a string does not fail.
    let _ = write_pools(&mut text, &pools, &waits);
    text
}

fn write_pools(
    text: &mut String,
    pools: &[(usize, Option<PoolView>)],
    waits: &[WaitView],
) -> fmt::Result {
    let count = pools.len();
    writeln!(
        text,
        "Pools of concurrent_futures in process {}: {count}",
        std::process::id()
    )?;
    for (number, pool) in pools {
        let Some(pool) = pool else {
            writeln!(text, "pool {number} is busy: another thread holds its lock")?;
            continue;
        };
        let kind = match pool.kind {
            WorkerKind::Threads => "threads",
            WorkerKind::Processes => "processes",
        };
        writeln!(
            text,
            "pool {number} of {kind}: {} of {} workers, pending tasks: {}",
            pool.workers.len(),
            pool.max_workers,
            pool.pending
        )?;
        for worker in &pool.workers {
            write_worker(text, worker, waits)?;
        }
    }
    Ok(())
}

/// Returns the processes of all workers that can take tasks.
pub fn worker_pids() -> Vec<u32> {
    let pools = directory::pools().into_iter();
    let pools = pools.filter_map(|(_, pool)| pool);
    let workers = pools.flat_map(|pool| pool.workers);
    let ready = workers.filter(|worker| worker.is_ready);
    ready.filter_map(|worker| worker.pid).collect()
}
