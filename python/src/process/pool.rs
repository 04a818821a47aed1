//! `ProcessPool`, the native base class of `ProcessPoolExecutor`.

use crate::interp::aside::aside;
use crate::interp::fields::Field;
use crate::interp::fork::generation;
use crate::interp::jobs::Jobs;
use crate::interp::signals::hold_in_drop;
use crate::interp::{interned, process_errors, waiting};
use crate::pickle::definitions::Functions;
use crate::pickle::objects::Pickling;
use crate::process::callbacks::Callbacks;
use crate::process::shared::{Closing, FILES, KEPT, Shared};
use crate::process::spawner::Processes;
use concurrent_futures::engine::{Permit, PoolSettings, ProcessPool as Engine, Segments};
use concurrent_futures::{BuildError, TaskOptions};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The settings with which an executor was made.
pub(super) struct Settings {
    pub(super) pool: PoolSettings,
    pub(super) options: TaskOptions,
    pub(super) by_value: bool,
}

/// The parts of a pool that exist from `_start` on.
pub(super) struct Started {
    settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
    /// Whether the supervisor was started, which the first task does.
    pub(super) has_begun: AtomicBool,
    /// Whether the pool was ever used: it belongs to its process from then on.
    pub(super) is_used: AtomicBool,
    pub(super) submitted: AtomicUsize,
    pub(super) options: TaskOptions,
}

impl Started {
    pub(super) fn new(
        settings: Arc<Settings>,
        workers: Py<PyAny>,
        py: Python<'_>,
    ) -> PyResult<Self> {
        let callbacks = Arc::new(Callbacks::default());
        let feeder = Arc::new(Jobs::default());
        let opener = Arc::new(Jobs::default());
        let host = Arc::new(Processes {
            workers: workers.clone_ref(py),
            callbacks: Arc::clone(&callbacks),
            feeder: Arc::clone(&feeder),
            opener: Arc::clone(&opener),
        });
        let pool = Engine::new(&settings.pool, host).map_err(|error| match error {
            BuildError::System(error) => process_errors::not_made(&error),
            error => PyValueError::new_err(error.to_string()),
        })?;
        // Where descriptors are few, long buffers go through the streams.
        let files = if pool.is_lean() { 0 } else { FILES };
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                functions: Functions::default(),
                generation: generation(),
                pickling: Pickling {
                    by_value: settings.by_value,
                    segments: Segments::new(KEPT, files),
                },
                callbacks,
                feeder,
                room: Arc::default(),
                closing: Mutex::new(Closing::Open),
                max_workers: settings.pool.max_workers,
                opener,
                workers,
            }),
            has_begun: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            submitted: AtomicUsize::new(0),
            options: settings.options,
            settings,
        })
    }

    /// Returns whether the pool was made before this process became a fork, and was not used.
    #[inline]
    fn is_inherited(&self) -> bool {
        // ORDERING: Relaxed: what happened before the fork is in the child's memory.
        !self.is_used.load(Ordering::Relaxed) && !self.shared.is_of_this_process()
    }

    /// Takes a permit for one more pending task; none if pending tasks are not bounded.
    pub(super) fn permit(&self, py: Python<'_>) -> PyResult<Option<Permit>> {
        waiting::permit(py, |when_full| self.shared.pool.admit(when_full))?
            .map_err(|error| process_errors::submit_error(py, &error))
    }

    /// Refuses tasks from now on. With `cancel_futures`, cancels the pending tasks.
    pub(super) fn close(&self, py: Python<'_>, cancel_futures: bool) {
        self.shared.close(py, cancel_futures);
        self.shared.pool.stop_admitting();
    }
}

/// A pool of processes, without the attributes that Python code adds.
#[pyclass(module = "concurrent_futures._engine", subclass, frozen)]
pub(crate) struct ProcessPool {
    /// The engine's pool and its settings, set by `set_up`. A value that a second `__init__` replaces is
    /// never freed, as other threads may be using it.
    started: AtomicPtr<Started>,
    /// The settings of workers. Only this field refers to them, so that the garbage collector finds a pool to
    /// which its initializer refers. The pool's processes refer to the settings weakly.
    pub(super) task: Field,
    /// Whether `submit` is left to Python code. That is so for pools that work by the standard library's
    /// code, and for pools whose lock or state other code has got at.
    pub(super) is_plain: AtomicBool,
}

impl ProcessPool {
    /// Makes a pool that is to be set up.
    pub(super) fn empty() -> Self {
        Self {
            started: AtomicPtr::new(ptr::null_mut()),
            task: Field::empty(),
            is_plain: AtomicBool::new(true),
        }
    }

    /// Sets the pool up.
    pub(super) fn set_up(&self, started: Started) {
        let started = Box::into_raw(Box::new(started));
        self.started.store(started, Ordering::Release);
    }

    /// Returns the parts of the pool.
    #[inline]
    pub(super) fn started(&self) -> PyResult<&Started> {
        let address = self.started.load(Ordering::Acquire);
        // SAFETY: see the field.
        match unsafe { address.as_ref() } {
            Some(started) if !started.is_inherited() => Ok(started),
            Some(inherited) => self.begin_afresh(address, inherited),
            None => Err(not_initialized()),
        }
    }

    /// Makes the parts anew in a fork, if no code has used them before. The parent's parts are not touched,
    /// as threads may have been using them that are not in this process.
    #[cold]
    #[inline(never)]
    fn begin_afresh(&self, address: *mut Started, inherited: &Started) -> PyResult<&Started> {
        let own = Python::attach(|py| {
            let workers = inherited.shared.workers.clone_ref(py);
            Started::new(Arc::clone(&inherited.settings), workers, py)
        })?;
        let own = Box::into_raw(Box::new(own));
        let replaced =
            self.started
                .compare_exchange(address, own, Ordering::AcqRel, Ordering::Acquire);
        let current = match replaced {
            Ok(_) => own,
            Err(others) => {
                // SAFETY: just made, and no other code has it.
                drop(unsafe { Box::from_raw(own) });
                others
            }
        };
        // SAFETY: see the field.
        Ok(unsafe { &*current })
    }

    pub(crate) fn shared(&self) -> PyResult<&Arc<Shared>> {
        Ok(&self.started()?.shared)
    }

    pub(crate) fn default_options(&self) -> PyResult<TaskOptions> {
        Ok(self.started()?.options)
    }

    /// Counts tasks that are submitted.
    pub(crate) fn note_submitted(&self, number: usize) -> PyResult<()> {
        self.started()?
            .submitted
            .fetch_add(number, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn max_workers(&self) -> PyResult<usize> {
        Ok(self.shared()?.max_workers)
    }
}

fn not_initialized() -> PyErr {
    PyRuntimeError::new_err("ProcessPoolExecutor.__init__ has not been called")
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        let started = *self.started.get_mut();
        if started.is_null() {
            return;
        }
        // SAFETY: made by `set_up`; no other reference to the object exists.
        let started = unsafe { Box::from_raw(started) };
        if started.shared.generation == generation() {
            // The workers finish what is pending.
            aside(|py| {
                let workers = started.shared.workers.bind(py);
                // There may be workers still to be started.
                hold_in_drop(py, || {
                    let task = self.task.take();
                    if let Err(error) = workers.call_method1(interned::keep(py), (task,)) {
                        error.write_unraisable(py, Some(workers));
                    }
                });
                started.close(py, false);
                hold_in_drop(py, || drop(started));
            });
        } else {
            mem::forget(started);
        }
    }
}
