//! A thread for the callbacks of a pool of processes, there as long as there are any.
//!
//! # Protocol
//! Callbacks may take long, and wait for whatever they like. The supervisor, which has deaths and
//! time limits to watch, leaves them to this thread: a thread of `threading`, started for the first
//! of them. It makes a future done and calls its callbacks, one future after the other, and ends
//! when there have been none for some time.
//!
//! So a future is done hardly before its callbacks are called, on which programs rely that wait for
//! the last future and then look at what callbacks have done. But a callback may wait for a future
//! that is behind it. If one takes long, the supervisor makes those done that are behind it, and
//! leaves to the thread only to call their callbacks.
//!
//! The supervisor ends after the last of the callbacks. So who waits for it, `shutdown` or the end
//! of the interpreter, waits for them too. A callback that does so itself does not wait
//! ([`is_current`](Callbacks::is_current)): it would forever.
//!
//! # Invariants
//! 1. A future in `done` is done. One in `due` was claimed and has its outcome; who takes it out
//!    makes it done.
//! 2. Futures leave `due` in the order in which they came, and their callbacks are called in it:
//!    those in `done` come before those in `due`.
//! 3. The lock is held for no Python code, and nobody waits for it long.

use crate::future::Future;
use crate::interrupts::{cannot_be_told, hold, keep};
use crate::name;
use crate::observers;
use crate::process;
use crate::stdlib;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the thread waits for more before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a callback may take until futures behind it are made done without it.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
    /// There is a future, or an end.
    changed: Condvar,
    /// All was called.
    idle: Condvar,
    /// The number of the thread; 0 while there is none. A fork of the process may look at it.
    thread: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Futures whose callbacks are to be called.
    done: VecDeque<Py<Future>>,
    /// Futures that are to be made done before that.
    due: VecDeque<Py<Future>>,
    stage: Stage,
    /// Since when the thread has been at a future.
    since: Option<Instant>,
    /// The thread is not to wait for more.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    NoThread,
    /// It waits for work.
    Waiting,
    /// It works, and looks for more afterwards.
    Working,
}

impl State {
    fn is_empty(&self) -> bool {
        self.done.is_empty() && self.due.is_empty()
    }

    /// Takes the next future, and whether it is done.
    fn take(&mut self) -> Option<(Py<Future>, bool)> {
        let next = match self.done.pop_front() {
            Some(future) => Some((future, true)),
            None => self.due.pop_front().map(|future| (future, false)),
        };
        self.since = next.is_some().then(Instant::now);
        next
    }
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a future made done that was claimed and has its outcome, and its callbacks called.
    /// `start` has a thread call what it is given.
    pub(crate) fn finish(
        self: &Arc<Self>,
        future: &Bound<'_, Future>,
        start: impl FnOnce(CallbacksThread) -> PyResult<()>,
    ) {
        self.add(future, |state| &mut state.due, start);
        self.help(future.py());
    }

    /// Has the callbacks of a future called that is done.
    pub(crate) fn call(
        self: &Arc<Self>,
        future: &Bound<'_, Future>,
        start: impl FnOnce(CallbacksThread) -> PyResult<()>,
    ) {
        self.add(future, |state| &mut state.done, start);
    }

    fn add(
        self: &Arc<Self>,
        future: &Bound<'_, Future>,
        queue: impl FnOnce(&mut State) -> &mut VecDeque<Py<Future>>,
        start: impl FnOnce(CallbacksThread) -> PyResult<()>,
    ) {
        let py = future.py();
        {
            let mut state = self.lock();
            queue(&mut state).push_back(future.clone().unbind());
            match state.stage {
                Stage::Working => return,
                Stage::Waiting => {
                    self.changed.notify_one();
                    return;
                }
                Stage::NoThread => state.stage = Stage::Working,
            }
        }
        let work = CallbacksThread(Arc::new(Work {
            callbacks: Arc::clone(self),
            has_begun: AtomicBool::new(false),
        }));
        let ours = work.clone();
        let held = hold(py);
        let started = start(work);
        drop(held);
        if let Err(error) = started {
            if error.is_instance_of::<PyKeyboardInterrupt>(py) {
                // The thread may be there. The interrupt is for a caller that can be told.
                keep(error);
            } else {
                let message = name::no_callbacks_thread(py);
                stdlib::log(py, name::error(py), &error, (message,));
            }
            ours.0.run(py, false);
        }
    }

    /// When the supervisor is to [help](Self::help), if the thread is not further by then.
    pub(crate) fn help_is_due(&self) -> Option<Instant> {
        let state = self.lock();
        let since = state.since.filter(|_| !state.due.is_empty())?;
        Some(since + PATIENCE)
    }

    /// Makes futures done that are behind a callback which takes long.
    pub(crate) fn help(&self, py: Python<'_>) {
        while self.help_is_due().is_some_and(|due| due <= Instant::now()) {
            let Some(future) = self.lock().due.pop_front() else {
                return;
            };
            publish(future.bind(py));
            let is_left = {
                let mut state = self.lock();
                state.done.push_back(future);
                self.changed.notify_one();
                let is_left = state.stage == Stage::NoThread;
                if is_left {
                    state.stage = Stage::Working;
                }
                is_left
            };
            if is_left {
                // The thread found nothing meanwhile, and has ended.
                self.work(py, false);
            }
        }
    }

    /// Does all there is; with `lingers`, ends when no more come soon.
    fn work(&self, py: Python<'_>, lingers: bool) {
        self.thread.store(process::this_thread(), Ordering::Relaxed);
        while let Some((future, is_done)) = self.next(py, lingers) {
            let future = future.into_bound(py);
            if !is_done {
                publish(&future);
            }
            if let Err(error) = observers::call_callbacks(&future) {
                // The thread goes on: others rely on it.
                let message = name::exception_in_worker(py);
                stdlib::log(py, name::critical(py), &error, (message,));
            }
        }
    }

    /// The next future, and whether it is done; none if the thread is to end.
    fn next(&self, py: Python<'_>, lingers: bool) -> Option<(Py<Future>, bool)> {
        if let Some(next) = self.lock().take() {
            return Some(next);
        }
        let (next, on_the_way) = py.detach(|| (self.wait(lingers), process::come_back()));
        drop(on_the_way);
        next
    }

    /// Waits for the next future. The thread is not attached.
    fn wait(&self, lingers: bool) -> Option<(Py<Future>, bool)> {
        let mut state = self.lock();
        if state.is_empty() {
            state.stage = Stage::Waiting;
            self.idle.notify_all();
            if lingers {
                let is_idle = |state: &mut State| state.is_empty() && !state.closed;
                let waited = self.changed.wait_timeout_while(state, KEEP_ALIVE, is_idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let next = state.take();
        if next.is_some() {
            state.stage = Stage::Working;
        } else {
            state.stage = Stage::NoThread;
            self.thread.store(0, Ordering::Relaxed);
        }
        next
    }

    /// Whether the calling thread calls callbacks.
    pub(crate) fn is_current(&self) -> bool {
        // ORDERING: Relaxed: the thread that it is has written it itself.
        self.thread.load(Ordering::Relaxed) == process::this_thread()
    }

    /// Waits until all were called. From now on the thread does not wait for more. The calling
    /// thread is the supervisor's, and not attached.
    pub(crate) fn end(&self) {
        loop {
            let mut state = self.lock();
            state.closed = true;
            self.changed.notify_all();
            if state.is_empty() && state.stage != Stage::Working {
                return;
            }
            // Callbacks may still wait for futures behind them.
            drop(self.idle.wait_timeout(state, PATIENCE));
            if self.help_is_due().is_some_and(|due| due <= Instant::now()) {
                process::attached(|py| self.help(py));
            }
        }
    }
}

/// Makes a future done that was claimed and has its outcome.
fn publish(future: &Bound<'_, Future>) {
    // SAFETY: see the invariants.
    let (_, told) = unsafe { Future::publish(future) };
    if let Err(error) = told {
        cannot_be_told(error, future.py(), Some(future.as_any()));
    }
}

struct Work {
    callbacks: Arc<Callbacks>,
    has_begun: AtomicBool,
}

impl Work {
    fn run(&self, py: Python<'_>, lingers: bool) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.callbacks.work(py, lingers);
        }
    }
}

/// What the thread runs.
#[pyclass(module = "concurrent_futures._engine", frozen)]
#[derive(Clone)]
pub(crate) struct CallbacksThread(Arc<Work>);

#[pymethods]
impl CallbacksThread {
    /// Calls callbacks, up to the end of the thread.
    fn run(&self, py: Python<'_>) {
        self.0.run(py, true);
    }
}
