//! `wait`, over sets of futures.

use crate::future::object::Future;
use crate::future::{plain, set_table};
use crate::interp::time_limit::deadline;
use crate::interp::{stdlib, waiting};
use concurrent_futures::engine::{self, HasTask, Seal, TaskRef, wait_for_all, wait_for_first};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PySet, PyString, PyTuple, PyType};
use std::mem::ManuallyDrop;
use std::ptr;

/// A future that another object keeps alive, as its task.
pub(crate) struct Borrowed(ManuallyDrop<TaskRef>);

impl Borrowed {
    /// # Safety
    /// The future stays until this is gone.
    pub(crate) unsafe fn new(future: &Future) -> Self {
        // SAFETY: the future stays until this is gone.
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

    /// Returns whether these futures are enough although others are not done.
    fn is_reached_with(self, done: &[Borrowed]) -> bool {
        match self {
            Self::AllCompleted => false,
            Self::FirstCompleted => !done.is_empty(),
            Self::FirstException => done.iter().any(|future| has_failed(future.task())),
        }
    }
}

/// Returns the futures that are done, in the order of the set's table; none if the set has futures of other
/// kinds.
///
/// # Safety
/// The set stays as it is until the returned futures are gone.
#[inline(never)]
unsafe fn done_among(futures: &Bound<'_, PySet>) -> Option<Vec<Borrowed>> {
    let usual_type = plain::future_type(futures.py()).ok()?.as_type_ptr();
    let mut done = Vec::new();
    let note = |future: pyo3::Borrowed<'_, '_, PyAny>| {
        // Nearly always of this very type, which is quickly seen.
        let future = if future.get_type_ptr() == usual_type {
            // SAFETY: the type is a subclass of ours.
            unsafe { future.cast_unchecked::<Future>() }
        } else {
            future.cast::<Future>().ok()?
        };
        // SAFETY: the set stays as it is, and so keeps the future, until the returned futures are gone.
        let future = unsafe { Borrowed::new(future.get()) };
        if Future::is_done_for_waiters(future.task()) {
            done.push(future);
        }
        Some(())
    };
    // SAFETY: the set stays as it is until the returned futures are gone.
    unsafe { set_table::for_each(futures, note) }?;
    Some(done)
}

/// Returns the futures that were not among those that are done, whatever has become of them since.
///
/// # Safety
/// The set has stayed as it was for `done_among`, which saw that all are ours, and stays until the
/// returned futures are gone.
unsafe fn others(futures: &Bound<'_, PySet>, done: &[Borrowed]) -> Vec<Borrowed> {
    let mut done = done.iter().map(|future| future.task().address()).peekable();
    let mut others = Vec::new();
    let note = |future: pyo3::Borrowed<'_, '_, PyAny>| {
        // SAFETY: the set keeps the future, and `done_among` has seen that all elements are futures of ours.
        let future = unsafe { Borrowed::new(future.cast_unchecked::<Future>().get()) };
        if done.next_if_eq(&future.task().address()).is_none() {
            others.push(future);
        }
        Some(())
    };
    // SAFETY: the set has stayed as it was, and stays until the returned futures are gone.
    unsafe { set_table::for_each(futures, note) };
    others
}

/// Moves futures out of a set, into a new set.
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
/// If futures of other kinds are among them, or other libraries' locks to wait with, the futures are returned
/// in one set. Then the standard library's function has to wait. It is not called from here, as there is no
/// returning through native code when the interpreter ends.
#[pyfunction]
#[pyo3(signature = (fs, timeout, return_when))]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    fs: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
    return_when: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let all = Private::copy_of(fs)?;
    if waiting::is_threading_replaced(py)? {
        return Ok(all.show().into_any());
    }
    // SAFETY: no other code has the set, which stays as it is until we take futures out.
    let Some(mut done) = (unsafe { done_among(&all.0) }) else {
        return Ok(all.show().into_any());
    };
    if done.len() < all.0.len() {
        let when = ReturnWhen::parse(return_when)?;
        if !when.is_reached_with(&done) {
            // SAFETY: the set is ours, and stays as it is until we take futures out; `done_among` has looked
            // at it.
            let not_done = unsafe { others(&all.0, &done) };
            if !not_done.iter().all(|future| future.task().has_pool()) {
                return Ok(all.show().into_any());
            }
            block(py, &not_done, timeout, when)?;
            // SAFETY: the set is ours, and stays as it is until we take futures out.
            done = match unsafe { done_among(&all.0) } {
                Some(done) => done,
                None => return Ok(all.show().into_any()),
            };
        }
    }
    // The smaller part is taken out, which leaves the larger one.
    let (done, not_done) = if done.len() <= all.0.len() / 2 {
        // SAFETY: they are some of the set's.
        (unsafe { take_out(&done, &all.0) }?, all.show())
    } else {
        // SAFETY: the set is ours and unchanged, `done_among` has looked at it, and the others are some of
        // its elements.
        let not_done = unsafe { take_out(&others(&all.0, &done), &all.0) }?;
        (all.show(), not_done)
    };
    done_and_not_done(done, not_done)
}

/// Makes the named tuple that `wait` returns like any tuple, without the Python code that its type has for
/// that.
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

/// A set that no other code can get at.
struct Private<'py>(Bound<'py, PySet>);

impl<'py> Private<'py> {
    /// Returns a new set of the futures.
    fn copy_of(futures: &Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached; the call makes a set of any iterable, or returns null with an exception.
        let set = unsafe {
            let set = ffi::PySet_New(futures.as_ptr());
            Bound::from_owned_ptr_or_err(futures.py(), set)?.cast_into_unchecked()
        };
        // Other code finds objects by the garbage collector (`gc.get_objects`).
        // SAFETY: attached; an object of a type that takes part in garbage collection.
        unsafe { ffi::PyObject_GC_UnTrack(set.as_ptr().cast()) };
        Ok(Self(set))
    }

    /// Returns the set, for all code.
    fn show(self) -> Bound<'py, PySet> {
        // SAFETY: attached; a whole set, which `copy_of` has untracked.
        unsafe { ffi::PyObject_GC_Track(self.0.as_ptr().cast()) };
        self.0
    }
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
