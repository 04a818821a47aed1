//! The run of a task: from a free worker to the outcome.

#![forbid(unsafe_code)]

use super::report::{self, News};
use super::state::Host;
use crate::bus::kept::SLACK;
use crate::bus::{BusError, INLINE, StoreKey};
use crate::log;
use crate::runner::{CallOptions, Ended};
use crate::wire::{
    Answer, Id, KeptTerms, OnHostLoss, Outcome, Payload, Task, TaskId, What, Why, hash,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The number of tasks of which the host takes the average time, about.
const PACE_OF: u32 = 64;

impl Host {
    /// Starts tasks, the most urgent first, whenever a worker is free.
    pub(super) async fn start_tasks(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            let mut has_started = false;
            loop {
                let (id, task, is_repeated, orders) = {
                    let mut state = self.lock();
                    if state.running >= self.slots(&state) {
                        drop(state);
                        if has_started {
                            // From now on, the tasks that are left wait for a worker.
                            self.is_full.notify_one();
                        }
                        break;
                    }
                    let Some(key) = state.next_ready() else {
                        break;
                    };
                    let Some(held) = state.held.get_mut(&key) else {
                        continue;
                    };
                    let Some(task) = held.task.take() else {
                        continue;
                    };
                    let (sender, orders) = mpsc::unbounded_channel();
                    held.orders = Some(sender);
                    // One that has waited long may have come to another host meanwhile.
                    let is_old = held.since.elapsed() > self.bus.lease() / 3;
                    let is_repeated = held.is_repeated || is_old;
                    let id = held.id;
                    state.running += 1;
                    has_started = true;
                    (id, task, is_repeated, orders)
                };
                let host = Arc::clone(&self);
                tokio::spawn(async move {
                    let key = (id.session, id.number);
                    let started = Instant::now();
                    let mut outcome = host.run(id, task, is_repeated, orders).await;
                    let id = {
                        let mut state = host.lock();
                        if state.gives_back && matches!(outcome, Outcome::Failure(_)) {
                            outcome = Outcome::Returned(Why::Ended);
                        }
                        state.running -= 1;
                        state.is_stuck = false;
                        let took = started.elapsed();
                        state.ended = (state.ended + 1).min(PACE_OF);
                        let ended = state.ended;
                        let pace = state.pace.unwrap_or_default();
                        state.pace = Some((pace * (ended - 1) + took) / ended);
                        match state.held.get_mut(&key) {
                            Some(held) => {
                                held.is_returned = matches!(outcome, Outcome::Returned(_));
                                // Another attempt may have come meanwhile.
                                held.id
                            }
                            None => id,
                        }
                    };
                    host.report(id.session, News::Ended(id, outcome));
                    host.poke();
                });
            }
            // The sender is part of the host.
            let _ = changed.changed().await;
        }
    }

    /// Carries out a task, and obeys orders meanwhile.
    async fn run(
        self: &Arc<Self>,
        id: TaskId,
        task: Task,
        is_repeated: bool,
        mut orders: mpsc::UnboundedReceiver<(What, oneshot::Sender<Answer>)>,
    ) -> Outcome {
        if !self.runner.knows(&task.call) {
            return Outcome::NoFunction(self.runner.why_unknown(&task.call));
        }
        let kept = task.terms.kept;
        let argument = match task.argument {
            Payload::Inline(bytes) => bytes,
            Payload::Object {
                hash: wanted,
                length,
            } => match self.object(kept, id.session, wanted, length).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Outcome::Returned(Why::NoObject),
                Err(error) => {
                    log::trouble("an object could not be fetched", &error);
                    return Outcome::Returned(Why::NoObject);
                }
            },
        };
        let token = self.token((id.session, id.number));
        let options = CallOptions {
            time_limit: task.terms.time_limit,
            retries: task.terms.retries,
            token: token.number,
        };
        let must_be_known = is_repeated
            || id.attempt > 1
            || task.terms.deliveries == 1
            || kept.is_some_and(|kept| kept.on_host_loss == OnHostLoss::Fail);
        if let (Some(kept), true) = (kept, must_be_known) {
            if let Err(outcome) = self.begin_kept(id, &task.terms, kept).await {
                return outcome;
            }
        } else if must_be_known && !report::confirm_start(self, id).await {
            return Outcome::Returned(Why::Recalled);
        }
        let mut running = self.runner.run(&task.call, argument, options);
        if !must_be_known {
            self.report(id.session, News::Started(id));
        }
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                Some((what, answer)) = orders.recv() => {
                    let said = match what {
                        What::Recall if running.recall() => Answer::GivenUp,
                        What::Terminate if running.terminate() => Answer::Ends,
                        _ => Answer::Runs,
                    };
                    // The host that waits for the answer is gone only if it ends.
                    let _ = answer.send(said);
                }
            }
        };
        match ended {
            Ended::Value(bytes) => match self.stored(kept, id.session, bytes.into()).await {
                Ok(payload) => Outcome::Value(payload),
                Err(error) => {
                    log::trouble("the object of a result could not be stored", &error);
                    Outcome::Returned(Why::NoObject)
                }
            },
            Ended::Failure(bytes) => Outcome::Failure(bytes.into()),
            Ended::Untouched => Outcome::Returned(Why::Recalled),
        }
    }

    async fn object(
        &self,
        kept: Option<KeptTerms>,
        session: Id,
        wanted: [u8; 32],
        length: u64,
    ) -> Result<Option<Bytes>, BusError> {
        let store_key = StoreKey::object(&self.stores_of(kept), session, &wanted, length);
        let found = self.bus.fetch(&store_key).await?;
        let is_right = |bytes: &Bytes| bytes.len() as u64 == length && hash(bytes) == wanted;
        Ok(found.filter(is_right))
    }

    /// Makes the payload of a result, and stores it if it is long.
    pub(super) async fn stored(
        &self,
        kept: Option<KeptTerms>,
        session: Id,
        bytes: Bytes,
    ) -> Result<Payload, BusError> {
        if bytes.len() <= INLINE {
            return Ok(Payload::Inline(bytes));
        }
        let (hash, length) = (hash(&bytes), bytes.len() as u64);
        let store_key = StoreKey::object(&self.stores_of(kept), session, &hash, length);
        match kept {
            None => self.bus.keep(&store_key, bytes).await?,
            Some(kept) => {
                let age = kept.age + SLACK;
                self.bus.keep_for(&store_key, bytes, age).await?
            }
        };
        Ok(Payload::Object { hash, length })
    }
}
