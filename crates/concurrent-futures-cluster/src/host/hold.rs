//! The tasks that a host holds: from their delivery until they are settled.

#![forbid(unsafe_code)]

use super::report::News;
use super::state::{Delivered, Held, Host};
use crate::bus::{Delivery, Settle};
use crate::wire::{Outcome, Parcel, TaskId, Why};
use std::sync::Arc;
use tokio::time::{Instant, sleep};

impl Host {
    /// Extends the deliveries of held tasks, and tells their clients of them.
    pub(super) async fn extend(self: Arc<Self>) {
        loop {
            sleep(self.bus.lease() / 3).await;
            let (held, tokens) = {
                let mut state = self.lock();
                let now = Instant::now();
                state.recalled.retain(|_, until| *until > now);
                let held: Vec<TaskId> = state.held.values().map(|held| held.id).collect();
                let parcels = state.parcels.values();
                let tokens: Vec<String> = parcels.map(|parcel| parcel.token.clone()).collect();
                (held, tokens)
            };
            for token in tokens {
                // A lost extension is one of three in a lease. If all are lost, another host gets the tasks, and the
                // first outcome counts.
                let _ = self.bus.settle(&token, Settle::Extend).await;
            }
            for id in held {
                self.report(id.session, News::Held(id));
            }
            self.reporters.forget_idle(2 * self.bus.lease());
        }
    }

    /// Holds the tasks of a parcel, each until it is settled.
    pub(super) fn hold(self: &Arc<Self>, priority: u8, parcel: Parcel, delivery: Delivery) {
        let Parcel { id, tasks, .. } = parcel;
        let mut refused = Vec::new();
        let mut news = Vec::new();
        let mut emptied = Vec::new();
        let mut is_empty = None;
        {
            let mut state = self.lock();
            state.parcel_size = tasks.len().max(1);
            if let Some(delivered) = state.parcels.get_mut(&id) {
                // It came again, as the lease had ended. It is settled by its newest delivery.
                delivered.token = delivery.token;
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
                left += 1;
                if let Some(held) = state.held.get_mut(&key) {
                    // Another attempt has brought it. From now on, it belongs to this parcel.
                    let former = std::mem::replace(&mut held.parcel, id);
                    if former == id {
                        // The parcel names it twice.
                        left -= 1;
                    } else {
                        emptied.extend(state.leave(former, false));
                    }
                    continue;
                }
                let refusal = if state.recalled.remove(&task_id).is_some() {
                    Some(Why::Recalled)
                } else if state.draining {
                    Some(Why::Drained)
                } else if delivery.deliveries > u64::from(task.terms.deliveries) {
                    Some(Why::Deliveries(delivery.deliveries))
                } else {
                    None
                };
                let held = Held {
                    id: task_id,
                    parcel: id,
                    is_repeated: delivery.deliveries > 1,
                    since,
                    task: refusal.is_none().then_some(task),
                    orders: None,
                };
                state.held.insert(key, held);
                if let Some(why) = refusal {
                    refused.push((key, why));
                } else {
                    state.ready[usize::from(priority)].push_back(key);
                    news.push(task_id);
                }
            }
            if left > 0 {
                let delivered = Delivered {
                    token: delivery.token,
                    left,
                    goes_back: false,
                };
                state.parcels.insert(id, delivered);
            } else {
                is_empty = Some((delivery.token, Settle::Done));
            }
        }
        emptied.extend(is_empty);
        self.settle_later(emptied);
        for (key, why) in refused {
            self.report(id.session, News::Ended(key, Outcome::Returned(why)));
        }
        if !news.is_empty() {
            for task in news {
                self.report(id.session, News::Held(task));
            }
            self.poke();
        }
    }

    /// Settles parcels that have no held task any more.
    fn settle_later(self: &Arc<Self>, parcels: Vec<(String, Settle)>) {
        if parcels.is_empty() {
            return;
        }
        let host = Arc::clone(self);
        tokio::spawn(async move {
            for (token, how) in parcels {
                // If that is lost, the parcel comes again when its lease ends.
                let _ = host.bus.settle(&token, how).await;
            }
        });
    }
}
