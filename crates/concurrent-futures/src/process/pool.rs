//! What the handle of a process pool, its supervisor, and threads that wait share.
//!
//! Everything is under one lock, which is held for no foreign code: values are made, and
//! callbacks run, outside. The supervisor does what only one thread can: it starts workers,
//! and notices their death. Everything else, whoever is there does:
//! `submit` hands a task over if a worker takes it, and a thread that waits for a future
//! receives answers meanwhile, which saves two wake-ups of a short task's three.

#![forbid(unsafe_code)]

use super::awake::Ring;
use super::builder::Settings;
use super::callbacks::Callbacks;
use super::channel::Watch;
use super::deliver::{self, Deliveries, Delivery};
use super::member::{Kill, Member};
use super::spin::Spin;
use super::start::Starter;
use super::state::State;
use super::task::Task;
use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::future::FutureId;
use crate::future::driver::{self, Driver};
use rustix::event::EventfdFlags;
use rustix::process::Signal;
use rustix::thread::Timespec;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The longest nap.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};

/// How long a worker that was asked to end may take before it is killed.
const TERMINATION: Duration = Duration::from_secs(5);

/// Whoever looks under the lock looks seldom: who waits for the lock is put to sleep, and to be
/// woken, and would find it taken again.
#[derive(Debug, Default)]
pub(super) struct Looks(u32);

impl Looks {
    pub(super) fn is_turn(&mut self) -> bool {
        self.0 = self.0.wrapping_add(1);
        self.0 % 16 == 1
    }
}

/// Who is to receive what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Supervisors,
    Helpers,
}

pub(super) struct Pool {
    state: Mutex<State>,
    /// The supervisor has ended.
    ended: Condvar,
    /// Wakes the supervisor; none once it has ended. It is closed then, and not with the pool, which a
    /// program may keep for long: when it has closed the descriptor itself, another file may have the
    /// number.
    bell: Mutex<Option<Arc<OwnedFd>>>,
    pub(super) settings: Settings,
    pub(super) supervisor: OnceLock<ThreadId>,
    /// Threads that wait for a future.
    waiting: Spin,
    /// The thread for callbacks; none where the face has one.
    callbacks: Option<Arc<Callbacks>>,
    deliveries: Arc<Deliveries>,
    /// How many batches and deliveries are on their way to their futures.
    in_transit: AtomicUsize,
    /// Whether the pool was closed: the thread that ends the last transit wakes the supervisor.
    closing: AtomicBool,
    ours: Weak<Self>,
}

/// Something is on its way to its future. While there is some, the supervisor does not end.
pub(super) struct Transit(Arc<Pool>);

impl Transit {
    pub(super) fn home(&self) -> *const () {
        self.0.home()
    }

    pub(super) fn callbacks(&self) -> Option<&Arc<Callbacks>> {
        self.0.callbacks.as_ref()
    }
}

impl Clone for Transit {
    fn clone(&self) -> Self {
        self.0.raise();
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Transit {
    fn drop(&mut self) {
        self.0.lower();
    }
}

/// The same for as long as a batch is in the hands of one thread.
struct Passing<'a>(&'a Pool);

impl<'a> Passing<'a> {
    fn begin(pool: &'a Pool) -> Self {
        pool.raise();
        Self(pool)
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.lower();
    }
}

impl Pool {
    pub(super) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = rustix::event::eventfd(0, flags)?;
        let callbacks: Option<Arc<Callbacks>> = settings.host.is_none().then(Arc::default);
        if let (Some(observed), Some(callbacks)) = (&settings.observed, &callbacks) {
            observed.tell_by(callbacks);
        }
        let pool = Arc::new_cyclic(|ours| Self {
            state: Mutex::new(State::new(
                settings.max_workers,
                settings.max_tasks_per_child.unwrap_or(usize::MAX),
            )),
            ended: Condvar::new(),
            bell: Mutex::new(Some(Arc::new(bell))),
            callbacks,
            settings,
            supervisor: OnceLock::new(),
            waiting: Spin::default(),
            deliveries: Arc::default(),
            in_transit: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            ours: Weak::clone(ours),
        });
        let weak: Weak<Self> = Arc::downgrade(&pool);
        driver::add(pool.home(), weak);
        Ok(pool)
    }

    /// Identifies this pool.
    pub(super) fn home(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Something begins its way to its future.
    fn raise(&self) {
        // ORDERING: SeqCst; see `lower`.
        self.in_transit.fetch_add(1, Ordering::SeqCst);
    }

    /// Something has come to its future.
    fn lower(&self) {
        // ORDERING: SeqCst, as for the flag, which is set before the supervisor looks at the number:
        // either it sees ours, or we see the flag, and wake the supervisor.
        if self.in_transit.fetch_sub(1, Ordering::SeqCst) == 1
            && self.closing.load(Ordering::SeqCst)
        {
            let mut state = self.lock();
            self.wake(&mut state);
        }
    }

    /// Whether something is on its way to its future, with a pool that was closed.
    pub(super) fn has_transit(&self) -> bool {
        self.in_transit.load(Ordering::SeqCst) > 0
    }

    /// Queues values that only foreign code can make; see `deliver.rs`.
    pub(super) fn deliver(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let Some(ours) = self.ours.upgrade() else {
            // Nobody has the pool: dropping them finishes their futures.
            return;
        };
        self.raise();
        if self.deliveries.push(deliveries, &Transit(ours)) {
            let mut state = self.lock();
            self.wake(&mut state);
        }
    }

    /// Looks after values that take long to make. Returns when to look again.
    pub(super) fn look_after_deliveries(&self, now: Instant) -> Option<Instant> {
        self.deliveries.look_after(now)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock: after a panic, which is a bug of ours, the
        // state is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has the supervisor look at the state: wakes it if it sleeps.
    pub(super) fn wake(&self, state: &mut State) {
        let ring = state.change();
        self.ring(ring);
    }

    fn ring(&self, ring: Ring) {
        if ring == Ring::Needed
            && let Some(bell) = self.bell()
        {
            // It fails when the counter is full, and the supervisor about to be woken.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// Returns the descriptor that the supervisor listens to.
    pub(super) fn bell(&self) -> Option<Arc<OwnedFd>> {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        bell.clone()
    }

    /// Who runs callbacks, if not the supervisor.
    pub(super) fn callbacks(&self) -> Option<&Arc<Callbacks>> {
        self.callbacks.as_ref()
    }

    /// Tells the observer what has happened under the lock.
    pub(super) fn tell(&self) {
        if let Some(observed) = &self.settings.observed {
            observed.tell_later();
        }
    }

    /// Closes the pool for new tasks. Those that wait for room are refused.
    fn close(&self, state: &mut State) {
        state.open = false;
        self.closing.store(true, Ordering::SeqCst);
        if let Some(limit) = &self.settings.limit {
            limit.close();
        }
    }

    /// Takes a task.
    ///
    /// Returns whether a worker is to be started for it by the caller, as [`WorkerHost`]s have it.
    ///
    /// [`WorkerHost`]: super::host::WorkerHost
    pub(super) fn submit(&self, task: Task) -> Result<bool, SubmitError> {
        let mut state = self.lock();
        if let Some(error) = state.refusal() {
            drop(state);
            task.decline();
            return Err(error);
        }
        let mut task = task;
        if let Some(observed) = &self.settings.observed {
            task.observe(observed);
        }
        // Its answer may come from another worker than the one that is waited for.
        state.end_nap();
        let is_host_started = self.settings.host.is_some();
        let needs_worker = state.accept(task);
        if needs_worker && is_host_started {
            state.starting += 1;
        }
        if needs_worker && !is_host_started || state.needs_watch || !state.late.is_empty() {
            self.wake(&mut state);
        }
        drop(state);
        if let Some(observed) = &self.settings.observed {
            observed.tell();
        }
        Ok(needs_worker && is_host_started)
    }

    /// Why tasks are not accepted, if they are not.
    pub(super) fn refusal(&self) -> Option<SubmitError> {
        self.lock().refusal()
    }

    /// Counts one worker more, unless one is idle that has had tasks. Returns whether the caller
    /// is to start it.
    pub(super) fn want_another(&self) -> bool {
        let mut state = self.lock();
        let is_idle = |member: &Member| member.is_idle() && member.handed > 0;
        let has_idle = state.members.iter().any(is_idle);
        let wants = state.open && !has_idle && state.wanted < state.max_workers;
        if wants {
            state.wanted += 1;
            state.starting += 1;
        }
        wants
    }

    /// Counts workers that the caller will start. Returns how many.
    pub(super) fn want_workers(&self, number: usize) -> usize {
        let mut state = self.lock();
        let wanted = number.min(state.max_workers);
        let more = wanted.saturating_sub(state.wanted);
        state.wanted += more;
        state.starting += more;
        more
    }

    /// Starts one worker that the caller has promised to start.
    pub(super) fn start_worker(&self) -> io::Result<()> {
        let started = Starter::default().start(&self.settings);
        // Only the fork server, of which hosts have none, has workers later.
        let started = started.and_then(|member| member.ok_or(io::ErrorKind::Unsupported.into()));
        let mut state = self.lock();
        state.starting -= 1;
        match started {
            Ok(member) => {
                state.add_member(member);
                self.wake(&mut state);
                Ok(())
            }
            Err(error) => {
                state.wanted -= 1;
                Err(error)
            }
        }
    }

    /// To be called after [`start_worker`](Self::start_worker) has failed, and the task that wanted
    /// the worker was cancelled: it may have been to work for others, too.
    pub(super) fn reconsider(&self) {
        let mut state = self.lock();
        let cancelled = state.take_cancelled();
        self.wake(&mut state);
        drop(state);
        for task in cancelled {
            task.finish_by(None);
        }
    }

    /// Whether a worker has something for this side, or a helper will look; none if neither.
    /// While another thread holds the lock, it is that thread that looks.
    pub(super) fn whose_work(&self) -> Option<Whose> {
        let state = self.try_lock()?;
        if state.has_helper() {
            return Some(Whose::Helpers);
        }
        state.has_work().then_some(Whose::Supervisors)
    }

    /// Receives answers and ends their tasks, if nobody else is at it, but for that of `own` if its
    /// value is for foreign code to make. Returns whether there were any.
    fn receive(&self, own: Option<FutureId>, mine: &mut Option<(Delivery, Transit)>) -> bool {
        let Some(mut state) = self.try_lock() else {
            return false;
        };
        if !state.has_work() {
            return false;
        }
        let mut batch = state.collect();
        let passing = Passing::begin(self);
        if state.has_started || state.needs_watch || !state.open || !state.late.is_empty() {
            self.wake(&mut state);
        }
        drop(state);
        self.tell();
        let mut foreign = batch.take_foreign();
        let place = foreign
            .iter()
            .position(|delivery| Some(delivery.task.id()) == own);
        if let (Some(place), Some(ours)) = (place, self.ours.upgrade()) {
            self.raise();
            *mine = Some((foreign.swap_remove(place), Transit(ours)));
        }
        self.deliver(foreign);
        let late = batch.end();
        if let Some(callbacks) = &self.callbacks {
            for task in late {
                task.finish_by(Some(callbacks));
            }
        } else if !late.is_empty() {
            let mut state = self.lock();
            state.late.extend(late);
            self.wake(&mut state);
        }
        drop(passing);
        true
    }

    /// Accepts nothing more. With `cancel_futures`, cancels what is pending; with `wait`,
    /// returns when all is done and all workers have ended.
    pub(super) fn shutdown(&self, wait: bool, cancel_futures: bool) {
        let mut state = self.lock();
        self.close(&mut state);
        let pending = if cancel_futures {
            state.cancelling = true;
            let keeps_first = self.settings.host.is_some();
            state.take_unstarted(keeps_first)
        } else {
            Vec::new()
        };
        self.wake(&mut state);
        drop(state);
        pending.into_iter().for_each(Task::cancel);
        if wait {
            self.join();
        }
    }

    /// Waits for the end of the supervisor and of the callbacks, unless it is one of these
    /// who asks, or a value that is being made.
    fn join(&self) {
        let is_callback = |callbacks: &Arc<Callbacks>| callbacks.is_current();
        if self.supervisor.get() == Some(&thread::current().id())
            || self.callbacks.as_ref().is_some_and(is_callback)
            || deliver::is_delivering(self.home())
        {
            return;
        }
        let state = self.lock();
        let ended = self.ended.wait_while(state, |state| !state.ended);
        drop(ended);
        if let Some(callbacks) = &self.callbacks {
            callbacks.finish();
        }
        if let Some(observed) = &self.settings.observed {
            observed.finish();
        }
    }

    /// The supervisor has ended, or could not be started.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        let bell = self
            .bell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(bell);
        self.ended.notify_all();
        self.deliveries.close();
    }

    /// A face has settled answers: a pool that was closed may be able to end.
    pub(super) fn settled(&self) {
        let mut state = self.lock();
        if !state.open {
            self.wake(&mut state);
        }
    }

    /// Fails what is pending, ends all workers, and refuses everything from now on.
    pub(super) fn break_with(&self, broken: &BrokenExecutor) {
        let mut state = self.lock();
        self.close(&mut state);
        // The first cause stays.
        let broken = state.broken.get_or_insert_with(|| broken.clone()).clone();
        let pending = state.take_pending(0);
        for member in &state.members {
            member.child.kill();
        }
        self.wake(&mut state);
        drop(state);
        let reject = move || {
            for task in pending {
                task.reject(TaskError::Broken(broken.clone()));
            }
        };
        // It is the supervisor that finds out.
        match &self.callbacks {
            Some(callbacks) => callbacks.run(Box::new(reject)),
            None => reject(),
        }
    }

    /// Ends all workers by a signal, and cancels what they have not begun.
    pub(super) fn end_workers(&self, signal: Signal) {
        let mut state = self.lock();
        self.close(&mut state);
        state.cancelling = true;
        let pending = state.take_pending(1);
        // The processes of a host are its own: they have their ways to end.
        let escalates = signal != Signal::KILL && self.settings.host.is_none();
        let kill_at = escalates.then(|| Instant::now() + TERMINATION);
        for member in &mut state.members {
            member.killed.get_or_insert(Kill::Terminated);
            member.kill_at = member.kill_at.or(kill_at);
            member.child.signal(signal);
        }
        self.wake(&mut state);
        drop(state);
        pending.into_iter().for_each(Task::cancel);
    }

    /// Takes a task back that was handed to a worker which has not begun with it: it is pending.
    pub(super) fn recall(&self, future: FutureId) -> Option<Task> {
        let mut state = self.lock();
        let mut members = state.members.iter_mut();
        let task = members.find_map(|member| member.recall(future))?;
        task.give_back();
        // Its worker may be idle now, and have been about to wake nobody.
        state.refill();
        self.wake(&mut state);
        Some(task)
    }

    /// Whether a worker has begun with a task that was handed to one.
    pub(super) fn has_begun(&self, future: FutureId) -> bool {
        let state = self.lock();
        let has_begun = |member: &Member| member.has_begun_with(future);
        // One that no worker has was answered.
        state.members.iter().find_map(has_begun).unwrap_or(true)
    }

    /// The process ids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        let state = self.lock();
        state
            .members
            .iter()
            .map(|member| member.child.pid())
            .collect()
    }

    /// A thread that waits begins to receive answers: workers need not wake anybody.
    fn enter(&self) -> Option<Watch> {
        let mut state = self.lock();
        state.enter();
        state.watch()
    }

    /// Sleeps until the worker that has tasks answers, for a short time. That saves waking
    /// the supervisor for a task that is not quite as short as it is worth to stay awake.
    /// False if it did not, or in vain.
    fn nap(&self) -> bool {
        let Some(nap) = self.lock().begin_nap() else {
            return false;
        };
        nap.sleep(&NAP);
        let mut state = self.lock();
        state.end_nap();
        state.has_work()
    }

    /// It ends: the supervisor is to be woken again.
    fn leave(&self) {
        let ring = self.lock().leave();
        self.ring(ring);
    }
}

impl Driver for Pool {
    fn drive(
        &self,
        future: FutureId,
        is_done: &dyn Fn() -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        // To make the value may take longer than there is time.
        let own = deadline.is_none().then_some(future);
        if let Some(own) = own {
            self.deliveries.make(own);
        }
        let mut mine = None;
        let mut watch = self.enter();
        let done = loop {
            // Others' answers may come for ever.
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break is_done();
            }
            let mut received = false;
            let mut looks = Looks::default();
            self.waiting.until(
                || {
                    let has_news = match &watch {
                        Some(watch) => watch.has_news(),
                        None => looks.is_turn(),
                    };
                    received = has_news && !is_done() && self.receive(own, &mut mine);
                    received || is_done()
                },
                || watch.as_ref().is_some_and(Watch::is_beside),
            );
            if mine.is_some() || is_done() || !received && !self.nap() {
                break is_done();
            }
            watch = self.lock().watch();
        };
        self.leave();
        match mine {
            Some((delivery, transit)) => {
                Deliveries::make_own(delivery, transit);
                is_done()
            }
            None => done,
        }
    }

    fn cancel(&self, future: FutureId) -> bool {
        self.recall(future).map(Task::cancel).is_some()
    }

    fn forget(&self, future: FutureId) {
        let forgotten = self.lock().forget(future, self.settings.limit.is_some());
        drop(forgotten);
    }

    fn has_begun(&self, future: FutureId) -> bool {
        Self::has_begun(self, future)
    }

    fn terminate(&self, future: FutureId) -> bool {
        let mut state = self.lock();
        let Some(member) = state.members.iter_mut().find(|member| member.has(future)) else {
            return false;
        };
        let taken = member.take_back(0);
        let mut ours = None;
        let is_running = member.load() == 1 && member.has(future);
        if is_running {
            member.killed.get_or_insert(Kill::Terminated);
            member.child.kill();
        }
        state.requeue(taken);
        if !is_running {
            let place = state.queue.iter().position(|task| task.id() == future);
            ours = place.and_then(|place| state.queue.remove(place));
        }
        state.refill();
        self.wake(&mut state);
        drop(state);
        // It was handed over, but not begun.
        let is_ours = ours.is_some();
        if let Some(task) = ours {
            task.reject(TaskError::Terminated);
        }
        is_running || is_ours
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        driver::remove(ptr::from_ref(self).cast());
    }
}
