//! A server in memory, for tests: its messages are lost, doubled, delayed and reordered by a seed.
//!
//! It has the promises of the real one, and no more. A call has its effect and its answer at two moments, and either may
//! be lost. A delivered task comes again when its lease ends. Time is tokio's, which a test pauses: a schedule of minutes
//! takes milliseconds.

mod calls;
mod kept;
mod supply;

use crate::bus::{BusError, Delivery, Lane, Note, StoreKey};
use crate::wire::Id;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

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

impl Stored {
    fn new(lane: &Lane, id: &str, frame: Bytes, published: u64) -> Self {
        Self {
            lane: lane.subject(),
            subject: None,
            id: id.to_owned(),
            frame,
            published,
            deliveries: 0,
            taken_until: None,
        }
    }
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
    /// Stores a task. Returns its number.
    fn store(&mut self, stored: Stored) -> u64 {
        self.last += 1;
        self.ids.insert(stored.id.clone(), self.last);
        self.tasks.insert(self.last, stored);
        self.last
    }

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
    /// The number of times that requests were lost in silence.
    lost_requests: watch::Sender<u64>,
    /// Whether removals of values wait.
    holds_removals: watch::Sender<bool>,
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
            lost_requests: watch::Sender::new(0),
            holds_removals: watch::Sender::new(false),
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

    /// Loses all requests for tasks. No host is told.
    pub(crate) fn lose_requests(&self) {
        self.lost_requests.send_modify(|count| *count += 1);
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

    /// Lets removals of values wait, or go on.
    pub(crate) fn hold_removals(&self, holds: bool) {
        self.holds_removals.send_replace(holds);
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

    /// Returns how many hosts are in the registry.
    pub(crate) fn hosts(&self) -> usize {
        let state = self.lock();
        let store_keys = state.kept.keys();
        let hosts = store_keys.filter(|store_key| matches!(store_key, StoreKey::Host { .. }));
        hosts.count()
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
