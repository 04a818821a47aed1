//! Threads of a process pool that run foreign code for it, each there as long as it has work.
//!
//! # Protocol
//! Pickling and unpickling may run any Python code, take any time, and wait for any lock. So the caller of
//! `submit`, the supervisor, and a thread that waits for a future only pickle and unpickle if that runs no Python
//! code. The rest are *jobs*, which a thread of `threading` runs one after the other, in the order in which they
//! were added.
//!
//! A thread that is not attached may add jobs. If there is no thread for them, some attached thread starts one
//! afterwards ([`Jobs::start`]). Without work, the thread ends after some time.
//!
//! # Invariants
//! 1. While there are jobs, there is a thread at work, or a thread is `Wanted`, and the thread that has set
//!    `Wanted` calls `start`.
//! 2. `left` counts the jobs that were added and have not ended. It is 0 only after the effects of all of them.
//! 3. The lock is held for no Python code.

use crate::interp::signals::cannot_be_told;
use crate::interp::thread_body::ThreadBody;
use crate::interp::turns::checkpoint;
use crate::interp::{attach, interned};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time for which a thread waits for more jobs before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A piece of work for the thread.
pub(crate) trait Job: Send + Sized + 'static {
    /// The owner of jobs.
    type Pool: Settled + ?Sized;

    /// Runs the job. Returns the pool that it is for.
    fn run(self, py: Python<'_>) -> Arc<Self::Pool>;
}

/// A pool that learns when none of its jobs is left.
pub(crate) trait Settled {
    /// Notes that jobs have ended, and that there are no others of their kind.
    fn settled(&self, py: Python<'_>);
}

pub(crate) struct Jobs<E> {
    state: Mutex<State<E>>,
    /// Notified when there is a job, or when the thread is to end.
    changed: Condvar,
    left: AtomicUsize,
    /// The number of the thread; 0 while there is none.
    thread: AtomicU64,
}

struct State<E> {
    queue: VecDeque<E>,
    stage: Stage,
    /// Whether no more jobs are accepted.
    refuses: bool,
    /// Whether the thread is not to wait for more jobs.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    NoThread,
    /// Some thread is about to start the thread.
    Wanted,
    /// The thread waits for jobs.
    Waiting,
    Working,
}

impl<E> Default for Jobs<E> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                stage: Stage::NoThread,
                refuses: false,
                closed: false,
            }),
            changed: Condvar::new(),
            left: AtomicUsize::new(0),
            thread: AtomicU64::new(0),
        }
    }
}

impl<E: Job> Jobs<E> {
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job. Returns whether the caller is to see to it that [`start`](Self::start) is called.
    ///
    /// # Errors
    /// The job, if nothing is accepted any more.
    pub(crate) fn add(&self, job: E) -> Result<bool, E> {
        let mut state = self.lock();
        if state.refuses {
            return Err(job);
        }
        // ORDERING: SeqCst, here and below: a thread that sees 0 sees what the jobs have done.
        self.left.fetch_add(1, Ordering::SeqCst);
        state.queue.push_back(job);
        Ok(match state.stage {
            Stage::NoThread | Stage::Wanted => {
                state.stage = Stage::Wanted;
                true
            }
            Stage::Waiting => {
                self.changed.notify_one();
                false
            }
            Stage::Working => false,
        })
    }

    /// Returns the number of jobs that have not ended.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    /// Starts a thread if one is wanted. `start` starts a thread that calls the given object; if that
    /// fails, the calling thread does the work.
    pub(crate) fn start(
        self: &Arc<Self>,
        py: Python<'_>,
        start: impl FnOnce(JobsThread) -> PyResult<()>,
    ) {
        {
            let mut state = self.lock();
            if state.stage != Stage::Wanted {
                return;
            }
            state.stage = Stage::Working;
        }
        let ours = Arc::clone(self);
        let body = ThreadBody::new(move |py, lingers| ours.work(py, lingers));
        body.start(py, interned::no_jobs_thread(py), |body| {
            start(JobsThread(body))
        });
    }

    /// Runs all jobs; with `lingers`, ends when no more jobs come soon.
    fn work(&self, py: Python<'_>, lingers: bool) {
        self.thread.store(attach::this_thread(), Ordering::Relaxed);
        while let Some(job) = self.next(py, lingers) {
            let pool = job.run(py);
            // Many objects are pickled by native code alone.
            if let Err(error) = checkpoint(py) {
                cannot_be_told(error, py, None);
            }
            if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                pool.settled(py);
            }
        }
    }

    /// Returns the next job; none if the thread is to end.
    fn next(&self, py: Python<'_>, lingers: bool) -> Option<E> {
        if let Some(next) = self.lock().queue.pop_front() {
            return Some(next);
        }
        let (next, on_the_way) = py.detach(|| (self.wait(lingers), attach::come_back()));
        drop(on_the_way);
        next
    }

    /// Waits for the next job. The thread is not attached.
    fn wait(&self, lingers: bool) -> Option<E> {
        let mut state = self.lock();
        if state.queue.is_empty() && lingers {
            state.stage = Stage::Waiting;
            let is_idle = |state: &mut State<E>| state.queue.is_empty() && !state.closed;
            let waited = self.changed.wait_timeout_while(state, KEEP_ALIVE, is_idle);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let next = state.queue.pop_front();
        if next.is_some() {
            state.stage = Stage::Working;
        } else {
            state.stage = Stage::NoThread;
            self.thread.store(0, Ordering::Relaxed);
        }
        next
    }

    /// Returns whether the calling thread is the one for these jobs.
    pub(crate) fn is_current(&self) -> bool {
        // ORDERING: Relaxed: the thread that it is has written it itself.
        self.thread.load(Ordering::Relaxed) == attach::this_thread()
    }

    /// Ends the thread as soon as there are no more jobs.
    pub(crate) fn end(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Refuses jobs from now on.
    pub(crate) fn close(&self) {
        self.lock().refuses = true;
    }

    /// Takes the jobs out of the queue that will not be run, except for the first ones.
    pub(crate) fn take_after(&self, first: usize) -> Vec<E> {
        let mut state = self.lock();
        let kept = first.min(state.queue.len());
        let taken: Vec<E> = state.queue.drain(kept..).collect();
        self.left.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }
}

/// The callable that such a thread runs.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct JobsThread(ThreadBody);

#[pymethods]
impl JobsThread {
    /// Runs the jobs, up to the end of the thread.
    fn run(&self, py: Python<'_>) {
        self.0.run(py, true);
    }
}
