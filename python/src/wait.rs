//! `wait`.

use crate::future::Future;
use crate::stdlib;
use crate::time_limit::deadline;
use crate::waiting;
use concurrent_futures::engine::{self, HasTask, Seal, TaskRef, wait_for_all, wait_for_first};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PySet, PyString, PyTuple, PyType};
use std::mem::ManuallyDrop;
use std::{ptr, slice};

/// A future that is kept by something else, as its task.
pub(crate) struct Borrowed(ManuallyDrop<TaskRef>);

impl Borrowed {
    /// # Safety
    /// The future stays until this is gone.
    pub(crate) unsafe fn new(future: &Future) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { future.task() })
    }

    pub(crate) fn task(&self) -> &TaskRef {
        &self.0
    }
}

// SAFETY: the future keeps its task, and stays, as `new` was promised.
unsafe impl HasTask for Borrowed {
    fn task(&self, _: Seal) -> &TaskRef {
        &self.0
    }
}

fn has_failed(task: &TaskRef) -> bool {
    // SAFETY: outcomes of this face are not taken away.
    unsafe { engine::has_failed(task) }
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

    /// Whether these are enough although there are others that are not done.
    fn is_reached_with(self, done: &[Borrowed]) -> bool {
        match self {
            Self::AllCompleted => false,
            Self::FirstCompleted => !done.is_empty(),
            Self::FirstException => done.iter().any(|future| has_failed(future.task())),
        }
    }
}

/// Those of the futures that are done, in the order of the set's table. `None` if there are others
/// than ours.
///
/// `wait` is called again and again with many futures of which few are done, and then it is
/// little but this. So no reference to each future is taken, and no branch depends on whether an
/// entry is empty, which would be mispredicted too often: the others are taken first, out of some
/// entries at a time. (Were there the mark of a future that was taken out of the set, it would
/// count as one that is not ours.)
///
/// # Safety
/// The set stays as it is until what is returned is gone.
#[inline(never)]
unsafe fn done_among(futures: &Bound<'_, PySet>) -> Option<Vec<Borrowed>> {
    const AT_A_TIME: usize = 128;
    let usual_type = stdlib::future_type(futures.py()).ok()?.as_type_ptr();
    let mut done = Vec::new();
    // SAFETY: promised by the caller.
    let table = unsafe { entries(futures) };
    let mut taken = [ptr::null_mut(); AT_A_TIME];
    for entries in table.chunks(AT_A_TIME) {
        let mut count = 0;
        for entry in entries {
            taken[count % AT_A_TIME] = entry.key;
            count += usize::from(!entry.key.is_null());
        }
        for future in &taken[..count] {
            // SAFETY: the set keeps it.
            let future = unsafe { pyo3::Borrowed::from_ptr(futures.py(), *future) };
            // Nearly always of this very type, which is quickly seen.
            let future = if future.get_type_ptr() == usual_type {
                // SAFETY: the type is a subclass of ours.
                unsafe { future.cast_unchecked::<Future>() }
            } else {
                future.cast::<Future>().ok()?
            };
            // SAFETY: the set keeps it, as promised by the caller.
            let future = unsafe { Borrowed::new(future.get()) };
            if Future::is_done_for_waiters(future.task()) {
                done.push(future);
            }
        }
    }
    Some(done)
}

/// The futures that were not among those that are done, whatever has become of them since.
///
/// # Safety
/// The set has stayed as it was for `done_among`, which saw that all are ours, and stays until what
/// is returned is gone.
unsafe fn others(futures: &Bound<'_, PySet>, done: &[Borrowed]) -> Vec<Borrowed> {
    let mut done = done.iter().map(|future| future.task().address()).peekable();
    // SAFETY: promised by the caller.
    unsafe { entries(futures) }
        .iter()
        .filter(|entry| is_element(entry))
        .map(|entry| {
            // SAFETY: the set keeps it, and it is ours, as promised by the caller.
            unsafe {
                let future = pyo3::Borrowed::from_ptr(futures.py(), entry.key);
                Borrowed::new(future.cast_unchecked::<Future>().get())
            }
        })
        .filter(|future| done.next_if_eq(&future.task().address()).is_none())
        .collect()
}

/// Moves futures out of a set, to one of their own.
///
/// # Safety
/// The set has them.
unsafe fn take_out<'py>(
    futures: &[Borrowed],
    all: &Bound<'py, PySet>,
) -> PyResult<Bound<'py, PySet>> {
    let taken = PySet::empty(all.py())?;
    // All at once, as a comparison of a subclass may make `discard` take another one.
    let futures: Vec<_> = futures
        .iter()
        // SAFETY: the set has them.
        .map(|future| unsafe { Future::of(all.py(), future.task().address()) })
        .collect();
    for future in futures {
        taken.add(&future)?;
        all.discard(&future)?;
    }
    Ok(taken)
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
    let all = copied(fs)?;
    // SAFETY: the set is ours, and stays as it is until we take futures out.
    let Some(mut done) = (unsafe { done_among(&all) }) else {
        return Ok(all.into_any());
    };
    if done.len() < all.len() {
        let when = ReturnWhen::parse(return_when)?;
        if !when.is_reached_with(&done) {
            // SAFETY: as above.
            let not_done = unsafe { others(&all, &done) };
            if !not_done.iter().all(|future| future.task().has_home()) {
                return Ok(all.into_any());
            }
            block(py, &not_done, timeout, when)?;
            // SAFETY: as above.
            done = match unsafe { done_among(&all) } {
                Some(done) => done,
                None => return Ok(all.into_any()),
            };
        }
    }
    // The smaller part is taken out, which leaves the larger one.
    let (done, not_done) = if done.len() <= all.len() / 2 {
        // SAFETY: they are some of the set's.
        (unsafe { take_out(&done, &all) }?, all)
    } else {
        // SAFETY: as above.
        let not_done = unsafe { take_out(&others(&all, &done), &all) }?;
        (all, not_done)
    };
    done_and_not_done(done, not_done)
}

/// The named tuple that `wait` returns, made as any tuple, without the Python code that its type
/// has for that.
fn done_and_not_done<'py>(
    done: Bound<'py, PySet>,
    not_done: Bound<'py, PySet>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = done.py();
    let both = stdlib::done_and_not_done(py)?.cast::<PyType>()?;
    let sets = (done, not_done).into_pyobject(py)?;
    // SAFETY: attached; it is a type.
    let is_tuple = unsafe {
        ffi::PyType_FastSubclass(both.as_type_ptr(), ffi::Py_TPFLAGS_TUPLE_SUBCLASS) != 0
    };
    // SAFETY: attached; the type of tuples is there for good, and nothing changes it.
    match unsafe { (*py.get_type::<PyTuple>().as_type_ptr()).tp_new } {
        Some(new) if is_tuple => {
            let arguments = (sets,).into_pyobject(py)?;
            // SAFETY: attached; it makes a tuple of this type, a subtype, from an iterable.
            unsafe {
                let both = new(both.as_type_ptr(), arguments.as_ptr(), ptr::null_mut());
                Bound::from_owned_ptr_or_err(py, both)
            }
        }
        _ => both.call1(sets),
    }
}

/// The table of a set.
///
/// # Safety
/// The set stays as it is until this is gone.
unsafe fn entries<'a>(set: &'a Bound<'_, PySet>) -> &'a [ffi::setentry] {
    let set = set.as_ptr().cast::<ffi::PySetObject>();
    // SAFETY: attached; the object is a set, whose table has `mask + 1` entries.
    unsafe {
        let length = usize::try_from((*set).mask).unwrap_or(0) + 1;
        slice::from_raw_parts((*set).table, length)
    }
}

/// Whether there is an element, not nothing, nor the mark of one that was taken out: its hash is
/// one that no object has.
fn is_element(entry: &ffi::setentry) -> bool {
    !entry.key.is_null() && entry.hash != -1
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
    let deadline = deadline(timeout)?;
    waiting::detached(py, |stop| match return_when {
        ReturnWhen::AllCompleted => wait_for_all(tasks, deadline, stop),
        ReturnWhen::FirstCompleted => wait_for_first(tasks, deadline, |_| true, stop),
        ReturnWhen::FirstException => wait_for_first(tasks, deadline, has_failed, stop),
    })
}
