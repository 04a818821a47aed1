//! The task in a future: what the engine's workers do with it.

use crate::future::call::Call;
use crate::future::object::Future;
use crate::future::object::OFFSET;
use crate::future::observers::{self, Event, Held};
use crate::future::plain;
use crate::future::plain::InvokeCallbacks;
use crate::interp::attach::attached;
use crate::interp::bias::unbias;
use crate::interp::deferred_drop::drop_reference;
use crate::interp::handled::Handled;
use crate::interp::signals::cannot_be_told;
use crate::interp::turns::checkpoint_at_ticks;
use crate::interp::{interned, stdlib};
use crate::recording::names;
use concurrent_futures::TaskError;
use concurrent_futures::engine::VTable;
use concurrent_futures::engine::recorder::{self, RunOutcome};
use concurrent_futures::engine::{Advance, Cancel, ForeignTask, Header, Phase};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyFunction;
use std::borrow::Cow;
use std::mem;
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// Adds the worker's own frame as a traceback to an exception of native code, as other code relies on a
/// traceback.
pub(crate) fn with_traceback(py: Python<'_>, error: PyErr) -> PyErr {
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

static VTABLE: VTable = VTable::of::<Future>();

impl Future {
    pub(crate) fn pending(call: Option<Call>) -> Self {
        Self::with(&VTABLE, call, None)
    }

    /// Makes the future of a task.
    pub(crate) fn of_call<'py>(py: Python<'py>, call: Call) -> PyResult<Bound<'py, Self>> {
        Self::create(py, Self::pending(Some(call)))
    }

    /// Measures the layout of the objects.
    pub(crate) fn measure(py: Python<'_>) -> PyResult<()> {
        let sample = Bound::new(py, Self::pending(None))?;
        let offset = ptr::from_ref(sample.get()).addr() - sample.as_ptr().addr();
        let size = py
            .get_type::<Self>()
            .getattr("__basicsize__")?
            .extract::<usize>()?;
        if size != offset + size_of::<Self>() {
            return Err(PyRuntimeError::new_err("futures have an unexpected layout"));
        }
        OFFSET.store(offset, Ordering::Relaxed);
        InvokeCallbacks::set(py)
    }
}

// SAFETY: a future that was enlisted is kept by a reference of Python's, which `free`
// gives up.
unsafe impl ForeignTask for Future {
    unsafe fn execute(task: NonNull<Header>) -> RunOutcome {
        // SAFETY: the caller has started the task of a future.
        unsafe { Self::execute_by(task, make_here) }
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: `execute` did not return `Elsewhere`, so that the future is claimed and its outcome written.
        unsafe { Self::finish_task(task) };
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        attached(|py| {
            // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
            let future = unsafe { Self::borrowed(py, task) };
            // SAFETY: the call of a started task is the caller's.
            let taken = unsafe { Self::take_call(&future) };
            if let Some(taken) = taken {
                taken.abandon(py);
            }
            let error = stdlib::task_error(py, &error);
            let exception = error.into_value(py).into_bound(py).into_any();
            let set = if plain::is_plain(&future) {
                Self::set_outcome(&future, || drop(Self::fill_exception(&future, exception)))
            } else {
                let method = interned::set_exception(py);
                future.call_method1(method, (exception,)).map(drop)
            };
            if let Err(error) = set {
                cannot_be_told(error, py, Some(future.as_any()));
            }
        });
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        attached(|py| {
            // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
            let future = unsafe { Self::borrowed(py, task) };
            let (cancel, told) = if plain::is_plain(&future) {
                Self::cancel_pending(&future, None)
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
            // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
            let future = unsafe { Self::borrowed(py, task) };
            let told = if plain::is_plain(&future) {
                Self::notify_cancel(&future, None).1
            } else {
                let method = interned::set_running(py);
                future.call_method0(method).map(drop)
            };
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
        });
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
        unsafe { Self::at(task).as_ref().has_exception() }
    }

    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: the header was that of a future, which `enlist` untracked; the last `TaskRef` gives its
        // reference up.
        attached(|py| unsafe {
            drop_reference(py, NonNull::new_unchecked(Future::object_of(task)));
        });
    }

    unsafe fn name(_task: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

/// Makes a call in the interpreter of the calling thread.
fn make_here(py: Python<'_>, call: Call) -> PyResult<Bound<'_, PyAny>> {
    if !call.function.bind(py).is_exact_instance_of::<PyFunction>() {
        checkpoint_at_ticks(py)?;
    }
    call.call(py)
}

/// The way in which a worker makes a call.
pub(crate) trait Make:
    for<'py> FnOnce(Python<'py>, Call) -> PyResult<Bound<'py, PyAny>>
{
}

impl<F: for<'py> FnOnce(Python<'py>, Call) -> PyResult<Bound<'py, PyAny>>> Make for F {}

impl Future {
    /// Executes a task: claims its future for the outcome of the call, which `make` makes. Returns `Elsewhere` if
    /// another thread has set an outcome.
    ///
    /// # Safety
    /// The header is that of a future, and the caller has started the task.
    pub(crate) unsafe fn execute_by(task: NonNull<Header>, make: impl Make) -> RunOutcome {
        attached(|py| {
            // SAFETY: the header is that of a future, and the caller has started the task, so that the call
            // is the caller's.
            let (future, call) = unsafe {
                let future = Self::borrowed(py, task);
                let call = Self::take_call(&future);
                (future, call)
            };
            if !plain::is_plain(&future) {
                Self::execute_by_methods(&future, call, make);
                return RunOutcome::Elsewhere;
            }
            let outcome = match call {
                Some(call) => {
                    if recorder::is_on() {
                        recorder::note_name(names::name_of(call.function.bind(py)));
                    }
                    make(py, call)
                }
                None => Ok(py.None().into_bound(py)),
            };
            // SAFETY: in this frontend any thread may claim, and the call was taken above.
            if unsafe { future.get().state().claim() }.is_err() {
                // Another thread has set an outcome, as any thread may.
                return RunOutcome::Elsewhere;
            }
            match outcome {
                Ok(result) => {
                    unbias(&result);
                    drop(Self::fill_result(&future, result));
                    RunOutcome::Finished
                }
                Err(error) => {
                    let error = with_traceback(py, error);
                    let exception = error.into_value(py).into_bound(py).into_any();
                    if recorder::is_on() {
                        recorder::note_error(&names::text_of(&exception));
                    }
                    drop(Self::fill_exception(&future, exception));
                    RunOutcome::Failed
                }
            }
        })
    }

    /// Makes a future done that was claimed and has its outcome. Called by the engine.
    ///
    /// # Safety
    /// The caller has claimed the future and written the outcome.
    pub(crate) unsafe fn finish_task(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: the header is that of a future, which its `TaskRef` keeps alive.
            let future = unsafe { Self::borrowed(py, task) };
            let exception = Self::raised(&future);
            let _handled = exception.as_ref().map(Handled::new);
            // SAFETY: the caller has claimed the future and written the outcome.
            let finished = unsafe { Self::finish(&future, None) };
            if let Err(error) = finished {
                // The worker goes on: other tasks rely on it.
                stdlib::log(
                    py,
                    interned::critical(py),
                    &error,
                    (interned::exception_in_worker(py),),
                );
            }
        });
    }

    /// Carries out a task by calling the methods of its future, as the standard library's executors do.
    fn execute_by_methods(this: &Bound<'_, Self>, call: Option<Call>, make: impl Make) {
        let py = this.py();
        let executed = (|| {
            // The method starts the task again.
            // SAFETY: the caller has started it, and it has no outcome.
            unsafe {
                this.get()
                    .state()
                    .advance(&[Phase::Running], Phase::Pending, true);
            }
            if !this.call_method0(interned::set_running(py))?.is_truthy()? {
                return Ok(());
            }
            if let Some(call) = &call
                && recorder::is_on()
            {
                recorder::note_name(names::name_of(call.function.bind(py)));
            }
            let outcome = match call {
                Some(call) => make(py, call),
                None => Ok(py.None().into_bound(py)),
            };
            let (method, argument) = match outcome {
                Ok(result) => (interned::set_result(py), result),
                Err(error) => (
                    interned::set_exception(py),
                    error.into_value(py).into_bound(py).into_any(),
                ),
            };
            this.call_method1(method, (argument,)).map(drop)
        })();
        if let Err(error) = executed {
            // The worker goes on: other tasks rely on it.
            stdlib::log(
                py,
                interned::critical(py),
                &error,
                (interned::exception_in_worker(py),),
            );
        }
    }

    /// Cancels the future if it is pending, and calls its callbacks. For `held`, see [`observers::advance`].
    pub(crate) fn cancel_pending(
        this: &Bound<'_, Self>,
        held: Option<Held<'_>>,
    ) -> (Cancel, PyResult<()>) {
        Self::cancel_and(this, held, observers::call_callbacks)
    }

    fn cancel_by_method(this: &Bound<'_, Self>) -> (Cancel, PyResult<()>) {
        let was_done = this.get().state().is_done();
        let cancelled = this.call_method0(interned::cancel(this.py()));
        match cancelled.and_then(|cancelled| cancelled.is_truthy()) {
            Ok(true) if was_done => (Cancel::Before, Ok(())),
            Ok(true) => (Cancel::Now, Ok(())),
            Ok(false) => (Cancel::TooLate, Ok(())),
            Err(error) => (Cancel::TooLate, Err(error)),
        }
    }

    /// Cancels the future if it is pending; `call` calls its callbacks.
    pub(crate) fn cancel_and(
        this: &Bound<'_, Self>,
        held: Option<Held<'_>>,
        call: impl FnOnce(&Bound<'_, Self>) -> PyResult<()>,
    ) -> (Cancel, PyResult<()>) {
        // SAFETY: any thread may cancel a pending future, which has no outcome.
        let (advance, observed, told) = unsafe {
            let (from, to) = (&[Phase::Pending], Phase::Cancelled);
            observers::advance(this, from, to, Event::Withheld, held)
        };
        match advance {
            Advance::Done => {
                this.get().header().note_cancelled();
                // SAFETY: ours is the cancellation, so the call is ours.
                let taken = unsafe { Self::take_call(this) };
                if let Some(taken) = taken {
                    taken.abandon(this.py());
                }
                if let Some(remote) = this.get().remote() {
                    remote.depart();
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

    /// Cancels the future if it is pending, or was dispatched to a worker process that has not begun it.
    ///
    /// # Errors
    /// The exception of a callback, or one that came while the calling thread waited for the condition.
    pub(crate) fn cancel_unbegun(this: &Bound<'_, Self>) -> PyResult<Cancel> {
        loop {
            let held = observers::hold(this)?;
            let (mut cancel, mut told) = Self::cancel_pending(this, held);
            let (Cancel::TooLate, Some(remote)) = (cancel, this.get().remote()) else {
                return told.map(|()| cancel);
            };
            let is_recalled = remote.recall(this.get(), &mut || {
                (cancel, told) = Self::cancel_pending(this, None);
                if cancel != Cancel::TooLate {
                    // No worker will come across it.
                    let (_, noticed) = Self::notify_cancel(this, None);
                    told = mem::replace(&mut told, Ok(())).and(noticed);
                }
            });
            // It may have been given back meanwhile.
            if is_recalled || this.get().state().phase() != Phase::Pending {
                return told.map(|()| cancel);
            }
        }
    }

    /// Notifies the standard library's waiters that the future is cancelled, if that was not done yet.
    /// For `held`, see [`observers::advance`].
    pub(crate) fn notify_cancel(
        this: &Bound<'_, Self>,
        held: Option<Held<'_>>,
    ) -> (Advance, PyResult<()>) {
        // SAFETY: from a phase in which the future is done to one in which it is.
        let (advance, _, told) = unsafe {
            let (from, to) = (&[Phase::Cancelled], Phase::Notified);
            observers::advance(this, from, to, Event::Cancelled, held)
        };
        (advance, told)
    }

    /// Makes a future done that was claimed and has its outcome, and calls the callbacks. For `held`, see
    /// [`observers::advance`].
    ///
    /// # Safety
    /// The caller has claimed the future and written the outcome.
    pub(crate) unsafe fn finish(this: &Bound<'_, Self>, held: Option<Held<'_>>) -> PyResult<()> {
        // SAFETY: the caller has claimed the future and written the outcome.
        let (observed, told) = unsafe { Self::publish(this, held) };
        if observed || !plain::is_plain(this) {
            told.and(observers::call_callbacks(this))
        } else {
            told
        }
    }

    /// Makes a future done that was claimed and has its outcome, without calling the callbacks. Returns
    /// whether there may be some.
    ///
    /// # Safety
    /// The caller has claimed the future and written the outcome.
    pub(crate) unsafe fn publish(
        this: &Bound<'_, Self>,
        held: Option<Held<'_>>,
    ) -> (bool, PyResult<()>) {
        let event = if this.get().has_exception() {
            Event::Exception
        } else {
            Event::Result
        };
        // SAFETY: the caller has claimed the future and written the outcome, so it may finish it.
        let (_, observed, told) =
            unsafe { observers::advance(this, &[Phase::Setting], Phase::Finished, event, held) };
        (observed, told)
    }

    /// Sets the outcome by calling `fill`.
    ///
    /// # Errors
    /// `InvalidStateError` when the future is done, or the exception that came while the calling thread waited for
    /// the condition.
    pub(crate) fn set_outcome(this: &Bound<'_, Self>, fill: impl FnOnce()) -> PyResult<()> {
        let held = observers::hold(this)?;
        // SAFETY: in this frontend any thread may claim.
        if let Err(phase) = unsafe { this.get().state().claim() } {
            if let Some(held) = held {
                held.release()?;
            }
            let py = this.py();
            let message = format!("{}: {}", Self::state_name(phase), this.repr()?);
            return Err(stdlib::error(stdlib::invalid_state_error(py), (message,)));
        }
        fill();
        // SAFETY: claimed and written just now.
        unsafe { Self::finish(this, held) }
    }
}
