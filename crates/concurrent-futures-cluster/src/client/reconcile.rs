//! Reconciliation: what the server has lost is submitted again.
//!
//! Hosts report the tasks that they hold, several times in each lease. A task without a sign for a whole lease is a
//! *suspect*. It may still wait on the server: that is in order. It may be gone with an outcome in the store, which is
//! taken. Or it is gone without an outcome, as its stream was deleted, or the server began anew: then it is submitted
//! again. A host stores an outcome before it acknowledges the task. So the store is asked *after* the task was found to
//! be gone, and then has the outcome if there is one.
//!
//! Of a suspect that waits, hosts are told. The server drops a request for tasks in silence if its consumer is deleted
//! at the same moment. Without the word, a host would wait until the time of the request has passed.

#![forbid(unsafe_code)]

use super::{Client, Place, Stage, State, failed};
use crate::bus::{BusError, StoreKey};
use crate::error::{HostLost, NoWorkersError, TaskName};
use crate::log;
use crate::wire::{HostInfo, Kind, OnHostLoss, Refused, news_of};
use futures_util::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The time between two reconciliations, at most.
const PERIOD: Duration = Duration::from_secs(10);
/// The most suspects that are looked at in one reconciliation, and at once.
const MOST: usize = 4096;
const AT_ONCE: usize = 32;
/// The time after which a registry that did not answer is asked again.
const AFTER_TROUBLE: Duration = Duration::from_millis(50);

impl Client {
    /// Looks for lost tasks now and then, and after each new connection.
    pub(super) async fn reconcile(self: Arc<Self>) {
        let mut connections = self.bus.connections();
        connections.mark_unchanged();
        let mut next_word = Instant::now();
        loop {
            let period = PERIOD.min(self.bus.lease() / 2).min(self.until_suspicion());
            let is_new = matches!(timeout(period, connections.changed()).await, Ok(Ok(())));
            if is_new {
                connections.mark_unchanged();
            }
            if self.is_owner() {
                self.ensure_stores().await;
            }
            // After a new connection, a task that no host has reported may be gone.
            let suspects = self.suspects(is_new);
            let waits = AtomicBool::new(false);
            futures_util::stream::iter(suspects)
                .for_each_concurrent(AT_ONCE, |(number, attempt, place)| {
                    let (client, waits) = (Arc::clone(&self), &waits);
                    async move {
                        match client.look_after(number, attempt, place).await {
                            Ok(is_there) => drop(waits.fetch_or(is_there, Ordering::Relaxed)),
                            Err(error) => log::trouble("a task could not be looked after", &error),
                        }
                    }
                })
                .await;
            if waits.into_inner() && next_word <= Instant::now() {
                next_word = Instant::now() + self.bus.lease();
                self.tell_hosts_of_waiting().await;
            }
        }
    }

    /// Returns for how long no task that went to a host directly becomes a suspect. The server knows nothing of such a
    /// task, and gives it to no other host when its lease ends.
    fn until_suspicion(&self) -> Duration {
        let state = self.lock();
        let direct = state.entries.values().filter(|entry| {
            let place = Place::of(entry.stage);
            place.is_some_and(|place| place.number.is_none())
        });
        let first = direct.map(|entry| entry.seen).min();
        first.map_or(Duration::MAX, |seen| {
            let wait = self.bus.lease().saturating_sub(seen.elapsed());
            wait.max(self.bus.lease() / 20)
        })
    }

    fn suspects(&self, untaken_too: bool) -> Vec<(u64, u32, Place)> {
        let lease = self.bus.lease();
        let mut state = self.lock();
        let now = Instant::now();
        state
            .hosts
            .retain(|_, host| now.duration_since(host.seen) < 4 * lease);
        let entries = state.entries.iter().filter_map(|(number, entry)| {
            let place = Place::of(entry.stage)?;
            let is_suspect =
                now.duration_since(entry.seen) >= lease || untaken_too && entry.holder.is_none();
            is_suspect.then_some((*number, entry.attempt, place))
        });
        entries.take(MOST).collect()
    }

    /// Looks after one suspect. Returns whether it waits on the server.
    async fn look_after(
        self: &Arc<Self>,
        number: u64,
        attempt: u32,
        place: Place,
    ) -> Result<bool, BusError> {
        let lane = &self.lane;
        let id = self.parcel_id(place.serial).to_string();
        let is_there = match place.number {
            Some(on_server) => self.bus.has(lane, on_server, &id).await?,
            None => false,
        };
        let is_still = |client: &Self| {
            let State { entries, hosts, .. } = &mut *client.lock();
            let entry = entries.get_mut(&number);
            let entry = entry
                .filter(|entry| entry.attempt == attempt && entry.stage == Stage::Published(place));
            entry.is_some_and(|entry| {
                if is_there {
                    // Its holder, if there is one, has not reported it for a lease: it may be lost for good.
                    entry.seen = Instant::now();
                    entry.lose_holder(hosts);
                }
                true
            })
        };
        if !is_still(self) || is_there {
            return Ok(is_there);
        }
        let store_key = StoreKey::outcome(&lane.queue, self.session, number);
        if let Some(frame) = self.bus.fetch(&store_key).await? {
            let subject = format!("cf.c.{}", self.session);
            let is_report = self.take(&subject, &frame).is_some();
            // That of a kept task is for later clients as well.
            if self.settings.kept.is_none() || !is_report {
                self.bus.forget(&store_key).await?;
            }
            if is_report {
                return Ok(false);
            }
        }
        // A report may have come meanwhile.
        let is_seen = {
            let state = self.lock();
            let entry = state.entries.get(&number);
            entry.is_none_or(|entry| {
                entry.holder.is_some() && entry.seen.elapsed() < self.bus.lease()
            })
        };
        if !is_seen && is_still(self) {
            if attempt == 1
                && let Some(entry) = self.lock().entries.get_mut(&number)
            {
                entry.note_first_lost(self.bus.lease());
            }
            self.submit_again(number);
        }
        Ok(false)
    }

    /// Fails tasks for which no host comes.
    pub(super) async fn watch_hosts(self: Arc<Self>) {
        let wait = self.settings.wait_for_workers;
        let look = (wait / 4).clamp(Duration::from_millis(20), Duration::from_secs(5));
        let mut waiting_since: Option<Instant> = None;
        loop {
            sleep(look).await;
            let is_waiting = {
                let state = self.lock();
                let is_seen = state.host_seen.is_some_and(|seen| seen.elapsed() < wait);
                let mut entries = state.entries.values();
                let mut is_untaken = || entries.any(|entry| entry.holder.is_none());
                !is_seen && (!state.waiting.is_empty() || is_untaken())
            };
            if !is_waiting {
                waiting_since = None;
                continue;
            }
            let since = *waiting_since.get_or_insert_with(Instant::now);
            let (hosts, others) = match self.all_hosts().await {
                Ok(hosts) => hosts,
                Err(error) => {
                    log::trouble("the registry of hosts does not answer", &error);
                    continue;
                }
            };
            let lane = &self.settings.lane;
            if hosts
                .iter()
                .any(|host| host.environment == lane.environment)
            {
                self.lock().host_seen = Some(Instant::now());
                waiting_since = None;
            } else if since.elapsed() + look >= wait {
                self.fail_untaken(&NoWorkersError {
                    task: TaskName::default(),
                    queue: lane.queue.clone(),
                    environment: lane.environment.clone(),
                    waited: wait,
                    hosts,
                    others,
                });
                waiting_since = None;
            }
        }
    }

    /// Waits until a host takes tasks of this client, up to `limit`. Returns whether there is one.
    ///
    /// A host says so when it has entered the registry. So the registry is read once the client listens, and again
    /// after each new connection, as a message may have been lost meanwhile.
    pub(crate) async fn wait_for_host(&self, limit: Duration) -> Result<bool, BusError> {
        let lane = &self.settings.lane;
        let is_ours = |host: &HostInfo| host.environment == lane.environment;
        let mut connections = self.bus.connections();
        let mut news = self.bus.listen(&news_of(&lane.queue)).await?;
        let end = sleep(limit);
        tokio::pin!(end);
        loop {
            connections.mark_unchanged();
            let hosts = tokio::select! {
                hosts = self.hosts() => hosts,
                // The question may have been lost with the connection.
                Ok(()) = connections.changed() => continue,
            };
            let (trouble, pause) = match hosts {
                Ok(hosts) if hosts.iter().any(is_ours) => return Ok(true),
                Ok(_) => (None, Duration::MAX),
                Err(error) => (Some(error), AFTER_TROUBLE),
            };
            loop {
                tokio::select! {
                    () = &mut end => return trouble.map_or(Ok(false), Err),
                    Some(note) = news.recv() => match self.open_host(&note.payload) {
                        Ok(host) if is_ours(&host) => return Ok(true),
                        Ok(_) => {}
                        Err(refused) => log::refused("the news of a host", &refused),
                    },
                    Ok(()) = connections.changed() => break,
                    () = sleep(pause) => break,
                }
            }
        }
    }

    fn open_host(&self, frame: &[u8]) -> Result<HostInfo, Refused> {
        let queue = self.settings.lane.queue.as_bytes();
        self.settings.seal.open(Kind::Host, queue, frame)
    }

    /// Returns the hosts of the queue.
    pub(crate) async fn hosts(&self) -> Result<Vec<HostInfo>, BusError> {
        Ok(self.all_hosts().await?.0)
    }

    /// Returns the hosts of the queue, and how many there are with another key or version.
    async fn all_hosts(&self) -> Result<(Vec<HostInfo>, usize), BusError> {
        let queue = &self.settings.lane.queue;
        let frames = self.bus.hosts(queue).await?;
        // The others are counted: the error without a host names their number.
        let opened = frames.iter().filter_map(|frame| self.open_host(frame).ok());
        let hosts: Vec<HostInfo> = opened.collect();
        let others = frames.len() - hosts.len();
        Ok((hosts, others))
    }

    fn fail_untaken(self: &Arc<Self>, error: &NoWorkersError) {
        let untaken: Vec<(u64, Option<Place>, bool)> = {
            let state = self.lock();
            let entries = state.entries.iter();
            let untaken = entries
                .filter(|(_, entry)| entry.holder.is_none() && entry.stage != Stage::Fetching);
            let untaken = untaken.map(|(number, entry)| {
                let place = Place::of(entry.stage);
                let effect = entry.request.kind.options.on_host_loss;
                let is_lost = entry.starts > 0 && effect == OnHostLoss::Fail;
                (*number, place, is_lost)
            });
            let waiting = state.waiting.numbers();
            untaken
                .chain(waiting.map(|number| (number, None, false)))
                .collect()
        };
        let mut parcels = HashSet::new();
        for (number, place, is_lost) in untaken {
            let error = if is_lost {
                failed(HostLost::default())
            } else {
                failed(error.clone())
            };
            self.give_up(number, error);
            // A kept task waits for a host, and for a later client.
            if self.settings.kept.is_some() {
                continue;
            }
            if let Some(place) = place.filter(|place| parcels.insert(place.serial)) {
                let client = Arc::clone(self);
                self.spawn("withdraws tasks", async move {
                    let lane = &client.settings.lane;
                    let id = client.parcel_id(place.serial).to_string();
                    if let Some(on_server) = place.number
                        && let Err(error) = client.bus.withdraw(lane, on_server, &id).await
                    {
                        log::trouble("a task could not be withdrawn", &error);
                    }
                });
            }
        }
    }
}
