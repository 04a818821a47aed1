//! The state that the handle of a thread pool and its workers share.

use crate::deadlock::{self, Blocking, Escape, NO_FUTURES, Need, Wait};
use crate::error::MAX_WORKERS;
use crate::error::{BrokenExecutor, BuildError, Deadlock, SubmitError, TaskError};
use crate::future::Future;
use crate::future::blocking::{NEVER, Stop};
use crate::id::PoolId;
use crate::limit::{self, PendingLimit, Permit, WhenFull};
use crate::observer::Observer;
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::recording::session::{PoolInfo, PoolKind, WorkerInfo};
use crate::runtime::crew::{Crew, Tally};
use crate::runtime::os::clock::now;
use crate::runtime::os::signal::{Signal, Woken};
use crate::runtime::sync::{self, Arc, Mutex, MutexGuard};
use crate::stats::ExecutorStats;
use crate::stats::counts::Counts;
use crate::stats::directory::Listed;
#[cfg(not(loom_models))]
use crate::stats::view::{Inspect, PoolView, WorkerKind};
use crate::task::current::{self, Worker};
#[cfg(not(loom_models))]
use crate::task::header::VTable;
use crate::task::panic::{self, log_panic};
use crate::task::{Call, TaskRef, log};
use crate::thread::idle::{Idle, WakeAction};
use crate::thread::queue::Queue;
use crate::thread::spare::{MAX_SPARES, Parked, Place, Why};
use crate::thread::spawner::{ThreadSpawner, WorkerThread};
use crate::thread::worker::Role;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Checks the number of workers of a pool.
pub(super) fn check(max_workers: usize) -> Result<(), BuildError> {
    match max_workers {
        0 => Err(BuildError::ZeroWorkers),
        too_many if too_many > MAX_WORKERS => Err(BuildError::TooManyWorkers(too_many)),
        _ => Ok(()),
    }
}

/// The function that each worker calls first.
pub(super) type Initializer =
    Box<dyn Fn() -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// The part of a thread pool that its workers see too.
pub struct Pool {
    pub(super) id: PoolId,
    pub(super) queue: Queue,
    pub(super) idle: Idle,
    pub(super) max_workers: usize,
    pub(super) spawner: Box<dyn ThreadSpawner>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) limit: Option<Arc<PendingLimit>>,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) threads: Mutex<Threads>,
    pub(super) parked: Parked,
    pub(super) tally: Tally,
    pub(super) broken: OnceLock<BrokenExecutor>,
    pub(super) counts: Listed,
    /// The number of the pool in recordings.
    pub(super) number: u32,
    /// The session of recordings to which the pool was described last.
    pub(super) described: AtomicU64,
}

#[derive(Default)]
pub(super) struct Threads {
    alive: usize,
    /// The number of submitters that are starting a thread. A thread that has ended already may have no
    /// handle yet.
    starting: usize,
    /// The places of the spare workers, which are among the started ones.
    spare: Vec<Place>,
    started: usize,
    handles: Vec<JoinHandle<()>>,
    /// The threads that wait until there are no workers.
    waiting: Vec<Arc<Signal>>,
}

impl Threads {
    /// Notifies the waiting threads, if there is no worker any more.
    fn tell(&mut self) {
        if self.alive == 0 {
            for signal in self.waiting.drain(..) {
                signal.notify();
            }
        }
    }
}

impl Pool {
    pub(super) fn new(max_workers: usize, spawner: Box<dyn ThreadSpawner>) -> Self {
        let id = PoolId::next();
        Self {
            id,
            counts: Listed::new(id, Counts::new()),
            queue: Queue::new(),
            idle: Idle::new(max_workers),
            max_workers,
            spawner,
            keep_alive: None,
            limit: None,
            observer: None,
            threads: Mutex::new(Threads::default()),
            parked: Parked::new(),
            tally: Tally::new(),
            broken: OnceLock::new(),
            number: recorder::next_number(),
            described: AtomicU64::new(0),
        }
    }

    /// Makes a pool for foreign tasks.
    ///
    /// # Errors
    /// [`BuildError`] when a number makes no sense.
    pub fn with_spawner(
        max_workers: usize,
        max_pending: Option<usize>,
        spawner: Box<dyn ThreadSpawner>,
    ) -> Result<Arc<Self>, BuildError> {
        check(max_workers)?;
        Ok(Self::share(Self {
            limit: PendingLimit::bound(max_pending)?,
            ..Self::new(max_workers, spawner)
        }))
    }

    /// Makes a pool known, so that it can be described.
    pub(super) fn share(pool: Self) -> Arc<Self> {
        let pool = Arc::new(pool);
        #[cfg(not(loom_models))]
        {
            let weak = Arc::downgrade(&pool);
            pool.counts.set_inspect(weak);
        }
        pool
    }

    /// Describes the pool to the recorder, unless it knows the pool.
    pub fn describe_pool(&self) {
        // ORDERING: Relaxed: describing it twice does no harm.
        if recorder::epoch() == self.described.load(Ordering::Relaxed) {
            return;
        }
        recorder::describe_pool(&self.described, || PoolInfo {
            number: self.number,
            kind: PoolKind::Threads,
            name: self.spawner.pool_name(),
            max_workers: self.max_workers,
        });
    }

    /// Returns the number of the pool in recordings.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the identity of this pool.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    pub(super) fn broken(&self) -> Option<BrokenExecutor> {
        self.broken.get().cloned()
    }

    /// Takes a permit for a task; none if pending tasks are not bounded.
    ///
    /// # Errors
    /// [`SubmitError`], when there is no room, or the pool accepts no tasks.
    pub fn admit(&self, when_full: WhenFull<'_>) -> Result<Option<Permit>, SubmitError> {
        limit::admit(self.limit.as_ref(), self.id, when_full, || {
            self.closed_error()
        })
    }

    /// Returns the number of pending tasks, some of which may have been cancelled.
    pub fn pending(&self) -> usize {
        self.queue.len_up_to(usize::MAX)
    }

    /// Returns whether `shutdown` was called, or the pool is broken.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Returns the reason why nothing is accepted any more.
    pub fn closed_error(&self) -> SubmitError {
        match self.broken() {
            Some(broken) => SubmitError::Broken(broken),
            None => SubmitError::Shutdown,
        }
    }

    /// Puts a task for a call into the queue, and makes sure that a worker takes the task. Gives the call
    /// back with the error.
    pub(super) fn submit<C>(
        self: &Arc<Self>,
        call: C,
    ) -> Result<Future<C::Output>, (SubmitError, C)>
    where
        C: Call + Send,
        C::Output: Send,
    {
        let (queued, handle) = TaskRef::pair(call, Some(self.id));
        if let Some(observer) = &self.observer {
            log_panic("an observer panicked", || observer.submitted(handle.id()));
        }
        if recorder::is_on() {
            self.describe_pool();
            recorder::submitted(handle.id(), self.number, C::name());
        }
        let submitted = match self.push(queued) {
            Ok(()) => self.call_worker(Some(&handle)),
            Err(task) => Err(self.refuse(task)),
        };
        match submitted {
            // SAFETY: the task's output has this type, and this is its only handle.
            Ok(()) => Ok(unsafe { Future::new(handle) }),
            // SAFETY: the task's call has this type.
            Err(error) => match unsafe { handle.take_back::<C>() } {
                Some(call) => {
                    recorder::rejected(handle.id(), RunOutcome::Rejected);
                    Err((error, call))
                }
                // Another submitter's thread was started after all, and took it.
                // SAFETY: the task's output has this type, and this is its only handle.
                None => Ok(unsafe { Future::new(handle) }),
            },
        }
    }

    /// Puts a task into the queue, and counts it. Gives the task back when the queue is closed.
    #[inline]
    fn push(&self, task: TaskRef) -> Result<(), TaskRef> {
        // First, so that no worker takes a task that is not counted.
        self.counts.submitted();
        self.queue.push(task)
    }

    /// Drops a task that the queue has refused, and returns the reason.
    #[cold]
    fn refuse(&self, task: TaskRef) -> SubmitError {
        drop(task);
        self.counts.withdrawn();
        self.closed_error()
    }

    /// Notes that a task came out of the queue and is not to be run.
    pub(super) fn skip(&self, task: &TaskRef) {
        self.counts.skipped();
        task.skip();
    }

    /// Returns the figures of the pool; see [`ExecutorStats`].
    pub fn stats(&self) -> ExecutorStats {
        self.counts.of_threads(self.queue.taken())
    }

    /// Puts a foreign task into the queue, and makes sure that a worker takes the task.
    ///
    /// # Errors
    /// [`SubmitError`], when the pool was shut down, is broken, or has no thread and
    /// cannot start one. The task will not be run then, and is as it was.
    ///
    /// # Safety
    /// The object of the task stays until this returns.
    pub unsafe fn submit_foreign(self: &Arc<Self>, task: TaskRef) -> Result<(), SubmitError> {
        // SAFETY: the object of the task stays until `submit_foreign` returns, and so longer than `this`.
        let this = unsafe { task.alias() };
        self.push(task).map_err(|task| self.refuse(task))?;
        if !self.spawner.starts_eagerly() {
            return self.call_worker(Some(&this));
        }
        let is_short = |idle| self.queue.len_up_to(idle + 1) > idle;
        match self.idle.call_eagerly(is_short) {
            WakeAction::Nothing => Ok(()),
            WakeAction::StartThread => self.start_thread(Some(&this)),
        }
    }

    /// Asks for a worker to look at the queue. Returns an error if there is none; then all pending tasks but
    /// `except` have failed with that error.
    pub(super) fn call_worker(
        self: &Arc<Self>,
        except: Option<&TaskRef>,
    ) -> Result<(), SubmitError> {
        match self.idle.call() {
            WakeAction::Nothing => Ok(()),
            WakeAction::StartThread => self.start_thread(except),
        }
    }

    /// Starts a thread, which `idle` has counted already.
    #[cold]
    fn start_thread(self: &Arc<Self>, except: Option<&TaskRef>) -> Result<(), SubmitError> {
        if self.parked.call(Why::BecomeRegular) {
            sync::lock(&self.threads).spare.pop();
            return Ok(());
        }
        let error = match self.spawn_thread(Role::Regular) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let mut threads = sync::lock(&self.threads);
        threads.alive -= 1;
        // Should another one be on its way which fails too, that one is the last.
        let alone = threads.alive == threads.spare.len();
        // Before the lock is released, see `expire`.
        self.idle.thread_failed();
        threads.tell();
        drop(threads);
        let error = Arc::new(error);
        if alone {
            let rejected = SubmitError::NoWorker(Arc::clone(&error));
            self.fail_pending(&TaskError::Rejected(rejected.clone()), except);
            log::thread_not_started(&error);
            return Err(rejected);
        }
        // The other workers do the work. A thread that submitted while we were counted as searching has
        // relied on us to call a worker.
        if !self.queue.is_empty() {
            self.idle.wake_one();
        }
        log::thread_not_started(&error);
        // Those that were blocked meanwhile have relied on us, too.
        let crew: Arc<dyn Crew> = Arc::clone(self) as _;
        deadlock::worker_was_refused(&crew, error);
        Ok(())
    }

    /// Starts a thread, and counts it. A thread that cannot be started stays counted.
    fn spawn_thread(self: &Arc<Self>, role: Role) -> io::Result<()> {
        if role == Role::Regular {
            self.counts.worker_comes();
        }
        let number = {
            let mut threads = sync::lock(&self.threads);
            threads.alive += 1;
            threads.starting += 1;
            threads.started += 1;
            threads.started - 1
        };
        let start = || {
            self.spawner
                .start_thread(number, WorkerThread::new(self, role))
        };
        // Foreign code, and the standard library's, which panics at a name that it cannot use.
        let started = panic::catch(start).unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let mut threads = sync::lock(&self.threads);
        threads.starting -= 1;
        // Threads that have ended need not be joined.
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.extend(started?);
        Ok(())
    }

    /// Ends the calling spare worker, which the detector does not count any more.
    pub(super) fn spare_ends(&self) {
        let mut threads = sync::lock(&self.threads);
        threads.spare.pop();
        Self::remove_thread(threads);
    }

    fn fail_pending(&self, error: &TaskError, except: Option<&TaskRef>) {
        while let Some(task) = self.queue.pop() {
            let excepted = except.is_some_and(|except| except.id() == task.id());
            // SAFETY: the thread that takes a task out of the queue runs the task, or fails it.
            unsafe {
                if excepted {
                    continue;
                }
                if task.state().start() {
                    task.fail(error.clone());
                } else {
                    self.counts.skipped();
                }
            }
        }
    }

    /// Ends the calling worker, which is searching and was idle for too long. Returns false if there is work
    /// after all, and the worker stays.
    pub(super) fn expire(&self) -> bool {
        // In one critical section with what follows. A submitter that cannot start a thread asks under this
        // lock whether there is another. If it asks before us, its task is in the queue by the time we look.
        // If it asks after us, we are not counted any more.
        let threads = sync::lock(&self.threads);
        let ends = self.idle.end_unless(|| !self.queue.is_empty());
        if ends {
            self.counts.worker_goes();
            Self::remove_thread(threads);
        }
        ends
    }

    /// Ends the calling worker, which is searching, whether there is work or not. Starts another thread if
    /// there is work for which no other worker is there.
    pub(super) fn quit(self: &Arc<Self>) {
        let threads = sync::lock(&self.threads);
        let is_needed = !self.idle.end_unless(|| !self.queue.is_empty());
        self.counts.worker_goes();
        Self::remove_thread(threads);
        if is_needed {
            // Counted already. That it could not be started is told to those that wait, or logged.
            let _ = self.start_thread(None);
        }
    }

    /// Ends the calling worker, as the pool is closed.
    pub(super) fn end(&self) {
        self.idle.thread_ends();
        Self::remove_thread(sync::lock(&self.threads));
    }

    fn remove_thread(mut threads: MutexGuard<'_, Threads>) {
        threads.alive -= 1;
        threads.tell();
    }

    /// Fails the pending tasks, and refuses tasks from now on.
    pub fn break_with(&self, broken: BrokenExecutor) {
        // The first cause stays.
        let broken = self.broken.get_or_init(|| broken);
        self.close();
        self.fail_pending(&TaskError::Broken(broken.clone()), None);
    }

    /// Refuses tasks from now on.
    pub fn close(&self) {
        self.queue.close();
        if let Some(limit) = &self.limit {
            limit.close();
        }
        self.idle.wake_all();
        while self.parked.call(Why::End) {}
    }

    pub(super) fn shutdown(self: &Arc<Self>, wait: bool, cancel_futures: bool) {
        self.close();
        if cancel_futures {
            self.cancel_pending();
        }
        if wait && !current::is_worker_of(self.id) {
            self.join();
        }
    }

    /// Cancels all pending tasks.
    pub fn cancel_pending(&self) {
        while let Some(task) = self.queue.pop() {
            task.cancel();
            self.skip(&task);
        }
    }

    /// Takes the oldest pending task out of the queue. The task is the caller's: the pool will not run it.
    pub fn take_pending(&self) -> Option<TaskRef> {
        let task = self.queue.pop()?;
        task.leave_pool();
        Some(task)
    }

    /// Waits, for a closed pool, until there is no thread, none is being started, and no task is left.
    /// Threads may still be on their last steps. Returns false if `stop` returned true.
    ///
    /// # Errors
    /// `Deadlock`, if a task of the pool waits for the calling task.
    pub fn wait_for_threads(&self, stop: Stop<'_>) -> Result<bool, Deadlock> {
        let mut has_waited = false;
        loop {
            let signal = Arc::new(Signal::new());
            let mut threads = sync::lock(&self.threads);
            if threads.alive > 0 {
                threads.waiting.push(Arc::clone(&signal));
                drop(threads);
                // A signal of the system may have come together with the notification.
                if has_waited && stop() {
                    return Ok(false);
                }
                has_waited = true;
                if !current::with_worker(|worker| self.wait_for_signal(&signal, worker, stop))? {
                    return Ok(false);
                }
                continue;
            }
            drop(threads);
            if self.queue.is_empty() {
                return Ok(true);
            }
            // A submitter is between its push and its call for a worker.
            if stop() {
                return Ok(false);
            }
            thread::yield_now();
        }
    }

    /// Waits for the signal of the last thread. Returns false if `stop` returned true.
    fn wait_for_signal(
        &self,
        signal: &Arc<Signal>,
        worker: Option<&Worker<'_>>,
        stop: Stop<'_>,
    ) -> Result<bool, Deadlock> {
        let blocking = match worker {
            Some(worker) => Some(deadlock::block(
                worker,
                Wait {
                    need: Need::End(self.id),
                    futures: NO_FUTURES,
                    is_timed: false,
                    escape: Escape::LastResort(Arc::clone(signal)),
                },
            )?),
            None => None,
        };
        let interrupted = || blocking.as_ref().and_then(Blocking::interrupted);
        loop {
            if let Some(deadlock) = interrupted() {
                return Err(deadlock.clone());
            }
            if signal.wait_once(None) == Woken::Notified {
                if let Some(deadlock) = interrupted() {
                    return Err(deadlock.clone());
                }
                return Ok(true);
            }
            if stop() {
                return Ok(false);
            }
        }
    }

    /// Waits until the queue is empty and all threads have ended.
    fn join(&self) {
        if let Err(deadlock) = self.wait_for_threads(NEVER) {
            log::end_not_awaited(&deadlock);
            return;
        }
        let handles = loop {
            let mut threads = sync::lock(&self.threads);
            if threads.starting == 0 {
                break std::mem::take(&mut threads.handles);
            }
            drop(threads);
            thread::yield_now();
        };
        for handle in handles {
            // Workers catch the panics of tasks; what is left is a panicking destructor of a
            // thread-local value, which the hook has reported.
            drop(handle.join());
        }
    }

    /// Returns the number of threads.
    pub fn threads_alive(&self) -> usize {
        sync::lock(&self.threads).alive
    }
}

impl Crew for Pool {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn regular_workers(&self) -> usize {
        self.idle.threads()
    }

    fn max_workers(&self) -> usize {
        self.max_workers
    }

    fn has_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    fn number(&self) -> u32 {
        self.number
    }

    fn describe(&self, worker: u32, has_just_begun: bool) {
        self.describe_pool();
        recorder::describe_worker(WorkerInfo {
            number: worker,
            pool: self.number,
            name: self.spawner.worker_name(),
            pid: std::process::id(),
            start: has_just_begun.then(now),
            end: None,
        });
    }

    fn call_spare(self: Arc<Self>) -> io::Result<()> {
        if self.parked.call(Why::Order) {
            return Ok(());
        }
        let Some(place) = Place::take() else {
            return Err(io::Error::other(format!(
                "there are {MAX_SPARES} threads for tasks that others wait for"
            )));
        };
        sync::lock(&self.threads).spare.push(place);
        self.spawn_thread(Role::Spare)
            .inspect_err(|_| self.spare_ends())
    }
}

#[cfg(not(loom_models))]
impl Inspect for Pool {
    fn inspect(&self) -> Option<PoolView> {
        Some(PoolView {
            kind: WorkerKind::Threads,
            max_workers: self.max_workers,
            pending: self.stats().pending,
            // SAFETY: the workers note addresses of operations there.
            workers: (self.counts).threads(|at| unsafe { VTable::static_name_at(at) }),
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool of at most {} workers", self.max_workers)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::thread::std_threads::Threads as HostThreads;
    use std::cell::RefCell;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A spawner that starts threads, and returns from a start when the test allows it.
    struct Slow(HostThreads, Mutex<Receiver<()>>);

    impl ThreadSpawner for Slow {
        fn start_thread(
            &self,
            number: usize,
            worker: WorkerThread,
        ) -> io::Result<Option<JoinHandle<()>>> {
            let started = self.0.start_thread(number, worker);
            let _ = sync::lock(&self.1).recv();
            started
        }

        fn initialize(&self) -> Result<(), BrokenExecutor> {
            Ok(())
        }
    }

    static HAS_ENDED: AtomicBool = AtomicBool::new(false);

    /// A value whose drop lasts until the test allows its end.
    struct Ends(Receiver<()>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.recv();
            HAS_ENDED.store(true, Ordering::SeqCst);
        }
    }

    thread_local! {
        static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) };
    }

    struct Keep(Ends);

    impl Call for Keep {
        type Output = ();

        fn call(self) -> Result<(), TaskError> {
            ENDS.set(Some(self.0));
            Ok(())
        }

        fn name() -> &'static str {
            "keep"
        }
    }

    /// Lets the worker end while the submitter is still starting its thread; the worker's thread-locals end
    /// later.
    #[test]
    fn shutdown_waits_for_a_thread_that_is_just_being_started() {
        let channels: (Sender<()>, _) = channel();
        let (start, starts) = channels;
        let (end, ends) = channel();
        let threads = HostThreads {
            name_prefix: "slow".to_owned(),
            stack_size: None,
            initializer: None,
        };
        let spawner = Slow(threads, Mutex::new(starts));
        let pool = Pool::with_spawner(1, None, Box::new(spawner)).unwrap();
        let submitter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.submit(Keep(Ends(ends))).is_ok()
        });
        while pool.threads_alive() == 0 || !pool.queue.is_empty() {
            thread::yield_now();
        }
        let waiter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                pool.shutdown(true, false);
                HAS_ENDED.load(Ordering::SeqCst)
            }
        });
        while pool.threads_alive() > 0 {
            thread::yield_now();
        }
        // Time to go wrong.
        thread::sleep(Duration::from_millis(10));
        start.send(()).unwrap();
        end.send(()).unwrap();
        assert!(submitter.join().unwrap());
        assert!(waiter.join().unwrap());
    }
}
