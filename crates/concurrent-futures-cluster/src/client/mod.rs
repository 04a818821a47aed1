//! The client: the source of truth for its tasks.
//!
//! It keeps each task until it has the outcome. The stages of a task:
//!
//! | stage | the task is | leaves by |
//! |---|---|---|
//! | `Recording` | kept, and on its way to the records; see `record.rs` | the record: `Waiting` |
//! | `Looking` | that of an earlier client, and looked for | its place on the server, or its outcome |
//! | `Waiting` | with the client only; see `waiting.rs` for those that never were elsewhere | publication, when the server has room; cancellation |
//! | `Publishing` | on its way to the server | the server's confirmation |
//! | `Published` | on the server, or with a host | an outcome; a host that gives it back, or its loss by the server: `Waiting` again |
//! | `Leaving` | cancelled, and its record is on its way out of the records | the server's confirmation |
//! | `Fetching` | done; its value is fetched from the stream of payloads | the value |
//!
//! The first outcome that is accepted removes the task, under the lock. So a second one finds no task, and changes
//! nothing. It gets a receipt, too, so that its host acknowledges the task.

#![forbid(unsafe_code)]

mod argument;
mod control;
#[cfg(test)]
mod control_tests;
mod direct;
mod guard;
mod kept;
mod open;
mod options;
mod owner;
mod payload;
mod publish;
mod receive;
mod reconcile;
mod record;
mod request;
mod times;
mod waiting;
#[cfg(test)]
mod waiting_tests;

pub(crate) use argument::Argument;
pub(crate) use kept::KeptSettings;
pub use options::ClusterOptions;
pub(crate) use request::{CallKind, Submission};

use crate::bus::kept::{kept_of, session_of};
use crate::bus::{Bus, BusError, Lane};
use crate::clock::Clock;
use crate::error::ClientPanicked;
use crate::objects::Objects;
use crate::payloads::Payloads;
use crate::waits;
use crate::wire::{Id, Owner, ParcelId, Seal, TaskId};
use bytes::Bytes;
use concurrent_futures::TaskError;
use concurrent_futures::engine::recorder::RunOutcome;
use concurrent_futures::engine::{Permit, RemoteLoss, RemoteRun, recording_clock};
use kept::Session;
use request::Request;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use times::HostClock;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use waiting::{Waiting, WaitingQueue};

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

    /// Tells a part of the value of a task that still runs, and the part's place. The value has all parts as well. They
    /// may come twice, and in any order. The call must return at once.
    fn take_part(&self, _first: u64, _bytes: Bytes) {}

    /// Tells the length of the argument, as bytes. The outcome comes next.
    fn note_sent(&mut self, _length: usize) {}

    /// Tells where and when the call has run, by the clock of this process. The outcome comes next.
    fn note_run(&mut self, _run: RemoteRun) {}

    /// Tells the runs of the call that gave no outcome, as their hosts were lost or have ended them, in their order. The
    /// outcome comes next.
    fn note_losses(&mut self, _losses: Vec<RemoteLoss>) {}

    /// Gives the future its outcome.
    fn complete(self: Box<Self>, arrived: Arrived);
}

/// The place of a task; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Recording,
    Looking,
    Waiting,
    Publishing,
    Published(Place),
    Leaving,
    Fetching,
}

impl Stage {
    /// Returns whether the task takes room on the server.
    fn is_on_server(self) -> bool {
        !matches!(self, Self::Recording | Self::Waiting)
    }
}

/// The place of a task on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The number of the message on the server. None if the message went to a host directly.
    number: Option<u64>,
    /// The parcel in the message.
    serial: u64,
}

impl Place {
    /// Returns the place of a published task.
    fn of(stage: Stage) -> Option<Self> {
        match stage {
            Stage::Published(place) => Some(place),
            _ => None,
        }
    }
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
    /// When the holder has begun, by the clock of recordings.
    run_since: u64,
    /// The traces of former attempts, if there are any.
    past: Option<Box<Past>>,
    /// The number of hosts that have begun the task.
    starts: u32,
    /// The number of deliveries without an outcome, in all attempts.
    deliveries: u64,
    returns: u32,
    /// Told when a host has given the task up although the client did not hear its answer.
    cancelling: Option<oneshot::Sender<()>>,
    /// Whether the future of a kept task runs, to the program.
    is_started: bool,
    /// Whether the task was on the server once.
    is_placed: bool,
    /// The number of a kept task in this process, if it has a future here.
    local: Option<u64>,
}

impl Entry {
    fn new(request: Arc<Request>, sink: Box<dyn Sink>, permit: Option<Permit>) -> Self {
        Self {
            request,
            sink,
            permit,
            stage: Stage::Waiting,
            attempt: 0,
            seen: Instant::now(),
            holder: None,
            begun: false,
            run_since: 0,
            past: None,
            starts: 0,
            deliveries: 0,
            returns: 0,
            cancelling: None,
            is_started: false,
            is_placed: false,
            local: None,
        }
    }

    /// Notes a run that gave no outcome.
    fn note_loss(&mut self, run: RemoteRun, outcome: RunOutcome) {
        self.past().losses.push(RemoteLoss { run, outcome });
    }

    fn past(&mut self) -> &mut Past {
        self.past.get_or_insert_default()
    }

    /// Notes that the server may have lost the first attempt after a host got it. The host may begin it for some time.
    ///
    /// A host asks the client before it begins a later attempt, or a task that it got a third of a lease ago.
    fn note_first_lost(&mut self, lease: Duration) {
        self.past().unsure_until = Some(Instant::now() + lease);
    }

    /// Returns until when a host may begin a former attempt without a question. None if none will.
    fn unsure_until(&self) -> Option<Instant> {
        let until = self.past.as_ref()?.unsure_until?;
        (until > Instant::now()).then_some(until)
    }

    /// Returns whether one of the hosts runs a former attempt.
    fn runs_elsewhere(&self, hosts: &HashMap<Id, Power>) -> bool {
        let runner = self.past.as_ref().and_then(|past| past.runner);
        runner.is_some_and(|host| hosts.contains_key(&host))
    }

    /// Notes that the holder is lost with its run, if it has begun. From now on, the task has no holder.
    fn lose_holder(&mut self, hosts: &HashMap<Id, Power>) {
        let holder = self.holder.take().and_then(|holder| hosts.get(&holder));
        if std::mem::take(&mut self.begun)
            && let Some(holder) = holder
        {
            let run = RemoteRun {
                machine: Arc::clone(&holder.machine),
                pid: holder.pid,
                place: None,
                start: self.run_since,
                end: recording_clock(),
            };
            self.note_loss(run, RunOutcome::WorkerDied);
        }
    }

    /// Notes the run that gave the outcome. Its host is not lost, although it may have been silent. If it is not the
    /// holder, that one is.
    fn note_run(&mut self, run: &RemoteRun, hosts: &HashMap<Id, Power>) {
        let holder = self.holder.and_then(|holder| hosts.get(&holder));
        if holder.is_some_and(|holder| !holder.is_of(run)) {
            self.lose_holder(hosts);
        }
        if let Some(past) = &mut self.past {
            let is_its_own = |lost: &RemoteRun| lost.machine == run.machine && lost.pid == run.pid;
            past.losses
                .retain(|loss| loss.outcome != RunOutcome::WorkerDied || !is_its_own(&loss.run));
        }
    }

    /// Gives the future of the task its outcome, which may be that of a run.
    fn complete(mut self, arrived: Arrived, run: Option<RemoteRun>) {
        // Of a task that was not removed alone, as all of them fail.
        self.permit = None;
        if let Some(past) = self.past.filter(|past| !past.losses.is_empty()) {
            self.sink.note_losses(past.losses);
        }
        self.sink.note_sent(self.request.argument.len());
        if let Some(run) = run {
            self.sink.note_run(run);
        }
        self.sink.complete(arrived);
    }
}

/// The traces of the former attempts of a task.
#[derive(Default)]
struct Past {
    /// The runs that gave no outcome.
    losses: Vec<RemoteLoss>,
    /// The end of the time in which a host may begin an attempt that the server has lost.
    unsure_until: Option<Instant>,
    /// The host that has begun a former attempt.
    runner: Option<Id>,
}

/// The amount of work that a host does.
struct Power {
    workers: usize,
    /// The average time of a task; none until one has ended.
    pace: Option<Duration>,
    clock: HostClock,
    seen: Instant,
    machine: Arc<str>,
    pid: u32,
}

impl Power {
    /// Returns whether a run was one of this host.
    fn is_of(&self, run: &RemoteRun) -> bool {
        self.machine == run.machine && self.pid == run.pid
    }
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    /// The tasks that were never published. No kept task is here.
    waiting: WaitingQueue,
    /// The entries that are to be published, before any task that was never published.
    backlog: VecDeque<u64>,
    on_server: usize,
    /// The number of parcels so far.
    parcels: u64,
    /// The parcels that are being withdrawn from the server.
    withdrawing: HashSet<u64>,
    /// Whether nothing is published, as all tasks are being cancelled.
    is_on_hold: bool,
    /// The hosts that have reported.
    hosts: HashMap<Id, Power>,
    /// When a host of the environment was last seen.
    host_seen: Option<Instant>,
    /// The host that gets the next task directly, as it has brought the last outcome.
    direct: Option<Id>,
    /// The time before which no task goes directly to a host, as one has refused a task.
    no_direct_before: Option<Instant>,
    /// The receipts that go out with the next direct task, or after a moment, and where they go.
    receipts: Vec<(String, Bytes)>,
    /// Whether the moment has begun.
    are_receipts_due: bool,
    session: Session,
    /// The panic of a part of the client.
    broken: Option<ClientPanicked>,
}

impl State {
    /// Returns how many tasks are not done.
    fn unfinished(&self) -> usize {
        self.entries.len() + self.waiting.len()
    }

    /// Returns why no task can be submitted any more.
    fn refusal(&self) -> Option<TaskError> {
        let broken = self.broken.clone().map(failed);
        broken.or_else(|| self.session.lost.clone().map(failed))
    }
}

/// The settings of a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) lane: Lane,
    pub(crate) seal: Seal,
    pub(crate) wait_for_workers: Duration,
    /// The number of hosts that a task may take along.
    pub(crate) most_deliveries: u32,
    /// None if the tasks end with their client.
    pub(crate) kept: Option<KeptSettings>,
    /// The place of very long payloads.
    pub(crate) objects: Option<Arc<Objects>>,
}

/// A session: the tasks of one executor.
pub(crate) struct Client {
    bus: Arc<dyn Bus>,
    payloads: Payloads,
    settings: Settings,
    session: Id,
    /// The lane of the tasks: that of the settings, except for kept sessions.
    lane: Lane,
    /// The owner that the claim of a kept session names.
    owner: Owner,
    /// Held while the claim is renewed, or ends.
    renewing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Notified when the backlog or the room on the server has changed.
    changed: watch::Sender<()>,
    /// Notified when the last task is done.
    idle: Condvar,
    /// The server's clock.
    clock: Clock,
    /// Notified when all tasks of a kept session have come to the server.
    placed: Condvar,
}

impl Client {
    pub(crate) fn new(bus: Arc<dyn Bus>, settings: Settings) -> std::io::Result<Self> {
        let mut lane = settings.lane.clone();
        let session = match &settings.kept {
            None => Id::random()?,
            Some(kept) => session_of(&lane.queue, &kept.name),
        };
        if settings.kept.is_some() {
            lane.queue = kept_of(&lane.queue);
        }
        Ok(Self {
            payloads: Payloads::new(Arc::clone(&bus), settings.objects.clone()),
            bus,
            settings,
            session,
            lane,
            owner: owner::new_owner()?,
            renewing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            idle: Condvar::new(),
            clock: Clock::default(),
            placed: Condvar::new(),
        })
    }

    /// Does the client's work. Returns when the server cannot be listened to, or a kept session has another owner, and
    /// else never.
    pub(crate) async fn work(self: Arc<Self>, ready: oneshot::Sender<()>) -> Result<(), BusError> {
        let reports = format!("cf.c.{}", self.session);
        let questions = format!("cf.q.{}", self.session);
        let mut reports_come = self.bus.listen(&reports).await?;
        let mut questions_come = self.bus.listen(&questions).await?;
        self.clock.read(&*self.bus, &self.lane).await;
        // A caller that no longer waits drops the client.
        let _ = ready.send(());
        // Asynchronous tasks of their own: an event wakes the one that waits for it. All end with this one.
        let mut parts = JoinSet::new();
        let this = || Arc::clone(&self);
        parts.spawn(this().guarded("reads the server's clock", this().keep_time()));
        parts.spawn(this().guarded("publishes tasks", this().pump()));
        parts.spawn(this().guarded("looks for lost tasks", this().reconcile()));
        parts.spawn(this().guarded("looks for hosts", this().watch_hosts()));
        parts.spawn(this().guarded("records tasks", this().record()));
        let own = this().guarded("renews the claim of the session", this().own());
        tokio::pin!(own);
        loop {
            tokio::select! {
                Some(note) = reports_come.recv() => {
                    let receiving = self.receive(&reports, note);
                    this().guarded("receives reports", receiving).await;
                }
                Some(note) = questions_come.recv() => {
                    let answering = self.answer(&questions, note);
                    this().guarded("answers to hosts", answering).await;
                }
                () = &mut own => return Ok(()),
                else => return Ok(()),
            }
        }
    }

    /// Reads the server's clock again whenever the time may have changed.
    async fn keep_time(self: Arc<Self>) {
        self.clock.keep(&*self.bus, &self.lane).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a call, under a number that no other call of the client has.
    pub(crate) fn submit(
        &self,
        number: u64,
        submission: Submission,
        sink: Box<dyn Sink>,
        permit: Option<Permit>,
    ) {
        let task = Waiting {
            number,
            kind: submission.kind,
            argument: submission.argument,
            sink,
            permit,
        };
        let mut state = self.lock();
        if let Some(error) = state.refusal() {
            drop(state);
            return task.into_entry().complete(Arrived::Error(error), None);
        }
        if self.settings.kept.is_some() {
            let mut entry = task.into_entry();
            entry.local = Some(number);
            let number = state.session.number_for(number);
            state.insert_kept(number, entry, Stage::Recording);
        } else {
            state.waiting.push(task);
        }
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Returns how many tasks are not done.
    pub(crate) fn unfinished(&self) -> usize {
        self.lock().unfinished()
    }

    /// Returns whether a host has begun the task.
    pub(crate) fn has_begun(&self, number: u64) -> bool {
        let number = self.wire(number);
        let state = self.lock();
        match state.entries.get(&number) {
            Some(entry) => entry.begun,
            // A task that is not there is being completed.
            None => !state.waiting.contains(number),
        }
    }

    /// Forgets a task whose future was cancelled while it was pending.
    pub(crate) fn forget(&self, number: u64) {
        // A kept task runs, to the program, before it is recorded: so there is no record.
        let number = self.wire(number);
        let removed = self.remove(&mut self.lock(), number);
        drop(removed);
    }

    /// Waits until all tasks are done.
    pub(crate) fn wait_until_idle(&self) {
        if self.unfinished() == 0 {
            return;
        }
        let _sleeping = waits::note_sleep();
        let busy = |state: &mut State| state.unfinished() > 0;
        drop(self.idle.wait_while(self.lock(), busy));
    }

    /// Takes a task out that has the outcome of a run, if it is one.
    fn remove_done(
        &self,
        state: &mut State,
        number: u64,
        run: Option<&RemoteRun>,
    ) -> Option<Entry> {
        let mut entry = self.remove(state, number)?;
        if let Some(run) = run {
            entry.note_run(run, &state.hosts);
        }
        Some(entry)
    }

    /// Takes a task out: the moment of its outcome.
    fn remove(&self, state: &mut State, number: u64) -> Option<Entry> {
        let Some(mut entry) = state.entries.remove(&number) else {
            let mut task = state.waiting.remove(number)?;
            task.permit = None;
            self.note_if_idle(state);
            return Some(task.into_entry());
        };
        // Before a thread learns that the task is done or cancelled, and submits the next one.
        entry.permit = None;
        if entry.stage.is_on_server() {
            state.on_server -= 1;
            self.wake();
        }
        if !entry.is_placed && self.settings.kept.is_some() {
            state.session.unplaced -= 1;
            self.placed.notify_all();
        }
        if let Some(local) = entry.local {
            state.session.wires.remove(&local);
        }
        self.note_if_idle(state);
        Some(entry)
    }

    fn note_if_idle(&self, state: &State) {
        if state.unfinished() == 0 {
            self.idle.notify_all();
        }
    }

    /// Returns the lane of a task.
    fn lane_of(&self, request: &Request) -> Cow<'_, Lane> {
        let found = request.found.as_ref();
        let priority = found.map_or(self.lane.priority, |found| found.priority);
        let rank = request.rank.get().copied().unwrap_or_default();
        if (priority, rank) == (self.lane.priority, self.lane.rank) {
            return Cow::Borrowed(&self.lane);
        }
        Cow::Owned(Lane {
            priority,
            rank,
            ..self.lane.clone()
        })
    }

    fn parcel_id(&self, serial: u64) -> ParcelId {
        ParcelId {
            session: self.session,
            serial,
        }
    }

    fn id(&self, number: u64, attempt: u32) -> TaskId {
        TaskId {
            session: self.session,
            number,
            attempt,
        }
    }
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
