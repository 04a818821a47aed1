//! The opening of a session that has tasks.
//!
//! A task with an outcome is done. One that the server has, or a host, is waited for. One that the server has lost is
//! submitted again. A client looks for the outcome *after* it has looked for the task, as `reconcile.rs` does.

#![forbid(unsafe_code)]

use super::kept::FoundTask;
use super::{Arrived, Client, Entry, Place, Request, Sink, Stage, State};
use crate::bus::kept::{KeptTask, Listed, SLACK};
use crate::bus::{BusError, StoreKey};
use crate::error::ClusterError;
use crate::log;
use crate::wire::{Kind, Outcome, Parcel, Record, random};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The most questions to the server at once while a session is opened.
const AT_ONCE: usize = 64;
/// The number of tries of a question meanwhile, and the pause between two.
const TRIES: u32 = 3;
const AFTER_TROUBLE: Duration = Duration::from_millis(50);
/// The bits of a number that count the tasks of a millisecond.
const PER_MILLI: u32 = 20;

/// The sink of a task of an earlier client, until a future is asked for. The outcome stays on the server.
struct Unclaimed;

impl Sink for Unclaimed {
    fn start(&self) -> bool {
        true
    }

    fn cancel(self: Box<Self>) {}

    fn complete(self: Box<Self>, _: Arrived) {}
}

impl State {
    /// Waits for the outcome of a task of an earlier client.
    fn wait_for_found(&mut self, task: &FoundTask, sink: Box<dyn Sink>) {
        let mut entry = Entry::new(Arc::clone(&task.request), sink, None);
        entry.is_started = true;
        self.insert_kept(task.number, entry, Stage::Looking);
    }
}

impl Client {
    /// Takes over what the session has. Gives the claim back if that fails.
    pub(crate) async fn open_session(
        self: &Arc<Self>,
        must_exist: bool,
    ) -> Result<(), ClusterError> {
        let opened = self.take_over(must_exist).await;
        if opened.is_err() {
            self.release().await;
        }
        opened
    }

    async fn take_over(self: &Arc<Self>, must_exist: bool) -> Result<(), ClusterError> {
        let Some(kept) = &self.settings.kept else {
            return Ok(());
        };
        let queue = &self.settings.lane.queue;
        let last_owner = StoreKey::last_owner(&self.lane.queue, self.session);
        let age = kept.age + SLACK;
        tried(|| self.bus.keep_for(&last_owner, self.owner_frame(), age)).await?;
        let opened = tried(|| self.bus.time(&self.lane)).await?;
        let numbers_of = |what| self.bus.numbers(queue, self.session, what);
        let numbers = tried(|| numbers_of(Listed::Records)).await?;
        let outcomes = tried(|| numbers_of(Listed::Outcomes)).await?;
        let last = numbers.iter().chain(&outcomes).copied().max();
        let outcomes: HashSet<u64> = outcomes.into_iter().collect();
        let records = stream::iter(numbers).map(|number| async move {
            let store_key = StoreKey::record(&self.lane.queue, self.session, number);
            (number, tried(|| self.bus.fetch(&store_key)).await)
        });
        let mut records = std::pin::pin!(records.buffered(AT_ONCE));
        let mut found = Vec::new();
        while let Some((number, frame)) = records.next().await {
            // It may have aged just now.
            let Some(frame) = frame? else { continue };
            let place = self.record_place(number);
            let opened = self
                .settings
                .seal
                .open::<Record>(Kind::Record, place.as_bytes(), &frame);
            let record = opened.map_err(|_| ClusterError::SessionKey(kept.name.clone()))?;
            let ours = &self.settings.lane.environment;
            if record.environment != *ours && !outcomes.contains(&number) {
                return Err(ClusterError::SessionEnvironment {
                    session: kept.name.clone(),
                    theirs: record.environment,
                    ours: ours.clone(),
                });
            }
            found.push(FoundTask {
                number,
                request: Arc::new(Request::found(record)),
            });
        }
        if must_exist && found.is_empty() {
            return Err(ClusterError::UnknownSession {
                session: kept.name.clone(),
                queue: queue.clone(),
            });
        }
        let serial = u64::from_le_bytes(random()?) >> 1;
        let mut open = Vec::new();
        {
            let mut state = self.lock();
            for task in &found {
                if !outcomes.contains(&task.number) {
                    open.push(task.number);
                    state.wait_for_found(task, Box::new(Unclaimed));
                }
            }
            // No client has counted so far, not even one whose tasks have aged.
            let first = last.map_or(0, |last| last + 1);
            state.session.next = first.max(opened << PER_MILLI);
            state.session.opened = opened;
            // The server knows the identities of the parcels of the last owner.
            state.parcels = serial;
            state.session.found = found;
            state.session.is_open = true;
        }
        self.look_for_all(open);
        self.tell_hosts().await;
        Ok(())
    }

    fn look_for_all(self: &Arc<Self>, numbers: Vec<u64>) {
        if numbers.is_empty() {
            return;
        }
        let client = Arc::clone(self);
        self.spawn("looks for tasks of a session", async move {
            stream::iter(numbers)
                .for_each_concurrent(AT_ONCE, |number| Arc::clone(&client).look_for(number))
                .await;
        });
    }

    /// Finds out where a task of an earlier client is, however long that takes.
    async fn look_for(self: Arc<Self>, number: u64) {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.try_look_for(number).await {
            log::trouble("a task of a session could not be looked for", &error);
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(2));
        }
    }

    async fn try_look_for(self: &Arc<Self>, number: u64) -> Result<(), BusError> {
        let request = {
            let state = self.lock();
            let entry = state.entries.get(&number);
            let entry = entry.filter(|entry| entry.stage == Stage::Looking);
            // A host has reported the outcome meanwhile.
            let Some(entry) = entry else { return Ok(()) };
            Arc::clone(&entry.request)
        };
        let lane = self.lane_of(&request);
        let task = KeptTask {
            session: self.session,
            number,
        };
        let found = self.bus.find(&lane, task).await?;
        if let Some((attempt, outcome)) = self.stored_outcome(number).await? {
            self.end(number, attempt, outcome, None);
            return Ok(());
        }
        let published = found.and_then(|found| {
            let opened = self.settings.seal.open::<Parcel>(
                Kind::Task,
                lane.subject().as_bytes(),
                &found.frame,
            );
            let parcel = opened
                .inspect_err(|refused| log::refused("a task of a session", refused))
                .ok()?;
            let is_its_own = parcel.id.session == self.session && parcel.id.to_string() == found.id;
            let [task] = &parcel.tasks[..] else {
                return None;
            };
            let place = Place {
                number: Some(found.number),
                serial: parcel.id.serial,
            };
            (is_its_own && task.number == number).then_some((task.attempt, place))
        });
        let mut state = self.lock();
        // The attempts of all clients are in order, by the server's clock.
        let first = u32::try_from(state.session.opened / 1000).unwrap_or(u32::MAX / 2);
        let Some(entry) = state.entries.get_mut(&number) else {
            return Ok(());
        };
        if entry.stage != Stage::Looking {
            return Ok(());
        }
        if published.is_none_or(|(attempt, _)| attempt > 1) {
            // An earlier client may have lost it.
            entry.note_first_lost(self.bus.lease());
        }
        if let Some((attempt, place)) = published {
            entry.attempt = attempt;
            self.note_placed(&mut state, number, place);
            drop(state);
            self.wake();
        } else {
            entry.attempt = entry.attempt.max(first);
            drop(state);
            self.submit_again(number);
        }
        Ok(())
    }

    /// Returns the outcome of a task in the store. One that no host has stored is removed.
    async fn stored_outcome(&self, number: u64) -> Result<Option<(u32, Outcome)>, BusError> {
        let store_key = StoreKey::outcome(&self.lane.queue, self.session, number);
        let Some(frame) = self.bus.fetch(&store_key).await? else {
            return Ok(None);
        };
        let subject = format!("cf.c.{}", self.session);
        let outcome = self.settings.seal.stored_in(&subject, number, &frame);
        if outcome.is_none() {
            log::refused("a stored outcome", &number);
            self.bus.forget(&store_key).await?;
        }
        Ok(outcome)
    }

    /// Takes the tasks of earlier clients that `is_wanted` names by the type of their results, and gives each a sink. The
    /// sinks come with their numbers in this process, in the order in which the tasks were submitted.
    pub(crate) fn claim_found(
        self: &Arc<Self>,
        is_wanted: impl Fn(&str) -> bool,
        mut make: impl FnMut() -> (u64, Box<dyn Sink>),
    ) {
        let mut state = self.lock();
        let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.session.found)
            .into_iter()
            .partition(|task| is_wanted(&task.request.kind.result));
        state.session.found = rest;
        drop(state);
        let sinks: Vec<_> = found.iter().map(|_| make()).collect();
        let mut done = Vec::new();
        let mut unwanted: Vec<Box<dyn Sink>> = Vec::new();
        let mut state = self.lock();
        let refusal = state.refusal();
        for (task, (local, sink)) in found.into_iter().zip(sinks) {
            sink.start();
            if refusal.is_some() {
                unwanted.push(sink);
                continue;
            }
            state.session.wires.insert(local, task.number);
            state.session.given_up.remove(&task.number);
            if let Some(entry) = state.entries.get_mut(&task.number) {
                unwanted.push(std::mem::replace(&mut entry.sink, sink));
            } else {
                state.wait_for_found(&task, sink);
                done.push(task.number);
            }
            if let Some(entry) = state.entries.get_mut(&task.number) {
                entry.local = Some(local);
            }
        }
        drop(state);
        if let Some(error) = refusal {
            for sink in unwanted {
                sink.complete(Arrived::Error(error.clone()));
            }
        }
        self.look_for_all(done);
    }

    /// Returns the types of results of the tasks of earlier clients that have no future yet.
    pub(crate) fn found_results(&self) -> Vec<String> {
        let state = self.lock();
        let found = state.session.found.iter();
        found
            .map(|task| task.request.kind.result.to_string())
            .collect()
    }
}

/// Makes a call of the server, and tries it again if it fails.
async fn tried<T, F>(call: impl Fn() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    for _ in 1..TRIES {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => log::trouble("a session could not be read", &error),
        }
        sleep(AFTER_TROUBLE).await;
    }
    call().await
}
