//! A server in memory, for tests: its messages are lost, doubled, delayed and reordered by a seed.
//!
//! It has the promises of the real one, and no more. A call has its effect and its answer at two moments, and either may
//! be lost. A delivered task comes again when its lease ends. Time is tokio's, which a test pauses: a schedule of minutes
//! takes milliseconds.

use crate::bus::kept::{Claimed, Found, KeptBus, KeptTask, Listed, kept_of};
use crate::bus::{
    Bus, BusError, Delivery, Lane, Later, Note, Notes, Settle, StoreKey, Supplied, Supply,
    Withdrawn,
};
use crate::wire::Id;
use bytes::Bytes;
use futures_util::stream::unfold;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The time after which a call without an answer has failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// Numbers that look random, and are the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // The generator `splitmix64`.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

struct Stored {
    lane: String,
    /// The subject of a kept task, which is its own.
    subject: Option<String>,
    id: String,
    frame: Bytes,
    published: u64,
    deliveries: u64,
    /// When the task comes to another host.
    taken_until: Option<Instant>,
}

struct State {
    random: Random,
    /// Numbers of messages among 1,000 that are lost, and doubled.
    lost: u64,
    doubled: u64,
    tasks: BTreeMap<u64, Stored>,
    /// The number of the last task: a server that begins anew counts from 1 again.
    last: u64,
    ids: HashMap<String, u64>,
    delivered: HashMap<String, u64>,
    kept: HashMap<StoreKey, (Bytes, Instant)>,
    /// Whether there are stores of kept sessions.
    has_kept: bool,
    /// The claims of sessions: their numbers, their contents, and their ends.
    claims: HashMap<Id, (u64, Bytes, Instant)>,
    last_claim: u64,
    listeners: HashMap<String, Vec<mpsc::UnboundedSender<Note>>>,
    /// Those that wait for an answer.
    inboxes: HashMap<String, oneshot::Sender<Bytes>>,
    next_inbox: u64,
    /// The time of the server's clock when the server began, in milliseconds since 1970.
    clock: u64,
    /// The number of questions of hosts.
    questions: u64,
}

impl State {
    /// Returns how long a message travels. Most are fast, and some are overtaken by many others.
    fn travel_time(&mut self) -> Duration {
        let most = if self.random.below(10) == 0 { 40 } else { 3 };
        Duration::from_micros(self.random.below(most * 1000))
    }
}

/// A server.
pub(crate) struct Server {
    state: Mutex<State>,
    began: Instant,
    lease: Duration,
    changed: watch::Sender<()>,
    connections: watch::Sender<u64>,
}

impl Server {
    pub(crate) fn new(seed: u64, lost: u64, doubled: u64, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                random: Random(seed),
                lost,
                doubled,
                tasks: BTreeMap::new(),
                last: 0,
                ids: HashMap::new(),
                delivered: HashMap::new(),
                kept: HashMap::new(),
                has_kept: false,
                claims: HashMap::new(),
                last_claim: 0,
                listeners: HashMap::new(),
                inboxes: HashMap::new(),
                next_inbox: 0,
                clock: 1_000_000_000_000,
                questions: 0,
            }),
            began: Instant::now(),
            lease,
            changed: watch::Sender::new(()),
            connections: watch::Sender::new(1),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns a connection.
    pub(crate) fn connect(self: &Arc<Self>) -> Arc<Memory> {
        Arc::new(Memory {
            server: Arc::clone(self),
            is_cut: Arc::default(),
        })
    }

    /// From now on, no message is lost or doubled.
    pub(crate) fn calm(&self) {
        let mut state = self.lock();
        (state.lost, state.doubled) = (0, 0);
    }

    /// Loses all that the server has, and all connections, which come again.
    pub(crate) fn begin_anew(&self) {
        self.lose_tasks();
        let mut state = self.lock();
        state.kept.clear();
        state.claims.clear();
        state.has_kept = false;
        state.inboxes.clear();
        drop(state);
        self.connections.send_modify(|count| *count += 1);
    }

    /// Ends and begins again with all that is on disk. The counts of deliveries, and the identities of tasks, are lost.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        for stored in state.tasks.values_mut() {
            stored.deliveries = 0;
        }
        state.ids.clear();
        state.inboxes.clear();
        drop(state);
        self.connections.send_modify(|count| *count += 1);
    }

    /// Loses all tasks.
    pub(crate) fn lose_tasks(&self) {
        let mut state = self.lock();
        state.tasks.clear();
        state.ids.clear();
        state.delivered.clear();
        state.last = 0;
    }

    /// Sets the server's clock, in milliseconds since 1970.
    pub(crate) fn set_clock(&self, time: u64) {
        self.lock().clock = time - self.age();
    }

    fn age(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Returns how often hosts have asked which tasks are open.
    pub(crate) fn questions(&self) -> u64 {
        self.lock().questions
    }

    /// Returns the number of messages so far, since the server began.
    pub(crate) fn pushed(&self) -> u64 {
        self.lock().last
    }

    /// Returns how many tasks there are.
    pub(crate) fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Returns whether a message is lost, and else waits as long as it takes.
    async fn travel(&self) -> bool {
        let (is_lost, pause) = {
            let mut state = self.lock();
            let is_lost = state.random.below(1000) < state.lost;
            (is_lost, state.travel_time())
        };
        sleep(pause).await;
        is_lost
    }

    fn hand_over(&self, subject: &str, payload: &Bytes, reply: Option<&String>) -> bool {
        let mut state = self.lock();
        if let Some(inbox) = state.inboxes.remove(subject) {
            return inbox.send(payload.clone()).is_ok();
        }
        let Some(listeners) = state.listeners.get_mut(subject) else {
            return false;
        };
        listeners.retain(|listener| {
            let note = Note {
                payload: payload.clone(),
                reply: reply.cloned(),
            };
            listener.send(note).is_ok()
        });
        !listeners.is_empty()
    }

    /// Takes the next task of a lane for a host.
    fn take(&self, lane: &str) -> Result<Delivery, Option<Instant>> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut found = None;
        for (number, stored) in &mut state.tasks {
            if stored.lane != lane {
                continue;
            }
            match stored.taken_until {
                Some(until) if until > now => {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
                _ => {
                    stored.deliveries += 1;
                    stored.taken_until = Some(now + self.lease);
                    found = Some(Delivery {
                        frame: stored.frame.clone(),
                        id: stored.id.clone(),
                        token: format!("{number} {}", stored.id),
                        deliveries: stored.deliveries,
                        published: stored.published,
                    });
                    break;
                }
            }
        }
        let delivery = found.ok_or(next)?;
        let number: u64 = delivery.token.split(' ').next().unwrap().parse().unwrap();
        let last = state.delivered.entry(lane.to_owned()).or_default();
        *last = number.max(*last);
        Ok(delivery)
    }
}

/// A connection.
pub(crate) struct Memory {
    server: Arc<Server>,
    is_cut: Arc<AtomicBool>,
}

impl Memory {
    /// Cuts the connection: nothing comes through any more.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Makes a call of the server, whose way there or back may be lost.
    async fn call<T>(&self, effect: impl FnOnce(&mut State) -> T) -> Result<T, BusError> {
        let is_lost = self.server.travel().await;
        if !is_lost && !self.is_cut() {
            let value = effect(&mut self.server.lock());
            self.server.changed.send_replace(());
            let is_lost = self.server.travel().await;
            if !is_lost && !self.is_cut() {
                return Ok(value);
            }
        }
        sleep(PATIENCE).await;
        Err(BusError::TimedOut)
    }

    /// Sends a message, which may be lost, or come twice, later than the ones behind it.
    fn post(&self, subject: &str, payload: &Bytes, reply: Option<&String>) {
        let times = {
            let mut state = self.server.lock();
            1 + u64::from(state.random.below(1000) < state.doubled)
        };
        for _ in 0..times {
            let (server, is_cut) = (Arc::clone(&self.server), Arc::clone(&self.is_cut));
            let (subject, payload) = (subject.to_owned(), payload.clone());
            let reply = reply.cloned();
            tokio::spawn(async move {
                if !server.travel().await && !is_cut.load(Ordering::SeqCst) {
                    server.hand_over(&subject, &payload, reply.as_ref());
                }
            });
        }
    }
}

/// The supply of a host.
struct Requests {
    server: Arc<Server>,
    is_cut: Arc<AtomicBool>,
    lane: String,
    changed: watch::Receiver<()>,
    connections: watch::Receiver<u64>,
    /// The number of tasks that were asked for and have not come, and of those that the server has sent in vain.
    open: usize,
    lost: usize,
    end: Instant,
    /// The numbers of tasks in requests that the server does not have yet, and when it will.
    on_way: VecDeque<(Instant, usize)>,
    is_probing: bool,
    /// When the probe comes to the server, and when its answer comes back, unless that is a task.
    probe_comes: Option<Instant>,
    answer_comes: Option<Instant>,
}

impl Requests {
    /// Returns when a message that is sent now comes to the other side, behind those that were sent before.
    fn arrival(&self) -> Instant {
        let at = Instant::now() + self.server.lock().travel_time();
        let before = self.on_way.back().map(|(before, _)| *before);
        before.map_or(at, |before| before.max(at))
    }
}

impl Supply for Requests {
    fn ask(&mut self, count: usize, wait: Duration) -> Later<'_, ()> {
        self.open += count;
        self.end = Instant::now() + wait;
        let arrival = self.arrival();
        self.on_way.push_back((arrival, count));
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&mut self) -> Later<'_, ()> {
        self.is_probing = true;
        self.probe_comes = Some(self.arrival());
        Box::pin(std::future::ready(Ok(())))
    }

    fn open(&self) -> usize {
        self.open
    }

    fn is_probing(&self) -> bool {
        self.is_probing
    }

    fn next(&mut self) -> Later<'_, Supplied> {
        Box::pin(async move {
            loop {
                self.changed.mark_unchanged();
                let is_cut = self.is_cut.load(Ordering::SeqCst);
                let now = Instant::now();
                self.on_way.retain(|(arrival, _)| *arrival > now);
                let on_way: usize = self.on_way.iter().map(|(_, count)| count).sum();
                let has_room = self.open > self.lost + on_way;
                let is_probed = self.probe_comes.is_some_and(|arrival| arrival <= now);
                if self.answer_comes.is_some_and(|arrival| arrival <= now) && !is_cut {
                    self.answer_comes = None;
                    self.is_probing = false;
                    return Ok(Supplied::Empty);
                }
                let mut next = None;
                if !is_cut && (has_room || is_probed) {
                    match self.server.take(&self.lane) {
                        Ok(delivery) => {
                            let is_lost = {
                                let mut state = self.server.lock();
                                state.random.below(1000) < state.lost
                            };
                            if has_room {
                                if is_lost {
                                    self.lost += 1;
                                    continue;
                                }
                                self.open -= 1;
                            } else if is_lost {
                                return Err(BusError::TimedOut);
                            } else {
                                self.probe_comes = None;
                                self.is_probing = false;
                            }
                            return Ok(Supplied::Task(delivery));
                        }
                        Err(_) if is_probed => {
                            self.probe_comes = None;
                            self.answer_comes = Some(self.arrival());
                            continue;
                        }
                        Err(again) => next = again,
                    }
                }
                let end = Some(self.end).filter(|_| self.open > 0);
                let on_way = self.on_way.front().map(|(arrival, _)| *arrival);
                let arrivals = on_way.into_iter();
                let arrivals = arrivals.chain(self.probe_comes).chain(self.answer_comes);
                // Of a connection that is cut, some have come in vain.
                let arrivals = arrivals.filter(|arrival| *arrival > now);
                let end = end.into_iter().chain(next).chain(arrivals).min();
                let pause = async {
                    match end {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = self.changed.changed() => {}
                    _ = self.connections.changed() => return Err(BusError::Closed),
                    () = pause => if self.open > 0 && self.end <= Instant::now() {
                        if self.lost > 0 || is_cut {
                            return Err(BusError::TimedOut);
                        }
                        self.open = 0;
                        return Ok(Supplied::Less);
                    }
                }
            }
        })
    }
}

impl Bus for Memory {
    fn push<'a>(&'a self, lane: &'a Lane, id: &'a str, frame: Bytes) -> Later<'a, u64> {
        Box::pin(self.call(move |state| {
            if let Some(number) = state.ids.get(id) {
                return *number;
            }
            state.last += 1;
            let stored = Stored {
                lane: lane.subject(),
                subject: None,
                id: id.to_owned(),
                frame,
                published: state.clock + self.server.age(),
                deliveries: 0,
                taken_until: None,
            };
            state.tasks.insert(state.last, stored);
            state.ids.insert(id.to_owned(), state.last);
            state.last
        }))
    }

    fn supply<'a>(&'a self, lane: &'a Lane) -> Later<'a, Box<dyn Supply>> {
        let requests = Requests {
            server: Arc::clone(&self.server),
            is_cut: Arc::clone(&self.is_cut),
            lane: lane.subject(),
            changed: self.server.changed.subscribe(),
            connections: self.server.connections.subscribe(),
            open: 0,
            lost: 0,
            end: Instant::now(),
            on_way: VecDeque::new(),
            is_probing: false,
            probe_comes: None,
            answer_comes: None,
        };
        Box::pin(std::future::ready(
            Ok(Box::new(requests) as Box<dyn Supply>),
        ))
    }

    fn settle<'a>(&'a self, token: &'a str, how: Settle) -> Later<'a, ()> {
        let (server, is_cut) = (Arc::clone(&self.server), Arc::clone(&self.is_cut));
        let (number, id) = token.split_once(' ').unwrap();
        let (number, id): (u64, String) = (number.parse().unwrap(), id.to_owned());
        tokio::spawn(async move {
            if server.travel().await || is_cut.load(Ordering::SeqCst) {
                return;
            }
            let until = Instant::now() + server.lease;
            let mut state = server.lock();
            // A task of a server that was there before is another one.
            let Some(stored) = state.tasks.get_mut(&number).filter(|task| task.id == id) else {
                return;
            };
            match how {
                Settle::Done => drop(state.tasks.remove(&number)),
                Settle::Extend => stored.taken_until = Some(until),
                Settle::Back => stored.taken_until = None,
            }
            drop(state);
            server.changed.send_replace(());
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn withdraw<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, Withdrawn> {
        Box::pin(self.call(move |state| {
            if state.tasks.get(&number).is_none_or(|task| task.id != id) {
                return Withdrawn::Gone;
            }
            let delivered = state.delivered.get(&lane.subject());
            if delivered.is_some_and(|last| *last >= number) {
                return Withdrawn::Delivered;
            }
            state.tasks.remove(&number);
            Withdrawn::Untaken
        }))
    }

    fn has<'a>(&'a self, _: &'a Lane, number: u64, id: &'a str) -> Later<'a, bool> {
        Box::pin(self.call(move |state| {
            let task = state.tasks.get(&number);
            task.is_some_and(|task| task.id == id)
        }))
    }

    fn time<'a>(&'a self, _: &'a Lane) -> Later<'a, u64> {
        Box::pin(self.call(|state| state.clock + self.server.age()))
    }

    fn send<'a>(&'a self, subject: &'a str, payload: Bytes) -> Later<'a, ()> {
        self.post(subject, &payload, None);
        Box::pin(std::future::ready(Ok(())))
    }

    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Bytes,
        limit: Duration,
    ) -> Later<'a, Bytes> {
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let (inbox, has_listener) = {
                let mut state = self.server.lock();
                state.next_inbox += 1;
                state.questions += u64::from(subject.starts_with("cf.q."));
                let inbox = format!("inbox.{}", state.next_inbox);
                state.inboxes.insert(inbox.clone(), sender);
                let mut listeners = state.listeners.get(subject).into_iter().flatten();
                (inbox, listeners.any(|listener| !listener.is_closed()))
            };
            if !has_listener && !self.is_cut() {
                return Err(BusError::NoListener);
            }
            self.post(subject, &payload, Some(&inbox));
            match timeout(limit, answer).await {
                Ok(Ok(answer)) if !self.is_cut() => Ok(answer),
                _ => Err(BusError::TimedOut),
            }
        })
    }

    fn listen<'a>(&'a self, subject: &'a str) -> Later<'a, Notes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.server.lock();
        let listeners = state.listeners.entry(subject.to_owned()).or_default();
        if !self.is_cut() {
            listeners.push(sender);
        }
        drop(state);
        if !self.is_cut() {
            let notes = unfold(receiver, async |mut receiver| {
                let note = receiver.recv().await?;
                Some((note, receiver))
            });
            return Box::pin(std::future::ready(Ok(Notes::new(notes))));
        }
        Box::pin(std::future::ready(Err(BusError::Closed)))
    }

    fn keep<'a>(&'a self, store_key: &'a StoreKey, content: Bytes) -> Later<'a, bool> {
        Box::pin(self.call(move |state| {
            if matches!(store_key, StoreKey::Outcome { .. }) && state.kept.contains_key(store_key) {
                return false;
            }
            state
                .kept
                .insert(store_key.clone(), (content, Instant::now()));
            true
        }))
    }

    fn fetch<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, Option<Bytes>> {
        Box::pin(self.call(move |state| {
            state
                .kept
                .get(store_key)
                .map(|(content, _)| content.clone())
        }))
    }

    fn forget<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, ()> {
        Box::pin(self.call(move |state| drop(state.kept.remove(store_key))))
    }

    fn hosts<'a>(&'a self, queue: &'a str) -> Later<'a, Vec<Bytes>> {
        let ttl = 2 * self.server.lease;
        Box::pin(self.call(move |state| {
            let kept = state.kept.iter();
            let kept = kept.filter(|(store_key, (_, since))| {
                matches!(store_key, StoreKey::Host { queue: of, .. } if of == queue)
                    && since.elapsed() < ttl
            });
            kept.map(|(_, (content, _))| content.clone()).collect()
        }))
    }

    fn lease(&self) -> Duration {
        self.server.lease
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.server.connections.subscribe()
    }
}

impl Memory {
    /// Makes a call of the stores of kept sessions.
    async fn call_kept<T>(&self, effect: impl FnOnce(&mut State) -> T) -> Result<T, BusError> {
        let done = self.call(|state| state.has_kept.then(|| effect(state)));
        done.await?.ok_or(BusError::NoListener)
    }
}

impl KeptBus for Memory {
    fn ensure_kept<'a>(&'a self, _: &'a str, _: usize) -> Later<'a, bool> {
        Box::pin(self.call(|state| !std::mem::replace(&mut state.has_kept, true)))
    }

    fn has_kept<'a>(&'a self, _: &'a str) -> Later<'a, bool> {
        Box::pin(self.call(|state| state.has_kept))
    }

    fn push_kept<'a>(
        &'a self,
        lane: &'a Lane,
        task: KeptTask,
        id: &'a str,
        frame: Bytes,
        _: Duration,
    ) -> Later<'a, u64> {
        Box::pin(self.call_kept(move |state| {
            if let Some(number) = state.ids.get(id) {
                return *number;
            }
            let subject = Some(task.subject(lane));
            state.tasks.retain(|_, stored| stored.subject != subject);
            state.last += 1;
            let stored = Stored {
                lane: lane.subject(),
                subject,
                id: id.to_owned(),
                frame,
                published: state.clock + self.server.age(),
                deliveries: 0,
                taken_until: None,
            };
            state.tasks.insert(state.last, stored);
            state.ids.insert(id.to_owned(), state.last);
            state.last
        }))
    }

    fn find<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, Option<Found>> {
        Box::pin(self.call_kept(move |state| {
            let subject = Some(task.subject(lane));
            let mut tasks = state.tasks.iter();
            let found = tasks.find(|(_, stored)| stored.subject == subject);
            found.map(|(number, stored)| Found {
                number: *number,
                id: stored.id.clone(),
                frame: stored.frame.clone(),
            })
        }))
    }

    fn remove_kept<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, ()> {
        Box::pin(self.call_kept(move |state| {
            let subject = Some(task.subject(lane));
            state.tasks.retain(|_, stored| stored.subject != subject);
        }))
    }

    fn keep_for<'a>(
        &'a self,
        store_key: &'a StoreKey,
        content: Bytes,
        _: Duration,
    ) -> Later<'a, bool> {
        Box::pin(self.call_kept(move |state| {
            let stays = !matches!(store_key, StoreKey::Object { .. });
            if stays && state.kept.contains_key(store_key) {
                return false;
            }
            let value = (content, Instant::now());
            state.kept.insert(store_key.clone(), value);
            true
        }))
    }

    fn numbers<'a>(&'a self, queue: &'a str, session: Id, what: Listed) -> Later<'a, Vec<u64>> {
        let prefix = format!("{session}.");
        Box::pin(self.call_kept(move |state| {
            let kept = kept_of(queue);
            let ids = state.kept.keys().filter_map(|store_key| match store_key {
                StoreKey::Record { queue, id } if what == Listed::Records => Some((queue, id)),
                StoreKey::Outcome { queue, id } if what == Listed::Outcomes => Some((queue, id)),
                _ => None,
            });
            let ids = ids.filter(|(queue, _)| **queue == kept);
            let numbers = ids.filter_map(|(_, id)| id.strip_prefix(&prefix)?.parse().ok());
            let mut numbers: Vec<u64> = numbers.collect();
            numbers.sort_unstable();
            numbers
        }))
    }

    fn claim<'a>(&'a self, _: &'a str, session: Id, owner: Bytes, last: u64) -> Later<'a, Claimed> {
        let lease = self.server.lease;
        Box::pin(self.call_kept(move |state| {
            let now = Instant::now();
            state.claims.retain(|_, (_, _, end)| *end > now);
            let found = state.claims.get(&session).cloned();
            if found.as_ref().map_or(0, |(number, ..)| *number) == last {
                state.last_claim += 1;
                let claim = (state.last_claim, owner, now + lease);
                state.claims.insert(session, claim);
                return Claimed::Ours(state.last_claim);
            }
            found.map_or(Claimed::Free, |(number, content, _)| {
                Claimed::Theirs(number, content)
            })
        }))
    }

    fn release<'a>(&'a self, _: &'a str, session: Id, last: u64) -> Later<'a, ()> {
        Box::pin(self.call_kept(move |state| {
            if state
                .claims
                .get(&session)
                .is_some_and(|claim| claim.0 <= last)
            {
                state.claims.remove(&session);
            }
        }))
    }

    fn discard<'a>(&'a self, queue: &'a str, session: Id) -> Later<'a, ()> {
        let (part, kept) = (format!(".{session}."), kept_of(queue));
        Box::pin(self.call_kept(move |state| {
            state.tasks.retain(|_, stored| {
                let subject = stored.subject.as_deref();
                !subject.is_some_and(|subject| subject.contains(&part))
            });
            state.kept.retain(|store_key, _| {
                let (StoreKey::Outcome { queue, id }
                | StoreKey::Record { queue, id }
                | StoreKey::Object {
                    queue, name: id, ..
                }) = store_key
                else {
                    return true;
                };
                *queue != kept || !id.starts_with(&part[1..])
            });
        }))
    }
}
