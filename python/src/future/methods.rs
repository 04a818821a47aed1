//! The methods and attributes of `concurrent_futures.Future`.

use crate::future::object::Future;
use crate::future::outcome::Outcome;
use crate::future::{observers, remote};
use crate::interp::{interned, stdlib};
use concurrent_futures::engine::{Advance, Cancel, Phase};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::pending(None)
    }

    /// Cancels the future if possible.
    ///
    /// Returns True if the future is cancelled now, False if its task runs or has finished.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> pending, running = Future(), Future()
    /// >>> running.set_running_or_notify_cancel()
    /// True
    /// >>> pending.cancel(), running.cancel()
    /// (True, False)
    fn cancel(this: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(Self::cancel_unbegun(this)? != Cancel::TooLate)
    }

    /// Returns True if the future was cancelled.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> future = Future()
    /// >>> future.cancel()
    /// True
    /// >>> future.cancelled()
    /// True
    fn cancelled(&self) -> bool {
        matches!(
            self.state().phase(),
            Phase::Cancelling | Phase::Cancelled | Phase::Notified
        )
    }

    /// Returns True if the task of the future is running.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> future = Future()
    /// >>> future.set_running_or_notify_cancel()
    /// True
    /// >>> future.running()
    /// True
    fn running(&self) -> bool {
        matches!(
            self.visible_phase(),
            Phase::Running | Phase::Setting | Phase::Finishing
        )
    }

    /// Returns True if the future was cancelled or has finished.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import ThreadPoolExecutor
    /// >>> with ThreadPoolExecutor() as pool:
    /// ...     future = pool.submit(pow, 2, 10)
    /// >>> future.done()
    /// True
    fn done(&self) -> bool {
        self.state().is_done()
    }

    /// Returns the result of the task, after waiting for it if necessary.
    ///
    /// Waits at most `timeout` seconds if that is given. Raises TimeoutError when they have passed,
    /// CancelledError if the future was cancelled, and the exception that the task raised. Raises
    /// DeadlockError if the calling task and the task of the future wait for each other.
    ///
    /// A task may wait for a pending task of its own pool: a pool whose workers all do so gets a spare
    /// worker.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import ThreadPoolExecutor
    /// >>> with ThreadPoolExecutor() as pool:
    /// ...     pool.submit(pow, 2, 10).result(timeout=60)
    /// 1024
    #[pyo3(signature = (timeout = None))]
    fn result<'py>(
        this: &Bound<'py, Self>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::wait(this, timeout)?;
        Self::take_result(this)
    }

    /// Returns the exception that the task raised, or None, after waiting as `result` does.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import ThreadPoolExecutor
    /// >>> with ThreadPoolExecutor() as pool:
    /// ...     future = pool.submit(divmod, 1, 0)
    /// >>> isinstance(future.exception(), ZeroDivisionError)
    /// True
    #[pyo3(signature = (timeout = None))]
    fn exception<'py>(
        this: &Bound<'py, Self>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::wait(this, timeout)?;
        Ok(match Self::outcome(this)? {
            Outcome::Result(_) => None,
            Outcome::Exception(exception) => Some(exception),
        })
    }

    /// Calls `fn` with the future when it is done, or now if it is.
    ///
    /// Callbacks are called in the order in which they were added, by a thread of the process that added
    /// them.
    /// Exceptions of callbacks are logged.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import ThreadPoolExecutor
    /// >>> with ThreadPoolExecutor() as pool:
    /// ...     future = pool.submit(pow, 2, 10)
    /// ...     future.add_done_callback(lambda future: print(future.result()))
    /// 1024
    #[pyo3(signature = (r#fn))]
    fn add_done_callback<'py>(this: &Bound<'py, Self>, r#fn: Bound<'py, PyAny>) -> PyResult<()> {
        match this.get().observers_to_be().add_callback(this, r#fn)? {
            Ok(()) => Ok(()),
            Err(callback) => observers::call(this, &callback),
        }
    }

    /// Ends a call that a worker process runs, together with the process. The pool replaces the process.
    ///
    /// Its future raises `TaskTerminatedError`. A pending one is cancelled. Returns whether it did
    /// either; calls that threads run cannot be ended.
    ///
    /// Examples
    /// --------
    /// >>> import time
    /// >>> from concurrent_futures import ProcessPoolExecutor
    /// >>> with ProcessPoolExecutor(max_workers=1) as pool:
    /// ...     future = pool.submit(time.sleep, 1000)
    /// ...     future.terminate()
    /// True
    /// >>> future.done()
    /// True
    fn terminate(this: &Bound<'_, Self>) -> PyResult<bool> {
        let cancel = Self::cancel_unbegun(this)?;
        if cancel != Cancel::TooLate {
            return Ok(cancel == Cancel::Now);
        }
        let py = this.py();
        let future = this.get();
        Ok(py.detach(|| {
            future
                .remote()
                .is_some_and(|remote| remote.terminate(future))
        }))
    }

    /// Marks the task as running. For code that implements executors.
    ///
    /// Returns False if the future was cancelled, and the task should not be run. Raises
    /// RuntimeError if it was called before, or the future has an outcome.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> future = Future()
    /// >>> if future.set_running_or_notify_cancel():
    /// ...     future.set_result(pow(2, 10))
    /// >>> future.result()
    /// 1024
    fn set_running_or_notify_cancel(this: &Bound<'_, Self>) -> PyResult<bool> {
        let state = this.get().state();
        // SAFETY: in this frontend any thread may begin a future.
        if unsafe { state.start() } {
            return Ok(true);
        }
        let held = observers::hold(this)?;
        let (advance, told) = Self::notify_cancel(this, held);
        told?;
        if advance == Advance::Done {
            return Ok(false);
        }
        let py = this.py();
        let message = interned::unexpected_state(py);
        stdlib::logger(py)?.call_method1(
            interned::critical(py),
            (
                message,
                this.as_ptr().addr(),
                Self::state_name(state.phase()),
            ),
        )?;
        Err(PyRuntimeError::new_err("Future in unexpected state"))
    }

    /// Sets the result of the future. For code that implements executors.
    ///
    /// Raises InvalidStateError if the future is done.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> future = Future()
    /// >>> future.set_result(1024)
    /// >>> future.result()
    /// 1024
    fn set_result<'py>(this: &Bound<'py, Self>, result: Bound<'py, PyAny>) -> PyResult<()> {
        Self::set_outcome(this, || drop(Self::fill_result(this, result)))
    }

    /// Sets the exception that the task raised. For code that implements executors.
    ///
    /// Raises InvalidStateError if the future is done.
    ///
    /// Examples
    /// --------
    /// >>> from concurrent_futures import Future
    /// >>> future = Future()
    /// >>> future.set_exception(ValueError("no number"))
    /// >>> future.exception()
    /// ValueError('no number')
    fn set_exception<'py>(this: &Bound<'py, Self>, exception: Bound<'py, PyAny>) -> PyResult<()> {
        Self::set_outcome(this, || {
            // `None` is no exception.
            if !exception.is_none() {
                drop(Self::fill_exception(this, exception));
            }
        })
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        py.import("types")?
            .getattr("GenericAlias")?
            .call1((class, item))
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        let class = this.get_type().name()?;
        let address = this.as_ptr().addr();
        remote::open(this)?;
        let owner = this.as_any();
        Self::looking(this, |future| {
            let phase = future.visible_phase();
            let state = match phase {
                Phase::Notified => "cancelled".to_owned(),
                _ => Self::state_name(phase).to_lowercase(),
            };
            let outcome = match (phase, future.exception.get(owner)) {
                (Phase::Finished, Some(exception)) => {
                    format!(" raised {}", exception.get_type().name()?)
                }
                (Phase::Finished, None) => {
                    let result = future.result.get(owner);
                    let class = match &result {
                        Some(result) => result.get_type().name()?.to_string(),
                        None => "NoneType".to_owned(),
                    };
                    format!(" returned {class}")
                }
                _ => String::new(),
            };
            Ok(format!("<{class} at {address:#x} state={state}{outcome}>"))
        })?
    }

    // ---- what other code touches

    #[getter(_state)]
    fn get_state(&self) -> &'static str {
        Self::state_name(self.visible_phase())
    }

    /// Sets the state by hand, as tests of other libraries do.
    #[setter(_state)]
    fn set_state(&self, name: &str) -> PyResult<()> {
        let Some(phase) = Self::phase_of(name) else {
            return Err(PyValueError::new_err(format!(
                "_state must be PENDING, RUNNING, CANCELLED, CANCELLED_AND_NOTIFIED or FINISHED, not {name:?}"
            )));
        };
        let all = [
            Phase::Pending,
            Phase::Running,
            Phase::Cancelled,
            Phase::Notified,
            Phase::Finished,
        ];
        // SAFETY: code that sets the state by hand is responsible for the outcome, without which the result
        // is None.
        unsafe { self.state().advance(&all, phase, true) };
        Ok(())
    }

    #[getter(_result)]
    fn get_result<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        remote::open(this)?;
        Ok(this.get().result.get(this.as_any()))
    }

    #[setter(_result)]
    fn replace_result<'py>(this: &Bound<'py, Self>, result: Bound<'py, PyAny>) {
        let result = Some(result).filter(|result| !result.is_none());
        drop(this.get().result.replace(this.as_any(), result));
    }

    #[getter(_exception)]
    fn get_exception<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        remote::open(this)?;
        Ok(this.get().exception.get(this.as_any()))
    }

    #[setter(_exception)]
    fn replace_exception<'py>(this: &Bound<'py, Self>, exception: Bound<'py, PyAny>) {
        let exception = Some(exception).filter(|exception| !exception.is_none());
        drop(this.get().exception.replace(this.as_any(), exception));
    }

    #[getter(_condition)]
    fn condition<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().condition(this)
    }

    #[getter(_waiters)]
    fn waiters<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().waiters(this)
    }

    #[getter(_done_callbacks)]
    fn done_callbacks<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.get().observers_to_be().callbacks(this)
    }

    #[setter(_condition)]
    fn replace_condition<'py>(this: &Bound<'py, Self>, condition: Bound<'py, PyAny>) {
        let observers = this.get().observers_to_be();
        observers.replace_condition(this, condition);
        this.get().set_foreign_condition();
    }

    #[setter(_waiters)]
    fn replace_waiters<'py>(this: &Bound<'py, Self>, waiters: Bound<'py, PyAny>) -> PyResult<()> {
        let observers = this.get().observers_to_be();
        observers.replace_waiters(this, waiters)
    }

    #[setter(_done_callbacks)]
    fn replace_done_callbacks<'py>(this: &Bound<'py, Self>, callbacks: Bound<'py, PyAny>) {
        let observers = this.get().observers_to_be();
        observers.replace_callbacks(this, callbacks);
    }

    /// Calls the callbacks.
    #[pyo3(name = "_invoke_callbacks")]
    fn invoke_callbacks(this: &Bound<'_, Self>) -> PyResult<()> {
        observers::invoke_callbacks(this)
    }

    /// Returns whether the future is done, whether it was cancelled, its result, its exception.
    #[pyo3(name = "_get_snapshot")]
    fn snapshot<'py>(this: &Bound<'py, Self>) -> PyResult<Snapshot<'py>> {
        remote::open(this)?;
        let owner = this.as_any();
        Self::looking(this, |future| match future.state().phase() {
            Phase::Finished => (
                true,
                false,
                future.result.get(owner),
                future.exception.get(owner),
            ),
            phase => (phase.is_done(), phase.is_done(), None, None),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: while the garbage collector runs, no thread takes the call: a thread that does is attached,
        // and in no call of Python's meanwhile.
        if let Some(call) = unsafe { &*self.call.get() } {
            call.traverse(visit)?;
        }
        self.result.traverse(visit)?;
        self.exception.traverse(visit)?;
        self.observers()
            .map_or(Ok(()), |observers| observers.traverse(visit))
    }

    fn __clear__(&self) {
        // The call stays: a task that waits for its worker is never garbage.
        drop(self.result.take());
        drop(self.exception.take());
        if let Some(observers) = self.observers() {
            observers.clear();
        }
    }
}

/// The tuple that `_get_snapshot` returns.
type Snapshot<'py> = (
    bool,
    bool,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);
