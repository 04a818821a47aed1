//! The feeder: calls that a thread of the pool pickles.
//!
//! # Protocol
//! If a call's function is found by its name, and its arguments are plain (numbers, texts and the like), the
//! submitting thread pickles the call. That runs no Python code, and takes no time. Pickling any other call
//! may run Python code, which may take a lock that the caller holds. As in the standard library, a thread of
//! the pool pickles such calls (`interp/jobs.rs`), in the order of submission. While there are such calls,
//! plain calls wait behind them, as bytes.
//!
//! A future is pending until its call was dispatched to a worker. A call that is cancelled before its turn is never
//! pickled. An exception of pickling becomes the outcome of the future.
//!
//! As in the standard library, the feeder pickles a call only when there is room (`Room`). There is none while all
//! workers have a call, and one more call than there are workers waits. So a program may change the arguments of a
//! call until then. The waiting calls take the memory of their objects, and not that of their pickles. For the same
//! reason, `submit` leaves plain calls to the feeder while there is no room, if their arguments may change or are long.
//!
//! A long pickle is made only when the pickles before it were dispatched.
//!
//! # Closing
//! A pool that is closed refuses calls at once. The engine's pool, which refuses bytes once it is closed, is closed
//! when it has got all accepted calls.

use crate::future::object::Future;
use crate::future::remote::Remote;
use crate::interp::jobs::Job;
use crate::interp::process_errors;
use crate::pickle::calls::Pickled;
use crate::process::shared;
use crate::process::shared::Shared;
use crate::process::task::{self, RemoteFuture};
use crate::recording::calls::length;
use concurrent_futures::engine::{
    ForeignTask, Phase, RemoteCall, TaskRef, recorder, recording_clock,
};
use concurrent_futures::{SubmitError, TaskOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// A call that was accepted, and that the engine's pool does not have yet.
pub(crate) struct Fed {
    pool: Arc<Shared>,
    task: TaskRef,
    call: Call,
    options: TaskOptions,
}

enum Call {
    Objects {
        function: Py<PyAny>,
        arguments: Py<PyTuple>,
        keywords: Option<Py<PyDict>>,
    },
    Bytes(Pickled),
}

impl Fed {
    pub(crate) fn objects(
        pool: &Arc<Shared>,
        task: TaskRef,
        function: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
        options: TaskOptions,
    ) -> Self {
        let call = Call::Objects {
            function: function.clone().unbind(),
            arguments: arguments.clone().unbind(),
            keywords: keywords.map(|keywords| keywords.clone().unbind()),
        };
        Self {
            pool: Arc::clone(pool),
            task,
            call,
            options,
        }
    }

    pub(crate) fn bytes(
        pool: &Arc<Shared>,
        task: TaskRef,
        pickled: Pickled,
        options: TaskOptions,
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            task,
            call: Call::Bytes(pickled),
            options,
        }
    }

    /// Cancels the call. The calling thread is attached.
    pub(crate) fn cancel(self) {
        // SAFETY: it is one of ours.
        unsafe { RemoteFuture::cancel(self.task.address()) };
        self.task.note_skipped();
    }
}

impl Job for Fed {
    type Pool = Shared;

    fn run(self, py: Python<'_>) -> Arc<Shared> {
        let Self {
            pool,
            task,
            call,
            options,
        } = self;
        // SAFETY: it is one of ours, and the reference keeps it.
        let future = unsafe { Future::of(py, task.address()) };
        let remote = future.get().remote();
        // SAFETY: only futures with this part are fed.
        let remote = unsafe { remote.unwrap_unchecked() };
        if let Err(error) = feed(&pool, &future, remote, task, call, options) {
            fail(&future, remote, error);
        }
        pool
    }
}

/// Pickles a call and submits it.
fn feed(
    pool: &Shared,
    future: &Bound<'_, Future>,
    remote: &Remote,
    task: TaskRef,
    call: Call,
    options: TaskOptions,
) -> PyResult<()> {
    let py = future.py();
    let is_pending = || task.state().phase() == Phase::Pending;
    pool.room.wait(py, || match call {
        Call::Bytes(_) => true,
        Call::Objects { .. } => pool.has_room(0) || !is_pending() || pool.pool.refusal().is_some(),
    });
    if !is_pending() {
        task.note_skipped();
        // SAFETY: it is one of ours.
        unsafe { RemoteFuture::skip(task.address()) };
        return Ok(());
    }
    if let Some(refusal) = pool.pool.refusal() {
        return refuse(future, py, &refusal);
    }
    let pickled = match call {
        Call::Bytes(pickled) => pickled,
        Call::Objects {
            function,
            arguments,
            keywords,
        } => {
            let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
            let began = recorder::is_on().then(recording_clock);
            let pickled = pool.functions.pickle(
                function.bind(py),
                arguments.bind(py),
                keywords,
                &pool.pickling,
            );
            let pickled = pickled.map_err(|error| {
                PyErr::from_value(process_errors::with_remote_traceback(py, error).into_any())
            })?;
            if let Some(began) = began {
                recorder::pickled(task.id(), began, length(&pickled));
            }
            pickled
        }
    };
    remote.occupy(pool.room.take(length(&pickled)));
    let call = RemoteCall {
        definition: pickled.definition,
        tag: pickled.tag as u8,
        argument: pickled.argument,
        attachment: pickled.attachment,
        span: None,
        options,
        has_place: remote.has_place(),
    };
    match task::submit_task(py, task, pool, call) {
        Ok(false) => Ok(()),
        Ok(true) => shared::start_worker(py, pool).inspect_err(|_| pool.pool.reconsider()),
        Err(refusal) => refuse(future, py, &refusal),
    }
}

/// Gives a future the exception of a pool that was closed or has broken meanwhile.
fn refuse(future: &Bound<'_, Future>, py: Python<'_>, refusal: &SubmitError) -> PyResult<()> {
    if matches!(refusal, SubmitError::Shutdown) {
        let (_, told) = Future::cancel_pending(future, None);
        future.get().header().note_skipped();
        return told;
    }
    Err(process_errors::submit_error(py, refusal))
}

/// Gives a future an exception, unless the future has an outcome.
fn fail(future: &Bound<'_, Future>, remote: &Remote, error: PyErr) {
    let py = future.py();
    remote.leave();
    let exception = error.into_value(py).into_bound(py).into_any();
    // SAFETY: the call is with no worker, and finished below.
    let told = if unsafe { future.get().state().claim() }.is_ok() {
        future
            .get()
            .header()
            .note_rejected(recorder::RunOutcome::Rejected);
        drop(Future::fill_exception(future, exception));
        // SAFETY: claimed and written just now.
        unsafe { Future::finish(future, None) }
    } else {
        // The call was cancelled meanwhile, or another thread has set an outcome.
        future.get().header().note_skipped();
        Future::notify_cancel(future, None).1
    };
    if let Err(error) = told {
        error.write_unraisable(py, Some(future.as_any()));
    }
}
