//! The tasks that a host holds: from their delivery until they are settled.

#![forbid(unsafe_code)]

use super::report::News;
use super::state::{Delivered, Held, Host, State};
use crate::bus::{Delivery, Settle};
use crate::wire::{Outcome, Parcel, ParcelId, Task, TaskId, Why};
use std::sync::Arc;
use tokio::time::{Instant, sleep};

/// The way on which a parcel has come.
pub(super) struct Arrival {
    /// The way to settle the delivery. None if the parcel has come from its client directly.
    pub(super) token: Option<String>,
    /// The number of times that the parcel was delivered.
    pub(super) deliveries: u64,
}

impl From<Delivery> for Arrival {
    fn from(delivery: Delivery) -> Self {
        Self {
            token: Some(delivery.token),
            deliveries: delivery.deliveries,
        }
    }
}

impl State {
    /// Makes the former attempt of a task the one that has come. Returns the news for its client.
    fn renew(
        &mut self,
        id: TaskId,
        parcel: ParcelId,
        task: Task,
        emptied: &mut Vec<(String, Settle)>,
    ) -> Option<News> {
        let held = self.held.get_mut(&(id.session, id.number))?;
        held.id = id;
        held.is_repeated = true;
        let news = if held.orders.is_some() {
            News::Started(id)
        } else {
            held.task = Some(task);
            News::Held(id)
        };
        let former = std::mem::replace(&mut held.parcel, parcel);
        emptied.extend(self.leave(former, false));
        Some(news)
    }
}

impl Host {
    /// Extends the deliveries of held tasks, and tells their clients of them.
    pub(super) async fn extend(self: Arc<Self>) {
        loop {
            sleep(self.bus.lease() / 3).await;
            let (held, tokens) = {
                let mut state = self.lock();
                let now = Instant::now();
                state.recalled.retain(|_, until| *until > now);
                let held = state.held.values().map(|held| {
                    // The client of a kept task may be another one than that which was told of the start. Any other
                    // client may not have heard of the start, and have submitted the task again.
                    let runs = held.kept.is_some() && held.orders.is_some();
                    (held.id, runs || held.has_begun)
                });
                let held: Vec<(TaskId, bool)> = held.collect();
                let parcels = state.parcels.values();
                let tokens: Vec<String> =
                    parcels.filter_map(|parcel| parcel.token.clone()).collect();
                (held, tokens)
            };
            for token in tokens {
                // A lost extension is one of three in a lease. If all are lost, another host gets the tasks, and the
                // first outcome counts.
                let _ = self.bus.settle(&token, Settle::Extend).await;
            }
            for (id, runs) in held {
                let news = if runs {
                    News::Started(id)
                } else {
                    News::Held(id)
                };
                self.report(id.session, news);
            }
            self.reporters.forget_idle(2 * self.bus.lease());
        }
    }

    /// Holds the tasks of a parcel, each until it is settled.
    ///
    /// The host may have a former attempt of a task. One that waits or runs is the new one from now on, as the client did not
    /// hear of it. One that the host gives back is over: its client may have answered already, and that answer may come
    /// later. Then the new attempt is another task.
    pub(super) fn hold(self: &Arc<Self>, priority: u8, parcel: Parcel, arrival: Arrival) {
        let Parcel { id, tasks, .. } = parcel;
        let mut refused = Vec::new();
        let mut news = Vec::new();
        let mut emptied = Vec::new();
        let mut is_empty = None;
        let (is_full, is_empty_above) = {
            let mut state = self.lock();
            state.parcel_size = tasks.len().max(1);
            if let Some(delivered) = state.parcels.get_mut(&id) {
                // It came again, as the lease had ended. It is settled by its newest arrival.
                delivered.token = arrival.token;
                return;
            }
            let since = Instant::now();
            let mut left = 0;
            for task in tasks {
                let task_id = TaskId {
                    session: id.session,
                    number: task.number,
                    attempt: task.attempt,
                };
                let key = (id.session, task.number);
                let former = state.held.get(&key).map(|held| held.id.attempt);
                if former.is_some_and(|former| former >= task.attempt) {
                    // The parcel names it twice, or its client has submitted it again since.
                    continue;
                }
                left += 1;
                if task.terms.kept.is_some() {
                    state.kept_sessions.insert(id.session);
                }
                let is_recalled = state.recalled.contains_key(&task_id);
                let has_former = state.held.get(&key).is_some_and(|held| {
                    !held.is_returned && (held.orders.is_some() || !is_recalled)
                });
                if has_former {
                    news.extend(state.renew(task_id, id, task, &mut emptied));
                    continue;
                }
                let refusal = if state.recalled.remove(&task_id).is_some() {
                    Some(Why::Recalled)
                } else if state.draining {
                    Some(Why::Drained)
                } else if task.terms.kept.is_none()
                    && arrival.deliveries > u64::from(task.terms.deliveries)
                {
                    Some(Why::Deliveries(arrival.deliveries))
                } else {
                    None
                };
                let mut held = Held::new(task_id, id, since);
                held.is_repeated = arrival.deliveries > 1;
                held.kept = task.terms.kept;
                held.is_returned = refusal.is_some();
                held.task = refusal.is_none().then_some(task);
                if let Some(former) = state.held.insert(key, held) {
                    state.leave_ready(key);
                    emptied.extend(state.leave(former.parcel, false));
                }
                if let Some(why) = refusal {
                    refused.push((task_id, why));
                } else {
                    state.ready[usize::from(priority)].push_back(key);
                    news.push(News::Held(task_id));
                }
            }
            if left > 0 {
                let delivered = Delivered {
                    token: arrival.token,
                    left,
                    goes_back: false,
                };
                state.parcels.insert(id, delivered);
            } else {
                is_empty = arrival.token.map(|token| (token, Settle::Done));
            }
            let is_full = state.running >= self.slots(&state);
            (is_full, state.is_empty_above(priority))
        };
        emptied.extend(is_empty);
        self.settle_later(emptied);
        for (task, why) in refused {
            self.report(id.session, News::Ended(task, Outcome::Returned(why), None));
        }
        if !news.is_empty() {
            for one in news {
                self.report(id.session, one);
            }
            self.wake_starts();
            if is_full {
                // It waits from now on.
                self.is_full.notify_one();
            }
            if !is_empty_above {
                self.wake_pulls();
            }
        }
    }

    /// Settles parcels that have no held task any more.
    fn settle_later(self: &Arc<Self>, parcels: Vec<(String, Settle)>) {
        if parcels.is_empty() {
            return;
        }
        let host = Arc::clone(self);
        self.spawn(async move {
            for (token, how) in parcels {
                // If that is lost, the parcel comes again when its lease ends.
                let _ = host.bus.settle(&token, how).await;
            }
        });
    }
}
