//! The state that the parts of a host share.

#![forbid(unsafe_code)]

use super::lanes::Lanes;
use super::report::{News, Reporters};
use crate::bus::kept::{RANKS, kept_of};
use crate::bus::{Bus, Lane, PRIORITIES, Settle};
use crate::clock::Clock;
use crate::log;
use crate::objects::Objects;
use crate::payloads::Payloads;
use crate::runner::Runner;
use crate::wire::{Answer, Id, KeptTerms, Outcome, ParcelId, Payload, Seal, Task, TaskId, What};
use futures_util::FutureExt;
use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// The work of a worker that is in the pool ahead, about: while tasks are shorter, some go there before a worker is free.
/// That is more than a task takes to the worker and back. Else the way there would be taken for a part of each task, and
/// short ones for long ones.
const AHEAD: Duration = Duration::from_millis(2);
/// The most tasks of a worker that are in the pool ahead.
const MOST_AHEAD: usize = 32;

/// The place of a task among those of a host.
pub(super) type Key = (Id, u64);

/// The lane of tasks that a host asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) priority: u8,
    /// The rank of tasks of kept sessions; none of others.
    pub(super) kept: Option<u8>,
}

/// A parcel of which the host holds tasks.
pub(super) struct Delivered {
    /// The way to settle its newest delivery. None if it has come from its client directly.
    pub(super) token: Option<String>,
    /// The number of its tasks that are held.
    pub(super) left: usize,
    /// Whether it is given back at its end, as a task of it has no outcome and no client.
    pub(super) goes_back: bool,
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
pub(super) struct Held {
    pub(super) id: TaskId,
    pub(super) parcel: ParcelId,
    /// Whether the server has delivered it before.
    pub(super) is_repeated: bool,
    /// When the task came.
    pub(super) since: Instant,
    /// The task, until it runs.
    pub(super) task: Option<Task>,
    /// Whether a worker has begun the task, or is about to.
    pub(super) has_begun: bool,
    /// Ends the running task.
    pub(super) orders: Option<mpsc::UnboundedSender<(What, oneshot::Sender<Answer>)>>,
    /// Whether the host gives the task back, so that it does not have it any more.
    pub(super) is_returned: bool,
    /// The properties of a kept task, and the mark of its run.
    pub(super) kept: Option<KeptTerms>,
    pub(super) run: Option<u32>,
}

impl Held {
    pub(super) fn new(id: TaskId, parcel: ParcelId, since: Instant) -> Self {
        Self {
            id,
            parcel,
            is_repeated: false,
            since,
            task: None,
            has_begun: false,
            orders: None,
            is_returned: false,
            kept: None,
            run: None,
        }
    }

    /// Returns whether the task may go to the pool before a worker is free for it. Nothing is to be done or to be known
    /// before such a task runs.
    fn may_go_ahead(&self) -> bool {
        let is_plain = |task: &Task| {
            let terms = &task.terms;
            terms.deliveries > 1
                && terms.time_limit.is_none()
                && matches!(task.argument, Payload::Inline(_))
        };
        !self.is_repeated
            && self.id.attempt == 1
            && self.kept.is_none()
            && self.task.as_ref().is_some_and(is_plain)
    }
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    pub(super) held: HashMap<Key, Held>,
    pub(super) parcels: HashMap<ParcelId, Delivered>,
    /// The number of tasks in the newest parcel.
    pub(super) parcel_size: usize,
    pub(super) ready: [VecDeque<Key>; PRIORITIES as usize],
    /// The lanes that are known to be empty; see [`arrival`].
    pub(super) is_empty: [bool; PRIORITIES as usize],
    /// The numbers of parcels whose clients are asked about them.
    pub(super) asked: [usize; PRIORITIES as usize],
    /// The lanes of kept tasks that are not known to be empty. Lanes that are not there are empty.
    pub(super) may_have_kept: [[bool; RANKS as usize]; PRIORITIES as usize],
    /// The kept sessions whose tasks have come.
    pub(super) kept_sessions: HashSet<Id>,
    /// The number of tasks that are with the pool.
    pub(super) running: usize,
    /// The places of calls at workers, for recordings.
    pub(super) lanes: Lanes,
    /// Whether the host has given tasks back, and no worker has become free since. Then it asks for none in reserve.
    pub(super) is_stuck: bool,
    /// Whether a task came back that had gone to the pool ahead, and no task has ended since.
    pub(super) is_behind: bool,
    /// The number of running tasks that wait for others of a cluster.
    pub(super) sleeping: usize,
    /// The average time that a task takes, and the number of tasks that it is of.
    pub(super) pace: Option<Duration>,
    pub(super) ended: u32,
    /// The numbers of tasks with an outcome, of those that have failed, and of those that were given back.
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) returned: u64,
    pub(super) draining: bool,
    /// Whether running tasks are terminated because the host ends, so that another host is to run them.
    pub(super) gives_back: bool,
    /// Tasks that were recalled before they came, until when that holds.
    pub(super) recalled: HashMap<TaskId, Instant>,
    /// The tasks of the calls that run, by token, and the last token.
    pub(super) calls: HashMap<u64, Key>,
    pub(super) last_call: u64,
    /// Parcels that were here, in the order of their arrival.
    pub(super) seen: HashSet<ParcelId>,
    pub(super) seen_order: VecDeque<(Instant, ParcelId)>,
}

impl State {
    /// Notes that a task of a parcel is no longer held under it. Returns how to settle the parcel, if it was the last.
    pub(super) fn leave(&mut self, parcel: ParcelId, goes_back: bool) -> Option<(String, Settle)> {
        let delivered = self.parcels.get_mut(&parcel)?;
        delivered.left -= 1;
        delivered.goes_back |= goes_back;
        if delivered.left > 0 {
            return None;
        }
        let delivered = self.parcels.remove(&parcel)?;
        let how = delivered.ending();
        Some((delivered.token?, how))
    }

    /// Takes the next task that may begin, and its priority: one of the highest priority that has any, on the server as
    /// well. With `is_ahead`, only one that may wait in the pool.
    pub(super) fn next_ready(&mut self, is_ahead: bool) -> Option<(Key, usize)> {
        let may_go = |key: &Key| self.held.get(key).is_some_and(Held::may_go_ahead);
        let known = self.is_empty.into_iter().zip(self.asked);
        let known = known.zip(self.may_have_kept);
        let lanes = self.ready.iter_mut().zip(known).enumerate();
        for (priority, (ready, ((is_empty, asked), may_have_kept))) in lanes.rev() {
            if is_ahead && ready.front().is_some_and(|key| !may_go(key)) {
                return None;
            }
            let next = ready.pop_front();
            let is_known = is_empty && asked == 0 && !may_have_kept.contains(&true);
            if next.is_some() || !is_known {
                return next.map(|key| (key, priority));
            }
        }
        None
    }

    /// Makes a task ready again that has come back from the pool.
    pub(super) fn put_back(&mut self, key: Key, priority: usize, task: Task) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        held.orders = None;
        held.task = Some(task);
        let ready = &mut self.ready[priority];
        let (session, number) = key;
        // Before those that were submitted later.
        let is_before = |other: &&Key| other.0 == session && other.1 < number;
        let place = ready.iter().take_while(is_before).count();
        ready.insert(place, key);
    }

    /// Returns whether all lanes of a higher priority are known to be empty.
    pub(super) fn is_empty_above(&self, priority: u8) -> bool {
        let above = usize::from(priority) + 1..usize::from(PRIORITIES);
        let mut above = above.into_iter();
        above.all(|lane| {
            let may_have_kept = self.may_have_kept[lane].contains(&true);
            self.is_empty[lane] && !may_have_kept && self.asked[lane] == 0
        })
    }

    /// Takes a task out of those that are ready.
    pub(super) fn leave_ready(&mut self, key: Key) {
        for ready in &mut self.ready {
            ready.retain(|other| *other != key);
        }
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
    /// The place of very long payloads.
    pub(crate) objects: Option<Arc<Objects>>,
}

/// The state that the parts of a host share.
pub(crate) struct Host {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) payloads: Payloads,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) settings: Settings,
    pub(super) id: Id,
    pub(super) state: Mutex<State>,
    /// Notified when a task may start, or no task is held any more.
    pub(super) changed: watch::Sender<()>,
    /// Notified when more tasks may be asked for.
    pub(super) has_room: watch::Sender<()>,
    /// Notified when all workers have got a task.
    pub(super) is_full: Notify,
    pub(super) reporters: Reporters,
    /// Whether the queue has stores of kept sessions.
    pub(super) kept_is_there: watch::Sender<bool>,
    /// Notified when that may have changed.
    pub(super) kept_doubt: watch::Sender<()>,
    /// Notified when the server may have lost requests for tasks.
    pub(super) requests_doubt: watch::Sender<()>,
    /// The server's clock.
    pub(super) clock: Clock,
    /// The message of a panic of a part of the host, which ends then.
    pub(super) broken: watch::Sender<Option<String>>,
}

impl Host {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a part of the host's work: an asynchronous task of its own. A panic there ends the host.
    pub(super) fn spawn(self: &Arc<Self>, part: impl Future<Output = ()> + Send + 'static) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(payload) = AssertUnwindSafe(part).catch_unwind().await {
                host.break_by(payload);
            }
        });
    }

    /// Logs the panic of a part, and ends the host.
    pub(super) fn break_by(&self, payload: Box<dyn Any + Send>) {
        let message = log::text_of_panic(payload);
        log::panicked(&format!("a part of a host has panicked: {message}"));
        self.broken.send_replace(Some(message));
    }

    pub(super) fn workers(&self) -> u32 {
        u32::try_from(self.runner.workers()).unwrap_or(u32::MAX)
    }

    /// Returns how many tasks may run at once: those that sleep take no slot.
    pub(super) fn slots(&self, state: &State) -> usize {
        self.runner.workers() + state.sleeping.min(self.runner.spares())
    }

    /// Returns how many tasks may be with the pool: one for each slot, and short ones ahead.
    pub(super) fn most_with_pool(&self, state: &State) -> usize {
        let slots = self.slots(state);
        let is_slow = state.is_stuck || state.is_behind || state.sleeping > 0 || state.draining;
        let each = match state.pace {
            Some(pace) if !is_slow => pace.as_nanos().max(1),
            _ => return slots,
        };
        let ahead = usize::try_from(AHEAD.as_nanos() / each).unwrap_or(usize::MAX);
        let ahead = ahead.min(MOST_AHEAD).saturating_mul(self.runner.workers());
        slots + ahead.min(self.runner.ahead())
    }

    /// Notes that a worker goes to sleep, or goes on.
    pub(super) fn note_sleep(&self, sleeps: bool) {
        let is_full = {
            let mut state = self.lock();
            state.sleeping = if sleeps {
                state.is_stuck = false;
                state.sleeping + 1
            } else {
                state.sleeping.saturating_sub(1)
            };
            state.running >= self.slots(&state)
        };
        if is_full {
            self.is_full.notify_one();
        }
        self.wake();
    }

    pub(super) fn pace(&self) -> Option<Duration> {
        self.lock().pace
    }

    /// Lets all parts of the host look at its state.
    pub(super) fn wake(&self) {
        self.wake_starts();
        self.wake_pulls();
    }

    /// Wakes the part of the host that starts tasks, and the one that waits for their end.
    pub(super) fn wake_starts(&self) {
        self.changed.send_replace(());
    }

    /// Wakes the parts of the host that ask for tasks.
    pub(super) fn wake_pulls(&self) {
        self.has_room.send_replace(());
    }

    pub(super) fn subject(&self) -> String {
        format!("cf.h.{}.{}", self.settings.queue, self.id)
    }

    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.settings.environment, self.id)
    }

    pub(super) fn lane(&self, source: Source) -> Lane {
        let queue = &self.settings.queue;
        Lane {
            queue: match source.kept {
                Some(_) => kept_of(queue),
                None => queue.clone(),
            },
            environment: self.settings.environment.clone(),
            priority: source.priority,
            rank: source.kept.unwrap_or_default(),
        }
    }

    pub(super) fn report(self: &Arc<Self>, session: Id, news: News) {
        if let News::Ended(_, outcome, _) = &news {
            let mut state = self.lock();
            match outcome {
                Outcome::Returned(_) => state.returned += 1,
                Outcome::Value(_) => state.done += 1,
                Outcome::Failure(_)
                | Outcome::NoFunction(_)
                | Outcome::NoStore(_)
                | Outcome::HostLost
                | Outcome::Poison(_) => {
                    state.done += 1;
                    state.failed += 1;
                }
            }
        }
        self.reporters.tell(self, session, news);
    }

    /// Forgets a task that is settled. Returns how to settle its parcel, if the task was the last one.
    ///
    /// An outcome settles all attempts of its task. The return of an attempt does not settle a later one.
    pub(super) fn settled(
        &self,
        task: TaskId,
        is_returned: bool,
        goes_back: bool,
    ) -> Option<(String, Settle)> {
        let key = (task.session, task.number);
        let mut state = self.lock();
        let is_it = |held: &&Held| !is_returned || held.id == task;
        let parcel = state.held.get(&key).filter(is_it).map(|held| held.parcel);
        let parcel = parcel.and_then(|parcel| {
            state.held.remove(&key);
            state.leave(parcel, goes_back)
        });
        let is_awaited = state.draining && state.held.is_empty();
        drop(state);
        if is_awaited {
            self.wake_starts();
        }
        parcel
    }

    /// Returns whether a session is a kept one.
    pub(super) fn is_kept(&self, session: Id) -> bool {
        self.lock().kept_sessions.contains(&session)
    }
}
