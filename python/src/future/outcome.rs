//! The outcome of a `Future`: waiting for it, and returning it.

use crate::future::object::Future;
use crate::future::remote;
use crate::interp::time_limit::{End, deadline};
use crate::interp::{stdlib, waiting};
use concurrent_futures::engine::{Phase, wait_until_done};
use pyo3::prelude::*;
use std::time::Instant;

/// The outcome of a finished future.
pub(crate) enum Outcome<'py> {
    Result(Bound<'py, PyAny>),
    Exception(Bound<'py, PyAny>),
}

impl Future {
    /// Waits until the future is done.
    ///
    /// # Errors
    /// `TimeoutError`, `DeadlockError`, and what handlers of signals raise.
    pub(crate) fn wait(this: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if this.get().state().is_done() {
            return Ok(());
        }
        Self::wait_for(this, deadline(timeout)?)
    }

    /// Waits until the future is done, with a time limit that began before.
    pub(crate) fn wait_until(this: &Bound<'_, Self>, end: Option<&End>) -> PyResult<()> {
        if this.get().state().is_done() {
            return Ok(());
        }
        let deadline = match end {
            Some(end) => end.deadline(this.py())?,
            None => None,
        };
        Self::wait_for(this, deadline)
    }

    fn wait_for(this: &Bound<'_, Self>, deadline: Option<Instant>) -> PyResult<()> {
        let future = this.get();
        let py = this.py();
        if future.has_foreign_condition() || waiting::is_threading_replaced(py)? {
            return Self::wait_with_condition(this, deadline);
        }
        let done = waiting::detached(py, |stop| {
            // SAFETY: the caller holds the future meanwhile.
            let task = unsafe { future.task() };
            wait_until_done(&task, deadline, stop)
        })?;
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(stdlib::timed_out()),
            Err(deadlock) => Err(stdlib::deadlock(py, &deadlock)),
        }
    }

    /// Waits as the standard library does, by the future's condition. Where a program has replaced the condition
    /// or the locks of `threading`, other tasks of the thread run meanwhile.
    fn wait_with_condition(this: &Bound<'_, Self>, deadline: Option<Instant>) -> PyResult<()> {
        let py = this.py();
        let left = deadline.map(|deadline| {
            deadline
                .saturating_duration_since(Instant::now())
                .as_secs_f64()
        });
        let wait = stdlib::wait_with_condition(py)?;
        if wait.call1((this, left))?.is_truthy()? {
            Ok(())
        } else {
            Err(stdlib::timed_out())
        }
    }

    /// Returns the result of a future that has one, if no thread can be changing it.
    pub(crate) fn result_at_hand<'py>(this: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let future = this.get();
        let is_at_hand = future.state().phase() == Phase::Finished
            && future.observers().is_none()
            && future.remote().is_none()
            && !future.exception.is_set();
        is_at_hand.then(|| future.result.get(this.as_any()))?
    }

    /// Returns the exception, or else the result, of a future that is done.
    pub(crate) fn outcome<'py>(this: &Bound<'py, Self>) -> PyResult<Outcome<'py>> {
        remote::open(this)?;
        let owner = this.as_any();
        Self::looking(this, |future| match future.state().phase() {
            Phase::Finished => Ok(match future.exception.get(owner) {
                Some(exception) => Outcome::Exception(exception),
                None => Outcome::Result(
                    future
                        .result
                        .get(owner)
                        .unwrap_or_else(|| this.py().None().into_bound(this.py())),
                ),
            }),
            Phase::Cancelled | Phase::Cancelling | Phase::Notified => {
                Err(stdlib::cancelled(this.py()))
            }
            // The program has set the state back by hand.
            _ => Err(stdlib::timed_out()),
        })?
    }

    /// Returns the result of a future that is done, or raises its exception.
    pub(crate) fn take_result<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        match Self::outcome(this)? {
            Outcome::Result(result) => Ok(result),
            Outcome::Exception(exception) => Err(stdlib::raising(&exception)),
        }
    }
}
