//! The worker threads of the engine's pools: threads of Python's `threading`.

use crate::interp::attach::{attached, come_back, stay};
use crate::interp::bias::unbias;
use crate::interp::os::signed_thread_number;
use crate::interp::signals::{hold, keep};
use crate::interp::stdlib::InterpreterFailed;
use crate::interp::turns::checkpoint;
use crate::interp::waiting::await_waiters;
use crate::interp::{interned, sent, stdlib};
use crate::interpreters::context;
use concurrent_futures::BrokenExecutor;
use concurrent_futures::engine::{ThreadSpawner, WorkerThread};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The settings of a pool of threads, and its threads.
pub(crate) struct Threads {
    pub(crate) name_prefix: Py<PyAny>,
    pub(crate) initializer: Option<Py<PyAny>>,
    pub(crate) initargs: Py<PyTuple>,
    /// The function that makes the context of a worker, if each worker has an interpreter of its own.
    pub(crate) create_context: Option<Py<PyAny>>,
    /// The threads of this pool.
    pub(crate) of_pool: Py<PySet>,
    /// The threads of all pools, for the end of the interpreter.
    pub(crate) of_process: Py<PyAny>,
    /// The callable with which each thread goes on after the engine; see `ThreadPool::give_up`.
    pub(crate) successor: PyOnceLock<Py<PyAny>>,
    /// Whether a worker has ended. Python code cannot be asked: a daemon thread may submit while the interpreter ends.
    /// The interpreter then ends the thread in the middle of any Python code.
    pub(crate) has_one_ended: AtomicBool,
}

impl Threads {
    /// Starts a thread for a worker.
    ///
    /// Much of it is Python code. Signals are held back meanwhile. But Python code there may raise an
    /// exception that was sent to the calling thread. That is no failure: the exception is kept for
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
        if let Err(error) = thread.call_method0(interned::start(py)) {
            if worker.get().take().is_some() {
                return Err(not_started(py, error));
            }
            // While the thread was waited for, which runs.
            keep(error);
        }
        // The thread runs, whatever happens. It frees its own object, and not the calling thread at some moment: an
        // interrupt there would be lost in a function of `weakref`.
        unbias(&thread);
        if let Err(error) = self.of_pool.bind(py).add(&thread) {
            keep(error);
        }
        for _ in 0..ATTEMPTS {
            let of_process = self.of_process.bind(py);
            match of_process.call_method1(interned::add_thread(py), (&thread,)) {
                Ok(_) => break,
                Err(error) => keep(error),
            }
        }
        Ok(())
    }

    /// Prepares the calling worker: with an interpreter of its own, or by the initializer.
    fn initialize(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(create) = &self.create_context {
            return context::begin(create.bind(py));
        }
        match &self.initializer {
            Some(initializer) => initializer.bind(py).call1(self.initargs.bind(py)).map(drop),
            None => Ok(()),
        }
    }

    /// Takes an exception that was sent to the calling thread (`PyThreadState_SetAsyncExc`) while it was
    /// idle. As in the standard library, the thread ends by the exception. The next task is not hit, but left
    /// to another thread.
    fn take_exceptions(&self, py: Python<'_>) {
        if !sent::may_wait(py) {
            return;
        }
        // Any Python code raises them, and this does nothing else.
        let Err(error) = checkpoint(py) else {
            return;
        };
        stdlib::log(
            py,
            interned::critical(py),
            &error,
            (interned::exception_in_worker(py),),
        );
        ENDS.set(true);
        // So that there are no more threads than allowed. A failure is not reported.
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
        let name = interned::thread_name(py).rem((&self.name_prefix, number))?;
        keywords.set_item(interned::name(py), name)?;
        keywords.set_item(interned::target(py), stdlib::run_worker(py)?)?;
        keywords.set_item(interned::args(py), (worker,))?;
        // The one of now: programs replace it.
        let thread = py
            .import(interned::threading(py))?
            .getattr(interned::thread(py))?;
        thread.call((), Some(&keywords))
    }

    /// Returns whether no thread was started, and the settings have no object of the program. Then no Python
    /// code runs when this is dropped.
    pub(crate) fn are_none(&self) -> bool {
        Python::try_attach(|py| {
            self.initializer.is_none()
                && self.create_context.is_none()
                && self.initargs.bind(py).is_empty()
                && self.of_pool.bind(py).is_empty()
        })
        .unwrap_or(false)
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.name_prefix)?;
        visit.call(&self.initializer)?;
        visit.call(&self.initargs)?;
        visit.call(&self.create_context)?;
        visit.call(&self.of_pool)
    }
}

/// Attempts to register a thread. The end of the interpreter waits for registered threads, so a signal
/// handler that raises during the registration must not end it. `submit` reports permanent errors.
const ATTEMPTS: u32 = 10;

/// Handles a thread that was not started, as the system refused it or a signal handler raised an exception.
fn not_started(py: Python<'_>, error: PyErr) -> PyErr {
    if !is_by_system(py, &error) {
        keep(error.clone_ref(py));
    }
    error
}

/// Returns whether the system refused the thread, as there was no room for it.
fn is_by_system(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyRuntimeError>(py) || error.is_instance_of::<PyMemoryError>(py)
}

thread_local! {
    /// Whether the calling worker is to end.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// The engine's reference to the settings.
pub(crate) struct Shared(pub(crate) Arc<Threads>);

impl ThreadSpawner for Shared {
    fn start_thread(
        &self,
        number: usize,
        worker: WorkerThread,
    ) -> io::Result<Option<JoinHandle<()>>> {
        attached(|py| self.0.start(py, number, worker))
            .map(|()| None)
            .map_err(io::Error::other)
    }

    fn pool_name(&self) -> String {
        attached(|py| {
            let prefix = self.0.name_prefix.bind(py).cast_exact::<PyString>();
            prefix.map_or_else(
                |_| String::new(),
                |prefix| prefix.to_string_lossy().into_owned(),
            )
        })
    }

    fn thread_label(&self) -> String {
        // As `faulthandler` writes it.
        format!("thread {:#018x}", signed_thread_number().cast_unsigned())
    }

    fn worker_name(&self) -> String {
        attached(|py| {
            let thread = stdlib::current_thread(py)?.call0()?;
            thread.getattr(interned::name(py))?.extract()
        })
        .unwrap_or_else(|_: PyErr| String::new())
    }

    fn initialize(&self) -> Result<(), BrokenExecutor> {
        if self.0.initializer.is_none() && self.0.create_context.is_none() {
            return Ok(());
        }
        attached(|py| {
            let Err(error) = self.0.initialize(py) else {
                return Ok(());
            };
            stdlib::log(
                py,
                interned::critical(py),
                &error,
                (interned::exception_in_initializer(py),),
            );
            Err(BrokenExecutor::new(if self.0.create_context.is_some() {
                Arc::new(InterpreterFailed(error))
            } else {
                Arc::new(error)
            }))
        })
    }

    /// Detaches the worker for `wait`; the worker is attached at all other times. So a new thread has taken
    /// its first task when `Thread.start` returns, as in the standard library.
    fn idle(&self, wait: &mut dyn FnMut()) {
        let mut wait = OnThisThread(wait);
        attached(|py| {
            drop(py.detach(|| {
                wait.call();
                await_waiters();
                come_back()
            }));
            self.0.take_exceptions(py);
        });
    }

    fn ends_worker(&self) -> bool {
        ENDS.take()
    }

    /// Returns true, as `_threads` of the standard library visibly has a thread for each of the first tasks.
    fn starts_eagerly(&self) -> bool {
        true
    }
}

/// A function that is called while detached, but by the same thread.
struct OnThisThread<'a>(&'a mut dyn FnMut());

// SAFETY: `detach` asks for `Send` to keep out references to Python objects, of which the engine's workers
// have none while they are idle. `detach` does not change the thread.
unsafe impl Send for OnThisThread<'_> {}

impl OnThisThread<'_> {
    fn call(&mut self) {
        (self.0)();
    }
}

/// A function that a worker calls after it has worked for the engine, and the function's argument.
type Next = (Py<PyAny>, Option<Py<PyAny>>);

/// The callable that a worker thread runs.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Worker {
    worker: Mutex<Option<WorkerThread>>,
    threads: Arc<Threads>,
}

impl Worker {
    /// Takes the engine's worker, if it was not taken before.
    fn take(&self) -> Option<WorkerThread> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.take()
    }
}

#[pymethods]
impl Worker {
    /// Works for the engine. Returns the function that the thread is to call next, if there is one. The function's
    /// argument comes with it: the context of the worker, or None.
    ///
    /// If there is no such function, the worker ends, and closes its interpreter if it has one.
    ///
    /// The calling function of Python calls it, so that no frame of ours is below code that may run until the
    /// interpreter ends.
    fn __call__(&self, py: Python<'_>) -> PyResult<Option<Next>> {
        if let Some(worker) = self.take() {
            worker.run();
        }
        let context = context::take(py);
        if let Some(successor) = self.threads.successor.get(py) {
            return Ok(Some((successor.clone_ref(py), context)));
        }
        self.threads.has_one_ended.store(true, Ordering::Release);
        if let Some(context) = context {
            context.call_method0(py, interned::finalize(py))?;
        }
        Ok(None)
    }
}
