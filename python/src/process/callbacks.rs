//! The thread for callbacks of a process pool, which exists as long as there are callbacks to run.
//!
//! # Protocol
//! Callbacks may take long, and wait for anything. The supervisor, which has deaths and time limits to watch, leaves
//! them to this thread: a thread of `threading`, started for the first callback. The thread makes a future done and
//! calls its callbacks, one future after the other. It ends when there have been none for some time.
//!
//! So a future becomes done right before its callbacks are called. Programs rely on that if they wait for the last
//! future and then look at the effects of callbacks. But a callback may wait for a future behind its own. If a
//! callback takes long, the supervisor makes the futures behind it done, and the thread only calls their
//! callbacks.
//!
//! The supervisor ends after the last of the callbacks. So `shutdown`, or the end of the interpreter, waits for the
//! callbacks when it waits for the supervisor. A callback that calls `shutdown` itself does not wait
//! ([`is_current`](Callbacks::is_current)), as it would wait forever.
//!
//! # Invariants
//! 1. A future in `done` is done, or a thread that helps is about to make it done. A future in `due` was claimed and
//!    has its outcome. The thread that calls the callbacks makes the future done, unless it is.
//! 2. Futures leave `due` in the order in which they came, and their callbacks are called in that order.
//!    Futures in `done` come before those in `due`. So a future goes from one to the other in one step.
//! 3. The lock is held for no Python code, and only for a short time.

use crate::future::object::Future;
use crate::future::observers;
use crate::interp::signals::cannot_be_told;
use crate::interp::thread_body::ThreadBody;
use crate::interp::{attach, interned, stdlib};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which the thread waits for more futures before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The time that a callback may take until the futures behind it are made done by the supervisor.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Callbacks {
    state: Mutex<State>,
    /// Notified when there is a future, or when the thread is to end.
    changed: Condvar,
    /// Notified when all callbacks were called.
    idle: Condvar,
    /// The number of the thread; 0 while there is none. A fork of the process may look at it.
    thread: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The futures whose callbacks are to be called.
    done: VecDeque<Py<Future>>,
    /// The futures that are to be made done before that.
    due: VecDeque<Py<Future>>,
    stage: Stage,
    /// The moment since when the thread has been at a future.
    since: Option<Instant>,
    /// Whether the thread is not to wait for more futures.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    NoThread,
    /// The thread waits for futures.
    Waiting,
    /// The thread works, and looks for more futures afterwards.
    Working,
}

impl State {
    fn is_empty(&self) -> bool {
        self.done.is_empty() && self.due.is_empty()
    }

    /// Takes the next future.
    fn take(&mut self) -> Option<Py<Future>> {
        let next = self.done.pop_front().or_else(|| self.due.pop_front());
        self.since = next.is_some().then(Instant::now);
        next
    }
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a future done that was claimed and has its outcome, and calls its callbacks. `start` starts a
    /// thread that runs its argument.
    pub(crate) fn finish(
        self: &Arc<Self>,
        future: &Bound<'_, Future>,
        start: impl FnOnce(CallbacksThread) -> PyResult<()>,
    ) {
        self.add(future, |state| &mut state.due, start);
        self.help(future.py());
    }

    /// Calls the callbacks of a future that is done.
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
        let ours = Arc::clone(self);
        let body = ThreadBody::new(move |py, lingers| ours.work(py, lingers));
        body.start(py, interned::no_callbacks_thread(py), |body| {
            start(CallbacksThread(body))
        });
    }

    /// Returns when the supervisor is to [help](Self::help), if the thread is not further by then.
    pub(crate) fn help_is_due(&self) -> Option<Instant> {
        let state = self.lock();
        let since = state.since.filter(|_| !state.due.is_empty())?;
        Some(since + PATIENCE)
    }

    /// Makes the futures done that are behind a slow callback.
    pub(crate) fn help(&self, py: Python<'_>) {
        while self.help_is_due().is_some_and(|due| due <= Instant::now()) {
            let future = {
                let mut state = self.lock();
                let Some(future) = state.due.pop_front() else {
                    return;
                };
                state.done.push_back(future.clone_ref(py));
                future
            };
            publish(future.bind(py));
            let is_left = {
                let mut state = self.lock();
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

    /// Handles all futures; with `lingers`, ends when no more futures come soon.
    fn work(&self, py: Python<'_>, lingers: bool) {
        self.thread.store(attach::this_thread(), Ordering::Relaxed);
        while let Some(future) = self.next(py, lingers) {
            let future = future.into_bound(py);
            publish(&future);
            if let Err(error) = observers::call_callbacks(&future) {
                // The thread goes on: other callbacks rely on it.
                let message = interned::exception_in_worker(py);
                stdlib::log(py, interned::critical(py), &error, (message,));
            }
        }
    }

    /// Returns the next future; none if the thread is to end.
    fn next(&self, py: Python<'_>, lingers: bool) -> Option<Py<Future>> {
        if let Some(next) = self.lock().take() {
            return Some(next);
        }
        let (next, on_the_way) = py.detach(|| (self.wait(lingers), attach::come_back()));
        drop(on_the_way);
        next
    }

    /// Waits for the next future. The thread is not attached.
    fn wait(&self, lingers: bool) -> Option<Py<Future>> {
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

    /// Returns whether the calling thread calls callbacks.
    pub(crate) fn is_current(&self) -> bool {
        // ORDERING: Relaxed: the thread that it is has written it itself.
        self.thread.load(Ordering::Relaxed) == attach::this_thread()
    }

    /// Waits until all callbacks were called. From now on the thread does not wait for more. The calling
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
                attach::attached(|py| self.help(py));
            }
        }
    }
}

/// Makes a future done that was claimed and has its outcome, if it is not done.
fn publish(future: &Bound<'_, Future>) {
    // SAFETY: see the invariants.
    let (_, told) = unsafe { Future::publish(future, None) };
    if let Err(error) = told {
        cannot_be_told(error, future.py(), Some(future.as_any()));
    }
}

/// The body of the thread for callbacks.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct CallbacksThread(ThreadBody);

#[pymethods]
impl CallbacksThread {
    /// Calls callbacks, up to the end of the thread.
    fn run(&self, py: Python<'_>) {
        self.0.run(py, true);
    }
}
