//! Publication: tasks go to the server, as long as there is room for them.
//!
//! A client keeps about a second's work on the server, by the times that hosts report.

#![forbid(unsafe_code)]

use super::direct::Dispatched;
use super::{CallKind, Client, Entry, Place, Power, Request, Stage, State, failed};
use crate::bus::BusError;
use crate::bus::kept::{KeptTask, SLACK};
use crate::log;
use crate::payloads::PayloadError;
use crate::wire::{Id, KeptTerms, Kind, OnHostLoss, Parcel, Payload, Task, Terms};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The most publications that wait for the server's confirmation.
const MOST_PUBLISHING: usize = 4096;
/// The most tasks that a client keeps on the server, and a number for each worker, which it keeps there in any case.
const ON_SERVER: usize = 1000;
const PER_WORKER: usize = 4;
/// The time that the tasks of one client on the server take, about. The tasks of another client wait behind them.
const SHARE: Duration = Duration::from_secs(1);
/// The tasks that a client keeps on the server until a host has reported how long they take.
const AT_FIRST: usize = 256;

/// The most tasks of a parcel, and their work. Workers of several hosts are to share a burst.
const LARGEST: usize = 64;
const PARCEL: Duration = Duration::from_millis(10);
/// The longest argument of a task that shares a parcel, and the most bytes of arguments in a parcel.
pub(super) const SMALL: usize = 16 * 1024;
const PARCEL_BYTES: usize = 128 * 1024;
/// The number of unconfirmed parcels from which on a small rest of a burst waits for more tasks.
const ON_THEIR_WAY: usize = 2;

/// A parcel that is to be published.
pub(super) struct Next {
    pub(super) serial: u64,
    pub(super) tasks: Vec<NextTask>,
    /// The host that gets the parcel directly, if it takes the parcel.
    pub(super) direct: Option<Id>,
}

/// A task that is to be published.
pub(super) struct NextTask {
    pub(super) number: u64,
    pub(super) attempt: u32,
    deliveries: u32,
    pub(super) request: Arc<Request>,
}

/// The first task that is to be published.
struct First {
    number: u64,
    /// Whether it was never published, and has no entry.
    is_new: bool,
    length: usize,
    /// Whether it shares no parcel.
    is_alone: bool,
}

impl State {
    /// Returns the first task that is to be published. Those that come again are before the others.
    fn first_unpublished(&mut self) -> Option<First> {
        let first = |number, is_again, length, kind: &CallKind| {
            let is_sensitive = kind.options.on_host_loss == OnHostLoss::Fail;
            First {
                number,
                is_new: false,
                length,
                is_alone: is_again || length > SMALL || is_sensitive,
            }
        };
        while let Some(number) = self.backlog.front().copied() {
            if let Some(entry) = self.entries.get(&number)
                && entry.stage == Stage::Waiting
            {
                let Request { argument, kind, .. } = &*entry.request;
                return Some(first(number, entry.attempt > 0, argument.len(), kind));
            }
            self.backlog.pop_front();
        }
        let task = self.waiting.first()?;
        Some(First {
            is_new: true,
            ..first(task.number, false, task.argument.len(), &task.kind)
        })
    }
}

impl Client {
    /// Publishes tasks, as long as the server has room for them.
    pub(super) async fn pump(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        let mut publishing = FuturesUnordered::new();
        loop {
            while publishing.len() < MOST_PUBLISHING {
                let Some(next) = self.next(publishing.len()) else {
                    break;
                };
                publishing.push(self.publish(next));
            }
            tokio::select! {
                Some(()) = publishing.next() => {}
                // The sender is part of the client.
                _ = changed.changed() => {}
            }
        }
    }

    /// Takes the next parcel of tasks out of the backlog, while others are on their way to the server.
    fn next(&self, publishing: usize) -> Option<Next> {
        let mut state = self.lock();
        let is_kept = self.settings.kept.is_some();
        if state.is_on_hold || is_kept && !self.is_owned(&state) {
            return None;
        }
        let backlog = state.backlog.len() + state.waiting.len();
        let most = if is_kept {
            // A message of its own, by which later clients find the task. All come to the server at once, as they are to
            // run without this client.
            1
        } else {
            let room = room(state.hosts.values()).saturating_sub(state.on_server);
            parcel_size(state.hosts.values(), backlog).min(room)
        };
        // The first tasks of a burst go at once. The next ones go together, when the server has confirmed those.
        if most > 1 && publishing >= ON_THEIR_WAY && backlog < most {
            return None;
        }
        let mut tasks: Vec<NextTask> = Vec::new();
        let mut bytes = 0;
        let mut cancelled = Vec::new();
        while tasks.len() < most {
            let Some(first) = state.first_unpublished() else {
                break;
            };
            bytes += first.length;
            if !tasks.is_empty() && (first.is_alone || bytes > PARCEL_BYTES) {
                break;
            }
            if first.is_new {
                // A sink that panics leaves its task in the queue, where it is failed.
                let is_started = state.waiting.first().is_some_and(|task| task.sink.start());
                let Some(mut task) = state.waiting.pop() else {
                    break;
                };
                if !is_started {
                    // Its canceller may submit the next one at once.
                    task.permit = None;
                    cancelled.push(task);
                    self.note_if_idle(&state);
                    continue;
                }
                state.entries.insert(first.number, task.into_entry());
            } else {
                state.backlog.pop_front();
            }
            let Some(entry) = state.entries.get_mut(&first.number) else {
                continue;
            };
            entry.stage = Stage::Publishing;
            entry.attempt += 1;
            entry.holder = None;
            entry.begun = false;
            tasks.push(NextTask {
                number: first.number,
                attempt: entry.attempt,
                deliveries: self.deliveries_of(entry),
                request: Arc::clone(&entry.request),
            });
            state.on_server += 1;
            if first.is_alone {
                break;
            }
        }
        let next = (!tasks.is_empty()).then(|| {
            state.parcels += 1;
            Next {
                serial: state.parcels,
                direct: self.direct_host(&state, &tasks),
                tasks,
            }
        });
        drop(state);
        drop(cancelled);
        next
    }

    /// Publishes a parcel, however long that takes.
    async fn publish(self: &Arc<Self>, mut next: Next) {
        let mut pause = Duration::from_millis(20);
        // Whether the server may have got the parcel before. If it has lost it since, a host may still have it.
        let mut is_unsure = false;
        while self.is_publishing(&next) {
            // One that was cut off meanwhile may have lost its session.
            if !self.is_owner() {
                sleep(pause).await;
                pause = (2 * pause).min(Duration::from_secs(2));
                continue;
            }
            if let Some(host) = next.direct.take() {
                match self.dispatch(host, &next).await {
                    Dispatched::Taken => {
                        self.note_dispatched(&next, host);
                        return;
                    }
                    Dispatched::Refused => self.pause_direct(),
                    Dispatched::Unsure => {
                        self.pause_direct();
                        is_unsure = true;
                    }
                }
                continue;
            }
            match self.try_publish(&next).await {
                Ok(number) => {
                    let place = Place {
                        number: Some(number),
                        serial: next.serial,
                    };
                    self.note_all_placed(&next, place, |entry| {
                        if is_unsure && entry.attempt == 1 {
                            entry.note_first_lost(self.bus.lease());
                        }
                    });
                    return;
                }
                Err(PayloadError::Store(error)) => {
                    // A parcel with a long argument has one task.
                    for task in &next.tasks {
                        self.give_up(task.number, failed(error.clone()));
                    }
                    return;
                }
                Err(error) => {
                    is_unsure |= matches!(
                        error,
                        PayloadError::Bus(BusError::TimedOut | BusError::Closed)
                    );
                    log::trouble("tasks could not be published", &error);
                    sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Notes that the tasks of a parcel have come to their place, unless they are done or elsewhere.
    pub(super) fn note_all_placed(&self, next: &Next, place: Place, note: impl Fn(&mut Entry)) {
        let mut state = self.lock();
        for task in &next.tasks {
            if let Some(entry) = state.entries.get_mut(&task.number)
                && entry.attempt == task.attempt
                && entry.stage == Stage::Publishing
            {
                note(entry);
                self.note_placed(&mut state, task.number, place);
            }
        }
        drop(state);
        // A cancellation may wait for the place.
        self.wake();
    }

    fn is_publishing(&self, next: &Next) -> bool {
        let state = self.lock();
        next.tasks.iter().any(|task| {
            let entry = state.entries.get(&task.number);
            entry.is_some_and(|entry| {
                entry.attempt == task.attempt && entry.stage == Stage::Publishing
            })
        })
    }

    /// Makes the parcel. Stores long arguments before.
    pub(super) async fn parcel(&self, next: &Next) -> Result<Parcel, PayloadError> {
        let kept = self.settings.kept.as_ref();
        let mut tasks = Vec::with_capacity(next.tasks.len());
        for task in &next.tasks {
            let request = &*task.request;
            let options = request.kind.options;
            tasks.push(Task {
                number: task.number,
                attempt: task.attempt,
                call: request.kind.call.clone(),
                terms: Terms {
                    time_limit: options.time_limit,
                    retries: options.retries,
                    deliveries: task.deliveries,
                    kept: kept.map(|_| KeptTerms {
                        age: self.age_of(request),
                        on_host_loss: options.on_host_loss,
                    }),
                },
                argument: match kept {
                    None => self.argument(request).await?,
                    // It was stored before the record.
                    Some(_) => self.payload_of(request),
                },
            });
        }
        Ok(Parcel {
            id: self.parcel_id(next.serial),
            sent: self.clock.now(),
            tasks,
        })
    }

    async fn try_publish(&self, next: &Next) -> Result<u64, PayloadError> {
        let kept = self.settings.kept.as_ref();
        let parcel = self.parcel(next).await?;
        let first = next.tasks.first();
        let lane = first.map_or(Cow::Borrowed(&self.lane), |task| {
            self.lane_of(&task.request)
        });
        let frame = self
            .settings
            .seal
            .seal(Kind::Task, lane.subject().as_bytes(), &parcel);
        let id = parcel.id.to_string();
        let (Some(_), Some(first)) = (kept, first) else {
            return Ok(self.bus.push(&lane, &id, frame).await?);
        };
        let task = KeptTask {
            session: self.session,
            number: first.number,
        };
        let age = self.age_of(&first.request);
        let pushed = self.bus.push_kept(&lane, task, &id, frame, age).await;
        if matches!(pushed, Err(BusError::NoListener)) {
            self.ensure_stores().await;
        }
        Ok(pushed?)
    }

    /// Makes the payload of an argument, and stores a long one.
    pub(super) async fn argument(&self, request: &Request) -> Result<Payload, PayloadError> {
        let payload = self.payload_of(request);
        if request.found.is_none() {
            let kept = self.settings.kept.as_ref();
            let age = kept.map(|_| self.age_of(request) + SLACK);
            let (queue, argument) = (&self.lane.queue, request.argument.clone());
            let stored = self
                .payloads
                .keep(queue, self.session, &payload, argument, age);
            stored.await?;
        }
        Ok(payload)
    }

    /// Returns the payload of an argument.
    pub(super) fn payload_of(&self, request: &Request) -> Payload {
        if let Some(found) = &request.found {
            return found.argument.clone();
        }
        self.payloads.of(&request.argument, || *request.hash())
    }

    /// Returns the number of deliveries beyond which the host asks before it runs the task.
    fn deliveries_of(&self, entry: &Entry) -> u32 {
        // The marks of runs count, and not this client.
        if self.settings.kept.is_some() {
            return self.settings.most_deliveries;
        }
        match entry.request.kind.options.on_host_loss {
            // One is left at least, as a task with more starts was given up.
            OnHostLoss::Rerun => {
                let left = self.settings.most_deliveries.saturating_sub(entry.starts);
                left.max(1)
            }
            OnHostLoss::Fail => 1,
        }
    }
}

/// Returns how many tasks of a client may be on the server, by the hosts that have reported.
fn room<'a>(hosts: impl Iterator<Item = &'a Power> + Clone) -> usize {
    let (least, most) = bounds(hosts.clone());
    share(hosts).unwrap_or(AT_FIRST).clamp(least, most)
}

/// Returns the least and the most tasks that a client keeps on the server.
fn bounds<'a>(hosts: impl Iterator<Item = &'a Power>) -> (usize, usize) {
    let workers: usize = hosts.map(|host| host.workers).sum();
    let least = PER_WORKER.saturating_mul(workers);
    (least, ON_SERVER.max(least))
}

/// Returns the number of tasks that take hosts about a second. None if no host has reported how long tasks take.
pub(super) fn share<'a>(hosts: impl Iterator<Item = &'a Power> + Clone) -> Option<usize> {
    let (least, most) = bounds(hosts.clone());
    let share = hosts.map(|host| {
        let each = host.pace?.as_nanos().max(1);
        let tasks = usize::try_from(SHARE.as_nanos() / each).unwrap_or(usize::MAX);
        Some(tasks.saturating_mul(host.workers))
    });
    // Hosts that have not ended a task yet are left out.
    let share = share.flatten().reduce(usize::saturating_add);
    share.map(|share| share.clamp(least, most))
}

/// Returns how many tasks of a backlog may share a parcel. That is one, until hosts have reported how long tasks take.
fn parcel_size<'a>(hosts: impl Iterator<Item = &'a Power> + Clone, backlog: usize) -> usize {
    let workers: usize = hosts.clone().map(|host| host.workers).sum();
    // The slowest host counts.
    let Some(each) = hosts.filter_map(|host| host.pace).max() else {
        return 1;
    };
    let by_time = PARCEL.as_nanos() / each.as_nanos().max(1);
    let by_time = usize::try_from(by_time).unwrap_or(usize::MAX);
    by_time
        .min(backlog.div_ceil(workers.max(1)))
        .clamp(1, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::super::control_tests::{LEASE, new_client};
    use super::super::times::HostClock;
    use super::super::waiting_tests::{Ends, submit, submit_long};
    use super::*;
    use crate::memory::Server;
    use crate::wire::Id;
    use std::sync::atomic::Ordering;
    use tokio::time::Instant;

    fn host(workers: usize, pace: Option<Duration>) -> Power {
        Power {
            workers,
            pace,
            clock: HostClock::default(),
            seen: Instant::now(),
            machine: "m".into(),
            pid: 1,
        }
    }

    #[test]
    fn a_client_keeps_about_a_second_of_work_on_the_server() {
        let millis = |millis| Some(Duration::from_millis(millis));
        let rooms = [
            (vec![], 256),
            (vec![host(2, None)], 256),
            (vec![host(100, None)], 400),
            (vec![host(2, millis(20))], 100),
            // A host without a task yet, and one with two.
            (vec![host(2, millis(20)), host(2, None)], 100),
            (vec![host(2, millis(20)), host(4, millis(10))], 500),
            // At least four for each worker, and at most 1,000 or that.
            (vec![host(2, millis(60_000))], 8),
            (vec![host(2, Some(Duration::ZERO))], 1000),
            (vec![host(500, millis(1))], 2000),
        ];
        for (hosts, expected) in rooms {
            assert_eq!(room(hosts.iter()), expected);
        }
    }

    #[test]
    fn short_tasks_of_a_burst_share_a_parcel() {
        let micros = |micros| Some(Duration::from_micros(micros));
        let sizes = [
            (vec![], 1000, 1),
            (vec![host(2, None)], 1000, 1),
            (vec![host(2, micros(100))], 1000, 64),
            (vec![host(2, micros(1000))], 1000, 10),
            (vec![host(2, micros(1000)), host(2, micros(5000))], 1000, 2),
            (vec![host(2, micros(30_000))], 1000, 1),
            // Each worker gets a part of a small burst.
            (vec![host(4, micros(100))], 8, 2),
            (vec![host(4, micros(100))], 1, 1),
            (vec![host(4, Some(Duration::ZERO))], 0, 1),
        ];
        for (hosts, backlog, expected) in sizes {
            assert_eq!(parcel_size(hosts.iter(), backlog), expected);
        }
    }

    #[tokio::test]
    async fn tasks_are_published_in_their_order_and_those_that_come_again_before_the_others() {
        let server = Server::new(1, 0, 0, LEASE);
        let client = new_client(&server.connect(), None);
        let ends = Ends::default();
        let pace = Some(Duration::from_millis(2));
        let host = host(1, pace);
        client.lock().hosts.insert(Id::random().unwrap(), host);
        let flags: Vec<_> = (1..=40)
            .map(|number| submit(&client, number, &ends))
            .collect();
        for flag in flags.iter().skip(9).step_by(10) {
            flag.store(true, Ordering::SeqCst);
        }
        let next = || -> Vec<u64> {
            let tasks = client.next(0).map_or(Vec::new(), |next| next.tasks);
            tasks.iter().map(|task| task.number).collect()
        };
        assert_eq!(next(), [1, 2, 3, 4, 5]);
        // The one whose future was cancelled leaves.
        assert_eq!(next(), [6, 7, 8, 9, 11]);
        assert_eq!(client.unfinished(), 39);
        client.submit_again(7);
        client.submit_again(2);
        client.forget(12);
        client.forget(7);
        assert_eq!(next(), [2]);
        assert_eq!(next(), [13, 14, 15, 16, 17]);
        let rest: Vec<u64> = std::iter::from_fn(|| Some(next()).filter(|next| !next.is_empty()))
            .flatten()
            .collect();
        assert!(
            rest.into_iter()
                .eq((18..40).filter(|number| number % 10 != 0))
        );
        // Those that are on their way.
        assert_eq!(client.unfinished(), 34);
        assert_eq!(client.lock().on_server, 34);
        assert!(ends.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_task_that_shares_no_parcel_stays_in_its_place() {
        let server = Server::new(1, 0, 0, LEASE);
        let client = new_client(&server.connect(), None);
        let host = host(1, Some(Duration::from_micros(100)));
        client.lock().hosts.insert(Id::random().unwrap(), host);
        let ends = Ends::default();
        for (number, length) in [(1, 1), (2, SMALL + 1), (3, 1), (4, 1)] {
            submit_long(&client, number, length, &ends);
        }
        let next = || -> Option<Vec<u64>> {
            let tasks = client.next(0)?.tasks;
            Some(tasks.iter().map(|task| task.number).collect())
        };
        assert_eq!(next(), Some(vec![1]));
        assert_eq!(next(), Some(vec![2]));
        assert_eq!(next(), Some(vec![3, 4]));
        assert_eq!(next(), None);
    }
}
