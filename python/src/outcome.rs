//! How whoever asks gets the outcome of a `Future`.

use crate::future::Future;
use crate::remote;
use crate::stdlib;
use crate::time_limit::{End, deadline};
use crate::waiting;
use concurrent_futures::engine::{Phase, wait_until_done};
use pyo3::prelude::*;
use std::time::Instant;

/// What a finished future has.
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

    /// The same with a time limit that began before.
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
        if waiting::is_threading_replaced(py)? {
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

    /// Waits as the standard library does, by Python's own locks, which somebody has replaced: other
    /// tasks of the calling thread run meanwhile.
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

    /// The exception, or else the result, of a future that is done.
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
            // Somebody has set it back by hand.
            _ => Err(stdlib::timed_out()),
        })?
    }

    /// The result of a future that is done, or its exception, raised.
    pub(crate) fn take_result<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        match Self::outcome(this)? {
            Outcome::Result(result) => Ok(result),
            Outcome::Exception(exception) => Err(stdlib::raising(&exception)),
        }
    }
}
