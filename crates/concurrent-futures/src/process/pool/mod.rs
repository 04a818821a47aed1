//! The state that the handle of a process pool, its supervisor and waiting threads share.
//!
//! The state is under one lock, which is held for no foreign code: values are made, and callbacks run, outside.
//! The supervisor does the work that only one thread can do: it starts workers, and notices their death. Any
//! thread does the rest. `submit` dispatches a task if a worker takes it, and a thread that waits for a
//! future receives replies meanwhile. That saves two of the three wake-ups of a short task.

mod batch;
pub(crate) mod callbacks;
pub(crate) mod child;
mod helper;
#[cfg(all(test, loom_models))]
mod models;
pub(crate) mod observed;
mod pace;
mod scheduler;
pub(crate) mod settings;
mod start;
pub(crate) mod supervisor;
pub(crate) mod task;
mod wake;
pub(crate) mod worker_handle;

use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::future::driver;
use crate::id::{FutureId, PoolId};
use crate::limit::{self, Permit, WhenFull};
use crate::process::contract::WorkerSpawner;
use crate::process::pool::callbacks::Callbacks;
use crate::process::pool::settings::Settings;
pub(crate) mod deliver;
use crate::process::pool::deliver::{Deliveries, Delivery};
use crate::process::pool::scheduler::State;
use crate::process::pool::start::Starter;
use crate::process::pool::task::Task;
use crate::process::pool::wake::MustWake;
use crate::process::pool::worker_handle::{Kill, Stage, WorkerHandle};
use crate::recording::recorder;
use crate::runtime::os::backend;
use crate::runtime::os::bell::Bell;
use crate::runtime::os::clock::now;
use crate::runtime::os::process::Signal;
use crate::runtime::spin::place::Place;
use crate::stats::ExecutorStats;
use crate::stats::counts::Counts;
use crate::stats::directory::Listed;
use crate::stats::view::{Inspect, PoolView, RunTime, TaskView, WorkerKind, WorkerView};
use std::io;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The number of milliseconds for which a description waits for a pool's lock.
const ATTEMPTS: u32 = 100;

/// The time that a worker may take to end when asked, before it is killed.
const TERMINATION: Duration = Duration::from_secs(5);

/// Lets a spinning thread look under the lock at every 16th turn only. A thread that finds the lock taken is
/// put to sleep and woken again, and would then find the lock taken once more.
#[derive(Debug, Default)]
pub(crate) struct PollThrottle(u32);

impl PollThrottle {
    pub(crate) fn is_turn(&mut self) -> bool {
        self.0 = self.0.wrapping_add(1);
        self.0 % 16 == 1
    }
}

/// The kind of thread that receives replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    Supervisors,
    Helpers,
}

pub(crate) struct Pool {
    /// The identity of this pool.
    pub(crate) id: PoolId,
    pub(crate) counts: Listed,
    state: Mutex<State>,
    /// Notified when the supervisor has ended.
    ended: Condvar,
    /// Wakes the supervisor; none once it has ended. The bell is closed when the supervisor ends, and not
    /// with the pool, which a program may keep for long. A program may have closed the descriptor itself, and
    /// another file may have the number.
    bell: Mutex<Option<Arc<Bell>>>,
    pub(crate) settings: Settings,
    pub(crate) spawner: Arc<dyn WorkerSpawner>,
    pub(crate) supervisor: OnceLock<ThreadId>,
    /// The spinning of threads that wait for a future.
    waiting: Place,
    /// The thread for callbacks; none where the frontend has one.
    callbacks: Option<Arc<Callbacks>>,
    deliveries: Arc<Deliveries>,
    /// The number of batches and deliveries on their way to their futures.
    in_transit: AtomicUsize,
    /// The moment when the pool was made.
    began: Instant,
    /// Whether the pool was closed: the thread that ends the last transit wakes the supervisor.
    closing: AtomicBool,
    ours: Weak<Self>,
}

/// Keeps the supervisor from ending while a reply is on its way to its future.
pub(crate) struct Transit(Arc<Pool>);

impl Transit {
    pub(crate) fn pool_id(&self) -> PoolId {
        self.0.id
    }

    pub(crate) fn callbacks(&self) -> Option<&Arc<Callbacks>> {
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

impl Inspect for Pool {
    fn inspect(&self) -> Option<PoolView> {
        // A program that stands still may do so with the lock held.
        let state = (0..ATTEMPTS).find_map(|_| {
            let state = self.try_lock();
            if state.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            state
        })?;
        let moment = Instant::now();
        let view = |worker: &WorkerHandle| WorkerView {
            name: format!("process {}", worker.child.pid()),
            pid: Some(worker.child.pid()),
            is_ready: worker.stage == Stage::Ready,
            task: worker.running().map(|task| TaskView {
                number: task.id().number(),
                name: task.function_name(),
                time: RunTime::Exactly(moment.saturating_duration_since(worker.since)),
            }),
            behind: worker.load().saturating_sub(1),
        };
        Some(PoolView {
            kind: WorkerKind::Processes,
            max_workers: state.max_workers,
            pending: (state.pending() as u64).saturating_sub(self.counts.gone()),
            workers: state.workers.iter().map(view).collect(),
        })
    }
}

/// Keeps the supervisor from ending while a batch is in the hands of one thread.
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
    pub(crate) fn new(
        settings: Settings,
        spawner: Arc<dyn WorkerSpawner>,
    ) -> io::Result<Arc<Self>> {
        backend::choose()?;
        let bell = Bell::new()?;
        let callbacks: Option<Arc<Callbacks>> =
            settings.policy.has_callbacks_thread.then(Arc::default);
        if let (Some(observed), Some(callbacks)) = (&settings.observed, &callbacks) {
            observed.tell_by(callbacks);
        }
        let id = PoolId::next();
        let counts = Listed::new(id, Counts::new());
        let pool = Arc::new_cyclic(|ours| Self {
            id,
            state: Mutex::new(State::new(
                settings.max_workers,
                settings.max_tasks_per_child.unwrap_or(usize::MAX),
                Arc::clone(counts.counts()),
            )),
            counts,
            ended: Condvar::new(),
            bell: Mutex::new(Some(Arc::new(bell))),
            callbacks,
            settings,
            spawner,
            supervisor: OnceLock::new(),
            waiting: Place::default(),
            deliveries: Arc::default(),
            in_transit: AtomicUsize::new(0),
            began: Instant::now(),
            closing: AtomicBool::new(false),
            ours: Weak::clone(ours),
        });
        let weak: Weak<Self> = Arc::downgrade(&pool);
        pool.counts.set_inspect(Weak::clone(&weak) as _);
        driver::add(pool.id, weak);
        Ok(pool)
    }

    /// Counts a reply that begins its way to its future.
    fn raise(&self) {
        // ORDERING: SeqCst; see `lower`.
        self.in_transit.fetch_add(1, Ordering::SeqCst);
    }

    /// Uncounts a reply that has come to its future.
    fn lower(&self) {
        // ORDERING: SeqCst, as for the flag, which is set before the supervisor looks at the number. Either
        // the supervisor sees our number, or we see the flag and wake the supervisor.
        if self.in_transit.fetch_sub(1, Ordering::SeqCst) == 1
            && self.closing.load(Ordering::SeqCst)
        {
            let mut state = self.lock();
            self.wake(&mut state);
        }
    }

    /// Returns whether a reply is on its way to its future, in a pool that was closed.
    pub(crate) fn has_transit(&self) -> bool {
        self.in_transit.load(Ordering::SeqCst) > 0
    }

    /// Queues values that only foreign code can make; see `deliver.rs`.
    pub(crate) fn deliver(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let Some(ours) = self.ours.upgrade() else {
            // No thread has the pool: dropping the deliveries finishes their futures.
            return;
        };
        self.raise();
        if self.deliveries.push(deliveries, &Transit(ours)) {
            let mut state = self.lock();
            self.wake(&mut state);
        }
    }

    /// Looks after values that take long to make. Returns when to look again.
    pub(crate) fn look_after_deliveries(&self, now: Instant) -> Option<Instant> {
        self.deliveries.look_after(now)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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

    /// Makes the supervisor look at the state: wakes the supervisor if it sleeps.
    pub(crate) fn wake(&self, state: &mut State) {
        let ring = state.change();
        self.ring(ring);
    }

    fn ring(&self, ring: MustWake) {
        if ring == MustWake::Needed
            && let Some(bell) = self.bell()
        {
            bell.ring();
        }
    }

    /// Returns the bell that the supervisor listens to.
    pub(crate) fn bell(&self) -> Option<Arc<Bell>> {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        bell.clone()
    }

    /// Returns the thread that runs callbacks; none if the supervisor runs them.
    pub(crate) fn callbacks(&self) -> Option<&Arc<Callbacks>> {
        self.callbacks.as_ref()
    }

    /// Reports the events that have happened under the lock to the observer.
    pub(crate) fn tell(&self) {
        if let Some(observed) = &self.settings.observed {
            observed.tell_later();
        }
    }

    /// Closes the pool for new tasks. Submitters that wait for room are refused.
    fn close(&self, state: &mut State) {
        state.open = false;
        self.closing.store(true, Ordering::SeqCst);
        self.stop_admitting();
    }

    /// Refuses submitters that wait for room, and those that come.
    pub(crate) fn stop_admitting(&self) {
        if let Some(limit) = &self.settings.limit {
            limit.close();
        }
    }

    /// Takes a permit for a task; none if pending tasks are not bounded.
    pub(crate) fn admit(&self, when_full: WhenFull<'_>) -> Result<Option<Permit>, SubmitError> {
        limit::admit(self.settings.limit.as_ref(), self.id, when_full, || {
            self.refusal().unwrap_or(SubmitError::Shutdown)
        })
    }

    /// Accepts a task: queues it, or dispatches it at once.
    ///
    /// Returns whether a worker is to be started for it by the caller, as the policy may have it.
    pub(crate) fn submit(&self, task: Task) -> Result<bool, SubmitError> {
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
        if recorder::is_on() {
            let recorded = &self.settings.recorded;
            recorded.describe();
            if let Some(name) = task.rust_name() {
                let label = task.options.label.map_or(0, recorder::text);
                let name = recorder::Name::Static(name);
                recorder::submitted_with(task.id(), recorded.number(), name, label, 0);
            }
        }
        if self.counts.is_timed() {
            task.submitted = now();
        }
        // Its answer may come from another worker than the one that is waited for.
        state.end_nap();
        let is_ours_to_start = self.settings.policy.submitters_start_workers;
        let needs_worker = state.accept(task);
        if needs_worker && is_ours_to_start {
            state.starting += 1;
        }
        if needs_worker && !is_ours_to_start || state.needs_watch || !state.late.is_empty() {
            self.wake(&mut state);
        }
        drop(state);
        if let Some(observed) = &self.settings.observed {
            observed.tell();
        }
        Ok(needs_worker && is_ours_to_start)
    }

    /// Returns the figures of the pool; see [`ExecutorStats`]. `fed` tasks are on their way to the pool.
    pub(crate) fn stats(&self, fed: usize) -> ExecutorStats {
        let common = self.counts.common();
        let state = self.lock();
        let moment = Instant::now();
        let mut figures = ExecutorStats {
            pending: ((state.pending() + fed) as u64).saturating_sub(self.counts.gone()),
            workers: state.workers.len() as u64,
            measured: moment.saturating_duration_since(self.began),
            ..common
        };
        for worker in &state.workers {
            if worker.running().is_some() {
                figures.running += 1;
                figures.busy += moment.saturating_duration_since(worker.since);
            }
        }
        figures
    }

    /// Returns the reason why tasks are not accepted, if they are not.
    pub(crate) fn refusal(&self) -> Option<SubmitError> {
        // ORDERING: SeqCst, as for the flag, which is set before the lock is released: a thread that
        // knows that the pool was closed sees the flag. `submit` looks once more under the lock.
        if !self.closing.load(Ordering::SeqCst) {
            return None;
        }
        self.lock().refusal()
    }

    /// Counts one more wanted worker, unless a worker is idle that has had tasks. Returns whether the caller
    /// is to start it.
    pub(crate) fn want_another(&self) -> bool {
        let mut state = self.lock();
        let is_idle = |worker: &WorkerHandle| worker.is_idle() && worker.handed > 0;
        let has_idle = state.workers.iter().any(is_idle);
        let wants = state.open && !has_idle && state.wanted < state.max_workers;
        if wants {
            state.wanted += 1;
            state.starting += 1;
        }
        wants
    }

    /// Counts wanted workers, which the caller will start. Returns their number.
    pub(crate) fn want_workers(&self, number: usize) -> usize {
        let mut state = self.lock();
        let wanted = number.min(state.max_workers);
        let more = wanted.saturating_sub(state.wanted);
        state.wanted += more;
        state.starting += more;
        more
    }

    /// Starts one worker that the caller has counted.
    pub(crate) fn start_worker(&self) -> io::Result<()> {
        let started = Starter::default().start(&*self.spawner, &self.settings);
        // Spawners that only request workers are the supervisor's.
        let started = started.and_then(|worker| worker.ok_or(io::ErrorKind::Unsupported.into()));
        let mut state = self.lock();
        state.starting -= 1;
        match started {
            Ok(worker) => {
                state.add_worker(worker);
                self.wake(&mut state);
                Ok(())
            }
            Err(error) => {
                state.wanted -= 1;
                Err(error)
            }
        }
    }

    /// Lets the pool look for work again. Call this after [`start_worker`](Self::start_worker) has failed,
    /// and after the task that wanted the worker was cancelled. Other tasks may have wanted the worker, too.
    pub(crate) fn reconsider(&self) {
        let mut state = self.lock();
        let cancelled = state.take_cancelled();
        self.wake(&mut state);
        drop(state);
        for task in cancelled {
            task.finish_by(None);
        }
    }

    /// Returns the receivers that have work: the helpers if there are any, or else the supervisor if replies
    /// have come. Returns none while another thread holds the lock, as that thread looks itself.
    pub(crate) fn whose_work(&self) -> Option<Receiver> {
        let state = self.try_lock()?;
        if state.has_helper() {
            return Some(Receiver::Helpers);
        }
        state.has_work().then_some(Receiver::Supervisors)
    }

    /// Receives replies and ends their tasks, unless another thread is doing so. Leaves out the task of `own`
    /// if its value is for foreign code to make. Returns whether there were any replies.
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

    /// Accepts no more tasks. With `cancel_futures`, cancels the pending tasks; with `wait`, returns when all
    /// tasks are done and all workers have ended.
    pub(crate) fn shutdown(&self, wait: bool, cancel_futures: bool) {
        let mut state = self.lock();
        self.close(&mut state);
        let pending = if cancel_futures {
            state.cancelling = true;
            state.take_unstarted(self.settings.policy.first_pending_counts_as_started)
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

    /// Waits for the end of the supervisor and of the callbacks, unless the calling thread is one of these,
    /// or makes a value.
    fn join(&self) {
        let is_callback = |callbacks: &Arc<Callbacks>| callbacks.is_current();
        if self.supervisor.get() == Some(&thread::current().id())
            || self.callbacks.as_ref().is_some_and(is_callback)
            || deliver::is_delivering(self.id)
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

    /// Notes that the supervisor has ended, or could not be started.
    pub(crate) fn end(&self) {
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

    /// Notes that a frontend has settled answers: a closed pool may be able to end.
    pub(crate) fn settled(&self) {
        let mut state = self.lock();
        if !state.open {
            self.wake(&mut state);
        }
    }

    /// Fails pending tasks, ends all workers, and refuses tasks from now on.
    pub(crate) fn break_with(&self, broken: &BrokenExecutor) {
        let mut state = self.lock();
        self.close(&mut state);
        // The first cause stays.
        let broken = state.broken.get_or_insert_with(|| broken.clone()).clone();
        let pending = state.take_pending(0);
        for worker in &state.workers {
            worker.child.kill();
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

    /// Ends all workers by a signal, and cancels the tasks that they have not begun.
    pub(crate) fn end_workers(&self, signal: Signal) {
        let mut state = self.lock();
        self.close(&mut state);
        state.cancelling = true;
        let pending = state.take_pending(1);
        let escalates = signal != Signal::KILL && self.settings.policy.kills_slow_ends;
        let kill_at = escalates.then(|| Instant::now() + TERMINATION);
        for worker in &mut state.workers {
            worker.killed.get_or_insert(Kill::Terminated);
            worker.kill_at = worker.kill_at.or(kill_at);
            worker.child.signal(signal);
        }
        self.wake(&mut state);
        drop(state);
        pending.into_iter().for_each(Task::cancel);
    }

    /// Recalls a dispatched task that its worker has not begun. The task is pending then.
    pub(crate) fn recall(&self, future: FutureId) -> Option<Task> {
        let mut state = self.lock();
        let mut workers = state.workers.iter_mut();
        let task = workers.find_map(|worker| worker.recall(future))?;
        task.give_back();
        // Its worker may be idle now, and may have been about to wake no thread.
        state.refill();
        self.wake(&mut state);
        Some(task)
    }

    /// Returns whether a worker has begun a task that was dispatched to it.
    pub(crate) fn has_begun(&self, future: FutureId) -> bool {
        let state = self.lock();
        let has_begun = |worker: &WorkerHandle| worker.has_begun_with(future);
        // One that no worker has was answered.
        state.workers.iter().find_map(has_begun).unwrap_or(true)
    }

    /// Returns the process ids of the workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let state = self.lock();
        state
            .workers
            .iter()
            .map(|worker| worker.child.pid())
            .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        driver::remove(self.id);
    }
}
