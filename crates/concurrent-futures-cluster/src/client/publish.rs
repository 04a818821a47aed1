//! Publication: tasks go to the server, as long as there is room for them.
//!
//! A client keeps about a second's work on the server, by the times that hosts report.

#![forbid(unsafe_code)]

use super::{Client, Entry, Power, Request, Stage};
use crate::bus::{BusError, INLINE};
use crate::log;
use crate::wire::{Kind, OnHostLoss, Payload, Task, Terms, now};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The most publications that wait for the server's confirmation.
const MOST_PUBLISHING: usize = 4096;
/// The most tasks that a client keeps on the server, and a number for each worker, which it keeps there in any case.
const ON_SERVER: usize = 1000;
const PER_WORKER: usize = 4;
/// The time that the tasks of one client on the server take, about. The tasks of another client wait behind them.
const SHARE: Duration = Duration::from_secs(1);
/// The tasks that a client keeps on the server until a host has reported how long they take.
const AT_FIRST: usize = 256;

/// A task that is to be published.
struct Next {
    number: u64,
    attempt: u32,
    deliveries: u32,
    request: Arc<Request>,
}

impl Client {
    /// Publishes tasks, as long as the server has room for them.
    pub(super) async fn pump(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        let mut publishing = FuturesUnordered::new();
        loop {
            while publishing.len() < MOST_PUBLISHING {
                let Some(next) = self.next() else {
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

    /// Takes the next task of the backlog.
    fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        let room = room(state.hosts.values());
        while state.on_server < room {
            let number = state.backlog.pop_front()?;
            let Some(entry) = state.entries.get_mut(&number) else {
                continue;
            };
            if entry.stage != Stage::Waiting {
                continue;
            }
            // One that was given back runs already, to the program.
            if entry.attempt == 0 && !entry.sink.start() {
                let cancelled = state.entries.remove(&number);
                if state.entries.is_empty() {
                    self.idle.notify_all();
                }
                drop(state);
                drop(cancelled);
                state = self.lock();
                continue;
            }
            entry.stage = Stage::Publishing;
            entry.attempt += 1;
            entry.holder = None;
            entry.begun = false;
            let next = Next {
                number,
                attempt: entry.attempt,
                deliveries: self.deliveries_of(entry),
                request: Arc::clone(&entry.request),
            };
            state.on_server += 1;
            return Some(next);
        }
        None
    }

    /// Publishes a task, however long that takes.
    async fn publish(&self, next: Next) {
        let Next {
            number, attempt, ..
        } = next;
        let mut pause = Duration::from_millis(20);
        while self.is_publishing(number, attempt) {
            match self.try_publish(&next).await {
                Ok(place) => {
                    let mut state = self.lock();
                    if let Some(entry) = state.entries.get_mut(&number)
                        && entry.attempt == attempt
                        && entry.stage == Stage::Publishing
                    {
                        entry.stage = Stage::Published { number: place };
                        entry.seen = Instant::now();
                    }
                    drop(state);
                    self.poke();
                    return;
                }
                Err(error) => {
                    log::trouble("a task could not be published", &error);
                    sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_secs(2));
                }
            }
        }
    }

    fn is_publishing(&self, number: u64, attempt: u32) -> bool {
        let state = self.lock();
        let entry = state.entries.get(&number);
        entry.is_some_and(|entry| entry.attempt == attempt && entry.stage == Stage::Publishing)
    }

    async fn try_publish(&self, next: &Next) -> Result<u64, BusError> {
        let request = &*next.request;
        let argument = if request.argument.len() <= INLINE {
            Payload::Inline(request.argument.clone())
        } else {
            let hash = *request.hash();
            let store_key = self.object(&hash, request.argument.len() as u64);
            self.bus.keep(&store_key, request.argument.clone()).await?;
            Payload::Object {
                hash,
                length: request.argument.len() as u64,
            }
        };
        let id = self.id(next.number, next.attempt);
        let options = request.options;
        let task = Task {
            id,
            sent: now(),
            call: request.call.clone(),
            terms: Terms {
                time_limit: options.time_limit,
                retries: options.retries,
                deliveries: next.deliveries,
            },
            argument,
        };
        let lane = &self.settings.lane;
        let frame = self
            .settings
            .seal
            .seal(Kind::Task, lane.subject().as_bytes(), &task);
        self.bus.push(lane, &id.to_string(), frame).await
    }

    /// Returns the number of deliveries beyond which the host asks before it runs the task.
    fn deliveries_of(&self, entry: &Entry) -> u32 {
        match entry.request.options.on_host_loss {
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
    let workers: usize = hosts.clone().map(|host| host.workers).sum();
    let least = PER_WORKER.saturating_mul(workers);
    let most = ON_SERVER.max(least);
    let share = hosts.map(|host| {
        let each = host.pace?.as_nanos().max(1);
        let tasks = usize::try_from(SHARE.as_nanos() / each).unwrap_or(usize::MAX);
        Some(tasks.saturating_mul(host.workers))
    });
    // Hosts that have not ended a task yet are left out.
    let share = share.flatten().reduce(usize::saturating_add);
    share.unwrap_or(AT_FIRST).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(workers: usize, pace: Option<Duration>) -> Power {
        Power {
            workers,
            pace,
            seen: Instant::now(),
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
}
