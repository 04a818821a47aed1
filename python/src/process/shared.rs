//! The state that an executor of processes, its futures and its supervisor share.

use crate::future::object::Future;
use crate::future::remote::{RemotePool, Unopened};
use crate::interp::fork::generation;
use crate::interp::jobs::{Jobs, Settled};
use crate::interp::room::Room;
use crate::interp::{interned, process_errors};
use crate::pickle::definitions::Functions;
use crate::pickle::objects::Pickling;
use crate::process::callbacks::{Callbacks, CallbacksThread};
use crate::process::feeder::Fed;
use concurrent_futures::engine::{PoolId, ProcessPool, TaskRef};
use concurrent_futures::{BrokenExecutor, SubmitError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes of shared memory that a pool keeps for long arguments.
pub(crate) const KEPT: usize = 64 * 1024 * 1024;
/// The number of tasks with long buffers that may be there at a time. The buffers of further tasks go through
/// the stream.
pub(crate) const FILES: usize = 64;

/// The state that an executor, its futures and its supervisor share.
pub(crate) struct Shared {
    pub(crate) pool: ProcessPool,
    pub(crate) functions: Functions,
    pub(crate) max_workers: usize,
    /// The generation of forks: in another one, the pool is not to be touched.
    pub(crate) generation: usize,
    pub(crate) pickling: Pickling,
    pub(crate) callbacks: Arc<Callbacks>,
    /// The thread that pickles calls.
    pub(crate) feeder: Arc<Jobs<Fed>>,
    /// The room for pickled calls and their bytes.
    pub(crate) room: Arc<Room>,
    /// Whether calls are refused, and the way to close the engine's pool when all accepted calls have come to
    /// it.
    pub(crate) closing: Mutex<Closing>,
    /// The thread that unpickles replies.
    pub(crate) opener: Arc<Jobs<Unopened>>,
    /// The pool's `concurrent_futures._process_workers.Workers`.
    pub(crate) workers: Py<PyAny>,
}

/// Whether a pool refuses calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Open,
    /// The engine's pool is still open.
    Later {
        cancel_futures: bool,
    },
    Closed,
}

impl Shared {
    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether there is room for a call, besides so many that come before it and that the engine's pool does not
    /// have yet. As in the standard library, there is room for a call of each worker, and for one more call than there
    /// are workers behind these.
    pub(crate) fn has_room(&self, before: usize) -> bool {
        let left = (2 * self.max_workers + 1).saturating_sub(before);
        left > 0 && self.pool.has_room(left)
    }

    /// Returns the reason why calls are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<SubmitError> {
        let refusal = self.pool.refusal();
        let is_closing = || self.feeder.left() > 0 && *self.closing() != Closing::Open;
        refusal.or_else(|| is_closing().then_some(SubmitError::Shutdown))
    }

    /// Refuses calls from now on. With `cancel_futures`, cancels the calls that no worker has begun. The
    /// calling thread is attached.
    pub(crate) fn close(&self, py: Python<'_>, cancel_futures: bool) {
        self.feeder.close();
        let mut is_at_once = false;
        if cancel_futures {
            // The first calls count as started, as many as there are workers for them.
            let kept = self.max_workers.saturating_sub(self.pool.unfinished());
            let taken = self.feeder.take_after(kept);
            taken.into_iter().for_each(Fed::cancel);
            // A call that is being pickled is refused then, and cancelled.
            is_at_once = kept == 0;
        }
        {
            let mut closing = self.closing();
            *closing = match *closing {
                Closing::Later {
                    cancel_futures: true,
                } => Closing::Later {
                    cancel_futures: true,
                },
                _ if is_at_once => Closing::Closed,
                _ => Closing::Later { cancel_futures },
            };
        }
        if is_at_once {
            py.detach(|| self.pool.close(true));
            self.room.note_departure();
        }
        self.close_when_fed(py);
    }

    /// Closes the engine's pool, if it is to be closed and all calls have come to it.
    fn close_when_fed(&self, py: Python<'_>) {
        let cancel_futures = {
            let mut closing = self.closing();
            match *closing {
                Closing::Later { cancel_futures } if self.feeder.left() == 0 => {
                    *closing = Closing::Closed;
                    cancel_futures
                }
                _ => return,
            }
        };
        py.detach(|| self.pool.close(cancel_futures));
    }

    /// Starts the thread that pickles the added calls, if one is wanted.
    pub(crate) fn start_feeder(&self, py: Python<'_>) {
        self.feeder.start(py, |thread| {
            let workers = self.workers.bind(py);
            let arguments = (thread, interned::pickler_thread(py));
            workers
                .call_method1(interned::start_jobs(py), arguments)
                .map(drop)
        });
    }

    /// Returns the pool as its futures see it.
    pub(crate) fn of_futures(this: &Arc<Self>) -> Arc<dyn RemotePool> {
        Arc::clone(this) as _
    }

    /// Returns whether the calling thread is one that the end of the pool waits for.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.callbacks.is_current() || self.opener.is_current() || self.feeder.is_current()
    }

    fn start_callbacks(&self, py: Python<'_>, thread: CallbacksThread) -> PyResult<()> {
        let workers = self.workers.bind(py);
        workers
            .call_method1(interned::start_callbacks(py), (thread,))
            .map(drop)
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    pub(crate) fn check_fork(&self) -> PyResult<()> {
        if self.is_of_this_process() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "this ProcessPoolExecutor belongs to the parent of this process: make a new executor \
             after the fork",
        ))
    }
}

impl Settled for Shared {
    fn settled(&self, py: Python<'_>) {
        if self.is_of_this_process() {
            self.close_when_fed(py);
            py.detach(|| self.pool.settled());
        }
    }
}

impl RemotePool for Shared {
    fn id(&self) -> PoolId {
        self.pool.id()
    }

    fn recall(&self, task: &TaskRef, cancel: &mut dyn FnMut()) -> bool {
        self.is_of_this_process() && self.pool.recall(task, cancel)
    }

    fn has_begun(&self, task: &TaskRef) -> bool {
        !self.is_of_this_process() || self.pool.has_begun(task)
    }

    fn terminate(&self, task: &TaskRef) -> bool {
        self.is_of_this_process() && self.pool.terminate(task)
    }

    fn note_departure(&self) {
        self.room.note_departure();
    }

    fn open_later(&self, unopened: Unopened) -> bool {
        // The queue is never closed.
        matches!(self.opener.add(unopened), Ok(true))
    }

    fn start_opener(&self, py: Python<'_>) {
        self.opener.start(py, |thread| {
            let workers = self.workers.bind(py);
            let arguments = (thread, interned::unpickler(py));
            workers
                .call_method1(interned::start_jobs(py), arguments)
                .map(drop)
        });
    }

    fn unpickling_failed(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if !self.pool.is_strict() {
            return error;
        }
        let raised = process_errors::broken_by(py, &error);
        if self.generation == generation() {
            self.pool.break_with(&BrokenExecutor::new(Arc::new(error)));
        }
        raised
    }

    fn call_back(&self, future: &Bound<'_, Future>) {
        let py = future.py();
        self.callbacks
            .call(future, |thread| self.start_callbacks(py, thread));
    }

    fn finish(&self, future: &Bound<'_, Future>) {
        let py = future.py();
        self.callbacks
            .finish(future, |thread| self.start_callbacks(py, thread));
    }
}

/// Starts a worker process in the calling thread.
pub(crate) fn start_worker(py: Python<'_>, shared: &Shared) -> PyResult<()> {
    shared.pool.start_worker().map_err(|error| {
        match error
            .get_ref()
            .and_then(|error| error.downcast_ref::<PyErr>())
        {
            Some(error) => error.clone_ref(py),
            None => process_errors::os_error(&error),
        }
    })
}
