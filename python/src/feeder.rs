//! Calls that a thread of the pool pickles.
//!
//! # Protocol
//! A call whose function is found by its name, and whose arguments are plain (numbers, texts and the
//! like), is pickled by the thread that submits it: no Python code runs for that, and it takes no
//! time. Pickling any other call may run Python code, which may take a lock that the caller holds. As in
//! the standard library, a thread of the pool does it (`jobs.rs`), in the order of
//! submission. While there are such calls, plain ones wait behind them, as bytes.
//!
//! A future is pending until its call was handed to a worker. One that is cancelled before its turn is
//! never pickled. An exception of pickling becomes the outcome of the future.
//!
//! Pickles that are long are made only when those before them were handed to workers ([`Room`]): so the
//! memory of what waits is that of the objects.
//!
//! # Closing
//! A pool that is closed refuses calls at once. The engine's pool, which refuses bytes too once it is
//! closed, is closed when all calls that were accepted have come to it.

use crate::future::Future;
use crate::jobs::Job;
use crate::pickling::Pickled;
use crate::process;
use crate::process_errors;
use crate::process_pool;
use crate::process_shared::Shared;
use crate::remote::{self, Remote, RemoteFuture};
use concurrent_futures::engine::{Attachment, ForeignTask, Phase, RemoteCall, TaskRef};
use concurrent_futures::{SubmitError, TaskOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A call that was accepted, and is not with the engine's pool.
pub(crate) struct Fed {
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
            task,
            call,
            options,
        }
    }

    pub(crate) fn bytes(task: TaskRef, pickled: Pickled, options: TaskOptions) -> Self {
        Self {
            task,
            call: Call::Bytes(pickled),
            options,
        }
    }

    /// Cancels the call. The calling thread is attached.
    pub(crate) fn cancel(self) {
        // SAFETY: it is one of ours.
        unsafe { RemoteFuture::cancel(self.task.address()) };
    }
}

impl Job for Fed {
    fn run(self, py: Python<'_>) -> Arc<Shared> {
        let Self {
            task,
            call,
            options,
        } = self;
        // SAFETY: it is one of ours, and the reference keeps it.
        let future = unsafe { Future::of(py, task.address()) };
        let remote = future.get().remote();
        // SAFETY: only futures with this part are fed.
        let remote = unsafe { remote.unwrap_unchecked() };
        let pool = Arc::clone(remote.pool());
        if let Err(error) = feed(&future, remote, task, call, options) {
            fail(&future, remote, error);
        }
        pool
    }
}

/// Pickles a call and submits it.
fn feed(
    future: &Bound<'_, Future>,
    remote: &Remote,
    task: TaskRef,
    call: Call,
    options: TaskOptions,
) -> PyResult<()> {
    let py = future.py();
    let pool = remote.pool();
    if future.get().state().phase() != Phase::Pending {
        // SAFETY: it is one of ours.
        unsafe { RemoteFuture::skip(task.address()) };
        return Ok(());
    }
    pool.room.wait(py);
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
            let pickled = pool.functions.pickle(
                function.bind(py),
                arguments.bind(py),
                keywords,
                &pool.pickling,
            );
            pickled.map_err(|error| {
                PyErr::from_value(process_errors::with_remote_traceback(py, error).into_any())
            })?
        }
    };
    let attached = pickled.attachment.as_ref().map_or(0, Attachment::length);
    remote.occupy(pool.room.take(pickled.argument.len() + attached));
    let call = RemoteCall {
        definition: pickled.definition,
        tag: pickled.tag as u8,
        argument: pickled.argument,
        attachment: pickled.attachment,
        span: None,
        options,
        has_place: remote.has_place(),
    };
    match remote::submit_task(py, task, pool, call) {
        Ok(false) => Ok(()),
        Ok(true) => process_pool::start_worker(py, pool).inspect_err(|_| pool.pool.reconsider()),
        Err(refusal) => refuse(future, py, &refusal),
    }
}

/// The pool was closed or has broken meanwhile.
fn refuse(future: &Bound<'_, Future>, py: Python<'_>, refusal: &SubmitError) -> PyResult<()> {
    if matches!(refusal, SubmitError::Shutdown) {
        let (_, told) = Future::cancel_pending(future);
        return told;
    }
    Err(process_errors::submit_error(py, refusal))
}

/// Gives a future an exception, unless it has an outcome.
fn fail(future: &Bound<'_, Future>, remote: &Remote, error: PyErr) {
    let py = future.py();
    remote.leave();
    let exception = error.into_value(py).into_bound(py).into_any();
    // SAFETY: the call is with no worker, and finished below.
    let told = if unsafe { future.get().state().claim() }.is_ok() {
        Future::fill_exception(future, exception);
        // SAFETY: claimed and written just now.
        unsafe { Future::finish(future) }
    } else {
        // It was cancelled meanwhile, or somebody has set an outcome.
        Future::notify_cancel(future).1
    };
    if let Err(error) = told {
        error.write_unraisable(py, Some(future.as_any()));
    }
}

/// The bytes that wait to be handed to workers.
#[derive(Default)]
pub(crate) struct Room {
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Room {
    /// More is pickled only while fewer bytes wait.
    const MOST: usize = 16 * 1024 * 1024;
    /// Shorter pickles do not count.
    const SHORT: usize = 64 * 1024;

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more may be pickled.
    fn wait(&self, py: Python<'_>) {
        let is_full = |waiting: &mut usize| *waiting >= Self::MOST;
        if is_full(&mut self.lock()) {
            let on_the_way = py.detach(|| {
                // A pool that breaks gives up all that waits.
                drop(self.changed.wait_while(self.lock(), is_full));
                process::come_back()
            });
            drop(on_the_way);
        }
    }

    /// Takes room for a pickle of this length.
    fn take(self: &Arc<Self>, length: usize) -> Option<Taken> {
        if length < Self::SHORT {
            return None;
        }
        *self.lock() += length;
        Some(Taken {
            room: Arc::clone(self),
            length,
        })
    }
}

/// Bytes that wait. To drop this gives their room back; no other lock is taken for that than the
/// room's.
pub(crate) struct Taken {
    room: Arc<Room>,
    length: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.room.lock() -= self.length;
        self.room.changed.notify_all();
    }
}
