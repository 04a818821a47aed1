//! Time limits as the standard library takes them.
//!
//! The standard library gives a limit to a condition, which compares the limit with 0 and passes it to a lock. So
//! every number is accepted that the running version's lock accepts, and only a call that has to wait looks at
//! it. `map` and `as_completed` first add the limit to the time of the call, and give the condition the time
//! that is left. There, any object that can be added to a float is a limit.

use crate::interp::os::monotonic as now;
use crate::interp::stdlib;
use concurrent_futures::engine::deadline_after;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};
use std::time::{Duration, Instant};

/// The number of seconds up to which each version takes limits, with the same meaning.
const USUAL: f64 = 1e9;

/// Returns the moment when a time limit in seconds that begins now will have passed. `None` is no limit.
///
/// # Errors
/// The exception of the running version's `Condition.wait` for such a limit.
pub(crate) fn deadline(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Instant>> {
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else {
        return Ok(None);
    };
    if timeout.is_exact_instance_of::<PyFloat>() || timeout.is_exact_instance_of::<PyInt>() {
        // An integer may be too large for this.
        if let Ok(seconds) = timeout.extract::<f64>()
            && is_usual(seconds)
        {
            return Ok(usual(seconds));
        }
    }
    unusual(timeout)
}

/// Returns the deadline for seconds that are a float.
fn deadline_of_float(py: Python<'_>, seconds: f64) -> PyResult<Option<Instant>> {
    if is_usual(seconds) {
        return Ok(usual(seconds));
    }
    unusual(PyFloat::new(py, seconds).as_any())
}

fn is_usual(seconds: f64) -> bool {
    seconds <= USUAL
}

fn usual(seconds: f64) -> Option<Instant> {
    // A negative limit has passed.
    let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
    deadline_after(timeout)
}

/// Raises the error of the running version's condition for a limit that is no number. In versions
/// without such an error the limit has passed.
pub(crate) fn refuse_nan(timeout: &Bound<'_, PyAny>) -> PyResult<()> {
    let condition = timeout.py().import("threading")?.getattr("Condition")?;
    let condition = condition.call0()?;
    condition.call_method0("acquire")?;
    let waited = condition.call_method1("wait", (timeout,));
    condition.call_method0("release")?;
    waited.map(drop)
}

/// Returns the deadline for any object, in the steps of the standard library.
fn unusual(timeout: &Bound<'_, PyAny>) -> PyResult<Option<Instant>> {
    let py = timeout.py();
    if !timeout.gt(0)? {
        if let Ok(float) = timeout.cast::<PyFloat>()
            && float.value().is_nan()
        {
            refuse_nan(timeout)?;
        }
        return Ok(Some(Instant::now()));
    }
    // A lock that is free: the call refuses what a lock refuses, and does not wait.
    stdlib::allocate_lock(py)?
        .call0()?
        .call_method1("acquire", (true, timeout))?;
    let seconds: f64 = if timeout.is_instance_of::<PyFloat>() {
        timeout.extract()?
    } else {
        match index(timeout) {
            Ok(integer) => integer.extract()?,
            // Where a lock takes any real number.
            Err(_) => timeout.extract()?,
        }
    };
    let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
    Ok(deadline_after(timeout))
}

fn index<'py>(number: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(number.py(), ffi::PyNumber_Index(number.as_ptr())) }
}

/// The end of a time limit: a sum of the limit and the time at which it began.
pub(crate) enum End {
    Float(f64),
    /// The sum that a number of another type returned.
    Other(Py<PyAny>),
}

impl End {
    /// Returns the end of a limit that begins now. `None` is no limit.
    ///
    /// # Errors
    /// The exception of the addition.
    pub(crate) fn of(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Self>> {
        let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else {
            return Ok(None);
        };
        let sum = timeout.add(now())?;
        Ok(Some(match sum.cast_exact::<PyFloat>() {
            Ok(float) => Self::Float(float.value()),
            Err(_) => Self::Other(sum.unbind()),
        }))
    }

    /// Returns the seconds that are left, as an object.
    pub(crate) fn left<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Float(end) => Ok(PyFloat::new(py, end - now()).into_any()),
            Self::Other(end) => end.bind(py).sub(now()),
        }
    }

    /// Returns the moment when the limit will have passed, by the condition's rules for the time that is
    /// left.
    pub(crate) fn deadline(&self, py: Python<'_>) -> PyResult<Option<Instant>> {
        match self {
            Self::Float(end) => deadline_of_float(py, end - now()),
            Self::Other(_) => deadline(Some(&self.left(py)?)),
        }
    }

    /// Returns whether no time is left. A limit of NaN is never over.
    pub(crate) fn is_over(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Float(end) => Ok(end - now() < 0.0),
            Self::Other(_) => self.left(py)?.lt(0),
        }
    }

    /// Returns whether the limit is no number.
    pub(crate) fn is_nan(&self, py: Python<'_>) -> bool {
        match self {
            Self::Float(end) => end.is_nan(),
            Self::Other(end) => end.extract(py).is_ok_and(f64::is_nan),
        }
    }
}
