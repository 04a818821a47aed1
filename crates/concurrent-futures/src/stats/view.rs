//! Pools and workers, as they describe themselves for people.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The kind of a pool's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    Threads,
    Processes,
}

/// A pool, as it describes itself.
#[derive(Debug)]
pub(crate) struct PoolView {
    pub(crate) kind: WorkerKind,
    pub(crate) max_workers: usize,
    pub(crate) pending: u64,
    pub(crate) workers: Vec<WorkerView>,
}

/// A worker, as its pool describes it.
#[derive(Debug)]
pub(crate) struct WorkerView {
    pub(crate) name: String,
    /// The process; none for threads.
    pub(crate) pid: Option<u32>,
    /// Whether the worker can take tasks.
    pub(crate) is_ready: bool,
    pub(crate) task: Option<TaskView>,
    /// The number of tasks that were dispatched to the worker and wait for the running one.
    pub(crate) behind: usize,
}

/// A task that runs.
#[derive(Debug)]
pub(crate) struct TaskView {
    pub(crate) number: u64,
    pub(crate) name: Cow<'static, str>,
    pub(crate) time: RunTime,
}

/// The time for which a task has run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RunTime {
    Exactly(Duration),
    /// The task began before times were measured.
    AtLeast(Duration),
}

/// A pool that can describe itself.
pub(crate) trait Inspect: Send + Sync {
    /// Returns a description; none if the pool's lock is held by another thread for long.
    fn inspect(&self) -> Option<PoolView>;
}

impl fmt::Display for RunTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(time) => write!(f, "for {:.3} s", time.as_secs_f64()),
            Self::AtLeast(time) => write!(f, "for at least {:.3} s", time.as_secs_f64()),
        }
    }
}
