//! The settings of a process pool.

#![forbid(unsafe_code)]

use crate::error::BuildError;
use crate::limit::PendingLimit;
use crate::process::contract::PoolSettings;
use crate::process::options::{OnWorkerDeath, TaskOptions};
use crate::process::pool::observed::Observed;
use crate::recording::processes::RecordedPool;
use crate::runtime::os::limits;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The settings of a pool.
pub(crate) struct Settings {
    pub(crate) max_workers: usize,
    pub(crate) max_tasks_per_child: Option<usize>,
    pub(crate) start_timeout: Duration,
    /// The place of the initializer, and its argument.
    pub(crate) initializer: Option<(u64, Arc<[u8]>)>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) on_worker_death: OnWorkerDeath,
    pub(crate) options: TaskOptions,
    /// The bound on pending tasks.
    pub(crate) limit: Option<Arc<PendingLimit>>,
    pub(crate) observed: Option<Arc<Observed>>,
    /// The pool in recordings.
    pub(crate) recorded: Arc<RecordedPool>,
    /// The behaviour in which frontends differ.
    pub(crate) policy: Policy,
    /// Whether the frontend's workers are to cost as few descriptors as can be.
    pub(crate) is_lean: bool,
}

impl Settings {
    /// Returns whether the death of a worker breaks the pool.
    pub(crate) fn breaks_by_death(&self) -> bool {
        self.on_worker_death == OnWorkerDeath::Break
    }

    /// Returns the settings of a pool of another frontend.
    pub(crate) fn of_frontend(settings: &PoolSettings) -> Result<Self, BuildError> {
        Ok(Self {
            max_workers: settings.max_workers,
            recorded: Arc::new(RecordedPool::processes(settings.max_workers)),
            max_tasks_per_child: settings.max_tasks_per_child,
            start_timeout: Duration::MAX,
            memory_limit: settings.memory_limit,
            on_worker_death: settings.on_worker_death,
            policy: Policy::FOREIGN,
            is_lean: is_lean(settings.max_workers),
            limit: PendingLimit::bound(settings.max_pending)?,
            ..Self::default()
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        let max_workers = thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_workers,
            max_tasks_per_child: None,
            start_timeout: Duration::from_secs(60),
            initializer: None,
            memory_limit: None,
            on_worker_death: OnWorkerDeath::default(),
            options: TaskOptions::new(),
            limit: None,
            observed: None,
            recorded: Arc::new(RecordedPool::processes(max_workers)),
            policy: Policy::RUST,
            is_lean: false,
        }
    }
}

/// The behaviour in which the frontends differ.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a decision of its own"
)]
pub(crate) struct Policy {
    /// The pool has a thread for callbacks. The other frontend has such a thread of its own.
    pub(crate) has_callbacks_thread: bool,
    /// The thread that submits a task starts the worker for it. Otherwise the supervisor does, as the
    /// system ends a worker of Rust with the thread that has started it.
    pub(crate) submitters_start_workers: bool,
    /// The pool keeps its workers while replies are on their way to the frontend, which may refer to
    /// something in their workers.
    pub(crate) keeps_workers_for_replies: bool,
    /// A worker that is starting when its pool closes is told to end once it has started. Otherwise it is
    /// killed.
    pub(crate) lets_starting_workers_end: bool,
    /// A worker that was told to end is killed when that takes too long, and one that ignores a signal
    /// is killed after a while. Processes of the other frontend may have ways of their own to end.
    pub(crate) kills_slow_ends: bool,
    /// In a pool that a death breaks, the first worker that does not start breaks it. Otherwise the pool
    /// tries again.
    pub(crate) breaks_by_failed_start: bool,
    /// The refusal of one worker to work would be the refusal of any other.
    pub(crate) refusals_are_final: bool,
    /// The first task of the queue counts as started when the others are cancelled.
    pub(crate) first_pending_counts_as_started: bool,
    /// Workers are this program, whose `main` calls `init`: the handshake compares the builds, and messages
    /// name `init`.
    pub(crate) workers_are_this_program: bool,
    /// Long buffers go through segments, unless the pool is lean. Otherwise they go through the streams.
    pub(crate) sends_segments: bool,
}

impl Policy {
    /// The policy of the frontend of this crate.
    pub(crate) const RUST: Self = Self {
        has_callbacks_thread: true,
        submitters_start_workers: false,
        keeps_workers_for_replies: false,
        lets_starting_workers_end: false,
        kills_slow_ends: true,
        breaks_by_failed_start: false,
        refusals_are_final: false,
        first_pending_counts_as_started: false,
        workers_are_this_program: true,
        sends_segments: false,
    };

    /// The policy of frontends with worker processes of their own.
    pub(crate) const FOREIGN: Self = Self {
        has_callbacks_thread: false,
        submitters_start_workers: true,
        keeps_workers_for_replies: true,
        lets_starting_workers_end: true,
        kills_slow_ends: false,
        breaks_by_failed_start: true,
        refusals_are_final: true,
        first_pending_counts_as_started: true,
        workers_are_this_program: false,
        sends_segments: true,
    };
}

/// Returns whether this many workers of another frontend would take more than half of the descriptors that
/// this process may have.
fn is_lean(max_workers: usize) -> bool {
    /// The descriptors of a worker: socket, channel for segments, pidfd, and two of the frontend.
    const EACH: u64 = 5;
    limits::open_files().is_some_and(|limit| EACH.saturating_mul(max_workers as u64) > limit / 2)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("max_workers", &self.max_workers)
            .field("max_tasks_per_child", &self.max_tasks_per_child)
            .field("memory_limit", &self.memory_limit)
            .field("on_worker_death", &self.on_worker_death)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
