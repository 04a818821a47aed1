//! The arrival of tasks: a host asks for as many as it has room for, and refuses those that are none.
//!
//! Priorities are strict: a task begins only when all higher lanes are known to be empty. A lane is *known to be empty*
//! after the answer of the server to a probe, as long as a request is open. The next task of the lane answers the request at
//! once. So a host needs no probe while tasks of one priority come. A request may bring a task when all workers are busy. If
//! none becomes free soon, the host gives the task back, as another host may be idle. Then it asks for no more until a
//! worker is free: the task would come again and again.

#![forbid(unsafe_code)]

use super::state::{Host, Source, State};
use crate::bus::{BusError, Delivery, Settle, Supplied};
use crate::log;
use crate::wire::{Kind, Parcel, ParcelId, Question, random};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The work that a host has in reserve, so that its workers need not wait for the server.
const RESERVE: Duration = Duration::from_millis(20);
/// The most tasks in reserve.
const MOST_RESERVED: usize = 128;
/// The most parcels in reserve that the host has asked for.
const MOST_OPEN: usize = 4;
/// The age of a published task from which on it may be a copy that another party has sent again. The age is that of
/// the time in the task, when the server got it. Both times are of the server's clock. The server refuses a second
/// message of the same identity for two minutes. So a copy that it accepts is older than this.
const FRESH: Duration = Duration::from_secs(60);

/// The tasks that a host needs of a lane.
struct Need {
    /// The number of parcels that the host may have asked for. The next ones may be larger than the last one.
    most_open: usize,
    /// The number of tasks that the host has room for, those that it has asked for included.
    room: usize,
    /// The number of tasks in the newest parcel.
    parcel_size: usize,
    /// Whether a worker waits for the news that the lane is empty, to begin a task of a lower priority.
    is_waited_for: bool,
}

/// Returns whether a parcel that came at a time of the server's clock may be a copy of an old one.
pub(super) fn is_old(parcel: &Parcel, came: u64) -> bool {
    u128::from(came.abs_diff(parcel.sent)) > FRESH.as_millis()
}

impl Host {
    /// Asks for tasks of a priority, as long as there is room.
    pub(super) async fn pull(self: Arc<Self>, priority: u8) {
        let source = Source {
            priority,
            kept: None,
        };
        while let Err(error) = self.pull_from_one_supply(source).await {
            self.set_empty(source, false);
            log::trouble("a host could not ask for tasks", &error);
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn pull_from_one_supply(
        self: &Arc<Self>,
        source: Source,
    ) -> Result<(), BusError> {
        let lane = self.lane(source);
        let place = lane.subject();
        let mut supply = self.bus.supply(&lane).await?;
        let mut has_room = self.has_room.subscribe();
        let mut doubt = self.requests_doubt.subscribe();
        let mut is_doubted = false;
        // Whether the lane is known to be empty.
        let mut is_empty = false;
        // Whether all requests that were open at the last probe still are. Else its answer may be older than the
        // requests that are open now.
        let mut is_sure = false;
        // Whether the lane was empty when its last request ended. Then a probe follows the next one, so that no task of
        // a lower priority waits for it.
        let mut was_empty = false;
        loop {
            let need = self.need(source.priority);
            // As many parcels as there is room for, if they are like the last one.
            let open = supply.open();
            let room = need.room.saturating_sub(open * need.parcel_size);
            let most = need.most_open.saturating_sub(open);
            let count = room.div_ceil(need.parcel_size).min(most);
            // Few requests with several parcels each, instead of one request a parcel.
            if count > 0 && (open == 0 || count >= need.most_open.div_ceil(2)) {
                let wait = supply.wait();
                supply.ask(count, wait).await?;
            }
            let is_wanted = need.is_waited_for || was_empty && supply.open() > 0;
            let is_wanted = is_wanted && !is_empty || is_doubted && supply.open() > 0;
            if is_wanted && !supply.is_probing() {
                supply.probe().await?;
                is_sure = true;
                is_doubted = false;
            }
            tokio::select! {
                supplied = supply.next() => {
                    let supplied = supplied?;
                    // A request is open, unless its task is on the way.
                    let is_open = supply.open() > 0;
                    match supplied {
                        Supplied::Task(task) => {
                            (is_sure, was_empty) = (false, false);
                            is_empty &= is_open;
                            self.set_empty(source, is_empty);
                            self.receive(source, &place, task).await;
                        }
                        Supplied::Empty => {
                            is_empty = is_sure && is_open;
                            was_empty &= !is_empty;
                            self.set_empty(source, is_empty);
                        }
                        Supplied::Less => {
                            is_sure = false;
                            was_empty |= is_empty && !is_open;
                            is_empty &= is_open;
                            self.set_empty(source, is_empty);
                        }
                    }
                }
                // The sender is part of the host.
                _ = has_room.changed() => {}
                // A lane from which no task comes, although one waits there, may have lost its requests.
                _ = doubt.changed() => is_doubted = true,
            }
        }
    }

    /// Notes whether a lane is known to be empty: its next task comes at once.
    pub(super) fn set_empty(&self, source: Source, is_empty: bool) {
        let mut state = self.lock();
        let priority = usize::from(source.priority);
        let was_empty = match source.kept {
            Some(rank) => {
                let may_have = &mut state.may_have_kept[priority][usize::from(rank)];
                !std::mem::replace(may_have, !is_empty)
            }
            None => std::mem::replace(&mut state.is_empty[priority], is_empty),
        };
        drop(state);
        if is_empty && !was_empty {
            self.wake_starts();
        }
    }

    /// Returns what the host needs of a lane. Tasks of lower priorities take no room from those of higher ones.
    fn need(&self, priority: u8) -> Need {
        let state = self.lock();
        let capacity = self.capacity(&state);
        let (lower, others) = state.ready.split_at(usize::from(priority));
        let ahead: usize = others.iter().map(VecDeque::len).sum();
        let held = state.running + ahead;
        let has_worker = held < self.slots(&state);
        Need {
            most_open: self.slots(&state)
                + capacity.saturating_sub(self.slots(&state)).min(MOST_OPEN),
            room: capacity.saturating_sub(held),
            parcel_size: state.parcel_size.max(1),
            is_waited_for: has_worker && lower.iter().any(|ready| !ready.is_empty()),
        }
    }

    /// Returns how many tasks the host may hold: those that run, and some milliseconds of work.
    fn capacity(&self, state: &State) -> usize {
        let workers = self.slots(state);
        if state.is_stuck {
            return workers;
        }
        let reserve = state.pace.map_or(0, |pace| {
            let each = pace.as_nanos().max(1);
            let tasks = RESERVE.as_nanos() / each;
            usize::try_from(tasks)
                .unwrap_or(usize::MAX)
                .saturating_mul(workers)
        });
        workers + reserve.min(MOST_RESERVED.max(workers))
    }

    /// Receives a parcel from the server, if it is one.
    async fn receive(self: &Arc<Self>, source: Source, place: &str, delivery: Delivery) {
        let priority = source.priority;
        let seal = &self.settings.seal;
        let opened = seal
            .open::<Parcel>(Kind::Task, place.as_bytes(), &delivery.frame)
            .inspect_err(|refused| log::refused("a parcel", refused));
        let Some(mut parcel) = opened
            .ok()
            .filter(|parcel| parcel.id.to_string() == delivery.id)
            .filter(|parcel| {
                let mut tasks = parcel.tasks.iter();
                tasks.all(|task| task.terms.kept.is_some() == source.kept.is_some())
            })
        else {
            // Nothing will ever run it. If the acknowledgement is lost, it comes again when the lease ends, and is
            // refused again.
            let _ = self.bus.settle(&delivery.token, Settle::Done).await;
            return;
        };
        let id = parcel.id;
        let is_old = is_old(&parcel, delivery.published);
        let was_here = self.note_seen(id) && delivery.deliveries <= 1;
        if is_old || was_here {
            let host = Arc::clone(self);
            // The lane is not empty while its client is asked.
            self.lock().asked[usize::from(priority)] += 1;
            self.spawn(async move {
                let answer = match host.open_tasks(&parcel).await {
                    // The stores of the session know it as well.
                    Err(_) if source.kept.is_some() => Ok(host.open_kept(&parcel).await),
                    // Without its client, the parcel has no purpose.
                    Err(BusError::NoListener) => Ok(Vec::new()),
                    answer => answer,
                };
                host.lock().asked[usize::from(priority)] -= 1;
                match answer {
                    Ok(open) => {
                        parcel.tasks.retain(|task| open.contains(&task.number));
                        if parcel.tasks.is_empty() {
                            log::replayed(&id);
                        }
                        host.hold(priority, parcel, delivery.into());
                    }
                    // The lease ends, and the question is asked again.
                    Err(error) => log::trouble("a client does not answer", &error),
                }
                host.wake();
            });
        } else {
            self.hold(priority, parcel, delivery.into());
        }
    }

    /// Remembers a parcel. Returns whether it was here before.
    pub(super) fn note_seen(&self, id: ParcelId) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some((since, old)) = state.seen_order.front().copied() {
            // Older ones are asked for.
            if now.duration_since(since) < 4 * FRESH {
                break;
            }
            state.seen_order.pop_front();
            state.seen.remove(&old);
        }
        let is_new = state.seen.insert(id);
        if is_new {
            state.seen_order.push_back((now, id));
        }
        !is_new
    }

    /// Asks the client which tasks of a parcel are open. Returns their numbers.
    async fn open_tasks(&self, parcel: &Parcel) -> Result<Vec<u64>, BusError> {
        let nonce = random().map_err(|error| BusError::Refused(error.to_string()))?;
        let subject = format!("cf.q.{}", parcel.id.session);
        let tasks = parcel.tasks.iter();
        let question = Question {
            tasks: tasks.map(|task| (task.number, task.attempt)).collect(),
            nonce,
        };
        let frame = self
            .settings
            .seal
            .seal(Kind::Question, subject.as_bytes(), &question);
        let limit = self.bus.lease() / 3;
        let answer = self.bus.request(&subject, frame.clone(), limit).await?;
        let opened = self
            .settings
            .seal
            .open::<Vec<u64>>(Kind::Answer, &frame, &answer);
        opened.map_err(|refused| BusError::Refused(refused.to_string()))
    }
}
