//! The client: the source of truth for its tasks.
//!
//! It keeps each task until it has the outcome. The stages of a task:
//!
//! | stage | the task is | leaves by |
//! |---|---|---|
//! | `Waiting` | with the client only | publication, when the server has room; cancellation |
//! | `Publishing` | on its way to the server | the server's confirmation |
//! | `Published` | on the server, or with a host | an outcome; a host that gives it back, or its loss by the server: `Waiting` again |
//! | `Fetching` | done; its value is fetched from the stream of payloads | the value |
//!
//! The first outcome that is accepted removes the task, under the lock. So a second one finds no task, and changes
//! nothing. It gets a receipt, too, so that its host acknowledges the task.

#![forbid(unsafe_code)]

mod control;
mod reconcile;

use crate::bus::{Bus, BusError, INLINE, Lane, Note, Thing};
use crate::error::{HostLost, NoFunction, PoisonTask};
use crate::log;
use crate::wire::{
    Call, Id, Kind, OnHostLoss, Outcome, Payload, Question, Receipt, Report, Seal, Task, TaskId,
    Terms, Why, hash, now,
};
use bytes::Bytes;
use concurrent_futures::TaskError;
use concurrent_futures::engine::Permit;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
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
/// The number of times that a task may come back without an outcome, for each permitted delivery.
const RETURNS: u32 = 4;

/// The outcome of a task, as bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Arrived {
    /// The call has returned a value.
    Value(Bytes),
    /// The call has failed; the bytes are the runner's.
    Failure(Bytes),
    /// The task has no outcome of a runner.
    Error(TaskError),
}

/// The future of a task, as the client sees it: the seam for other frontends.
///
/// The client calls `start` and `complete` in its one thread, which must not be blocked: foreign code runs elsewhere.
pub trait Sink: Send + 'static {
    /// Makes a pending future run. Returns false if it was cancelled.
    fn start(&self) -> bool;

    /// Makes a running future cancelled, as no host runs its task. Called by the thread that cancels.
    fn cancel(self: Box<Self>);

    /// Gives the future its outcome.
    fn complete(self: Box<Self>, arrived: Arrived);
}

/// The options of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) on_host_loss: OnHostLoss,
}

/// A call, as the client keeps it.
pub(crate) struct Request {
    call: Call,
    argument: Bytes,
    options: ClusterOptions,
    /// The hash of a long argument, once it is needed.
    hash: OnceLock<[u8; 32]>,
}

impl Request {
    pub(crate) fn new(call: Call, argument: Bytes, options: ClusterOptions) -> Self {
        Self {
            call,
            argument,
            options,
            hash: OnceLock::new(),
        }
    }

    fn hash(&self) -> &[u8; 32] {
        self.hash.get_or_init(|| hash(&self.argument))
    }
}

/// The place of a task; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Publishing,
    Published { number: u64 },
    Fetching,
}

struct Entry {
    request: Arc<Request>,
    sink: Box<dyn Sink>,
    /// The permit of a task that no host has begun.
    permit: Option<Permit>,
    stage: Stage,
    attempt: u32,
    /// The last sign of the task: its publication, or a report of a host that has it.
    seen: Instant,
    holder: Option<Id>,
    /// Whether the holder has begun.
    begun: bool,
    /// The number of hosts that have begun the task.
    starts: u32,
    /// The number of deliveries without an outcome, in all attempts.
    deliveries: u64,
    returns: u32,
    /// Told when a host has given the task up although the client did not hear its answer.
    cancelling: Option<oneshot::Sender<()>>,
}

/// The amount of work that a host does.
struct Power {
    workers: usize,
    /// The average time of a task; none until one has ended.
    pace: Option<Duration>,
    seen: Instant,
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    backlog: VecDeque<u64>,
    on_server: usize,
    /// The hosts that have reported.
    hosts: HashMap<Id, Power>,
    /// When a host of the environment was last seen.
    host_seen: Option<Instant>,
}

/// A task that is to be published.
struct Next {
    number: u64,
    attempt: u32,
    deliveries: u32,
    request: Arc<Request>,
}

/// The settings of a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) lane: Lane,
    pub(crate) seal: Seal,
    pub(crate) wait_for_workers: Duration,
    /// The number of hosts that a task may take along.
    pub(crate) most_deliveries: u32,
}

/// A session: the tasks of one executor.
pub(crate) struct Client {
    bus: Arc<dyn Bus>,
    settings: Settings,
    session: Id,
    state: Mutex<State>,
    /// Notified when the backlog or the room on the server has changed.
    changed: watch::Sender<()>,
    /// Notified when the last task is done.
    idle: Condvar,
}

impl Client {
    pub(crate) fn new(bus: Arc<dyn Bus>, settings: Settings) -> std::io::Result<Self> {
        Ok(Self {
            bus,
            settings,
            session: Id::random()?,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            idle: Condvar::new(),
        })
    }

    /// Does the client's work. Returns when the server cannot be listened to, and else never.
    pub(crate) async fn work(self: Arc<Self>, ready: oneshot::Sender<()>) -> Result<(), BusError> {
        let reports = format!("cf.c.{}", self.session);
        let questions = format!("cf.q.{}", self.session);
        let mut reports_come = self.bus.listen(&reports).await?;
        let mut questions_come = self.bus.listen(&questions).await?;
        // A caller that no longer waits drops the client.
        let _ = ready.send(());
        let pump = Arc::clone(&self).pump();
        let reconcile = Arc::clone(&self).reconcile();
        let watch_hosts = Arc::clone(&self).watch_hosts();
        tokio::pin!(pump, reconcile, watch_hosts);
        loop {
            tokio::select! {
                Some(note) = reports_come.recv() => self.receive(&reports, note).await,
                Some(note) = questions_come.recv() => self.answer(&questions, note).await,
                () = &mut pump => {}
                () = &mut reconcile => {}
                () = &mut watch_hosts => {}
                else => return Ok(()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a call, under a number that no other call of the client has.
    pub(crate) fn submit(
        &self,
        number: u64,
        request: Request,
        sink: Box<dyn Sink>,
        permit: Option<Permit>,
    ) {
        let entry = Entry {
            request: Arc::new(request),
            sink,
            permit,
            stage: Stage::Waiting,
            attempt: 0,
            seen: Instant::now(),
            holder: None,
            begun: false,
            starts: 0,
            deliveries: 0,
            returns: 0,
            cancelling: None,
        };
        let mut state = self.lock();
        state.entries.insert(number, entry);
        state.backlog.push_back(number);
        drop(state);
        self.poke();
    }

    fn poke(&self) {
        self.changed.send_replace(());
    }

    /// Returns how many tasks are not done.
    pub(crate) fn unfinished(&self) -> usize {
        self.lock().entries.len()
    }

    /// Returns whether a host has begun the task.
    pub(crate) fn has_begun(&self, number: u64) -> bool {
        // A task that is not there is being completed.
        self.lock()
            .entries
            .get(&number)
            .is_none_or(|entry| entry.begun)
    }

    /// Forgets a task whose future was cancelled while it was pending.
    pub(crate) fn forget(&self, number: u64) {
        let removed = self.remove(&mut self.lock(), number);
        drop(removed);
    }

    /// Waits until all tasks are done.
    pub(crate) fn wait_until_idle(&self) {
        let state = self.lock();
        let busy = |state: &mut State| !state.entries.is_empty();
        drop(self.idle.wait_while(state, busy));
    }

    /// Takes a task out: the moment of its outcome.
    fn remove(&self, state: &mut State, number: u64) -> Option<Entry> {
        let entry = state.entries.remove(&number)?;
        if entry.stage != Stage::Waiting {
            state.on_server -= 1;
            self.poke();
        }
        if state.entries.is_empty() {
            self.idle.notify_all();
        }
        Some(entry)
    }

    fn id(&self, number: u64, attempt: u32) -> TaskId {
        TaskId {
            session: self.session,
            number,
            attempt,
        }
    }

    /// Publishes tasks, as long as the server has room for them.
    async fn pump(self: Arc<Self>) {
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
            let thing = self.object(&hash, request.argument.len() as u64);
            self.bus.keep(&thing, request.argument.clone()).await?;
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

    /// Answers a host that asks whether a task is open.
    async fn answer(&self, subject: &str, note: Note) {
        let opened =
            self.settings
                .seal
                .open::<Question>(Kind::Question, subject.as_bytes(), &note.payload);
        let question = match opened {
            Ok(question) => question,
            Err(refused) => return log::refused("a question", &refused),
        };
        let is_open = {
            let state = self.lock();
            let entry = state.entries.get(&question.task.number);
            question.task.session == self.session
                && entry.is_some_and(|entry| entry.attempt == question.task.attempt)
        };
        if let Some(reply) = note.reply {
            let sealed = self
                .settings
                .seal
                .seal(Kind::Answer, &note.payload, &is_open);
            if let Err(error) = self.bus.send(&reply, sealed).await {
                log::trouble("an answer could not be sent", &error);
            }
        }
    }

    /// Receives a report, and confirms its outcomes.
    async fn receive(self: &Arc<Self>, subject: &str, note: Note) {
        if !self.take(subject, &note.payload) {
            return;
        }
        if let Some(reply) = note.reply {
            let receipt = self
                .settings
                .seal
                .seal(Kind::Receipt, &note.payload, &Receipt);
            if let Err(error) = self.bus.send(&reply, receipt).await {
                log::trouble("a receipt could not be sent", &error);
            }
        }
    }

    /// Takes what a report says. Returns false if it is none.
    fn take(self: &Arc<Self>, subject: &str, frame: &[u8]) -> bool {
        let opened = self
            .settings
            .seal
            .open::<Report>(Kind::Report, subject.as_bytes(), frame);
        let report = match opened {
            Ok(report) => report,
            Err(refused) => {
                log::refused("a report", &refused);
                return false;
            }
        };
        let mut state = self.lock();
        let now = Instant::now();
        state.host_seen = Some(now);
        let power = Power {
            workers: report.workers as usize,
            pace: report.pace,
            seen: now,
        };
        state.hosts.insert(report.host, power);
        let mut note = |number: u64, attempt: u32, begins: bool| {
            let entry = state.entries.get_mut(&number);
            if let Some(entry) = entry.filter(|entry| entry.attempt == attempt) {
                entry.seen = now;
                if entry.holder != Some(report.host) {
                    entry.holder = Some(report.host);
                    entry.begun = false;
                }
                // A report may come twice.
                if begins && !entry.begun {
                    entry.begun = true;
                    entry.starts += 1;
                    entry.permit = None;
                }
            }
        };
        for (number, attempt) in report.held {
            note(number, attempt, false);
        }
        for (number, attempt) in report.started {
            note(number, attempt, true);
        }
        drop(state);
        for (number, attempt, outcome) in report.ended {
            self.end(number, attempt, outcome);
        }
        true
    }

    /// Accepts the outcome of a task, unless there was one.
    fn end(self: &Arc<Self>, number: u64, attempt: u32, outcome: Outcome) {
        let arrived = match outcome {
            Outcome::Value(Payload::Inline(bytes)) => Arrived::Value(bytes),
            Outcome::Value(Payload::Object { hash, length }) => {
                return self.fetch(number, hash, length);
            }
            Outcome::Failure(bytes) => Arrived::Failure(bytes),
            Outcome::NoFunction(text) => Arrived::Error(failed(NoFunction(text))),
            Outcome::Returned(why) => return self.take_back(number, attempt, why),
        };
        self.complete(number, arrived);
    }

    /// Completes a task, unless it is done.
    fn complete(self: &Arc<Self>, number: u64, arrived: Arrived) {
        let removed = {
            let mut state = self.lock();
            // Another outcome came first, and its value is on the way.
            if state
                .entries
                .get(&number)
                .is_some_and(|entry| entry.stage == Stage::Fetching)
            {
                return;
            }
            self.remove(&mut state, number)
        };
        if let Some(entry) = removed {
            self.clean_up(&entry);
            entry.sink.complete(arrived);
        }
    }

    /// Removes the object of an argument.
    fn clean_up(self: &Arc<Self>, entry: &Entry) {
        if entry.request.argument.len() > INLINE {
            let length = entry.request.argument.len() as u64;
            // Another task may have the same argument.
            let is_shared = self.lock().entries.values().any(|other| {
                // One without a hash is not stored yet.
                other.request.hash.get() == Some(entry.request.hash())
            });
            if !is_shared {
                self.discard(self.object(entry.request.hash(), length));
            }
        }
    }

    /// Names the object of a payload.
    fn object(&self, hash: &[u8; 32], length: u64) -> Thing {
        Thing::object(&self.settings.lane.queue, self.session, hash, length)
    }

    fn discard(self: &Arc<Self>, thing: Thing) {
        let client = Arc::clone(self);
        tokio::spawn(async move {
            // If that fails, it goes by its age.
            if let Err(error) = client.bus.forget(&thing).await {
                log::trouble("an object could not be removed", &error);
            }
        });
    }

    /// Fetches the value of a task from the stream of payloads, and completes it.
    fn fetch(self: &Arc<Self>, number: u64, wanted: [u8; 32], length: u64) {
        {
            let mut state = self.lock();
            let Some(entry) = state.entries.get_mut(&number) else {
                return;
            };
            if entry.stage == Stage::Fetching {
                return;
            }
            if entry.stage == Stage::Waiting {
                state.on_server += 1;
            }
            if let Some(entry) = state.entries.get_mut(&number) {
                entry.stage = Stage::Fetching;
            }
        }
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let thing = client.object(&wanted, length);
            for attempt in 0..4_u32 {
                match client.bus.fetch(&thing).await {
                    Ok(Some(bytes)) if bytes.len() as u64 == length && hash(&bytes) == wanted => {
                        let removed = client.remove(&mut client.lock(), number);
                        if let Some(entry) = removed {
                            client.clean_up(&entry);
                            entry.sink.complete(Arrived::Value(bytes));
                        }
                        client.discard(thing);
                        return;
                    }
                    Ok(_) => break,
                    Err(error) => log::trouble("a value could not be fetched", &error),
                }
                sleep(Duration::from_millis(50 << attempt)).await;
            }
            // The server lost it: the task runs again.
            client.submit_again(number);
        });
    }

    /// Submits a task again, whose stage is not `Waiting`.
    fn submit_again(&self, number: u64) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&number) else {
            return;
        };
        if entry.stage != Stage::Waiting {
            entry.stage = Stage::Waiting;
            entry.holder = None;
            entry.begun = false;
            state.on_server -= 1;
            state.backlog.push_front(number);
        }
        drop(state);
        self.poke();
    }

    /// Decides about a task that a host has given back.
    fn take_back(self: &Arc<Self>, number: u64, attempt: u32, why: Why) {
        let error = {
            let mut state = self.lock();
            let Some(entry) = state.entries.get_mut(&number) else {
                return;
            };
            if entry.attempt != attempt
                || !matches!(entry.stage, Stage::Publishing | Stage::Published { .. })
            {
                return;
            }
            if why == Why::Recalled
                && let Some(cancelling) = entry.cancelling.take()
                && cancelling.send(()).is_ok()
            {
                // The cancellation goes on.
                return;
            }
            entry.returns += 1;
            let most = self.settings.most_deliveries;
            if let Why::Deliveries(times) = why {
                entry.deliveries += times - 1;
            }
            let most_returns = RETURNS * most + 4;
            if entry.request.options.on_host_loss == OnHostLoss::Fail
                && matches!(why, Why::Deliveries(_))
                && entry.starts > 0
            {
                Some(failed(HostLost))
            } else if matches!(why, Why::Deliveries(_)) && entry.starts >= most
                || entry.deliveries >= u64::from(RETURNS * most)
                || why == Why::NoObject && entry.returns > most_returns
            {
                Some(failed(PoisonTask {
                    deliveries: entry.deliveries,
                    starts: entry.starts,
                }))
            } else {
                None
            }
        };
        match error {
            Some(error) => self.complete(number, Arrived::Error(error)),
            None => self.submit_again(number),
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

/// Makes the error of a task of its cause.
pub(crate) fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> TaskError {
    TaskError::Failed(Arc::new(cause))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl ClusterOptions {
    /// Makes options without a time limit and without retries; a lost host's tasks run again.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time that the task may run on its host. When the time passes, the worker is killed, and the future
    /// fails with [`TaskError::TimeLimit`].
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets how often the host repeats the task if its worker process dies.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets what becomes of the task if its whole host is lost while it runs.
    #[must_use]
    pub fn on_host_loss(mut self, effect: OnHostLoss) -> Self {
        self.on_host_loss = effect;
        self
    }
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
