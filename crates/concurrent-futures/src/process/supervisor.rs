//! The supervisor: one thread for each pool, which starts workers, notices their death, and
//! watches time limits. Callbacks are left to another thread: by [`Callbacks`], or by the face, which
//! the supervisor tells of each future that is done.
//!
//! [`Callbacks`]: super::callbacks::Callbacks
//!
//! It sleeps until a worker writes to its socket, a worker ends (its pidfd is readable),
//! another thread rings, or a time limit passes. Workers write only while it sleeps and
//! no thread that waits for a future receives answers in its place.

#![forbid(unsafe_code)]

use super::channel::Packet;
use super::child::Child;
use super::error::{TimeLimitExceeded, WorkerDied, WorkerExit};
use super::failure::Failure;
use super::handle::{CHECK, CHECK_SOON};
use super::handshake::Refusal;
use super::host::WorkerHost;
use super::member::{Kill, Member, Orphan, Stage};
use super::pool::{Looks, Pool, Whose};
use super::spin::Spin;
use super::start::Starter;
use super::state::{Batch, State};
use super::task::{Ending, Task};
use crate::error::{BrokenExecutor, TaskError};
use crate::log;
use crate::panic;
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// So many workers in a row may die before they can work, if no other works.
const FAILURES: u32 = 3;
/// The supervisor begins this many times, if it panics.
const PANICS: u32 = 3;
/// The pause after a worker could not be started.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause doubles with each failure in a row beyond [`FAILURES`], so many times at most: to 1.28 s.
const DOUBLINGS: u32 = 6;
/// A worker that has ended sooner, at nothing, may be one of many that will.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// While there is always work, deaths are looked for this often.
const GLANCE: Duration = Duration::from_millis(1);
/// How long a worker may take to end when it was told to.
const GRACE: Duration = Duration::from_secs(10);

/// Starts the supervisor of a pool.
pub(super) fn start(pool: &Arc<Pool>) -> io::Result<()> {
    let supervised = Arc::clone(pool);
    let name = String::from("cf-supervisor");
    let handle = thread::Builder::new().name(name).spawn(move || {
        supervise(&supervised);
    })?;
    drop(handle);
    Ok(())
}

/// The supervisor's work, up to the end of the pool.
pub(super) fn supervise(pool: &Arc<Pool>) {
    // A pool has one supervisor, and so it was not set before.
    let _ = pool.supervisor.set(thread::current().id());
    let mut supervisor = Supervisor::new(Arc::clone(pool));
    // All foreign code is guarded where it is called. Should something panic all the same, nothing of
    // the pool may wait for a supervisor that is gone: the pool breaks, and its workers are buried.
    for _ in 0..PANICS {
        let Err(panic) = panic::catch(|| supervisor.run()) else {
            break;
        };
        log::panicked("the supervisor of a process pool panicked", panic.message());
        pool.break_with(&BrokenExecutor::by("its supervisor panicked", panic));
    }
    pool.end();
}

struct Supervisor {
    pool: Arc<Pool>,
    starter: Starter,
    /// What workers have said before they ended, by process id.
    refusals: HashMap<u32, String>,
    /// Workers whose socket has come to its end.
    silent: Vec<u32>,
    /// Workers in a row that have ended before they could work.
    failures: u32,
    /// Workers in a row that have ended soon after they could work, and at nothing.
    quick_deaths: u32,
    /// Starts in a row that the system, or the fork server, has refused.
    refused_starts: u32,
    /// No worker is started before.
    not_before: Option<Instant>,
    looked: Instant,
    spin: Spin,
}

/// What one turn under the lock has found.
struct Turn {
    batch: Batch,
    late: Vec<Task>,
    starts: usize,
    unusable: Option<Vec<u8>>,
    finished: bool,
    /// Workers that were asked for are not needed any more, nor is the fork server.
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
            spin: Spin::default(),
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
            if worked && self.pool.settings.host.is_some() {
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
                let abandoned = self.starter.abandon();
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

    /// Waits awake for more to receive. False if it is time to sleep.
    fn waits_awake(&self) -> bool {
        let mut whose = None;
        let mut looks = Looks::default();
        self.spin.until(
            || {
                if looks.is_turn() {
                    whose = self.pool.whose_work();
                }
                whose.is_some()
            },
            || false,
        );
        whose == Some(Whose::Supervisors)
    }

    /// All that is to be done under the lock.
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
        for member in &mut state.members {
            if let Some(due) = self.check_limits(member, now) {
                earlier(due);
            }
        }
        for due in [deliveries, self.starter.due(&self.pool.settings)] {
            due.into_iter().for_each(&mut earlier);
        }
        let host = self.pool.settings.host.as_deref();
        // A host may have answers that refer to their workers, once they have come to it.
        let is_needed = host.is_some_and(|host| {
            !batch.is_empty() || self.pool.has_transit() || host.needs_workers()
        });
        let is_over = !state.open && state.queue.is_empty() && !is_needed;
        if is_over {
            close_idle(&mut state, self.pool.settings.host.is_some());
        }
        let there = state.members.len() + state.starting;
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
        // What was handed over above is looked at in the next turn, which comes at once.
        state.watched = next;
        Turn {
            batch,
            late: std::mem::take(&mut state.late),
            starts,
            unusable: state.unusable.take(),
            needs_none: is_over && state.members.is_empty(),
            finished: is_over && there == 0 && !self.pool.has_transit(),
            next,
        }
    }

    /// Kills a worker that takes too long. Returns when to look again.
    fn check_limits(&self, member: &mut Member, now: Instant) -> Option<Instant> {
        if let Some(due) = member.kill_at {
            if now < due {
                return Some(due);
            }
            member.kill_at = None;
            member.child.kill();
            return None;
        }
        let limit = match (member.stage, member.current()) {
            (Stage::Starting, _) => Some(self.pool.settings.start_timeout),
            (_, Some(task)) => task.options.time_limit,
            // Processes of a host may have ways of their own to end.
            (Stage::Closing, None) if self.pool.settings.host.is_some() => None,
            (Stage::Closing, None) => Some(GRACE),
            (Stage::Ready, None) => None,
        };
        let due = member.since.checked_add(limit?)?;
        if member.killed.is_some() {
            return None;
        }
        if now < due {
            return Some(due);
        }
        member.killed = Some(match member.stage {
            Stage::Starting => Kill::Fault(
                format!(
                    "it was not ready {:?} after its start: does `main` call \
                     concurrent_futures::init() first?",
                    self.pool.settings.start_timeout
                )
                .into(),
            ),
            Stage::Closing if member.current().is_none() => {
                Kill::Fault("it did not end when it was told to".into())
            }
            _ => Kill::TimeLimit,
        });
        member.child.kill();
        None
    }

    fn start_worker(&mut self) {
        let started = self.starter.start(&self.pool.settings);
        self.note_start(started);
    }

    /// Takes the workers that the fork server was asked for.
    fn collect_started(&mut self) {
        for started in self.starter.collect(&self.pool.settings) {
            self.pool.lock().starting -= 1;
            self.note_start(started.map(Some));
        }
    }

    /// Notes what became of the start of a worker; none if it was asked for.
    fn note_start(&mut self, started: io::Result<Option<Member>>) {
        match started {
            Ok(Some(member)) => {
                self.refused_starts = 0;
                if self.quick_deaths < FAILURES {
                    self.not_before = None;
                }
                self.pool.lock().add_member(member);
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
                if self.pool.lock().members.is_empty() {
                    self.fail_start(error, false);
                }
            }
        }
    }

    /// Delays the next start of a worker, the longer the more often starts were in vain.
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

    /// A worker has not come to work, and `is_final` if no other could either. After several in a
    /// row the pool is broken, unless another works: then one is tried again, less and less often.
    fn fail_start(&mut self, cause: Arc<dyn Error + Send + Sync>, is_final: bool) {
        self.failures = self.failures.saturating_add(1);
        let settings = &self.pool.settings;
        let is_strict_host = settings.strict && settings.host.is_some();
        if !(is_final || is_strict_host) {
            let Some(further) = self.failures.checked_sub(FAILURES) else {
                return;
            };
            let works = |member: &Member| member.stage == Stage::Ready && member.killed.is_none();
            if self.pool.lock().members.iter().any(works) {
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

    /// Sleeps until something happens.
    fn sleep(&mut self, until: Option<Instant>) {
        {
            let mut state = self.pool.lock();
            if !state.fall_asleep() {
                return;
            }
        }
        let now = Instant::now();
        let host = self.pool.settings.host.as_deref();
        let again = host.and_then(WorkerHost::before_sleep);
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
            let members = state.members.iter();
            members.map(|member| Arc::clone(&member.child)).collect()
        };
        let Some(own_bell) = self.pool.bell() else {
            return;
        };
        let bell = || PollFd::new(&own_bell, PollFlags::empty());
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        // The bell takes the places of missing descriptors, and is asked for nothing there.
        let mut fds = vec![watch(own_bell.as_fd())];
        fds.push(self.starter.readable().map_or_else(bell, watch));
        let mut longest = None::<Duration>;
        for child in &children {
            let is_silent = self.silent.contains(&child.pid());
            let socket = (!is_silent).then(|| child.socket.as_fd());
            fds.push(child.readable().map_or_else(bell, watch));
            fds.push(socket.map_or_else(bell, watch));
            if child.readable().is_none() {
                let check = if is_silent { CHECK_SOON } else { CHECK };
                longest = Some(longest.map_or(check, |longest| longest.min(check)));
            }
        }
        if self.starter.has_outcomes() {
            longest = Some(Duration::ZERO);
        }
        let timeout = match (timeout, longest) {
            (Some(timeout), Some(longest)) => Some(timeout.min(longest)),
            (timeout, longest) => timeout.or(longest),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Interrupted, or out of memory for once: the next turn tries again.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            // It fails when nobody has rung.
            let _ = rustix::io::read(&own_bell, &mut [0; 8]);
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
    }

    /// Takes the packets that have come from a worker.
    fn listen(&mut self, child: &Child) {
        loop {
            match child.socket.receive(false) {
                Ok(Packet::WakeUp) => {}
                Ok(Packet::Message(bytes, _)) => {
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

    /// A worker has ended: what it was running fails, the rest goes to others.
    fn bury(&mut self, child: &Arc<Child>) {
        let pid = child.pid();
        if !self.silent.contains(&pid) {
            self.listen(child);
        }
        let (mut member, mut batch, replaced) = {
            let mut state = self.pool.lock();
            let place = |member: &Member| Arc::ptr_eq(&member.child, child);
            let Some(index) = state.members.iter().position(place) else {
                return;
            };
            // What it has answered counts.
            let mut batch = Batch::default();
            state.receive_last(index, &mut batch);
            let is_over = state.broken.is_some() || !state.open && state.queue.is_empty();
            let member = state.members.remove(index);
            // No other is started in its place before its exit status is taken.
            state.starting += 1;
            (member, batch, !is_over)
        };
        let settings = &self.pool.settings;
        let is_last = settings.strict && member.stage != Stage::Closing && member.killed.is_none();
        let exit = self.starter.exit_of(settings, child, replaced && !is_last);
        self.pool.lock().starting -= 1;
        self.silent.retain(|silent| *silent != pid);
        let note: Option<Arc<str>> = match (self.refusals.remove(&pid), &member.killed) {
            (Some(refusal), _) => Some(refusal.into()),
            (None, Some(Kill::Fault(note))) => Some(Arc::clone(note)),
            _ => None,
        };
        let death = WorkerDied {
            task: None,
            pid,
            exit,
            memory_limit: self.pool.settings.memory_limit,
            note,
        };
        let orphans = member.orphans();
        self.pool.deliver(batch.take_foreign());
        for task in batch.end() {
            task.finish_by(self.pool.callbacks());
        }
        let is_expected = member.stage == Stage::Closing && orphans.is_empty();
        let is_running = |orphan: &Orphan| matches!(orphan, Orphan::Running(_));
        if member.stage == Stage::Ready && member.killed.is_none() {
            if orphans.iter().any(is_running) {
                self.quick_deaths = 0;
            } else {
                self.note_idle_death(member.ready_since);
            }
        }
        if !is_expected || member.killed.as_ref().is_some_and(is_fault) {
            let death = death.clone();
            self.log(move || log::process_died(&death));
        }
        let is_host = self.pool.settings.host.is_some();
        let is_refused = is_host && death.note.is_some() && member.killed.is_none();
        if member.stage == Stage::Starting && member.killed.as_ref().is_none_or(is_fault) {
            let note = death.note.clone();
            let cause = Arc::new(WorkerDied {
                note: note.or_else(|| Some(hint(exit, is_host).into())),
                ..death.clone()
            });
            // What one has refused, another would.
            self.fail_start(cause, is_refused);
        }
        // First, so that who sees a task fail for it finds the pool broken.
        let is_strict = self.pool.settings.strict && !is_expected && member.killed.is_none();
        if is_strict && member.stage != Stage::Starting {
            let cause = Arc::new(death.clone());
            let broken = BrokenExecutor::by("a worker process died", cause);
            self.pool.break_with(&broken);
        }
        self.settle(orphans, member.killed.as_ref(), &death);
    }

    /// Logs an event. The program's log is foreign code: like callbacks, it is not called by the
    /// supervisor, if there is another thread for them.
    fn log(&self, emit: impl FnOnce() + Send + 'static) {
        match self.pool.callbacks() {
            Some(callbacks) => callbacks.run(Box::new(emit)),
            None => emit(),
        }
    }

    /// Decides what becomes of the tasks of a dead worker.
    fn settle(&self, orphans: Vec<Orphan>, killed: Option<&Kill>, death: &WorkerDied) {
        let mut again = Vec::new();
        let mut failed = Vec::new();
        for orphan in orphans {
            match orphan {
                // Whoever ended it could not know that.
                Orphan::NotBegun(task) if matches!(killed, Some(Kill::Terminated)) => {
                    failed.push(task);
                }
                Orphan::NotBegun(task) => again.push(task),
                Orphan::Running(mut task) => {
                    let repeats = killed.is_none_or(is_fault)
                        && task.options.retries > 0
                        && !self.pool.settings.strict;
                    if repeats {
                        task.options.retries -= 1;
                        again.push(task);
                    } else {
                        failed.push(task);
                    }
                }
            }
        }
        let (cancelled, broken) = {
            let mut state = self.pool.lock();
            again.reverse();
            state.requeue(again);
            let cancelled = if state.cancelling || state.broken.is_some() {
                state.take_pending(0)
            } else {
                state.refill();
                Vec::new()
            };
            (cancelled, state.broken.clone())
        };
        for task in failed {
            let error = self.error_of(&task, killed, death);
            if let Some(task) = task.end(Ending::Error(error)) {
                task.finish_by(self.pool.callbacks());
            }
        }
        if cancelled.is_empty() {
            return;
        }
        let cancel = move || {
            for task in cancelled {
                match &broken {
                    Some(broken) => task.reject(TaskError::Broken(broken.clone())),
                    None => task.cancel(),
                }
            }
        };
        match self.pool.callbacks() {
            Some(callbacks) => callbacks.run(Box::new(cancel)),
            None => cancel(),
        }
    }

    fn error_of(&self, task: &Task, killed: Option<&Kill>, death: &WorkerDied) -> TaskError {
        let (id, name) = (task.id(), task.name());
        if let Some(broken) = &self.pool.lock().broken {
            return TaskError::Broken(broken.clone());
        }
        match (killed, task.options.time_limit) {
            (Some(Kill::Terminated), _) => TaskError::Terminated,
            (Some(Kill::TimeLimit), Some(limit)) => {
                TaskError::TimeLimit(Arc::new(TimeLimitExceeded {
                    task: id,
                    name,
                    pid: death.pid,
                    limit,
                }))
            }
            _ => {
                let death = WorkerDied {
                    task: Some((id, name)),
                    ..death.clone()
                };
                if self.pool.settings.strict {
                    let cause = Arc::new(death);
                    TaskError::Broken(BrokenExecutor::by("a worker process died", cause))
                } else {
                    TaskError::WorkerDied(Arc::new(death))
                }
            }
        }
    }
}

fn is_fault(kill: &Kill) -> bool {
    matches!(kill, Kill::Fault(_))
}

/// What may be the matter with a worker that has ended before it could work.
fn hint(exit: WorkerExit, is_host: bool) -> &'static str {
    match exit {
        WorkerExit::Code(_) if !is_host => {
            "it ended before it could work: does `main` call concurrent_futures::init() first?"
        }
        _ => "it ended before it could work",
    }
}

/// Tells workers that have nothing to do to end.
fn close_idle(state: &mut State, waits: bool) {
    for member in &mut state.members {
        if member.stage == Stage::Ready && member.load() == 0 {
            member.since = Instant::now();
            member.close();
        } else if member.stage == Stage::Starting && waits {
            // It may be in the middle of something that is not to be cut off.
            member.close();
        } else if member.stage == Stage::Starting && member.killed.is_none() {
            member.killed = Some(Kill::Terminated);
            member.child.kill();
        }
    }
}
