//! The help of threads that wait for a future of the pool: they receive replies in the supervisor's place.

#![forbid(unsafe_code)]

use crate::error::TaskError;
use crate::future::driver::Driver;
use crate::id::FutureId;
use crate::process::channel::Watch;
use crate::process::pool::deliver::Deliveries;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::Kill;
use crate::process::pool::{PollThrottle, Pool};
use crate::runtime::spin::Spin;
use std::time::{Duration, Instant};

/// The longest nap.
const NAP: Duration = Duration::from_micros(500);

impl Pool {
    /// Makes the calling thread, which waits, a helper: it receives replies, and workers need not wake the
    /// supervisor.
    fn enter(&self) -> Option<Watch> {
        let mut state = self.lock();
        state.enter();
        state.watch()
    }

    /// Sleeps until the worker that has tasks replies, for a short time. That saves waking the supervisor for
    /// a task that is not quite short enough to spin for. Returns false if the thread did not nap, or napped
    /// in vain.
    fn nap(&self) -> bool {
        let Some(nap) = self.lock().begin_nap() else {
            return false;
        };
        nap.sleep(NAP);
        let mut state = self.lock();
        state.end_nap();
        state.has_work()
    }

    /// Receives the replies that come while the calling thread spins once. Returns whether there were some.
    ///
    /// For a thread that has other work to wait for. It does not nap.
    pub(crate) fn receive_soon(&self) -> bool {
        let watch = self.enter();
        let mut looks = PollThrottle::default();
        let is_beside = || watch.as_ref().is_some_and(Watch::is_beside);
        let received = Spin::Place(&self.waiting, &is_beside).until(|| {
            let has_news = match &watch {
                Some(watch) => watch.has_news(),
                None => looks.is_turn(),
            };
            has_news && self.receive(None, &mut None)
        });
        self.leave();
        received
    }

    /// Ends the role of a helper: the supervisor is to be woken again.
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
            // Replies to other threads may come for ever.
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break is_done();
            }
            let mut received = false;
            let mut looks = PollThrottle::default();
            let is_beside = || watch.as_ref().is_some_and(Watch::is_beside);
            Spin::Place(&self.waiting, &is_beside).until(|| {
                let has_news = match &watch {
                    Some(watch) => watch.has_news(),
                    None => looks.is_turn(),
                };
                received = has_news && !is_done() && self.receive(own, &mut mine);
                received || is_done()
            });
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
        let Some(worker) = state.workers.iter_mut().find(|worker| worker.has(future)) else {
            return false;
        };
        let taken = worker.take_back(0);
        let mut ours = None;
        let is_running = worker.load() == 1 && worker.has(future);
        if is_running {
            worker.killed.get_or_insert(Kill::Terminated);
            worker.child.kill();
        }
        state.requeue(taken);
        if !is_running {
            let place = state.queue.iter().position(|task| task.id() == future);
            ours = place.and_then(|place| state.queue.remove(place));
        }
        state.refill();
        self.wake(&mut state);
        drop(state);
        // The task was dispatched, but not begun.
        let is_ours = ours.is_some();
        if let Some(task) = ours {
            task.reject(TaskError::Terminated);
        }
        is_running || is_ours
    }
}
