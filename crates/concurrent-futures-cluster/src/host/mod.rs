//! The host: takes tasks of a queue, has them carried out by its runner, and reports to their clients.
//!
//! A task is *held* from its delivery until it is settled. It waits in `ready`, then runs, then its outcome is on
//! the way to the client. While a task is held, the host extends its delivery, so that no other host gets it.
//!
//! The order that must hold for each task: the outcome is with the client, or in the store of outcomes, *before*
//! the delivery is acknowledged. So no death of the host loses an outcome; at worst the task runs again.

#![forbid(unsafe_code)]

mod arrival;
mod report;

use crate::bus::{Bus, BusError, Delivery, INLINE, Lane, PRIORITIES, Settle, StoreKey};
use crate::log;
use crate::runner::{CallOptions, Ended, Runner};
use crate::waits::Waits;
use crate::wire::{
    Answer, Figures, HostInfo, Id, Kind, Order, Outcome, Parcel, ParcelId, Payload, Question, Seal,
    Task, TaskId, What, Why, hash, news_of, random,
};
use arrival::FRESH;
use bytes::Bytes;
use report::{News, Reporters};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// The time for which a task waits for a worker of its host, before the host gives it back.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The number of tasks of which the host takes the average time, about.
const PACE_OF: u32 = 64;

/// The place of a task among those of a host.
pub(crate) type Key = (Id, u64);

/// A parcel of which the host holds tasks.
struct Delivered {
    /// The way to settle its newest delivery.
    token: String,
    /// The number of its tasks that are held.
    left: usize,
    /// Whether it is given back at its end, as a task of it has no outcome and no client.
    goes_back: bool,
}

impl Delivered {
    fn ending(&self) -> Settle {
        if self.goes_back {
            Settle::Back
        } else {
            Settle::Done
        }
    }
}

/// A task that the host holds.
struct Held {
    id: TaskId,
    parcel: ParcelId,
    /// Whether the server has delivered it before.
    is_repeated: bool,
    /// When the task came.
    since: Instant,
    /// The task, until it runs.
    task: Option<Task>,
    /// Ends the running task.
    orders: Option<mpsc::UnboundedSender<(What, oneshot::Sender<Answer>)>>,
}

#[derive(Default)]
struct State {
    held: HashMap<Key, Held>,
    parcels: HashMap<ParcelId, Delivered>,
    /// The number of tasks in the newest parcel.
    parcel_size: usize,
    ready: [VecDeque<Key>; PRIORITIES as usize],
    /// The lanes that are known to be empty; see [`arrival`].
    is_empty: [bool; PRIORITIES as usize],
    running: usize,
    /// The number of running tasks that wait for others of a cluster.
    sleeping: usize,
    /// The average time that a task takes, and the number of tasks that it is of.
    pace: Option<Duration>,
    ended: u32,
    /// The numbers of tasks with an outcome, of those that have failed, and of those that were given back.
    done: u64,
    failed: u64,
    returned: u64,
    draining: bool,
    /// Whether running tasks are terminated because the host ends, so that another host is to run them.
    gives_back: bool,
    /// Tasks that were recalled before they came, until when that holds.
    recalled: HashMap<TaskId, Instant>,
    /// Parcels that were here, in the order of their arrival.
    seen: HashSet<ParcelId>,
    seen_order: VecDeque<(Instant, ParcelId)>,
}

impl State {
    /// Notes that a task of a parcel is no longer held under it. Returns how to settle the parcel, if it was the last.
    fn leave(&mut self, parcel: ParcelId, goes_back: bool) -> Option<(String, Settle)> {
        let delivered = self.parcels.get_mut(&parcel)?;
        delivered.left -= 1;
        delivered.goes_back |= goes_back;
        if delivered.left > 0 {
            return None;
        }
        let delivered = self.parcels.remove(&parcel)?;
        let how = delivered.ending();
        Some((delivered.token, how))
    }

    /// Takes the next task that may begin: one of the highest priority that has any, on the server as well.
    fn next_ready(&mut self) -> Option<Key> {
        for (ready, is_empty) in self.ready.iter_mut().zip(self.is_empty).rev() {
            let next = ready.pop_front();
            if next.is_some() || !is_empty {
                return next;
            }
        }
        None
    }
}

/// The settings of a host.
pub(crate) struct Settings {
    pub(crate) queue: String,
    pub(crate) environment: String,
    pub(crate) machine: String,
    pub(crate) seal: Seal,
    /// The time that running tasks have once the host is to end.
    pub(crate) drain: Duration,
}

/// The state that the parts of a host share.
pub(crate) struct Host {
    bus: Arc<dyn Bus>,
    runner: Arc<dyn Runner>,
    settings: Settings,
    id: Id,
    state: Mutex<State>,
    /// Notified when a task may start, or more tasks may be asked for.
    changed: watch::Sender<()>,
    reporters: Reporters,
    /// The subjects of tasks, by priority.
    places: Vec<String>,
}

/// Runs a host until `stop` says so, and the host has drained.
pub(crate) async fn serve(
    bus: Arc<dyn Bus>,
    runner: Arc<dyn Runner>,
    settings: Settings,
    waits: Option<Waits>,
    mut stop: watch::Receiver<bool>,
    mut ready: Option<oneshot::Sender<()>>,
) -> Result<(), BusError> {
    let id = Id::random().map_err(|error| BusError::Refused(error.to_string()))?;
    let lane = |priority| Lane {
        queue: settings.queue.clone(),
        environment: settings.environment.clone(),
        priority,
    };
    let host = Arc::new(Host {
        reporters: Reporters::new(id),
        places: (0..PRIORITIES)
            .map(|priority| lane(priority).subject())
            .collect(),
        bus,
        runner,
        settings,
        id,
        state: Mutex::default(),
        changed: watch::Sender::new(()),
    });
    let mut tasks = JoinSet::new();
    for subject in [host.subject(), format!("cf.h.{}.all", host.settings.queue)] {
        let notes = host.bus.listen(&subject).await?;
        tasks.spawn(Arc::clone(&host).listen(subject, notes));
    }
    tasks.spawn(Arc::clone(&host).register());
    tasks.spawn(Arc::clone(&host).extend());
    let mut pulls = JoinSet::new();
    for priority in 0..PRIORITIES {
        pulls.spawn(Arc::clone(&host).pull(priority));
    }
    tasks.spawn(Arc::clone(&host).start_tasks());
    tasks.spawn(Arc::clone(&host).give_back_waiting());
    if let Some(waits) = waits {
        let host = Arc::clone(&host);
        tasks.spawn(waits.receive(move |sleeps| host.note_sleep(sleeps)));
    }
    if let Some(ready) = ready.take() {
        // A caller that no longer waits tells the host to stop.
        let _ = ready.send(());
    }
    // An error means that the other side is gone.
    let _ = stop.wait_for(|stop| *stop).await;
    pulls.shutdown().await;
    host.drain().await;
    tasks.shutdown().await;
    let name = host.name();
    let queue = host.settings.queue.clone();
    if let Err(error) = host.bus.forget(&StoreKey::Host { queue, name }).await {
        log::trouble("a host could not leave the registry", &error);
    }
    host.runner.close();
    Ok(())
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workers(&self) -> u32 {
        u32::try_from(self.runner.workers()).unwrap_or(u32::MAX)
    }

    /// Returns how many tasks may run at once: those that sleep take no slot.
    fn slots(&self, state: &State) -> usize {
        self.runner.workers() + state.sleeping.min(self.runner.spares())
    }

    /// Notes that a worker goes to sleep, or goes on.
    fn note_sleep(&self, sleeps: bool) {
        {
            let mut state = self.lock();
            state.sleeping = if sleeps {
                state.sleeping + 1
            } else {
                state.sleeping.saturating_sub(1)
            };
        }
        self.poke();
    }

    fn pace(&self) -> Option<Duration> {
        self.lock().pace
    }

    /// Lets all parts of the host look at its state.
    fn poke(&self) {
        self.changed.send_replace(());
    }

    fn subject(&self) -> String {
        format!("cf.h.{}.{}", self.settings.queue, self.id)
    }

    fn name(&self) -> String {
        format!("{}.{}", self.settings.environment, self.id)
    }

    fn lane(&self, priority: u8) -> Lane {
        Lane {
            queue: self.settings.queue.clone(),
            environment: self.settings.environment.clone(),
            priority,
        }
    }

    /// Keeps the host in the registry. Tells clients when it has entered, as some may wait for a host.
    async fn register(self: Arc<Self>) {
        let store_key = StoreKey::Host {
            queue: self.settings.queue.clone(),
            name: self.name(),
        };
        let mut connections = self.bus.connections();
        let news = news_of(&self.settings.queue);
        let mut is_entry = true;
        loop {
            let content = self.entry();
            let kept = tokio::select! {
                kept = self.bus.keep(&store_key, content.clone()) => kept,
                // The message may have been lost with the connection.
                Ok(()) = connections.changed() => {
                    is_entry = true;
                    continue;
                }
            };
            let wait = match kept {
                Ok(_) => {
                    if is_entry && let Err(error) = self.bus.send(&news, content.clone()).await {
                        log::trouble("a host could not say that it is there", &error);
                    }
                    is_entry = false;
                    self.bus.lease() / 3
                }
                Err(error) => {
                    is_entry = true;
                    log::trouble("a host could not write itself into the registry", &error);
                    (self.bus.lease() / 10).min(Duration::from_secs(1))
                }
            };
            // A server that begins anew has no registry. Clients that wait read it after each new connection.
            is_entry |= timeout(wait, connections.changed()).await.is_ok();
        }
    }

    /// Returns the entry of the host in the registry, as of now.
    fn entry(&self) -> Bytes {
        let figures = {
            let state = self.lock();
            Figures {
                running: u32::try_from(state.running).unwrap_or(u32::MAX),
                ended: state.done,
                failed: state.failed,
                returned: state.returned,
                pace: state.pace,
            }
        };
        let Settings { queue, seal, .. } = &self.settings;
        let info = HostInfo {
            id: self.id,
            queue: queue.clone(),
            environment: self.settings.environment.clone(),
            machine: self.settings.machine.clone(),
            pid: std::process::id(),
            workers: self.workers(),
            figures,
        };
        seal.seal(Kind::Host, queue.as_bytes(), &info)
    }

    /// Extends the deliveries of held tasks, and tells their clients of them.
    async fn extend(self: Arc<Self>) {
        loop {
            sleep(self.bus.lease() / 3).await;
            let (held, tokens) = {
                let mut state = self.lock();
                let now = Instant::now();
                state.recalled.retain(|_, until| *until > now);
                let held: Vec<TaskId> = state.held.values().map(|held| held.id).collect();
                let parcels = state.parcels.values();
                let tokens: Vec<String> = parcels.map(|parcel| parcel.token.clone()).collect();
                (held, tokens)
            };
            for token in tokens {
                // A lost extension is one of three in a lease. If all are lost, another host gets the tasks, and the
                // first outcome counts.
                let _ = self.bus.settle(&token, Settle::Extend).await;
            }
            for id in held {
                self.report(id.session, News::Held(id));
            }
            self.reporters.forget_idle(2 * self.bus.lease());
        }
    }

    fn report(self: &Arc<Self>, session: Id, news: News) {
        if let News::Ended(_, outcome) = &news {
            let mut state = self.lock();
            match outcome {
                Outcome::Returned(_) => state.returned += 1,
                Outcome::Value(_) => state.done += 1,
                Outcome::Failure(_) | Outcome::NoFunction(_) => {
                    state.done += 1;
                    state.failed += 1;
                }
            }
        }
        self.reporters.tell(self, session, news);
    }

    /// Remembers a parcel. Returns whether it was here before.
    fn note_seen(&self, id: ParcelId) -> bool {
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
        let answer = match self
            .bus
            .request(&subject, frame.clone(), self.bus.lease() / 3)
            .await
        {
            // Without its client, the parcel has no purpose.
            Err(BusError::NoListener) => return Ok(Vec::new()),
            other => other?,
        };
        let opened = self
            .settings
            .seal
            .open::<Vec<u64>>(Kind::Answer, &frame, &answer);
        opened.map_err(|refused| BusError::Refused(refused.to_string()))
    }

    /// Holds the tasks of a parcel, each until it is settled.
    fn hold(self: &Arc<Self>, priority: u8, parcel: Parcel, delivery: Delivery) {
        let Parcel { id, tasks, .. } = parcel;
        let mut refused = Vec::new();
        let mut news = Vec::new();
        let mut emptied = Vec::new();
        let mut is_empty = None;
        {
            let mut state = self.lock();
            state.parcel_size = tasks.len().max(1);
            if let Some(delivered) = state.parcels.get_mut(&id) {
                // It came again, as the lease had ended. It is settled by its newest delivery.
                delivered.token = delivery.token;
                return;
            }
            let since = Instant::now();
            let mut left = 0;
            for task in tasks {
                let task_id = TaskId {
                    session: id.session,
                    number: task.number,
                    attempt: task.attempt,
                };
                let key = (id.session, task.number);
                left += 1;
                if let Some(held) = state.held.get_mut(&key) {
                    // Another attempt has brought it. From now on, it belongs to this parcel.
                    let former = std::mem::replace(&mut held.parcel, id);
                    if former == id {
                        // The parcel names it twice.
                        left -= 1;
                    } else {
                        emptied.extend(state.leave(former, false));
                    }
                    continue;
                }
                let refusal = if state.recalled.remove(&task_id).is_some() {
                    Some(Why::Recalled)
                } else if state.draining {
                    Some(Why::Drained)
                } else if delivery.deliveries > u64::from(task.terms.deliveries) {
                    Some(Why::Deliveries(delivery.deliveries))
                } else {
                    None
                };
                let held = Held {
                    id: task_id,
                    parcel: id,
                    is_repeated: delivery.deliveries > 1,
                    since,
                    task: refusal.is_none().then_some(task),
                    orders: None,
                };
                state.held.insert(key, held);
                if let Some(why) = refusal {
                    refused.push((key, why));
                } else {
                    state.ready[usize::from(priority)].push_back(key);
                    news.push(task_id);
                }
            }
            if left > 0 {
                let delivered = Delivered {
                    token: delivery.token,
                    left,
                    goes_back: false,
                };
                state.parcels.insert(id, delivered);
            } else {
                is_empty = Some((delivery.token, Settle::Done));
            }
        }
        emptied.extend(is_empty);
        self.settle_later(emptied);
        for (key, why) in refused {
            self.report(id.session, News::Ended(key, Outcome::Returned(why)));
        }
        if !news.is_empty() {
            for task in news {
                self.report(id.session, News::Held(task));
            }
            self.poke();
        }
    }

    /// Settles parcels that have no held task any more.
    fn settle_later(self: &Arc<Self>, parcels: Vec<(String, Settle)>) {
        if parcels.is_empty() {
            return;
        }
        let host = Arc::clone(self);
        tokio::spawn(async move {
            for (token, how) in parcels {
                // If that is lost, the parcel comes again when its lease ends.
                let _ = host.bus.settle(&token, how).await;
            }
        });
    }

    /// Starts tasks, the most urgent first, whenever a worker is free.
    async fn start_tasks(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            loop {
                let (id, task, is_repeated, orders) = {
                    let mut state = self.lock();
                    if state.running >= self.slots(&state) {
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
                    (id, task, is_repeated, orders)
                };
                let host = Arc::clone(&self);
                tokio::spawn(async move {
                    let key = (id.session, id.number);
                    let started = Instant::now();
                    let mut outcome = host.run(id, task, is_repeated, orders).await;
                    {
                        let mut state = host.lock();
                        if state.gives_back && matches!(outcome, Outcome::Failure(_)) {
                            outcome = Outcome::Returned(Why::Ended);
                        }
                        state.running -= 1;
                        let took = started.elapsed();
                        state.ended = (state.ended + 1).min(PACE_OF);
                        let ended = state.ended;
                        let pace = state.pace.unwrap_or_default();
                        state.pace = Some((pace * (ended - 1) + took) / ended);
                    }
                    host.report(key.0, News::Ended(key, outcome));
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
        let argument = match task.argument {
            Payload::Inline(bytes) => bytes,
            Payload::Object {
                hash: wanted,
                length,
            } => match self.object(id.session, wanted, length).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Outcome::Returned(Why::NoObject),
                Err(error) => {
                    log::trouble("an object could not be fetched", &error);
                    return Outcome::Returned(Why::NoObject);
                }
            },
        };
        let options = CallOptions {
            time_limit: task.terms.time_limit,
            retries: task.terms.retries,
        };
        let must_be_known = is_repeated || id.attempt > 1 || task.terms.deliveries == 1;
        if must_be_known && !report::confirm_start(self, id).await {
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
            Ended::Value(bytes) => match self.stored(id.session, bytes).await {
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
        session: Id,
        wanted: [u8; 32],
        length: u64,
    ) -> Result<Option<Bytes>, BusError> {
        let store_key = StoreKey::object(&self.settings.queue, session, &wanted, length);
        let found = self.bus.fetch(&store_key).await?;
        let is_right = |bytes: &Bytes| bytes.len() as u64 == length && hash(bytes) == wanted;
        Ok(found.filter(is_right))
    }

    /// Makes the payload of a result, and stores it if it is long.
    async fn stored(&self, session: Id, bytes: Vec<u8>) -> Result<Payload, BusError> {
        if bytes.len() <= INLINE {
            return Ok(Payload::Inline(bytes.into()));
        }
        let bytes = Bytes::from(bytes);
        let (hash, length) = (hash(&bytes), bytes.len() as u64);
        let store_key = StoreKey::object(&self.settings.queue, session, &hash, length);
        self.bus.keep(&store_key, bytes).await?;
        Ok(Payload::Object { hash, length })
    }

    /// Obeys the orders that come on a subject.
    async fn listen(
        self: Arc<Self>,
        subject: String,
        mut notes: mpsc::UnboundedReceiver<crate::bus::Note>,
    ) {
        let is_own = subject == self.subject();
        while let Some(note) = notes.recv().await {
            let opened =
                self.settings
                    .seal
                    .open::<Order>(Kind::Order, subject.as_bytes(), &note.payload);
            let order = match opened {
                Ok(order) => order,
                Err(refused) => {
                    log::refused("an order", &refused);
                    continue;
                }
            };
            let host = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = host.obey(order).await;
                // A host that was not meant says nothing, so that the answer is that of the one which was.
                if let (Some(reply), true) = (note.reply, is_own || answer != Answer::Unknown) {
                    let sealed = host
                        .settings
                        .seal
                        .seal(Kind::Answer, &note.payload, &answer);
                    // A client without an answer leaves the task running. The effect of the order is reported as
                    // well: by the outcome, or by a report that the task is given back.
                    let _ = host.bus.send(&reply, sealed).await;
                }
            });
        }
    }

    async fn obey(self: &Arc<Self>, order: Order) -> Answer {
        let id = order.task;
        let key = (id.session, id.number);
        let orders = {
            let mut state = self.lock();
            let held = state.held.get_mut(&key).filter(|held| held.id == id);
            let Some(held) = held else {
                let until = Instant::now() + 2 * self.bus.lease();
                state.recalled.insert(id, until);
                return Answer::Unknown;
            };
            if held.task.take().is_some() {
                None
            } else if let Some(orders) = &held.orders {
                Some(orders.clone())
            } else {
                // It is being given back.
                return Answer::GivenUp;
            }
        };
        let Some(orders) = orders else {
            // Reported, too, as the answer may be lost.
            self.report(key.0, News::Ended(key, Outcome::Returned(Why::Recalled)));
            return Answer::GivenUp;
        };
        let (sender, answer) = oneshot::channel();
        if orders.send((order.what, sender)).is_err() {
            return Answer::Runs;
        }
        // The task ended meanwhile, if there is no answer.
        answer.await.unwrap_or(Answer::Runs)
    }

    /// Gives tasks back that wait for a worker for some time: another host may have one for them.
    async fn give_back_waiting(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            let first = {
                let state = self.lock();
                let is_full = state.running >= self.slots(&state);
                let first = state.ready.iter().filter_map(VecDeque::front);
                let first = first.filter_map(|key| Some(state.held.get(key)?.since));
                first.min().filter(|_| is_full)
            };
            let is_due = async {
                match first {
                    Some(since) => sleep_until(since + LONGEST_WAIT).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_due => {
                    if let Some(before) = Instant::now().checked_sub(LONGEST_WAIT) {
                        self.give_back(before, Why::Busy);
                    }
                }
                // The sender is part of the host.
                _ = changed.changed() => {}
            }
        }
    }

    /// Gives tasks back that have come before, and have not begun.
    fn give_back(self: &Arc<Self>, before: Instant, why: Why) {
        let mut given: Vec<Key> = Vec::new();
        {
            let State { ready, held, .. } = &mut *self.lock();
            for queue in ready {
                queue.retain(|key| match held.get_mut(key) {
                    Some(held) if held.since > before => true,
                    Some(held) => {
                        if held.task.take().is_some() {
                            given.push(*key);
                        }
                        false
                    }
                    None => false,
                });
            }
        }
        for key in given {
            self.report(key.0, News::Ended(key, Outcome::Returned(why)));
        }
        self.poke();
    }

    /// Gives back what has not begun, and waits for the rest.
    async fn drain(self: &Arc<Self>) {
        self.lock().draining = true;
        self.give_back(Instant::now(), Why::Drained);
        let deadline = Instant::now() + self.settings.drain;
        if !self.settled_by(deadline).await {
            let running: Vec<_> = {
                let mut state = self.lock();
                state.gives_back = true;
                let orders = state.held.values().filter_map(|held| held.orders.clone());
                orders.collect()
            };
            for orders in running {
                let (sender, _) = oneshot::channel();
                // A task without a receiver has ended, and its outcome is on the way.
                let _ = orders.send((What::Terminate, sender));
            }
            self.settled_by(Instant::now() + self.bus.lease()).await;
        }
    }

    /// Waits until no task is held. Returns false if the time passes first.
    async fn settled_by(&self, deadline: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            if self.lock().held.is_empty() {
                return true;
            }
            // Each task that is settled pokes. The sender is part of the host.
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Forgets a task that is settled. Returns how to settle its parcel, if the task was the last one.
    fn settled(&self, key: Key, goes_back: bool) -> Option<(String, Settle)> {
        let parcel = {
            let mut state = self.lock();
            let held = state.held.remove(&key);
            held.and_then(|held| state.leave(held.parcel, goes_back))
        };
        self.poke();
        parcel
    }

    fn id_of(&self, key: Key) -> Option<TaskId> {
        self.lock().held.get(&key).map(|held| held.id)
    }
}
