//! What the handle of a thread pool and its workers share.

use super::idle::{Call as WorkerCall, Idle};
use super::limit::PendingLimit;
use super::queue::Queue;
use super::worker;
use crate::current;
use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::future::{Call, Future, TaskRef};
use crate::observer::Observer;
use crate::panic::log_panic;
use crate::sync::{self, Arc, Condvar, Mutex, MutexGuard};
use std::error::Error;
use std::ptr;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Called first in each worker.
pub(super) type Initializer =
    Box<dyn Fn() -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

pub(crate) struct Pool {
    pub(super) queue: Queue,
    pub(super) idle: Idle,
    pub(super) max_workers: usize,
    pub(super) thread_name_prefix: String,
    pub(super) stack_size: Option<usize>,
    pub(super) initializer: Option<Initializer>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) limit: Option<Arc<PendingLimit>>,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) threads: Mutex<Threads>,
    /// A thread has ended.
    pub(super) ended: Condvar,
    pub(super) broken: OnceLock<BrokenExecutor>,
}

#[derive(Default)]
pub(super) struct Threads {
    alive: usize,
    started: usize,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Identifies this pool.
    pub(super) fn home(self: &Arc<Self>) -> *const () {
        ptr::from_ref::<Self>(self).cast()
    }

    pub(super) fn broken(&self) -> Option<BrokenExecutor> {
        self.broken.get().cloned()
    }

    /// Why nothing is accepted any more.
    pub(super) fn closed_error(&self) -> SubmitError {
        match self.broken() {
            Some(broken) => SubmitError::Broken(broken),
            None => SubmitError::Shutdown,
        }
    }

    /// Puts a task for a call into the queue, and sees to it that a worker comes for
    /// it. Gives the call back with the error.
    pub(super) fn submit<C>(
        self: &Arc<Self>,
        call: C,
    ) -> Result<Future<C::Output>, (SubmitError, C)>
    where
        C: Call + Send,
        C::Output: Send,
    {
        let (queued, handle) = TaskRef::pair(call, self.home());
        if let Some(observer) = &self.observer {
            log_panic("an observer panicked", || observer.submitted(handle.id()));
        }
        let submitted = match self.queue.push(queued) {
            Ok(()) => self.call_worker(Some(&handle)),
            Err(_) => Err(self.closed_error()),
        };
        match submitted {
            // SAFETY: the task's output has this type, and this is its only handle.
            Ok(()) => Ok(unsafe { Future::new(handle) }),
            // SAFETY: the task's call has this type.
            Err(error) => match unsafe { handle.take_back::<C>() } {
                Some(call) => Err((error, call)),
                // Another submitter's thread was started after all, and took it.
                // SAFETY: as above.
                None => Ok(unsafe { Future::new(handle) }),
            },
        }
    }

    /// Asks for a worker to look at the queue. An error means that there is none, and
    /// that all pending tasks but `except` have failed for it.
    pub(super) fn call_worker(
        self: &Arc<Self>,
        except: Option<&TaskRef>,
    ) -> Result<(), SubmitError> {
        match self.idle.call() {
            WorkerCall::Nothing => Ok(()),
            WorkerCall::StartThread => self.start_thread(except),
        }
    }

    /// Starts a thread, which is counted by `idle` already.
    #[cold]
    fn start_thread(self: &Arc<Self>, except: Option<&TaskRef>) -> Result<(), SubmitError> {
        let mut threads = sync::lock(&self.threads);
        let name = format!("{}_{}", self.thread_name_prefix, threads.started);
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        let pool = Arc::clone(self);
        let error = match builder.spawn(move || worker::run(&pool)) {
            Ok(handle) => {
                threads.alive += 1;
                threads.started += 1;
                threads.handles.push(handle);
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "a worker thread could not be started");
        let alone = threads.alive == 0;
        // Before the lock is released, see `expire`.
        self.idle.thread_failed();
        drop(threads);
        if alone {
            let error = SubmitError::NoWorker(Arc::new(error));
            self.fail_pending(&TaskError::Rejected(error.clone()), except);
            return Err(error);
        }
        // Others do the work. Who submitted while we were counted as searching has
        // relied on us to call one.
        if !self.queue.is_empty() {
            self.idle.wake_one();
        }
        Ok(())
    }

    fn fail_pending(&self, error: &TaskError, except: Option<&TaskRef>) {
        while let Some(task) = self.queue.pop() {
            let excepted = except.is_some_and(|except| except.id() == task.id());
            if !excepted && task.state().start() {
                // SAFETY: just started.
                unsafe { task.fail(error.clone()) };
            }
        }
    }

    /// The calling worker, which is searching, was idle for too long, and ends. False
    /// when there is work after all, and it stays.
    pub(super) fn expire(&self) -> bool {
        // In one critical section with what follows. A submitter that cannot start a
        // thread asks under this lock whether there is another: before us, its task is
        // in the queue by the time we look; after us, we are not counted any more.
        let threads = sync::lock(&self.threads);
        let ends = self.idle.end_unless(|| !self.queue.is_empty());
        if ends {
            self.remove_thread(threads);
        }
        ends
    }

    /// The calling worker ends, as the pool is closed.
    pub(super) fn end(&self) {
        self.idle.thread_ends();
        self.remove_thread(sync::lock(&self.threads));
    }

    fn remove_thread(&self, mut threads: MutexGuard<'_, Threads>) {
        threads.alive -= 1;
        if !self.queue.is_closed() {
            // Nobody will join it.
            let this = thread::current().id();
            threads
                .handles
                .retain(|handle| handle.thread().id() != this);
        }
        drop(threads);
        self.ended.notify_all();
    }

    /// Fails what is pending, and refuses everything from now on.
    pub(super) fn break_with(&self, broken: BrokenExecutor) {
        // The first cause stays.
        let broken = self.broken.get_or_init(|| broken);
        self.close();
        self.fail_pending(&TaskError::Broken(broken.clone()), None);
    }

    fn close(&self) {
        self.queue.close();
        if let Some(limit) = &self.limit {
            limit.close();
        }
        self.idle.wake_all();
    }

    pub(super) fn shutdown(self: &Arc<Self>, wait: bool, cancel_futures: bool) {
        self.close();
        if cancel_futures {
            while let Some(task) = self.queue.pop() {
                task.cancel();
            }
        }
        if wait && !current::is_worker_of(self.home()) {
            self.join();
        }
    }

    /// Waits until the queue is empty and all threads have ended.
    fn join(self: &Arc<Self>) {
        loop {
            let mut threads = sync::lock(&self.threads);
            while threads.alive > 0 {
                threads = self
                    .ended
                    .wait(threads)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let handles = std::mem::take(&mut threads.handles);
            drop(threads);
            for handle in handles {
                // Workers catch the panics of tasks; what is left is a panicking
                // destructor of a thread-local value, which the hook has reported.
                drop(handle.join());
            }
            if self.queue.is_empty() {
                return;
            }
            // A submitter is between its push and its call. An error means that the
            // queue is empty now.
            if self.call_worker(None).is_err() {
                return;
            }
        }
    }

    /// For messages.
    pub(super) fn threads_alive(&self) -> usize {
        sync::lock(&self.threads).alive
    }
}
