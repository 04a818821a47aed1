//! `wait`.

use crate::future::Future;
use crate::stdlib;
use crate::waiting;
use concurrent_futures::engine::{HasTask, TaskRef, has_failed, wait_for_all, wait_for_first};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PySet, PyString};
use std::mem::ManuallyDrop;
use std::slice;

/// A future that is kept by something else, as its task.
pub(crate) struct Borrowed(ManuallyDrop<TaskRef>);

impl Borrowed {
    /// # Safety
    /// The future stays until this is gone.
    pub(crate) unsafe fn new(future: &Future) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { future.task() })
    }
}

impl HasTask for Borrowed {
    fn task(&self) -> &TaskRef {
        &self.0
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReturnWhen {
    AllCompleted,
    FirstCompleted,
    FirstException,
}

impl ReturnWhen {
    fn parse(name: &Bound<'_, PyAny>) -> PyResult<Self> {
        let known = name.cast::<PyString>().ok().and_then(|name| {
            Some(match name.to_cow().ok()?.as_ref() {
                "ALL_COMPLETED" => Self::AllCompleted,
                "FIRST_COMPLETED" => Self::FirstCompleted,
                "FIRST_EXCEPTION" => Self::FirstException,
                _ => return None,
            })
        });
        match known {
            Some(known) => Ok(known),
            None => Err(PyValueError::new_err(format!(
                "Invalid return condition: {}",
                name.repr()?
            ))),
        }
    }
}

/// Futures of a set, divided into those that are done and the others.
struct Divided {
    done: Vec<Borrowed>,
    not_done: Vec<Borrowed>,
}

impl Divided {
    /// Divides the futures. `None` if there are others than ours.
    ///
    /// # Safety
    /// The set stays as it is until this is gone.
    unsafe fn new(futures: &Bound<'_, PySet>) -> Option<Self> {
        let mut divided = Self {
            done: Vec::new(),
            not_done: Vec::with_capacity(futures.len()),
        };
        let usual_type = stdlib::future_type(futures.py()).ok()?.as_type_ptr();
        // SAFETY: promised by the caller.
        for element in unsafe { elements(futures) } {
            // SAFETY: the set keeps it.
            let future = unsafe { pyo3::Borrowed::from_ptr(futures.py(), element) };
            // Nearly always of this very type, which is quickly seen.
            let future = if future.get_type_ptr() == usual_type {
                // SAFETY: the type is a subclass of ours.
                unsafe { future.cast_unchecked::<Future>() }
            } else {
                future.cast::<Future>().ok()?
            };
            // SAFETY: the set keeps it, as promised by the caller.
            divided.add(unsafe { Borrowed::new(future.get()) });
        }
        Some(divided)
    }

    fn add(&mut self, future: Borrowed) {
        if Future::is_done_for_waiters(future.task()) {
            self.done.push(future);
        } else {
            self.not_done.push(future);
        }
    }

    /// Looks again at those that were not done.
    fn again(&mut self) {
        for future in std::mem::take(&mut self.not_done) {
            self.add(future);
        }
    }

    fn is_enough(&self, return_when: ReturnWhen) -> bool {
        self.not_done.is_empty()
            || match return_when {
                ReturnWhen::AllCompleted => false,
                ReturnWhen::FirstCompleted => !self.done.is_empty(),
                ReturnWhen::FirstException => {
                    self.done.iter().any(|future| has_failed(future.task()))
                }
            }
    }

    /// Takes the smaller part out of the set of all, which leaves the larger one.
    fn into_sets<'py>(
        self,
        all: Bound<'py, PySet>,
    ) -> PyResult<(Bound<'py, PySet>, Bound<'py, PySet>)> {
        let Self { done, not_done } = self;
        let done_is_smaller = done.len() < not_done.len();
        let smaller = if done_is_smaller { done } else { not_done };
        let taken = PySet::empty(all.py())?;
        // All at once, as a comparison of a subclass may make `discard` take another one.
        // SAFETY: the set has them.
        let smaller: Vec<_> = smaller
            .iter()
            .map(|future| unsafe { Future::of(all.py(), future.task().address()) })
            .collect();
        for future in smaller {
            taken.add(&future)?;
            all.discard(&future)?;
        }
        Ok(if done_is_smaller {
            (taken, all)
        } else {
            (all, taken)
        })
    }
}

/// Waits for futures of this package's executors, and returns the two sets.
///
/// If there are others among them, the futures are returned in one set: then the standard
/// library's function has to wait. It is not called from here, as there is no returning through
/// native code when the interpreter ends.
#[pyfunction]
#[pyo3(signature = (fs, timeout, return_when))]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    fs: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
    return_when: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let futures = copied(fs)?;
    // SAFETY: the set is ours, and stays until we take it apart.
    let Some(mut divided) = (unsafe { Divided::new(&futures) }) else {
        return Ok(futures.into_any());
    };
    if !divided.not_done.is_empty() {
        let when = ReturnWhen::parse(return_when)?;
        if !divided.is_enough(when) {
            if !divided
                .not_done
                .iter()
                .all(|future| future.task().has_home())
            {
                return Ok(futures.into_any());
            }
            block(py, &divided.not_done, timeout, when)?;
            divided.again();
        }
    }
    let (done, not_done) = divided.into_sets(futures)?;
    stdlib::done_and_not_done(py)?.call1((done, not_done))
}

/// The elements of a set, without a reference to each: `wait` is called again and again with
/// many futures of which few are done, and then it is little but going through them.
///
/// # Safety
/// The set stays as it is until this is gone.
unsafe fn elements(set: &Bound<'_, PySet>) -> impl Iterator<Item = *mut ffi::PyObject> {
    let set = set.as_ptr().cast::<ffi::PySetObject>();
    // SAFETY: attached; the object is a set, whose table has `mask + 1` entries.
    let entries = unsafe {
        let length = usize::try_from((*set).mask).unwrap_or(0) + 1;
        slice::from_raw_parts((*set).table, length)
    };
    // Where an element was taken out, the hash is one that no object has.
    let is_element = |entry: &&ffi::setentry| !entry.key.is_null() && entry.hash != -1;
    entries.iter().filter(is_element).map(|entry| entry.key)
}

/// The futures as a set that is ours.
fn copied<'py>(futures: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PySet>> {
    // SAFETY: attached; the call makes a set of any iterable.
    let set = unsafe { ffi::PySet_New(futures.as_ptr()) };
    // SAFETY: a new reference to a set, or null with an exception.
    unsafe { Ok(Bound::from_owned_ptr_or_err(futures.py(), set)?.cast_into_unchecked()) }
}

fn block(
    py: Python<'_>,
    tasks: &[Borrowed],
    timeout: Option<&Bound<'_, PyAny>>,
    return_when: ReturnWhen,
) -> PyResult<()> {
    let deadline = waiting::deadline(timeout)?;
    waiting::detached(py, |stop| match return_when {
        ReturnWhen::AllCompleted => wait_for_all(tasks, deadline, stop),
        ReturnWhen::FirstCompleted => wait_for_first(tasks, deadline, |_| true, stop),
        ReturnWhen::FirstException => wait_for_first(tasks, deadline, has_failed, stop),
    })
}
