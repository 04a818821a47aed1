//! Kept sessions: the tasks outlive their client, and a later client finds them.
//!
//! A task has a record on the server before it is published: the stage `Recording`. From then on, any client finds it.
//! A client that opens a session takes over what is there. A task with an outcome is done. One that the server has, or a
//! host, is waited for. One that the server has lost is submitted again. A client looks for the outcome *after* it has
//! looked for the task, as `reconcile.rs` does.
//!
//! A session has one *owner*. Its claim holds for one lease, and is renewed three times in that. An owner that does not
//! know whether its claim holds does nothing: it answers to no host, and publishes nothing. So two clients never contradict
//! each other, with one exception: a process that stands still between a look at the clock and the next line. That costs a
//! run of a task, and no outcome, as the first outcome in the store is the one that counts. The owner also writes itself
//! down for longer. So a client whose claim has ended knows whether another one has come and gone.

#![forbid(unsafe_code)]

use super::{Arrived, Client, Entry, Place, Request, Sink, Stage, State, failed};
use crate::bus::kept::{Claimed, KeptTask, Listed, SLACK, news_of};
use crate::bus::{BusError, StoreKey};
use crate::error::{ClusterError, SessionLost};
use crate::log;
use crate::os;
use crate::wire::{Kind, Outcome, Owner, Parcel, Record, random};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesOrdered};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The most records that wait for the server's confirmation.
const MOST_RECORDING: usize = 1024;
/// The most questions to the server at once while a session is opened.
const AT_ONCE: usize = 64;
/// The number of tries of a question meanwhile, and the pause between two.
const TRIES: u32 = 3;
const AFTER_TROUBLE: Duration = Duration::from_millis(50);
/// The bits of a number that count the tasks of a millisecond.
const PER_MILLI: u32 = 20;

/// The settings of a kept session.
#[derive(Clone, Debug)]
pub(crate) struct KeptSettings {
    pub(crate) name: String,
    /// The time for which the server keeps a task, and an outcome.
    pub(crate) age: Duration,
    /// The number of copies of each stream.
    pub(crate) replicas: usize,
}

/// A task that was there when the session was opened, and has no future yet.
pub(super) struct FoundTask {
    number: u64,
    request: Arc<Request>,
}

/// The state of a kept session.
#[derive(Default)]
pub(super) struct Session {
    /// The tasks that are to be recorded.
    unrecorded: VecDeque<u64>,
    /// The number of tasks that have not come to the server yet.
    pub(super) unplaced: usize,
    /// The numbers of tasks in the session, by their numbers in this process.
    pub(super) wires: HashMap<u64, u64>,
    next: u64,
    /// When the session was opened, in milliseconds since 1970 by the server's clock.
    opened: u64,
    /// The number of the claim, and when the client asked for its last confirmation.
    claim: Option<(u64, Instant)>,
    /// Whether the claim had ended, so that another client may have come and gone.
    is_doubtful: bool,
    /// Whether the tasks that were there are known.
    is_open: bool,
    /// The reason why the session has another owner.
    pub(super) lost: Option<SessionLost>,
    found: Vec<FoundTask>,
    /// The tasks that this client has given up. A later client may still get their outcomes.
    pub(super) given_up: HashSet<u64>,
}

impl Session {
    /// Makes the number of a task in the session.
    pub(super) fn number_for(&mut self, local: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.wires.insert(local, number);
        number
    }

    fn is_owned(&self, lease: Duration) -> bool {
        let is_fresh = |(_, since): (u64, Instant)| since.elapsed() < lease;
        self.is_open && self.lost.is_none() && self.claim.is_some_and(is_fresh)
    }
}

impl State {
    /// Takes in a kept task.
    pub(super) fn insert_kept(&mut self, number: u64, entry: Entry, stage: Stage) {
        self.entries.insert(number, entry);
        self.session.unplaced += 1;
        self.set_stage(number, stage);
    }

    /// Waits for the outcome of a task of an earlier client.
    fn wait_for_found(&mut self, task: &FoundTask, sink: Box<dyn Sink>) {
        let mut entry = Entry::new(Arc::clone(&task.request), sink, None);
        entry.is_started = true;
        self.insert_kept(task.number, entry, Stage::Looking);
    }

    /// Moves a task to a stage, and counts it there.
    pub(super) fn set_stage(&mut self, number: u64, stage: Stage) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut entry.stage, stage);
        self.on_server += usize::from(stage.is_on_server());
        self.on_server -= usize::from(before.is_on_server());
        if stage == Stage::Recording {
            self.session.unrecorded.push_back(number);
        }
    }

    /// Returns whether the client waits for a run of this attempt.
    pub(super) fn is_wanted(&self, number: u64, attempt: u32) -> bool {
        let entry = self.entries.get(&number);
        self.session.given_up.contains(&number)
            // The attempt of a task that is looked for is not known yet.
            || entry.is_some_and(|entry| entry.attempt == attempt || entry.stage == Stage::Looking)
    }
}

/// The sink of a task of an earlier client, until a future is asked for. The outcome stays on the server.
struct Unclaimed;

impl Sink for Unclaimed {
    fn start(&self) -> bool {
        true
    }

    fn cancel(self: Box<Self>) {}

    fn complete(self: Box<Self>, _: Arrived) {}
}

/// Makes the owner of a session, as its claim shows it.
pub(super) fn new_owner() -> std::io::Result<Owner> {
    Ok(Owner {
        machine: os::machine(),
        pid: std::process::id(),
        nonce: random()?,
    })
}

impl Client {
    /// Returns whether this client may act for its session. A session that is not kept has no other client.
    pub(crate) fn is_owner(&self) -> bool {
        self.settings.kept.is_none() || self.is_owned(&self.lock())
    }

    pub(super) fn is_owned(&self, state: &State) -> bool {
        state.session.is_owned(self.bus.lease())
    }

    /// Returns the number of a task in the session.
    pub(super) fn wire(&self, local: u64) -> u64 {
        if self.settings.kept.is_none() {
            return local;
        }
        // No task has the number 0.
        let state = self.lock();
        state.session.wires.get(&local).copied().unwrap_or(0)
    }

    fn owner_place(&self) -> String {
        format!("cf.s.{}.{}", self.settings.lane.queue, self.session)
    }

    fn owner_frame(&self) -> Bytes {
        let place = self.owner_place();
        self.settings
            .seal
            .seal(Kind::Owner, place.as_bytes(), &self.owner)
    }

    /// Returns the owner in a claim. None if the claim has another key.
    fn owner_in(&self, frame: &[u8]) -> Option<Owner> {
        let place = self.owner_place();
        let opened = self
            .settings
            .seal
            .open(Kind::Owner, place.as_bytes(), frame);
        opened
            .inspect_err(|refused| log::refused("the claim of a session", refused))
            .ok()
    }

    /// Claims the session, unless another client has it.
    pub(crate) async fn claim_session(&self) -> Result<(), ClusterError> {
        let Some(kept) = &self.settings.kept else {
            return Ok(());
        };
        let queue = &self.settings.lane.queue;
        let made = self.bus.ensure_kept(queue, kept.replicas).await;
        made.map_err(|cause| match cause {
            BusError::Refused(_) if kept.replicas > 1 => ClusterError::Replicas {
                replicas: kept.replicas,
                cause,
            },
            cause => ClusterError::Server(cause),
        })?;
        let frame = self.owner_frame();
        loop {
            let since = Instant::now();
            let claimed = self.bus.claim(queue, self.session, frame.clone(), 0);
            match claimed.await? {
                Claimed::Ours(number) => {
                    self.lock().session.claim = Some((number, since));
                    return Ok(());
                }
                Claimed::Theirs(_, frame) => {
                    let name = kept.name.clone();
                    return Err(match self.owner_in(&frame) {
                        Some(owner) => ClusterError::SessionInUse {
                            session: name,
                            machine: owner.machine,
                            pid: owner.pid,
                        },
                        None => ClusterError::SessionKey(name),
                    });
                }
                // It has ended just now.
                Claimed::Free => {}
            }
        }
    }

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

    fn record_place(&self, number: u64) -> String {
        format!("cf.r.{}.{}.{number}", self.lane.queue, self.session)
    }

    fn look_for_all(self: &Arc<Self>, numbers: Vec<u64>) {
        if numbers.is_empty() {
            return;
        }
        let client = Arc::clone(self);
        tokio::spawn(async move {
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
            self.end(number, attempt, outcome);
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
                number: found.number,
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
        if let Some((attempt, place)) = published {
            entry.attempt = attempt;
            self.note_placed(&mut state, number, place);
            drop(state);
            self.poke();
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
            .partition(|task| is_wanted(&task.request.result));
        state.session.found = rest;
        drop(state);
        let sinks: Vec<_> = found.iter().map(|_| make()).collect();
        let mut done = Vec::new();
        let mut unwanted: Vec<Box<dyn Sink>> = Vec::new();
        let mut state = self.lock();
        let lost = state.session.lost.clone();
        for (task, (local, sink)) in found.into_iter().zip(sinks) {
            sink.start();
            if lost.is_some() {
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
        if let Some(lost) = lost {
            for sink in unwanted {
                sink.complete(Arrived::Error(failed(lost.clone())));
            }
        }
        self.look_for_all(done);
    }

    /// Returns the name of a kept session.
    pub(crate) fn session_name(&self) -> Option<&str> {
        self.settings.kept.as_ref().map(|kept| &*kept.name)
    }

    /// Returns the types of results of the tasks of earlier clients that have no future yet.
    pub(crate) fn found_results(&self) -> Vec<String> {
        let state = self.lock();
        let found = state.session.found.iter();
        found.map(|task| task.request.result.to_string()).collect()
    }

    /// Records tasks, in the order of their submission.
    pub(super) async fn record(self: Arc<Self>) {
        if self.settings.kept.is_none() {
            return std::future::pending().await;
        }
        let mut changed = self.changed.subscribe();
        let mut recording = FuturesOrdered::new();
        loop {
            while recording.len() < MOST_RECORDING {
                let Some((number, request)) = self.next_unrecorded() else {
                    break;
                };
                recording.push_back(self.record_one(number, request));
            }
            tokio::select! {
                Some(number) = recording.next() => self.note_recorded(number),
                // The sender is part of the client.
                _ = changed.changed() => {}
            }
        }
    }

    /// Takes the next task that has no record.
    fn next_unrecorded(&self) -> Option<(u64, Arc<Request>)> {
        let mut state = self.lock();
        if !self.is_owned(&state) {
            return None;
        }
        let mut cancelled = Vec::new();
        let next = loop {
            let Some(number) = state.session.unrecorded.pop_front() else {
                break None;
            };
            let Some(entry) = state.entries.get_mut(&number) else {
                continue;
            };
            if entry.stage != Stage::Recording {
                continue;
            }
            // From now on, the future runs, to the program.
            if !entry.is_started && !entry.sink.start() {
                cancelled.extend(self.remove(&mut state, number));
                continue;
            }
            entry.is_started = true;
            break Some((number, Arc::clone(&entry.request)));
        };
        drop(state);
        drop(cancelled);
        next
    }

    /// Stores the record of a task, however long that takes. Returns the task's number.
    async fn record_one(&self, number: u64, request: Arc<Request>) -> u64 {
        let mut pause = Duration::from_millis(20);
        while self.is_recording(number) {
            // One that was cut off meanwhile may have lost its session.
            if self.is_owner() {
                let Err(error) = self.try_record(number, &request).await else {
                    break;
                };
                log::trouble("a task could not be recorded", &error);
                if matches!(error, BusError::NoListener) {
                    self.ensure_stores().await;
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(2));
        }
        number
    }

    fn is_recording(&self, number: u64) -> bool {
        let state = self.lock();
        let entry = state.entries.get(&number);
        entry.is_some_and(|entry| entry.stage == Stage::Recording)
    }

    async fn try_record(&self, number: u64, request: &Request) -> Result<(), BusError> {
        let options = request.options;
        let age = self.age_of(request);
        let record = Record {
            environment: self.lane.environment.clone(),
            priority: self.lane_of(request).priority,
            call: request.call.clone(),
            // Before the record, which says that it is there.
            argument: self.argument(request).await?,
            time_limit: options.time_limit,
            retries: options.retries,
            on_host_loss: options.on_host_loss,
            age,
            result: request.result.to_string(),
        };
        let place = self.record_place(number);
        let sealed = self
            .settings
            .seal
            .seal(Kind::Record, place.as_bytes(), &record);
        let store_key = StoreKey::record(&self.lane.queue, self.session, number);
        // False if the record of an earlier attempt is there.
        self.bus.keep_for(&store_key, sealed, age).await?;
        Ok(())
    }

    /// Lets a task with a record be published.
    fn note_recorded(&self, number: u64) {
        let mut state = self.lock();
        let entry = state.entries.get(&number);
        if let Some(entry) = entry.filter(|entry| entry.stage == Stage::Recording) {
            if entry.attempt == 0 {
                state.backlog.push_back(number);
            } else {
                state.backlog.push_front(number);
            }
            state.set_stage(number, Stage::Waiting);
        }
        drop(state);
        self.poke();
    }

    /// Notes that a task has come to the server.
    pub(super) fn note_placed(&self, state: &mut State, number: u64, place: Place) {
        state.set_stage(number, Stage::Published(place));
        let Some(entry) = state.entries.get_mut(&number) else {
            return;
        };
        entry.seen = Instant::now();
        let was_placed = std::mem::replace(&mut entry.is_placed, true);
        if self.settings.kept.is_some() && !was_placed {
            state.session.unplaced -= 1;
            if state.session.unplaced == 0 {
                self.placed.notify_all();
            }
        }
    }

    /// Waits until all submitted tasks have records, and have come to the server, up to `limit`. Returns whether they have.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        if self.settings.kept.is_none() {
            return false;
        }
        let is_busy = |state: &mut State| state.session.unplaced > 0;
        let waited = self.placed.wait_timeout_while(self.lock(), limit, is_busy);
        let (state, timed_out) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        !timed_out.timed_out() && state.session.lost.is_none()
    }

    /// Returns the number of tasks that have not come to the server yet.
    #[cfg(test)]
    pub(crate) fn unplaced(&self) -> usize {
        self.lock().session.unplaced
    }

    /// Returns the time for which the server keeps a task, and its outcome.
    pub(super) fn age_of(&self, request: &Request) -> Duration {
        let found = request.found.as_ref().map(|found| found.age);
        let ours = self.settings.kept.as_ref().map(|kept| kept.age);
        found.or(ours).unwrap_or_default()
    }

    /// Makes the stores again that are gone.
    pub(super) async fn ensure_stores(&self) {
        let Some(kept) = &self.settings.kept else {
            return;
        };
        let queue = &self.settings.lane.queue;
        match self.bus.ensure_kept(queue, kept.replicas).await {
            Ok(true) => self.tell_hosts().await,
            Ok(false) => {}
            Err(error) => log::trouble("the stores of a session could not be made", &error),
        }
    }

    /// Tells hosts that the stores of kept sessions are there.
    async fn tell_hosts(&self) {
        let news = news_of(&self.settings.lane.queue);
        // A host that does not hear of them looks for them now and then.
        if let Err(error) = self.bus.send(&news, Bytes::new()).await {
            log::trouble("hosts could not be told of a session", &error);
        }
    }

    /// Removes a task that no host has from the server, and its record, so that no later client runs it. Returns false if
    /// that fails: the task goes on.
    pub(super) async fn remove_record(&self, number: u64) -> bool {
        /// Lets the task go on, also if the call is dropped.
        struct Leaving<'a>(&'a Client, u64);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                let is_leaving = {
                    let state = self.0.lock();
                    let entry = state.entries.get(&self.1);
                    entry.is_some_and(|entry| entry.stage == Stage::Leaving)
                };
                if is_leaving {
                    self.0.submit_again(self.1);
                }
            }
        }
        if self.settings.kept.is_none() {
            return true;
        }
        let request = {
            let mut state = self.lock();
            let Some(entry) = state.entries.get(&number) else {
                return false;
            };
            let request = Arc::clone(&entry.request);
            state.set_stage(number, Stage::Leaving);
            request
        };
        let leaving = Leaving(self, number);
        let store_key = StoreKey::record(&self.lane.queue, self.session, number);
        let task = KeptTask {
            session: self.session,
            number,
        };
        let lane = self.lane_of(&request);
        let removed = async {
            self.bus.forget(&store_key).await?;
            // A host may have given it back to the server.
            self.bus.remove_kept(&lane, task).await
        };
        match removed.await {
            Ok(()) => {
                std::mem::forget(leaving);
                true
            }
            Err(error) => {
                log::trouble("the record of a task could not be removed", &error);
                false
            }
        }
    }

    /// Renews the claim of the session, until it ends or is lost.
    pub(super) async fn own(self: Arc<Self>) {
        if self.settings.kept.is_none() {
            return std::future::pending().await;
        }
        let mut connections = self.bus.connections();
        connections.mark_unchanged();
        let mut wait = self.bus.lease() / 3;
        loop {
            // After a new connection, the claim may be another client's.
            let _ = timeout(wait, connections.changed()).await;
            connections.mark_unchanged();
            wait = match self.renew().await {
                Ok(true) => self.bus.lease() / 3,
                Ok(false) => return,
                Err(error) => {
                    log::trouble("the claim of a session could not be renewed", &error);
                    (self.bus.lease() / 10).min(Duration::from_secs(1))
                }
            };
        }
    }

    /// Renews the claim once. Returns false if there is none any more.
    async fn renew(self: &Arc<Self>) -> Result<bool, BusError> {
        let _renewing = self.renewing.lock().await;
        let Some((mut last, _)) = self.lock().session.claim else {
            return Ok(false);
        };
        let frame = self.owner_frame();
        loop {
            let since = Instant::now();
            let queue = &self.settings.lane.queue;
            let claimed = self.bus.claim(queue, self.session, frame.clone(), last);
            match claimed.await {
                Ok(Claimed::Ours(number)) => {
                    if let Some(other) = self.owner_meanwhile().await? {
                        self.bus.release(queue, self.session, number).await?;
                        self.lose(Some(other));
                        return Ok(false);
                    }
                    let session = &mut self.lock().session;
                    session.is_doubtful = false;
                    session.claim = Some((number, since));
                    self.poke();
                    return Ok(true);
                }
                Ok(Claimed::Theirs(number, content)) => match self.owner_in(&content) {
                    // The answer to an earlier renewal was lost.
                    Some(owner) if owner == self.owner => last = number,
                    owner => {
                        self.lose(owner);
                        return Ok(false);
                    }
                },
                Ok(Claimed::Free) => {
                    self.lock().session.is_doubtful = true;
                    // Before the claim, which the other client would take for a third one's. And after it, once no
                    // other client can open the session.
                    if let Some(other) = self.owner_meanwhile().await? {
                        self.lose(Some(other));
                        return Ok(false);
                    }
                    last = 0;
                }
                Err(error) => {
                    if matches!(error, BusError::NoListener) {
                        self.ensure_stores().await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Returns the client that has opened the session after this one, if the claim had ended. It may have left tasks, and
    /// cancelled some.
    async fn owner_meanwhile(&self) -> Result<Option<Owner>, BusError> {
        if !self.lock().session.is_doubtful {
            return Ok(None);
        }
        let last_owner = StoreKey::last_owner(&self.lane.queue, self.session);
        let found = self.bus.fetch(&last_owner).await?;
        let found = found.and_then(|frame| self.owner_in(&frame));
        Ok(found.filter(|owner| *owner != self.owner))
    }

    /// Fails all tasks, as the session has another owner.
    fn lose(&self, owner: Option<Owner>) {
        let name = self.settings.kept.as_ref().map(|kept| kept.name.clone());
        let lost = SessionLost {
            session: name.unwrap_or_default(),
            owner: owner.map(|owner| (owner.machine, owner.pid)),
        };
        {
            let mut state = self.lock();
            state.session.lost = Some(lost.clone());
            state.session.claim = None;
        }
        self.fail_all(&failed(lost));
    }

    /// Gives the session free for another client.
    pub(crate) async fn release(&self) {
        let _renewing = self.renewing.lock().await;
        let claim = self.lock().session.claim.take();
        let Some((last, since)) = claim else { return };
        // One that has ended may be another client's.
        if since.elapsed() < self.bus.lease() {
            let queue = &self.settings.lane.queue;
            if let Err(error) = self.bus.release(queue, self.session, last).await {
                log::trouble("a session could not be given free", &error);
            }
        }
    }

    /// Removes all that the session has on the server, and gives it free.
    pub(crate) async fn discard_session(&self) -> Result<(), BusError> {
        self.fail_all(&concurrent_futures::TaskError::Abandoned);
        let discarded = if self.is_owner() {
            self.bus
                .discard(&self.settings.lane.queue, self.session)
                .await
        } else {
            Err(BusError::Refused(String::from(
                "the session is not this client's",
            )))
        };
        self.release().await;
        discarded
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
