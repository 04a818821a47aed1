//! What the engine's workers live in: threads of Python's `threading`.

use crate::name;
use crate::process::{attached, come_back, stay};
use crate::stdlib;
use crate::task::begin_turn;
use crate::waiting::await_waiters;
use concurrent_futures::BrokenExecutor;
use concurrent_futures::engine::{Host, WorkerThread};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

impl Threads {
    fn start(&self, py: Python<'_>, number: usize, worker: WorkerThread) -> PyResult<()> {
        let _on_the_way = stay(py);
        let keywords = PyDict::new(py);
        let name = name::thread_name(py).rem((&self.name_prefix, number))?;
        keywords.set_item(name::name(py), name)?;
        let worker = Bound::new(py, Worker(Mutex::new(Some(worker))))?;
        keywords.set_item(name::target(py), &worker)?;
        let thread = stdlib::thread(py)?.call((), Some(&keywords))?;
        if let Err(error) = thread.call_method0(name::start(py)) {
            // A handler of a signal may raise while the thread is waited for, which runs.
            let failed = worker.get().take().is_some();
            if failed && error.is_instance_of::<PyException>(py) {
                return Err(error);
            }
            interrupt_submit(error.clone_ref(py));
            if failed {
                return Err(error);
            }
        }
        self.of_pool.bind(py).add(&thread)?;
        self.of_process
            .bind(py)
            .call_method1(name::add(py), (&thread,))?;
        Ok(())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.initializer)?;
        visit.call(&self.initargs)?;
        visit.call(&self.of_pool)
    }
}

/// How many threads have something in `INTERRUPT`.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What a handler of a signal raised in the middle of a submission.
    static INTERRUPT: Cell<Option<PyErr>> = const { Cell::new(None) };
}

fn interrupt_submit(error: PyErr) {
    if INTERRUPT.replace(Some(error)).is_none() {
        INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a handler of a signal raised in the calling thread while it was starting a thread; to be
/// raised when all is in order again.
pub(crate) fn interrupted() -> PyResult<()> {
    if INTERRUPTS.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    match INTERRUPT.take() {
        Some(error) => {
            INTERRUPTS.fetch_sub(1, Ordering::Relaxed);
            Err(error)
        }
        None => Ok(()),
    }
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
            begin_turn(py);
        });
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

/// The target of a worker thread.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Worker(Mutex<Option<WorkerThread>>);

impl Worker {
    /// The engine's worker, if it was not taken before.
    fn take(&self) -> Option<WorkerThread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Worker {
    fn __call__(&self, py: Python<'_>) {
        if let Some(worker) = self.take() {
            begin_turn(py);
            worker.run();
        }
    }
}
