//! The supervisor thread of a pool, which starts workers, notices their death, and watches time limits.
//!
//! Callbacks are left to another thread: [`Callbacks`], or the frontend, which the supervisor tells of each
//! future that is done.
//!
//! [`Callbacks`]: super::callbacks::Callbacks
//!
//! The supervisor sleeps until a worker writes to its socket, a worker ends (its pidfd is readable), another
//! thread rings, or a time limit passes. Workers write only while the supervisor sleeps and no helper receives
//! replies in its place.

#![forbid(unsafe_code)]

mod burial;

use crate::error::{BrokenExecutor, TaskError};
use crate::process::channel::handshake::{Note, Refusal};
use crate::process::contract::WorkerRequests;
use crate::process::failure::Failure;
use crate::process::pool::batch::Batch;
use crate::process::pool::child::Child;
use crate::process::pool::scheduler::State;
use crate::process::pool::start::Starter;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::{Kill, Stage, WorkerHandle};
use crate::process::pool::{PollThrottle, Pool, Receiver};
use crate::runtime::os::fallback;
use crate::runtime::os::poll::poll;
use crate::runtime::os::process::{CHECK, CHECK_SOON};
use crate::runtime::os::socket::Packet;
use crate::runtime::spin::Spin;
use crate::runtime::spin::place::Place;
use crate::task::{log, panic};
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Consecutive start failures before the pool breaks, if no worker works.
const FAILURES: u32 = 3;
/// The number of times that the supervisor begins, if it panics.
const PANICS: u32 = 3;
/// The pause after a worker could not be started.
const PAUSE: Duration = Duration::from_millis(20);
/// The largest number of doublings of the pause, which doubles with each consecutive failure beyond [`FAILURES`]:
/// to 1.28 s.
const DOUBLINGS: u32 = 6;
/// The lifetime below which the death of a worker without a task counts as quick.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The time between looks for deaths while there is always work.
const GLANCE: Duration = Duration::from_millis(1);
/// The time that a worker may take to end when told to.
const GRACE: Duration = Duration::from_secs(10);

/// Starts the supervisor of a pool.
pub(crate) fn start(pool: &Arc<Pool>) -> io::Result<()> {
    let supervised = Arc::clone(pool);
    let name = String::from("cf-supervisor");
    let handle = thread::Builder::new().name(name).spawn(move || {
        supervise(&supervised);
    })?;
    drop(handle);
    Ok(())
}

/// Does the supervisor's work, up to the end of the pool.
pub(crate) fn supervise(pool: &Arc<Pool>) {
    // A pool has one supervisor, and so it was not set before.
    let _ = pool.supervisor.set(thread::current().id());
    let mut supervisor = Supervisor::new(Arc::clone(pool));
    // All foreign code is guarded where it is called. If the supervisor panics all the same, no part of the
    // pool may wait for it: the pool breaks, and its workers are buried.
    for _ in 0..PANICS {
        let Err(panic) = panic::catch(|| supervisor.run()) else {
            break;
        };
        log::panicked("the supervisor of a process pool panicked", panic.message());
        pool.break_with(&BrokenExecutor::by("its supervisor panicked", panic));
    }
    tell_fallbacks(pool);
    pool.end();
}

struct Supervisor {
    pool: Arc<Pool>,
    starter: Starter,
    /// The last messages of workers that have ended, by process id.
    refusals: HashMap<u32, String>,
    /// The workers whose socket has come to its end.
    silent: Vec<u32>,
    /// Consecutive workers that have ended before they could work.
    failures: u32,
    /// Consecutive workers that have ended soon after they could work, without a task.
    quick_deaths: u32,
    /// Consecutive starts that the system, or the fork server, has refused.
    refused_starts: u32,
    /// The moment before which no worker is started.
    not_before: Option<Instant>,
    looked: Instant,
    waiting: Place,
}

/// The findings of one turn under the lock.
struct Turn {
    batch: Batch,
    late: Vec<Task>,
    starts: usize,
    unusable: Option<Vec<u8>>,
    finished: bool,
    /// Whether requested workers are not needed any more, nor is the fork server.
    needs_none: bool,
    next: Option<Instant>,
}

impl Supervisor {
    fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            starter: Starter::default(),
            refusals: HashMap::new(),
            silent: Vec::new(),
            failures: 0,
            quick_deaths: 0,
            refused_starts: 0,
            not_before: None,
            looked: Instant::now(),
            waiting: Place::default(),
        }
    }

    fn run(&mut self) {
        loop {
            let mut turn = self.turn();
            let worked = !turn.batch.is_empty() || !turn.late.is_empty();
            self.pool.deliver(turn.batch.take_foreign());
            // Callbacks run after all results of the turn are there.
            let late = turn.batch.end();
            for task in turn.late.into_iter().chain(late) {
                task.finish_by(self.pool.callbacks());
            }
            if worked && self.pool.settings.policy.keeps_workers_for_replies {
                // Closing the pool may have waited for the batch.
                self.pool.settled();
            }
            self.pool.tell();
            if let Some(failure) = turn.unusable {
                self.break_by_initializer(&failure);
            }
            if turn.finished {
                return;
            }
            if turn.needs_none {
                let abandoned = self.starter.abandon(&*self.pool.spawner);
                if abandoned > 0 {
                    self.pool.lock().starting -= abandoned;
                    // Nothing else tells that these were the last.
                    continue;
                }
            }
            let started = turn.starts > 0;
            for _ in 0..turn.starts {
                self.start_worker();
            }
            if started || worked && self.waits_awake() {
                if self.looked.elapsed() > GLANCE {
                    self.look(Some(Duration::ZERO));
                }
                continue;
            }
            self.sleep(turn.next);
        }
    }

    /// Spins for more replies. Returns false if it is time to sleep.
    fn waits_awake(&self) -> bool {
        let mut whose = None;
        let mut looks = PollThrottle::default();
        Spin::Place(&self.waiting, &|| false).until(|| {
            if looks.is_turn() {
                whose = self.pool.whose_work();
            }
            whose.is_some()
        });
        whose == Some(Receiver::Supervisors)
    }

    /// Does one turn of the work under the lock.
    fn turn(&mut self) -> Turn {
        let now = Instant::now();
        let deliveries = self.pool.look_after_deliveries(now);
        let mut state = self.pool.lock();
        state.look();
        let batch = state.collect();
        if std::mem::take(&mut state.has_started) {
            self.failures = 0;
        }
        let mut next = state.take_back_stalled(now);
        let mut earlier = |due: Instant| next = Some(next.map_or(due, |next| next.min(due)));
        for worker in &mut state.workers {
            if let Some(due) = self.check_limits(worker, now) {
                earlier(due);
            }
        }
        let requests = self.pool.spawner.requests();
        for due in [deliveries, requests.and_then(WorkerRequests::due)] {
            due.into_iter().for_each(&mut earlier);
        }
        let settings = &self.pool.settings;
        let is_needed = settings.policy.keeps_workers_for_replies
            && (!batch.is_empty() || self.pool.has_transit() || self.pool.spawner.needs_workers());
        let is_over = !state.open && state.queue.is_empty() && !is_needed;
        if is_over {
            close_idle(&mut state, settings.policy.lets_starting_workers_end);
        }
        let there = state.workers.len() + state.starting;
        if there == 0 && state.wanted == 0 && !state.queue.is_empty() {
            // Their submitters relied on workers that did not start.
            state.wanted = 1;
        }
        let needed = state.wanted.saturating_sub(there);
        let starts = match self.not_before {
            _ if is_over || state.broken.is_some() => 0,
            Some(not_before) if needed > 0 && not_before > now => {
                earlier(not_before);
                0
            }
            _ => needed,
        };
        // Tasks that were dispatched above are looked at in the next turn, which comes at once.
        state.watched = next;
        Turn {
            batch,
            late: std::mem::take(&mut state.late),
            starts,
            unusable: state.unusable.take(),
            needs_none: is_over && state.workers.is_empty(),
            finished: is_over && there == 0 && !self.pool.has_transit(),
            next,
        }
    }

    /// Kills a worker that takes too long. Returns when to look again.
    fn check_limits(&self, worker: &mut WorkerHandle, now: Instant) -> Option<Instant> {
        if let Some(due) = worker.kill_at {
            if now < due {
                return Some(due);
            }
            worker.kill_at = None;
            worker.child.kill();
            return None;
        }
        let limit = match (worker.stage, worker.current()) {
            (Stage::Starting, _) => Some(self.pool.settings.start_timeout),
            (_, Some(task)) => task.options.time_limit,
            (Stage::Closing, None) if self.pool.settings.policy.kills_slow_ends => Some(GRACE),
            (Stage::Closing | Stage::Ready, None) => None,
        };
        let due = worker.since.checked_add(limit?)?;
        if worker.killed.is_some() {
            return None;
        }
        if now < due {
            return Some(due);
        }
        worker.killed = Some(match worker.stage {
            Stage::Starting => Kill::Fault(
                format!(
                    "it was not ready {:?} after its start: does `main` call \
                     concurrent_futures::init() first?",
                    self.pool.settings.start_timeout
                )
                .into(),
            ),
            Stage::Closing if worker.current().is_none() => {
                Kill::Fault("it did not end when it was told to".into())
            }
            _ => Kill::TimeLimit,
        });
        worker.child.kill();
        None
    }

    fn start_worker(&mut self) {
        let started = self.starter.start(&*self.pool.spawner, &self.pool.settings);
        self.note_start(started);
    }

    /// Takes the workers that the fork server was asked for.
    fn collect_started(&mut self) {
        let pool = Arc::clone(&self.pool);
        for started in self.starter.collect(&*pool.spawner, &pool.settings) {
            self.pool.lock().starting -= 1;
            self.note_start(started.map(Some));
        }
    }

    /// Notes the result of starting a worker; none if the fork server was asked for it.
    fn note_start(&mut self, started: io::Result<Option<WorkerHandle>>) {
        match started {
            Ok(Some(worker)) => {
                self.refused_starts = 0;
                if self.quick_deaths < FAILURES {
                    self.not_before = None;
                }
                self.pool.lock().add_worker(worker);
            }
            Ok(None) => self.pool.lock().starting += 1,
            Err(error) => {
                let error = Arc::new(error);
                let told = Arc::clone(&error);
                self.log(move || log::process_not_started(&told));
                self.pause(self.refused_starts);
                self.refused_starts = self.refused_starts.saturating_add(1);
                // Something is short, descriptors or memory. Workers that there are go on, and
                // another is tried again.
                if self.pool.lock().workers.is_empty() {
                    self.fail_start(error, false);
                }
            }
        }
    }

    /// Delays the next start of a worker: the longer, the more starts failed.
    fn pause(&mut self, in_vain: u32) {
        let pause = PAUSE * (1 << in_vain.min(DOUBLINGS));
        let until = Instant::now() + pause;
        self.not_before = Some(self.not_before.map_or(until, |other| other.max(until)));
    }

    /// Notes the death of a worker that could work and had no task. If the worker, like those before
    /// it, has lived for a short time only, the next worker is started later.
    fn note_idle_death(&mut self, ready_since: Option<Instant>) {
        if ready_since.is_none_or(|since| since.elapsed() > SHORT_LIFE) {
            self.quick_deaths = 0;
            return;
        }
        self.quick_deaths = self.quick_deaths.saturating_add(1);
        if let Some(further) = self.quick_deaths.checked_sub(FAILURES) {
            self.pause(further);
        }
    }

    /// Counts a worker that could not work, and breaks the pool if `is_final`: no other worker could work
    /// either. After several consecutive failures the pool is broken, unless another worker works. Then
    /// starts are tried again, less and less often.
    fn fail_start(&mut self, cause: Arc<dyn Error + Send + Sync>, is_final: bool) {
        self.failures = self.failures.saturating_add(1);
        let settings = &self.pool.settings;
        let breaks = settings.breaks_by_death() && settings.policy.breaks_by_failed_start;
        if !(is_final || breaks) {
            let Some(further) = self.failures.checked_sub(FAILURES) else {
                return;
            };
            let works =
                |worker: &WorkerHandle| worker.stage == Stage::Ready && worker.killed.is_none();
            if self.pool.lock().workers.iter().any(works) {
                self.pause(further);
                return;
            }
        }
        let broken = BrokenExecutor::by("worker processes do not start", cause);
        self.pool.break_with(&broken);
    }

    fn break_by_initializer(&self, failure: &[u8]) {
        let cause = match Failure::decode(failure) {
            TaskError::Failed(cause) => cause,
            TaskError::Panicked(panic) => panic,
            other => Arc::new(other),
        };
        self.pool.break_with(&BrokenExecutor::new(cause));
    }

    /// Sleeps until something happens, or until a moment.
    fn sleep(&mut self, until: Option<Instant>) {
        {
            let mut state = self.pool.lock();
            if !state.fall_asleep() {
                return;
            }
        }
        let now = Instant::now();
        let again = self.pool.spawner.before_sleep();
        let until = until.map(|until| until.saturating_duration_since(now));
        self.look(match (until, again) {
            (Some(until), Some(again)) => Some(until.min(again)),
            (until, again) => until.or(again),
        });
        self.pool.lock().wake_up();
    }

    /// Waits for something to happen, and takes care of workers that have ended.
    fn look(&mut self, timeout: Option<Duration>) {
        let children: Vec<Arc<Child>> = {
            let state = self.pool.lock();
            let workers = state.workers.iter();
            workers.map(|worker| Arc::clone(&worker.child)).collect()
        };
        let Some(own_bell) = self.pool.bell() else {
            return;
        };
        let requests = self.pool.spawner.requests();
        let requested = requests.and_then(WorkerRequests::readable);
        let requested = requested.as_deref().map(AsFd::as_fd);
        let mut fds = vec![Some(own_bell.as_fd()), requested];
        let mut longest = None::<Duration>;
        for child in &children {
            let is_silent = self.silent.contains(&child.pid());
            let socket = (!is_silent).then(|| child.socket.as_fd());
            fds.push(child.readable());
            fds.push(socket);
            if child.readable().is_none() {
                let check = if is_silent { CHECK_SOON } else { CHECK };
                longest = Some(longest.map_or(check, |longest| longest.min(check)));
            }
        }
        if requests.is_some_and(WorkerRequests::has_outcomes) {
            longest = Some(Duration::ZERO);
        }
        let timeout = match (timeout, longest) {
            (Some(timeout), Some(longest)) => Some(timeout.min(longest)),
            (timeout, longest) => timeout.or(longest),
        };
        // Interrupted, or out of memory for once: the next turn tries again.
        let ready = poll(&fds, timeout).unwrap_or_else(|_| vec![false; fds.len()]);
        if ready[0] {
            own_bell.quiet();
        }
        self.looked = Instant::now();
        for (child, ready) in children.iter().zip(ready[2..].chunks_exact(2)) {
            if ready[1] {
                self.listen(child);
            }
            let has_ended = match child.readable() {
                Some(_) => ready[0],
                None => child.has_ended(),
            };
            if has_ended {
                self.bury(child);
            }
            if child.is_unsignalled() {
                let child = Arc::clone(child);
                self.log(move || child.tell());
            }
        }
        self.collect_started();
        if fallback::is_any() {
            tell_fallbacks(&self.pool);
        }
    }

    /// Takes the packets that have come from a worker.
    fn listen(&mut self, child: &Child) {
        loop {
            match child.socket.receive(false) {
                Ok(Packet::WakeUp) => {}
                Ok(Packet::Message(bytes, _)) => {
                    if let Some(Note(text)) = Note::decode(&bytes) {
                        fallback::note_text(text);
                        continue;
                    }
                    let Refusal(text) = Refusal::decode(&bytes);
                    self.refusals.insert(child.pid(), text);
                }
                Ok(Packet::Nothing) => return,
                Ok(Packet::End) | Err(_) => {
                    self.silent.push(child.pid());
                    return;
                }
            }
        }
    }

    fn log(&self, emit: impl FnOnce() + Send + 'static) {
        log_aside(&self.pool, emit);
    }
}

/// Logs an event in the thread for callbacks, if there is one. The program's log is foreign code, which the supervisor
/// does not call.
fn log_aside(pool: &Pool, emit: impl FnOnce() + Send + 'static) {
    match pool.callbacks() {
        Some(callbacks) => callbacks.run(Box::new(emit)),
        None => emit(),
    }
}

/// Logs the slower ways that the engine goes.
fn tell_fallbacks(pool: &Pool) {
    for text in fallback::take() {
        let spawner = Arc::clone(&pool.spawner);
        log_aside(pool, move || spawner.log(&text));
    }
}

/// Tells idle workers to end.
fn close_idle(state: &mut State, waits: bool) {
    for worker in &mut state.workers {
        if worker.stage == Stage::Ready && worker.load() == 0 {
            worker.since = Instant::now();
            worker.close();
        } else if worker.stage == Stage::Starting && waits {
            // It may be in the middle of something that is not to be cut off.
            worker.close();
        } else if worker.stage == Stage::Starting && worker.killed.is_none() {
            worker.killed = Some(Kill::Terminated);
            worker.child.kill();
        }
    }
}
