//! The submission of calls to a pool of processes, and the start of the pool's workers and supervisor.
//!
//! A plain call is pickled at once and goes to the engine. Every other call, and every call behind such a call, goes to
//! the [feeder](crate::process::feeder). A plain call goes there, too, if the pool has no room, and the call's arguments
//! may change or are long.

use crate::future::object::Future;
use crate::future::remote::Remote;
use crate::interp::deferred_drop::drop_released;
use crate::interp::signals::{cannot_be_told, hold, raise_kept};
use crate::interp::{attach, interned, process_errors, stdlib};
use crate::pickle::calls::{AS_ONE, Pickled};
use crate::process::feeder::Fed;
use crate::process::pool::ProcessPool;
use crate::process::shared::{Shared, start_worker};
use crate::process::task;
use crate::recording::calls::Recorded;
use crate::recording::names;
use concurrent_futures::engine::{CallSpan, Permit, RemoteCall, TaskRef};
use concurrent_futures::{SubmitError, TaskOptions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::atomic::Ordering;

/// A function, its arguments and keywords.
type Call<'a, 'py> = (
    &'a Bound<'py, PyAny>,
    &'a Bound<'py, PyTuple>,
    Option<&'a Bound<'py, PyDict>>,
);

impl ProcessPool {
    /// Raises an exception if the pool accepts no tasks. Prepares the parts that must be there before the
    /// first task.
    pub(crate) fn prepare(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        drop_released(py);
        let started = this.get().started()?;
        started.shared.check_fork()?;
        started.is_used.store(true, Ordering::Relaxed);
        if let Some(refusal) = started.shared.refusal() {
            return Err(process_errors::submit_error(py, &refusal));
        }
        if attach::is_exiting() {
            return Err(stdlib::submit_error(py, &SubmitError::Shutdown));
        }
        if !started.has_begun.load(Ordering::Acquire) {
            let held = hold(py);
            this.call_method0(interned::begin(py))?;
            drop(held);
            raise_kept().map_err(|error| Self::supervise_after(this, error))?;
        }
        Ok(())
    }

    /// Starts the supervisor after the first submission: the workers are on their way to the task meanwhile.
    fn supervise(this: &Bound<'_, Self>) -> PyResult<()> {
        let has_begun = &this.get().started()?.has_begun;
        if !has_begun.load(Ordering::Acquire) {
            let _held = hold(this.py());
            this.call_method0(interned::supervise(this.py()))?;
            has_begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Starts the supervisor after a failed submission: there may be workers all the same.
    fn supervise_after(this: &Bound<'_, Self>, error: PyErr) -> PyErr {
        if let Err(other) = Self::supervise(this) {
            cannot_be_told(other, this.py(), Some(this));
        }
        raise_kept().err().unwrap_or(error)
    }

    pub(crate) fn submit_call<'py>(
        this: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        options: TaskOptions,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        Self::prepare(this)?;
        let started = this.get().started()?;
        let permit = (started.permit(py)).map_err(|error| Self::supervise_after(this, error))?;
        let shared = &started.shared;
        let functions = &shared.functions;
        let recorded = Recorded::of(function, Some((arguments, keywords)));
        let has_room = || shared.has_room(shared.feeder.left());
        let plain =
            functions.pickle_plain(function, arguments, keywords, &shared.pickling, has_room)?;
        let call = (function, arguments, keywords);
        Self::submit_with_plain(this, call, plain, permit, options, recorded)
    }

    /// Submits a call, of which there may be bytes already.
    pub(crate) fn submit_with_plain<'py>(
        this: &Bound<'py, Self>,
        (function, arguments, keywords): Call<'_, 'py>,
        plain: Option<Pickled>,
        permit: Option<Permit>,
        options: TaskOptions,
        recorded: Option<Recorded<'_, 'py>>,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        let shared = this.get().shared()?;
        let mut remote = Remote::new(Shared::of_futures(shared), permit);
        let is_defined = plain.as_ref().is_some_and(|it| it.definition.is_some());
        if !is_defined {
            remote = remote.named(names::text_of_callee(function));
        }
        match plain {
            Some(pickled) if shared.feeder.left() == 0 => {
                Self::submit_pickled(this, remote, pickled, None, options, recorded)
            }
            plain => {
                let future = task::make(py, remote)?;
                if let Some(recorded) = recorded {
                    let number = shared.pool.describe();
                    recorded.note(number, future.get().id(), plain.as_ref());
                }
                let task = task::enlist(&future, shared);
                let call = match plain {
                    Some(pickled) => Fed::bytes(shared, task, pickled, options),
                    None => Fed::objects(shared, task, function, arguments, keywords, options),
                };
                Self::feed(this, &future, call)?;
                Ok(future)
            }
        }
    }

    /// Submits a call that is pickled already, or the calls of a chunk of items.
    fn submit_pickled<'py>(
        this: &Bound<'py, Self>,
        remote: Remote,
        pickled: Pickled,
        chunk: Option<u32>,
        options: TaskOptions,
        recorded: Option<Recorded<'_, 'py>>,
    ) -> PyResult<Bound<'py, Future>> {
        let py = this.py();
        let started = this.get().started()?;
        let shared = &started.shared;
        let future = task::make(py, remote)?;
        if let Some(recorded) = recorded {
            let number = shared.pool.describe();
            recorded.note(number, future.get().id(), Some(&pickled));
        }
        let call = RemoteCall {
            definition: pickled.definition,
            tag: match chunk {
                Some(_) => pickled.tag as u8 | AS_ONE,
                None => pickled.tag as u8,
            },
            argument: pickled.argument,
            attachment: pickled.attachment,
            span: chunk.map(CallSpan::Whole),
            options,
            has_place: future.get().remote().is_some_and(Remote::has_place),
        };
        let submitted = task::submit(py, &future, shared, call);
        if submitted.is_ok() {
            started.submitted.fetch_add(1, Ordering::Relaxed);
        }
        Self::after_submit(this, &future, submitted)?;
        Ok(future)
    }

    /// Submits calls for several items as one task, if they are plain, and no call must come first.
    pub(crate) fn submit_plain_chunk<'py>(
        this: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        items: &[Bound<'py, PyAny>],
        is_single: bool,
        options: TaskOptions,
    ) -> PyResult<Option<Bound<'py, Future>>> {
        let py = this.py();
        Self::prepare(this)?;
        let started = this.get().started()?;
        let shared = &started.shared;
        if shared.feeder.left() > 0 {
            return Ok(None);
        }
        let Some(pickled) = shared.functions.plain_chunk(function, items, is_single)? else {
            return Ok(None);
        };
        let permit = (started.permit(py)).map_err(|error| Self::supervise_after(this, error))?;
        let count = u32::try_from(items.len())?;
        let remote = Remote::of_span(Shared::of_futures(shared), count, permit);
        let recorded = Recorded::of(function, None);
        Self::submit_pickled(this, remote, pickled, Some(count), options, recorded).map(Some)
    }

    /// Submits the items of a span, which has a future already.
    pub(crate) fn submit_items(
        this: &Bound<'_, Self>,
        future: &Bound<'_, Future>,
        task: &TaskRef,
        call: RemoteCall,
    ) -> PyResult<()> {
        let py = this.py();
        let shared = this.get().shared()?;
        let submitted = task::submit_task(py, task.clone(), shared, call);
        Self::after_submit(this, future, submitted)
    }

    /// Adds a call to the feeder, which pickles and then submits it.
    fn feed(this: &Bound<'_, Self>, future: &Bound<'_, Future>, call: Fed) -> PyResult<()> {
        let py = this.py();
        let started = this.get().started()?;
        let shared = &started.shared;
        let Ok(is_thread_wanted) = shared.feeder.add(call) else {
            let error = stdlib::submit_error(py, &SubmitError::Shutdown);
            return Err(Self::supervise_after(this, error));
        };
        started.submitted.fetch_add(1, Ordering::Relaxed);
        if is_thread_wanted {
            shared.start_feeder(py);
        }
        // As in the standard library, the submitting thread starts workers.
        let worked = if shared.pool.want_another_worker() {
            start_worker(py, shared)
        } else {
            Ok(())
        };
        worked
            .and_then(|()| Self::supervise(this))
            .map_err(|error| {
                let (_, told) = Future::cancel_pending(future, None);
                shared.pool.reconsider();
                told.err().unwrap_or(error)
            })
    }

    /// Starts a worker if one is to be started, and the supervisor if there is none.
    fn after_submit(
        this: &Bound<'_, Self>,
        future: &Bound<'_, Future>,
        submitted: Result<bool, SubmitError>,
    ) -> PyResult<()> {
        let py = this.py();
        let shared = this.get().shared()?;
        let needs_worker = submitted.map_err(|error| {
            Self::supervise_after(this, process_errors::submit_error(py, &error))
        })?;
        let worked = if needs_worker {
            start_worker(py, shared)
        } else {
            Ok(())
        };
        let worked = worked.and_then(|()| Self::supervise(this));
        if let Err(error) = worked {
            let (_, told) = Future::cancel_pending(future, None);
            shared.pool.reconsider();
            let error = told.err().unwrap_or(error);
            return Err(raise_kept().err().unwrap_or(error));
        }
        raise_kept()
    }

    /// Raises an exception if the pool accepts no more tasks.
    pub(crate) fn check_open(this: &Bound<'_, Self>) -> PyResult<()> {
        match this.get().shared()?.refusal() {
            Some(refusal) => Err(process_errors::submit_error(this.py(), &refusal)),
            None => Ok(()),
        }
    }
}
