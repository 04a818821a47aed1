//! The options of one task.

#![forbid(unsafe_code)]

use crate::wire::OnHostLoss;
#[cfg(doc)]
use concurrent_futures::TaskError;
use std::time::Duration;

/// The options of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) on_host_loss: OnHostLoss,
}

impl ClusterOptions {
    /// Makes options without a time limit and without retries; a lost host's tasks run again.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time that the task may run on its host. When the time passes, the worker is killed, and the future
    /// fails with [`TaskError::TimeLimit`].
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets how often the host repeats the task if its worker process dies.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets what becomes of the task if its whole host is lost while it runs.
    #[must_use]
    pub fn on_host_loss(mut self, effect: OnHostLoss) -> Self {
        self.on_host_loss = effect;
        self
    }
}
