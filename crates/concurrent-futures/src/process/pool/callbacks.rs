//! The thread for callbacks, which exists as long as there are callbacks to run.
//!
//! Callbacks are foreign code, which may take long. The supervisor runs none, as it has deaths and time
//! limits to watch. So the thread for callbacks completes the futures that have callbacks, one after the
//! other. If the system refuses that thread, the thread that has found the work does the work.

#![forbid(unsafe_code)]

use crate::task::log;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// The time for which the thread waits for more jobs before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A call of foreign code.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The thread for callbacks of one executor.
#[derive(Default)]
pub struct Callbacks {
    state: Mutex<State>,
    /// Notified when there is a job, or when the thread is to end.
    changed: Condvar,
    /// Notified when all jobs are done.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stage: Stage,
    thread: Option<ThreadId>,
    /// Whether the thread is not to wait for more jobs.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    NoThread,
    /// The thread waits for jobs.
    Waiting,
    /// The thread works, and looks for more jobs afterwards.
    Working,
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a job in the thread for callbacks.
    pub fn run(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        match state.stage {
            Stage::Working => {}
            Stage::Waiting => self.changed.notify_one(),
            Stage::NoThread => {
                state.stage = Stage::Working;
                drop(state);
                self.start();
            }
        }
    }

    fn start(self: &Arc<Self>) {
        let ours = Arc::clone(self);
        let started = thread::Builder::new()
            .name(String::from("cf-callbacks"))
            .spawn(move || ours.work(true));
        if let Err(error) = started {
            log::no_thread_for_callbacks(&error);
            self.work(false);
        }
    }

    /// Does all jobs, and ends; with `lingers`, waits some time for more jobs first.
    fn work(&self, lingers: bool) {
        let mut state = self.lock();
        state.thread = Some(thread::current().id());
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.stage = Stage::Working;
                drop(state);
                crate::task::panic::log_panic("a callback panicked", job);
                state = self.lock();
                continue;
            }
            state.stage = Stage::Waiting;
            self.idle.notify_all();
            if lingers && !state.closed {
                let wait = self.changed.wait_timeout_while(state, KEEP_ALIVE, |state| {
                    state.jobs.is_empty() && !state.closed
                });
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.jobs.is_empty() {
                state.stage = Stage::NoThread;
                state.thread = None;
                return;
            }
        }
    }

    /// Returns whether the calling thread runs callbacks.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.lock().thread == Some(thread::current().id())
    }

    /// Waits until all jobs are done. From now on the thread does not wait for more.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        let is_busy = |state: &mut State| !state.jobs.is_empty() || state.stage == Stage::Working;
        drop(self.idle.wait_while(state, is_busy));
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_are_done_in_their_order_by_another_thread() {
        let callbacks = Arc::new(Callbacks::default());
        let (sender, receiver) = mpsc::channel();
        for round in 0..3 {
            for n in 0..100 {
                let (sender, callbacks) = (sender.clone(), Arc::downgrade(&callbacks));
                let ours = thread::current().id();
                callbacks.upgrade().unwrap().run(Box::new(move || {
                    assert_ne!(thread::current().id(), ours);
                    assert!(callbacks.upgrade().unwrap().is_current());
                    sender.send(round * 100 + n).unwrap();
                }));
            }
            callbacks.finish();
            let done: Vec<_> = receiver.try_iter().collect();
            assert_eq!(done, (round * 100..round * 100 + 100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panicking_job_stops_nothing() {
        let callbacks = Arc::new(Callbacks::default());
        let (sender, receiver) = mpsc::channel();
        callbacks.run(Box::new(|| panic!("a job panics")));
        callbacks.run(Box::new(move || sender.send(1).unwrap()));
        assert_eq!(receiver.recv().unwrap(), 1);
        callbacks.finish();
    }
}
