//! The figures of executors: tasks by phase, workers, busy time and time in the queue.
//!
//! | file | contents |
//! |---|---|
//! | `counts.rs` | the counters of one pool, and of each of its threads |
//! | `times.rs` | the time that tasks spend in the queue |
//! | `directory.rs` | the counters of all pools, by the pools' numbers |
//! | `view.rs` | pools and workers, as they describe themselves |
//!
//! # Counted always, or when asked
//! Counts are kept always: a count costs a store that no other thread waits for. Times need the clock, which
//! takes about as long as the submission of a short task. So times are measured from the first call of `stats` on,
//! except for the busy time of processes, which workers send with each result.
//!
//! # Invariants
//! 1. A task is counted as submitted before a worker can see it, and as ended before its future is done. So a
//!    thread that has a result finds the task among the ended ones.
//! 2. No counter is written by two threads without an atomic addition.
//! 3. Reading takes no lock that a worker holds while it runs a task.

#![forbid(unsafe_code)]

pub(crate) mod counts;
pub(crate) mod directory;
pub(crate) mod times;
pub(crate) mod view;

use std::time::Duration;

/// The figures of an executor since its start, as [`stats`](crate::ThreadPoolExecutor::stats) returns them.
///
/// The figures are read one after the other while tasks go on. So they need not fit together exactly, but a task
/// whose result a thread has is among the ended ones for that thread.
///
/// # Examples
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new()?;
/// pool.spawn(|| 1)?.result()?;
/// let stats = pool.stats();
/// assert_eq!((stats.finished, stats.failed, stats.pending, stats.running), (1, 0, 0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorStats {
    /// The number of tasks that wait for a worker. In a pool of processes, the calls of a `map` that wait
    /// together count as one.
    pub pending: u64,
    /// The number of tasks that run. A task that waits for another one runs, too.
    pub running: u64,
    /// The number of calls that returned a value.
    pub finished: u64,
    /// The number of calls that ended with an error, and of tasks that failed without being started.
    pub failed: u64,
    /// The number of tasks that were cancelled.
    pub cancelled: u64,
    /// The number of workers that there are.
    pub workers: u64,
    /// The number of workers that were started in the place of others that had ended.
    pub restarts: u64,
    /// The time for which times have been measured: for threads, since the first call of `stats`; for
    /// processes, since the start of the pool.
    pub measured: Duration,
    /// The sum over all workers of the time for which they ran tasks, within the measured time.
    pub busy: Duration,
    /// The time that tasks spent in the queue, for tasks that were submitted since the first call of `stats`
    /// and started.
    pub queued: QueueTimes,
}

/// The time that tasks spent in the queue.
///
/// Percentiles are exact to an eighth of their value, and are 0 while `count` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueTimes {
    /// The number of tasks that were measured.
    pub count: u64,
    /// Half of the tasks waited for at most this time.
    pub p50: Duration,
    /// 95 % of the tasks waited for at most this time.
    pub p95: Duration,
    /// 99 % of the tasks waited for at most this time.
    pub p99: Duration,
    /// The longest time.
    pub longest: Duration,
}
