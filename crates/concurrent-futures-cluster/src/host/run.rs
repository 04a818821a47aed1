//! The run of a task: from a free worker to the outcome.

#![forbid(unsafe_code)]

use super::report::{self, News};
use super::state::{Host, Key};
use crate::bus::kept::SLACK;
use crate::log;
use crate::payloads::PayloadError;
use crate::runner::{CallOptions, Ended};
use crate::wire::{
    Answer, Id, KeptTerms, OnHostLoss, Outcome, Payload, Run, Task, TaskId, What, Why,
    hash_of_payload,
};
use bytes::Bytes;
use concurrent_futures::engine::recording_clock;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// The number of tasks of which the host takes the average time, about.
const PACE_OF: u32 = 64;
/// The time after which a task that has gone to the pool ahead has begun, or comes back: it stands behind a long one.
const BEHIND: Duration = Duration::from_millis(10);

/// The time in the pool up to which a task is short: little more than the way to a worker and back.
const SHORT: Duration = Duration::from_micros(200);

/// The end of the run of a task.
enum Ran {
    Ended(Outcome),
    /// No worker was free for the task.
    Behind(Task),
}

impl From<Outcome> for Ran {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

/// A task that goes to the pool.
struct Next {
    id: TaskId,
    task: Task,
    is_repeated: bool,
    /// When the task came.
    since: Instant,
    orders: mpsc::UnboundedReceiver<(What, oneshot::Sender<Answer>)>,
    place: Place,
}

/// The place of a task in the pool.
#[derive(Clone, Copy)]
struct Place {
    priority: usize,
    /// Whether all workers had a task.
    is_ahead: bool,
    /// The share of the task's time in the pool in which it runs.
    share: f64,
}

/// Returns the share of its time in a pool in which a task runs, if as many are there: the others are before it.
fn share(slots: usize, there: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let share = slots as f64 / there.max(1) as f64;
    share.min(1.0)
}

impl Host {
    /// Starts tasks, the most urgent first, whenever a worker is free, and carries them out.
    ///
    /// All of them are one asynchronous task: many replies of workers at once wake the thread once.
    pub(super) async fn start_tasks(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(next) = self.take_next() {
                let id = next.id;
                let run = AssertUnwindSafe(Arc::clone(&self).carry_out(next)).catch_unwind();
                running.push(async move { run.await.map_err(|payload| (id, payload)) });
            }
            tokio::select! {
                Some(ended) = running.next() => if let Err((id, payload)) = ended {
                    self.forget_run(id);
                    self.break_by(payload);
                },
                // The sender is part of the host.
                _ = changed.changed() => {}
            }
        }
    }

    /// Forgets a task whose run has panicked. It comes to another host when its lease ends.
    fn forget_run(&self, id: TaskId) {
        let mut state = self.lock();
        state.running -= 1;
        if let Some(held) = state.held.remove(&(id.session, id.number)) {
            state.parcels.remove(&held.parcel);
        }
    }

    /// Takes the next task that may go to the pool.
    fn take_next(&self) -> Option<Next> {
        let mut state = self.lock();
        let slots = self.slots(&state);
        let most = self.most_with_pool(&state);
        while state.running < most {
            let is_ahead = state.running >= slots;
            let (key, priority) = state.next_ready(is_ahead)?;
            let Some(held) = state.held.get_mut(&key) else {
                continue;
            };
            let Some(task) = held.task.take() else {
                continue;
            };
            let (sender, orders) = mpsc::unbounded_channel();
            held.orders = Some(sender);
            let (id, is_repeated, since) = (held.id, held.is_repeated, held.since);
            state.running += 1;
            if state.running == slots || state.running == most {
                // From now on, the tasks that are left wait for a worker.
                self.is_full.notify_one();
            }
            return Some(Next {
                id,
                task,
                is_repeated,
                since,
                orders,
                place: Place {
                    priority,
                    is_ahead,
                    share: share(slots, state.running),
                },
            });
        }
        None
    }

    /// Carries out a task, and reports its outcome.
    async fn carry_out(self: Arc<Self>, next: Next) {
        let Next { id, place, .. } = next;
        let key = (id.session, id.number);
        let started = Instant::now();
        let mut run = None;
        let mut outcome = match self.run(next, &mut run).await {
            Ran::Ended(outcome) => outcome,
            Ran::Behind(task) => return self.take_from_pool(key, place, task),
        };
        let id = {
            let mut state = self.lock();
            if state.gives_back && matches!(outcome, Outcome::Failure(_)) {
                outcome = Outcome::Returned(Why::Ended);
            }
            state.running -= 1;
            state.is_stuck = false;
            state.is_behind = false;
            let took = started.elapsed().mul_f64(place.share);
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
        self.report(id.session, News::Ended(id, outcome, run));
        self.wake_pulls();
    }

    /// Makes a task ready again that stands behind a long one in the pool. The caller looks for tasks that may start then.
    fn take_from_pool(&self, key: Key, place: Place, task: Task) {
        let mut state = self.lock();
        state.running -= 1;
        state.is_behind = true;
        state.put_back(key, place.priority, task);
        drop(state);
        self.is_full.notify_one();
    }

    /// Carries out a task, and obeys orders meanwhile. Notes the run of the call, if it has run.
    async fn run(self: &Arc<Self>, next: Next, run: &mut Option<Run>) -> Ran {
        let Next {
            id,
            task,
            is_repeated,
            since,
            mut orders,
            place: Place { is_ahead, .. },
        } = next;
        if !self.runner.knows(&task.call) {
            return Outcome::NoFunction(self.runner.why_unknown(&task.call)).into();
        }
        let kept = task.terms.kept;
        let argument = match &task.argument {
            Payload::Inline(bytes) => bytes.clone(),
            payload => {
                let queue = self.stores_of(kept);
                match self.payloads.fetch(&queue, id.session, payload).await {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => return Outcome::Returned(Why::NoObject).into(),
                    Err(error) => return self.without_object(error).into(),
                }
            }
        };
        let token = self.token((id.session, id.number));
        let options = CallOptions {
            time_limit: task.terms.time_limit,
            retries: task.terms.retries,
            token: token.number,
            is_ahead,
        };
        // One that has waited long may have come to another host meanwhile, or have been cancelled after its loss.
        let is_old = since.elapsed() > self.bus.lease() / 3;
        let must_be_known = is_repeated
            || is_old
            || id.attempt > 1
            || task.terms.deliveries == 1
            || kept.is_some_and(|kept| kept.on_host_loss == OnHostLoss::Fail);
        if let (Some(kept), true) = (kept, must_be_known) {
            if let Err(outcome) = self.begin_kept(id, &task.terms, kept).await {
                return outcome.into();
            }
        } else if must_be_known && !report::confirm_start(self, id).await {
            return Outcome::Returned(Why::Recalled).into();
        }
        let mut running = self.runner.run(&task.call, argument, options);
        self.enter_lane(token.number);
        if !is_ahead {
            self.note_begun(id, !must_be_known);
        }
        if self.is_short_and_alone() {
            // Other work of this thread comes first.
            yield_now().await;
            self.runner.receive_soon();
        }
        let mut may_be_behind = is_ahead;
        let mut is_behind = false;
        let is_late = async {
            if is_ahead {
                sleep(BEHIND).await;
            }
        };
        tokio::pin!(is_late);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                () = &mut is_late, if may_be_behind => {
                    may_be_behind = false;
                    is_behind = running.recall();
                    if !is_behind {
                        self.note_begun(id, !must_be_known);
                    }
                }
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
        *run = self.leave_lane(token.number, id.number, &ended);
        let outcome = match ended {
            Ended::Value(bytes) => match self.stored(kept, id.session, bytes).await {
                Ok(payload) => Outcome::Value(payload),
                Err(error) => self.without_object(error),
            },
            Ended::Failure(bytes) => Outcome::Failure(bytes),
            Ended::Untouched if is_behind => return Ran::Behind(task),
            Ended::Untouched => Outcome::Returned(Why::Recalled),
        };
        outcome.into()
    }

    /// Returns whether one task runs, which is likely to be short: no wake-up need pass from thread to thread for its end.
    fn is_short_and_alone(&self) -> bool {
        let state = self.lock();
        let is_short = state.pace.is_some_and(|pace| pace <= SHORT);
        is_short && state.running == 1 && state.ready.iter().all(VecDeque::is_empty)
    }

    /// Notes that a worker begins a task. Tells the client, if it does not know that.
    fn note_begun(self: &Arc<Self>, id: TaskId, is_news: bool) {
        if let Some(held) = self.lock().held.get_mut(&(id.session, id.number)) {
            held.has_begun = true;
        }
        if is_news {
            self.report(id.session, News::Started(id));
        }
    }

    /// Notes that a call has gone to the pool.
    fn enter_lane(&self, call: u64) {
        let now = recording_clock();
        let mut state = self.lock();
        let slots = self.slots(&state);
        state.lanes.enter(call, slots, now);
    }

    /// Notes that a call has left the pool. Returns its run, if it has run.
    fn leave_lane(&self, call: u64, number: u64, ended: &Ended) -> Option<Run> {
        let now = recording_clock();
        let lanes = &mut self.lock().lanes;
        if *ended == Ended::Untouched {
            lanes.leave(call, now);
            return None;
        }
        let (lane, start) = lanes.end(call, now);
        Some(Run {
            number,
            place: u32::try_from(lane).unwrap_or(u32::MAX),
            start,
            took: now.saturating_sub(start),
        })
    }

    /// Returns the outcome of a task whose argument or result the host could not fetch or store.
    fn without_object(&self, error: PayloadError) -> Outcome {
        match error {
            PayloadError::Store(error) => {
                Outcome::NoStore(format!("on the host {}, {error}", self.settings.machine))
            }
            PayloadError::Bus(error) => {
                log::trouble("a payload could not be stored or fetched", &error);
                Outcome::Returned(Why::NoObject)
            }
        }
    }

    /// Makes the payload of a result, and stores it if it is long.
    pub(super) async fn stored(
        &self,
        kept: Option<KeptTerms>,
        session: Id,
        bytes: Bytes,
    ) -> Result<Payload, PayloadError> {
        let payload = self.payloads.of(&bytes, || hash_of_payload(&bytes));
        let (queue, age) = (self.stores_of(kept), kept.map(|kept| kept.age + SLACK));
        let stored = self.payloads.keep(&queue, session, &payload, bytes, age);
        stored.await?;
        Ok(payload)
    }
}
