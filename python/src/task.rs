//! The task in a future: what the engine's workers do with it.

use crate::future::Future;
use crate::handled::Handled;
use crate::interrupts::cannot_be_told;
use crate::name;
use crate::observers::{self, Event};
use crate::plain;
use crate::process::attached;
use crate::stdlib;
use concurrent_futures::TaskError;
use concurrent_futures::engine::{
    Advance, Cancel, ForeignTask, Header, Permit, Phase, deadline_after,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::borrow::Cow;
use std::cell::Cell;
use std::mem;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// A function, its arguments and keywords.
type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Bound<'py, PyDict>);

/// What a task calls.
pub(crate) struct Call {
    pub(crate) function: Py<PyAny>,
    pub(crate) arguments: Py<PyTuple>,
    pub(crate) keywords: Option<Py<PyDict>>,
    /// The context in which it is called, if not in the worker's.
    pub(crate) context: Option<Py<PyAny>>,
    /// Its place among the pending tasks, if these are limited.
    pub(crate) permit: Option<Permit>,
}

impl Call {
    fn call<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Self {
            function,
            arguments,
            keywords,
            context,
            permit,
        } = self;
        drop(permit);
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        let _entered = context
            .map(|context| Entered::enter(context.into_bound(py)))
            .transpose()?;
        function.bind(py).call(arguments.bind(py), keywords)
    }

    /// Returns the function to call, its arguments and keywords: in the call's context, if it has one.
    pub(crate) fn into_parts(self, py: Python<'_>) -> PyResult<Parts<'_>> {
        let keywords = self.keywords.map(|keywords| keywords.into_bound(py));
        let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
        let (function, arguments) = (self.function.into_bound(py), self.arguments.into_bound(py));
        let Some(context) = self.context else {
            return Ok((function, arguments, keywords));
        };
        let first = PyTuple::new(py, [function])?;
        let arguments = first.add(arguments)?.cast_into::<PyTuple>()?;
        Ok((
            context.bind(py).getattr(name::run(py))?,
            arguments,
            keywords,
        ))
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.arguments)?;
        visit.call(&self.keywords)?;
        visit.call(&self.context)
    }
}

/// Adds a traceback to an exception of native code: the worker's own frame, as other code
/// relies on there being one.
fn with_traceback(py: Python<'_>, error: PyErr) -> PyErr {
    if error.traceback(py).is_some() {
        return error;
    }
    // SAFETY: attached; a frame that runs now is borrowed from its thread.
    unsafe {
        let frame = ffi::PyEval_GetFrame();
        if frame.is_null() {
            return error;
        }
        error.restore(py);
        // Should it fail, that is the exception.
        ffi::PyTraceBack_Here(frame);
    }
    PyErr::fetch(py)
}

/// A context that the calling thread is in.
struct Entered<'py>(Bound<'py, PyAny>);

impl<'py> Entered<'py> {
    fn enter(context: Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached; the object is a context.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
            return Err(PyErr::fetch(context.py()));
        }
        Ok(Self(context))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: attached; the context was entered.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), None);
        }
    }
}

// SAFETY: a future that was enlisted is kept by a reference of Python's, which `free`
// gives up.
unsafe impl ForeignTask for Future {
    unsafe fn execute(task: NonNull<Header>) -> bool {
        attached(|py| {
            // SAFETY: promised by the caller: the task is one of ours, and started, so that
            // the call is the caller's.
            let (future, call) = unsafe {
                let future = Self::of(py, task);
                let call = Self::take_call(&future);
                (future, call)
            };
            if !plain::is_plain(&future) {
                Self::execute_by_methods(&future, call);
                return false;
            }
            let outcome = match call {
                Some(call) => {
                    if !call.function.bind(py).is_exact_instance_of::<PyFunction>() {
                        let_others_run(py);
                    }
                    call.call(py)
                }
                None => Ok(py.None().into_bound(py)),
            };
            // SAFETY: in this face anyone may claim, and the call was taken above.
            if unsafe { future.get().state().claim() }.is_err() {
                // Somebody else has set an outcome, as anyone may.
                return false;
            }
            match outcome {
                Ok(result) => Self::fill_result(&future, result),
                Err(error) => {
                    let error = with_traceback(py, error);
                    let exception = error.into_value(py).into_bound(py).into_any();
                    Self::fill_exception(&future, exception);
                }
            }
            true
        })
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: promised by the caller.
        unsafe { Self::finish_task(task) };
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Self::of(py, task) };
            // SAFETY: the call of a started task is the caller's.
            drop(unsafe { Self::take_call(&future) });
            let error = stdlib::task_error(py, &error);
            let exception = error.into_value(py).into_bound(py).into_any();
            let set = if plain::is_plain(&future) {
                Self::set_outcome(&future, || Self::fill_exception(&future, exception))
            } else {
                let method = name::set_exception(py);
                future.call_method1(method, (exception,)).map(drop)
            };
            if let Err(error) = set {
                cannot_be_told(error, py, Some(future.as_any()));
            }
        });
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Self::of(py, task) };
            let (cancel, told) = if plain::is_plain(&future) {
                Self::cancel_pending(&future)
            } else {
                Self::cancel_by_method(&future)
            };
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
            cancel
        })
    }

    unsafe fn skip(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Self::of(py, task) };
            let told = if plain::is_plain(&future) {
                Self::notify_cancel(&future).1
            } else {
                let method = name::set_running(py);
                future.call_method0(method).map(drop)
            };
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
        });
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: promised by the caller.
        unsafe { Self::at(task).as_ref().has_exception() }
    }

    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: promised by the caller.
        attached(|py| unsafe { drop_reference(py, task) });
    }

    unsafe fn name(_task: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

/// Drops the reference with which a future was enlisted.
///
/// # Safety
/// It is the caller's.
pub(crate) unsafe fn drop_reference(py: Python<'_>, task: NonNull<Header>) {
    // SAFETY: promised by the caller; the reference was made, and the object taken out of the
    // garbage collector's sight, when the task was submitted.
    unsafe {
        let object = Future::object_of(task);
        if ffi::PyObject_GC_IsTracked(object) == 0 {
            ffi::PyObject_GC_Track(object.cast());
        }
        drop(Bound::from_owned_ptr(py, object));
    }
}

impl Future {
    /// Makes a future done that was claimed and has its outcome; the engine asks for it.
    ///
    /// # Safety
    /// The caller has claimed the future and written the outcome.
    pub(crate) unsafe fn finish_task(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: promised by the caller: the task is one of ours.
            let future = unsafe { Self::of(py, task) };
            let exception = Self::raised(&future);
            let _handled = exception.as_ref().map(Handled::new);
            // SAFETY: promised by the caller.
            let finished = unsafe { Self::finish(&future) };
            if let Err(error) = finished {
                // The worker goes on: others rely on it.
                stdlib::log(
                    py,
                    name::critical(py),
                    &error,
                    (name::exception_in_worker(py),),
                );
            }
        });
    }

    /// Carries out a task that was started by the methods of its future, as the standard library's
    /// executors do.
    fn execute_by_methods(this: &Bound<'_, Self>, call: Option<Call>) {
        let py = this.py();
        let executed = (|| {
            // The method starts the task again.
            // SAFETY: the caller has started it, and it has no outcome.
            unsafe {
                this.get()
                    .state()
                    .advance(&[Phase::Running], Phase::Pending, true);
            }
            if !this.call_method0(name::set_running(py))?.is_truthy()? {
                return Ok(());
            }
            let outcome = match call {
                Some(call) => call.call(py),
                None => Ok(py.None().into_bound(py)),
            };
            let (method, argument) = match outcome {
                Ok(result) => (name::set_result(py), result),
                Err(error) => (
                    name::set_exception(py),
                    error.into_value(py).into_bound(py).into_any(),
                ),
            };
            this.call_method1(method, (argument,)).map(drop)
        })();
        if let Err(error) = executed {
            // The worker goes on: others rely on it.
            stdlib::log(
                py,
                name::critical(py),
                &error,
                (name::exception_in_worker(py),),
            );
        }
    }

    /// Cancels the future if it is pending, and calls its callbacks.
    pub(crate) fn cancel_pending(this: &Bound<'_, Self>) -> (Cancel, PyResult<()>) {
        Self::cancel_and(this, observers::call_callbacks)
    }

    fn cancel_by_method(this: &Bound<'_, Self>) -> (Cancel, PyResult<()>) {
        let was_done = this.get().state().is_done();
        let cancelled = this.call_method0(name::cancel(this.py()));
        match cancelled.and_then(|cancelled| cancelled.is_truthy()) {
            Ok(true) if was_done => (Cancel::Before, Ok(())),
            Ok(true) => (Cancel::Now, Ok(())),
            Ok(false) => (Cancel::TooLate, Ok(())),
            Err(error) => (Cancel::TooLate, Err(error)),
        }
    }

    /// Cancels the future if it is pending, and has `call` call its callbacks.
    pub(crate) fn cancel_and(
        this: &Bound<'_, Self>,
        call: impl FnOnce(&Bound<'_, Self>) -> PyResult<()>,
    ) -> (Cancel, PyResult<()>) {
        // SAFETY: a pending future may be cancelled by anyone, and has no outcome.
        let (advance, observed, told) = unsafe {
            observers::advance(this, &[Phase::Pending], Phase::Cancelled, Event::Withheld)
        };
        match advance {
            Advance::Done => {
                // SAFETY: ours is the cancellation, so the call is ours.
                drop(unsafe { Self::take_call(this) });
                if let Some(remote) = this.get().remote() {
                    remote.leave();
                }
                let called = if observed || !plain::is_plain(this) {
                    call(this)
                } else {
                    Ok(())
                };
                (Cancel::Now, told.and(called))
            }
            Advance::Other(Phase::Cancelled | Phase::Notified) => (Cancel::Before, told),
            _ => (Cancel::TooLate, told),
        }
    }

    /// Cancels the future if it is pending, or was handed to a worker process that has not begun.
    pub(crate) fn cancel_unbegun(this: &Bound<'_, Self>) -> PyResult<Cancel> {
        loop {
            let (mut cancel, mut told) = Self::cancel_pending(this);
            let (Cancel::TooLate, Some(remote)) = (cancel, this.get().remote()) else {
                return told.map(|()| cancel);
            };
            let is_recalled = remote.recall(this.get(), || {
                (cancel, told) = Self::cancel_pending(this);
                if cancel != Cancel::TooLate {
                    // No worker will come across it.
                    let (_, noticed) = Self::notify_cancel(this);
                    told = mem::replace(&mut told, Ok(())).and(noticed);
                }
            });
            // It may have been given back meanwhile.
            if is_recalled || this.get().state().phase() != Phase::Pending {
                return told.map(|()| cancel);
            }
        }
    }

    /// Tells those who wait in the way of the standard library that the future is
    /// cancelled, if that was not done yet.
    pub(crate) fn notify_cancel(this: &Bound<'_, Self>) -> (Advance, PyResult<()>) {
        // SAFETY: from a phase in which the future is done to one in which it is.
        let (advance, _, told) = unsafe {
            observers::advance(this, &[Phase::Cancelled], Phase::Notified, Event::Cancelled)
        };
        (advance, told)
    }

    /// Makes a future done that was claimed and has its outcome, and calls the callbacks.
    ///
    /// # Safety
    /// The caller has claimed the future and written the outcome.
    pub(crate) unsafe fn finish(this: &Bound<'_, Self>) -> PyResult<()> {
        // SAFETY: promised by the caller.
        let (observed, told) = unsafe { Self::publish(this) };
        if observed || !plain::is_plain(this) {
            told.and(observers::call_callbacks(this))
        } else {
            told
        }
    }

    /// The same, but for the callbacks. Returns whether there may be some.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn publish(this: &Bound<'_, Self>) -> (bool, PyResult<()>) {
        let event = if this.get().has_exception() {
            Event::Exception
        } else {
            Event::Result
        };
        // SAFETY: promised by the caller.
        let (_, observed, told) =
            unsafe { observers::advance(this, &[Phase::Setting], Phase::Finished, event) };
        (observed, told)
    }

    /// Sets the outcome by calling `fill`.
    ///
    /// # Errors
    /// `InvalidStateError` when the future is done.
    pub(crate) fn set_outcome(this: &Bound<'_, Self>, fill: impl FnOnce()) -> PyResult<()> {
        // SAFETY: in this face anyone may claim.
        if let Err(phase) = unsafe { this.get().state().claim() } {
            let py = this.py();
            let message = format!("{}: {}", Self::state_name(phase), this.repr()?);
            return Err(stdlib::error(stdlib::invalid_state_error(py), (message,)));
        }
        fill();
        // SAFETY: claimed and written just now.
        unsafe { Self::finish(this) }
    }
}

thread_local! {
    /// When the turn of the calling worker ends.
    static END_OF_TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A worker begins a turn, after which it lets others run.
pub(crate) fn begin_turn(py: Python<'_>) {
    END_OF_TURN.set(deadline_after(turn(py)));
}

/// Who wants to run asks for it after the switch interval, and only then does giving up the
/// interpreter lock hand it over. After twice that time, who waits has asked.
fn turn(py: Python<'_>) -> Duration {
    stdlib::switch_interval(py)
        .and_then(|interval| interval.call0()?.extract::<f64>())
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok())
        .unwrap_or(Duration::from_millis(10))
}

/// Python code is interrupted when others wait for their turn. Native code is not, and
/// between the tasks there is no Python code: so we offer it.
pub(crate) fn let_others_run(py: Python<'_>) {
    if END_OF_TURN.get().is_some_and(|end| Instant::now() >= end) {
        py.detach(|| {});
        begin_turn(py);
    }
}
