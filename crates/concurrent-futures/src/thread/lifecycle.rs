//! The start and the end of a pool's worker threads, and their number.

use crate::deadlock;
use crate::error::{SubmitError, TaskError};
use crate::runtime::crew::Crew;
use crate::runtime::sync::{self, Arc, MutexGuard};
use crate::task::{TaskRef, log, panic};
use crate::thread::idle::WakeAction;
use crate::thread::pool::{Pool, Threads};
use crate::thread::spare::Why;
use crate::thread::spawner::WorkerThread;
use crate::thread::worker::Role;
use std::io;
use std::sync::atomic::Ordering;

impl Pool {
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
    pub(super) fn start_thread(
        self: &Arc<Self>,
        except: Option<&TaskRef>,
    ) -> Result<(), SubmitError> {
        if self.parked.call(Why::BecomeRegular) {
            sync::lock(&self.threads).spare.pop();
            return Ok(());
        }
        let error = match self.spawn_thread(Role::Regular) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let mut threads = sync::lock(&self.threads);
        self.set_alive(&mut threads, |alive| alive - 1);
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
    pub(super) fn spawn_thread(self: &Arc<Self>, role: Role) -> io::Result<()> {
        if role == Role::Regular {
            self.counts.worker_comes();
        }
        let number = {
            let mut threads = sync::lock(&self.threads);
            self.set_alive(&mut threads, |alive| alive + 1);
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
        self.remove_thread(threads);
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
            self.remove_thread(threads);
        }
        ends
    }

    /// Ends the calling worker, which is searching, whether there is work or not. Starts another thread if
    /// there is work for which no other worker is there.
    pub(super) fn quit(self: &Arc<Self>) {
        let threads = sync::lock(&self.threads);
        let is_needed = !self.idle.end_unless(|| !self.queue.is_empty());
        self.counts.worker_goes();
        self.remove_thread(threads);
        if is_needed {
            // Counted already. That it could not be started is told to those that wait, or logged.
            let _ = self.start_thread(None);
        }
    }

    /// Ends the calling worker, as the pool is closed.
    pub(super) fn end(&self) {
        self.idle.thread_ends();
        self.remove_thread(sync::lock(&self.threads));
    }

    fn remove_thread(&self, mut threads: MutexGuard<'_, Threads>) {
        self.set_alive(&mut threads, |alive| alive - 1);
        threads.tell();
    }

    /// Changes the number of threads under the lock.
    fn set_alive(&self, threads: &mut Threads, change: impl FnOnce(usize) -> usize) {
        threads.alive = change(threads.alive);
        // ORDERING: Relaxed: see `threads_alive`.
        self.alive.store(threads.alive, Ordering::Relaxed);
    }

    /// Returns the number of threads, without a lock: in the child of a fork, a thread of the parent may have the lock
    /// for good. A thread that starts or ends at this moment counts or not.
    pub fn threads_alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }
}
