//! What the engine's workers live in: threads of Python's `threading`.

use crate::interrupts::{hold, keep};
use crate::name;
use crate::process::{attached, come_back, stay};
use crate::stdlib;
use crate::task::begin_turn;
use crate::waiting::await_waiters;
use concurrent_futures::BrokenExecutor;
use concurrent_futures::engine::{Host, WorkerThread};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PySet, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Settings of a pool, and its threads.
pub(crate) struct Threads {
    pub(crate) name_prefix: Py<PyAny>,
    pub(crate) initializer: Option<Py<PyAny>>,
    pub(crate) initargs: Py<PyTuple>,
    /// The threads of this pool.
    pub(crate) of_pool: Py<PySet>,
    /// The threads of all pools, for the end of the interpreter.
    pub(crate) of_process: Py<PyAny>,
    /// The callable with which each thread goes on after the engine; see `ThreadPool::give_up`.
    pub(crate) successor: PyOnceLock<Py<PyAny>>,
}

impl Threads {
    /// Starts a thread for a worker.
    ///
    /// Much of it is Python code. Signals are held back meanwhile. Something else may raise an
    /// exception there, that was sent to the calling thread: it is no failure, but kept for
    /// `raise_kept`, and the thread is there or not.
    fn start(
        self: &Arc<Self>,
        py: Python<'_>,
        number: usize,
        worker: WorkerThread,
    ) -> PyResult<()> {
        let _on_the_way = stay(py);
        let _held = hold(py);
        let worker = Worker {
            worker: Mutex::new(Some(worker)),
            threads: Arc::clone(self),
        };
        let worker = Bound::new(py, worker)?;
        let thread = match self.make(py, number, &worker) {
            Ok(thread) => thread,
            Err(error) => {
                // A traceback may keep the thread that was to run it.
                drop(worker.get().take());
                return Err(not_started(py, error));
            }
        };
        if let Err(error) = thread.call_method0(name::start(py)) {
            if worker.get().take().is_some() {
                return Err(not_started(py, error));
            }
            // While the thread was waited for, which runs.
            keep(error);
        }
        // The thread runs, whatever happens.
        if let Err(error) = self.of_pool.bind(py).add(&thread) {
            keep(error);
        }
        for _ in 0..ATTEMPTS {
            let of_process = self.of_process.bind(py);
            match of_process.call_method1(name::add_thread(py), (&thread,)) {
                Ok(_) => break,
                Err(error) => keep(error),
            }
        }
        Ok(())
    }

    /// Takes what was sent to the calling thread (`PyThreadState_SetAsyncExc`) while it was idle. As
    /// in the standard library, the thread ends by that. The next task is not hit, but left to
    /// another thread.
    fn take_exceptions(&self, py: Python<'_>) {
        // Any Python code raises them, and this does nothing else.
        let Err(error) = stdlib::checkpoint(py).and_then(PyAnyMethods::call0) else {
            return;
        };
        stdlib::log(
            py,
            name::critical(py),
            &error,
            (name::exception_in_worker(py),),
        );
        ENDS.set(true);
        // So that there are no more than there may be. Nobody is told of a failure.
        let forget = || {
            let thread = stdlib::current_thread(py)?.call0()?;
            self.of_pool.bind(py).discard(thread)
        };
        if let Err(error) = forget() {
            error.write_unraisable(py, None);
        }
    }

    fn make<'py>(
        &self,
        py: Python<'py>,
        number: usize,
        worker: &Bound<'py, Worker>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = PyDict::new(py);
        let name = name::thread_name(py).rem((&self.name_prefix, number))?;
        keywords.set_item(name::name(py), name)?;
        keywords.set_item(name::target(py), stdlib::run_worker(py)?)?;
        keywords.set_item(name::args(py), (worker,))?;
        // The one of now: programs replace it.
        let thread = py.import(name::threading(py))?.getattr(name::thread(py))?;
        thread.call((), Some(&keywords))
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.initializer)?;
        visit.call(&self.initargs)?;
        visit.call(&self.of_pool)
    }
}

/// The end of the interpreter waits for the threads that it knows: so a handler that raises while
/// one is made known does not end that. What always fails is told by `submit`.
const ATTEMPTS: u32 = 10;

/// A thread was not started: by the system, or as the handler of a signal has raised something.
fn not_started(py: Python<'_>, error: PyErr) -> PyErr {
    if !is_by_system(py, &error) {
        keep(error.clone_ref(py));
    }
    error
}

/// Whether there is no room for another thread.
fn is_by_system(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyRuntimeError>(py) || error.is_instance_of::<PyMemoryError>(py)
}

thread_local! {
    /// Whether the calling worker is to end.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// The share of the engine's pool in the settings.
pub(crate) struct Shared(pub(crate) Arc<Threads>);

impl Host for Shared {
    fn start_thread(
        &self,
        number: usize,
        worker: WorkerThread,
    ) -> io::Result<Option<JoinHandle<()>>> {
        attached(|py| self.0.start(py, number, worker))
            .map(|()| None)
            .map_err(io::Error::other)
    }

    fn initialize(&self) -> Result<(), BrokenExecutor> {
        let Some(initializer) = &self.0.initializer else {
            return Ok(());
        };
        attached(|py| {
            let Err(error) = initializer.bind(py).call1(self.0.initargs.bind(py)) else {
                return Ok(());
            };
            stdlib::log(
                py,
                name::critical(py),
                &error,
                (name::exception_in_initializer(py),),
            );
            Err(BrokenExecutor::new(Arc::new(error)))
        })
    }

    /// A worker is attached, but for this. So a new thread has taken its first task when
    /// `Thread.start` returns, as in the standard library.
    fn idle(&self, wait: &mut dyn FnMut()) {
        let mut wait = OnThisThread(wait);
        attached(|py| {
            drop(py.detach(|| {
                wait.call();
                await_waiters();
                come_back()
            }));
            self.0.take_exceptions(py);
            begin_turn(py);
        });
    }

    fn ends_worker(&self) -> bool {
        ENDS.take()
    }

    /// As in the standard library, and visibly so: `_threads` has as many as there are
    /// tasks for.
    fn starts_eagerly(&self) -> bool {
        true
    }
}

/// What is called while detached, but by the same thread.
struct OnThisThread<'a>(&'a mut dyn FnMut());

// SAFETY: `detach` asks for `Send` to keep out references to Python objects, of which the
// engine's workers have none while they are idle; it changes no thread.
unsafe impl Send for OnThisThread<'_> {}

impl OnThisThread<'_> {
    fn call(&mut self) {
        (self.0)();
    }
}

/// The callable that a worker thread runs.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Worker {
    worker: Mutex<Option<WorkerThread>>,
    threads: Arc<Threads>,
}

impl Worker {
    /// The engine's worker, if it was not taken before.
    fn take(&self) -> Option<WorkerThread> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.take()
    }
}

#[pymethods]
impl Worker {
    /// Works for the engine. Returns what the thread is to call next, if there is something.
    ///
    /// It is left to the caller, which is a function of Python: no frame of ours is below code
    /// that may run until the interpreter ends.
    fn __call__(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if let Some(worker) = self.take() {
            begin_turn(py);
            worker.run();
        }
        self.threads
            .successor
            .get(py)
            .map(|successor| successor.clone_ref(py))
    }
}
