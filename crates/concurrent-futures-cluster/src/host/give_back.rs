//! The return of tasks to their clients: for want of a free worker, and at the end of the host.

#![forbid(unsafe_code)]

use super::report::News;
use super::state::{Host, State};
use crate::wire::{Outcome, TaskId, What, Why};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The time for which a task waits for a worker of its host, before the host gives it back.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl Host {
    /// Gives tasks back that wait for a worker for some time: another host may have one for them.
    pub(super) async fn give_back_waiting(self: Arc<Self>) {
        loop {
            // Since when the first task waits for a worker.
            let first = {
                let state = self.lock();
                let is_full = state.running >= self.slots(&state);
                let first = state.ready.iter().filter_map(VecDeque::front);
                let first = first.filter_map(|key| Some(state.held.get(key)?.since));
                first.min().filter(|_| is_full)
            };
            let Some(first) = first else {
                self.is_full.notified().await;
                continue;
            };
            match Instant::now().checked_sub(LONGEST_WAIT) {
                Some(before) if first <= before => {
                    self.lock().is_stuck = true;
                    self.give_back(before, Why::Busy);
                }
                // Another one may be the first then.
                _ => sleep_until(first + LONGEST_WAIT).await,
            }
        }
    }

    /// Gives tasks back that have come before, and have not begun.
    fn give_back(self: &Arc<Self>, before: Instant, why: Why) {
        let mut given: Vec<TaskId> = Vec::new();
        {
            let State { ready, held, .. } = &mut *self.lock();
            for queue in ready {
                queue.retain(|key| match held.get_mut(key) {
                    Some(held) if held.since > before => true,
                    Some(held) => {
                        if held.task.take().is_some() {
                            held.is_returned = true;
                            given.push(held.id);
                        }
                        false
                    }
                    None => false,
                });
            }
        }
        for task in given {
            self.report(
                task.session,
                News::Ended(task, Outcome::Returned(why), None),
            );
        }
        self.wake();
    }

    /// Gives back what has not begun, and waits for the rest.
    pub(super) async fn drain(self: &Arc<Self>) {
        self.lock().draining = true;
        self.give_back(Instant::now(), Why::Drained);
        let deadline = Instant::now() + self.settings.drain;
        if !self.settled_by(deadline).await {
            let running: Vec<_> = {
                let mut state = self.lock();
                state.gives_back = true;
                let orders = state.held.values().filter_map(|held| held.orders.clone());
                orders.collect()
            };
            for orders in running {
                let (sender, _) = oneshot::channel();
                // A task without a receiver has ended, and its outcome is on the way.
                let _ = orders.send((What::Terminate, sender));
            }
            self.settled_by(Instant::now() + self.bus.lease()).await;
        }
    }

    /// Waits until no task is held. Returns false if the time passes first.
    async fn settled_by(&self, deadline: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            if self.lock().held.is_empty() {
                return true;
            }
            // Each task that is settled wakes it. The sender is part of the host.
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return false;
            }
        }
    }
}
