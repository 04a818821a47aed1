//! `as_completed`, and its iterator over futures.

use crate::future::object::Future;
use crate::future::plain;
use crate::future::wait::Borrowed;
use crate::interp::addresses::AddressSet;
use crate::interp::time_limit::{End, refuse_nan};
use crate::interp::{stdlib, waiting};
use concurrent_futures::engine::{Futures, Places, Watched, next_ready};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PyList, PySet};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

/// Yields futures as they are done.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct AsCompleted(Mutex<Inner>);

struct Inner {
    /// The number of calls, for `breathe`.
    calls: u8,
    /// The registrations with the futures that are not done. Declared before the futures, as they are dropped
    /// first.
    watched: Watched,
    /// The futures that have not been yielded.
    futures: Vec<Option<Py<Future>>>,
    /// The places of these futures.
    places: Places,
    /// The places of the futures that were done at the beginning.
    ready: VecDeque<usize>,
    left: usize,
    end: Option<End>,
}

/// Returns an iterator over futures, of any executors, from which `concurrent_futures.as_completed` yields.
#[pyfunction]
#[pyo3(signature = (fs, timeout = None))]
pub(crate) fn as_completed<'py>(
    py: Python<'py>,
    fs: &Bound<'py, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let end = End::of(timeout)?;
    let futures = distinct(fs)?;
    let is_replaced = waiting::is_threading_replaced(py)?;
    let usual_type = plain::future_type(py)?.as_type_ptr();
    let ours = futures.iter().map(|future| {
        if is_replaced {
            return None;
        }
        // One of a derived class is told in its own way.
        let future = future.cast::<Future>().ok()?;
        if future.get_type_ptr() != usual_type {
            return None;
        }
        // SAFETY: gone before the future is.
        let task = unsafe { Borrowed::new(future.get()) };
        let suits = task.task().has_pool() || Future::is_done_for_waiters(task.task());
        suits.then(|| future.clone().unbind())
    });
    let Some(ours) = ours.collect::<Option<Vec<_>>>() else {
        let futures = PyList::new(py, futures)?;
        return stdlib::original_as_completed(py)?.call1((futures, timeout));
    };
    let mut inner = Inner {
        calls: 0,
        watched: Watched::new(),
        left: ours.len(),
        places: Places::default(),
        futures: ours.into_iter().map(Some).collect(),
        ready: VecDeque::new(),
        end,
    };
    inner.watch();
    Ok(Bound::new(py, AsCompleted(Mutex::new(inner)))?.into_any())
}

/// Returns the futures, each once, in their order.
fn distinct<'py>(futures: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let is_set = futures.is_instance_of::<PySet>() || futures.is_instance_of::<PyFrozenSet>();
    let mut seen = AddressSet::default();
    let mut distinct = Vec::new();
    // One by one: `collect` would ask for the iterator's length hint, which may be Python code.
    for future in futures.try_iter()? {
        let future = future?;
        if is_set || seen.insert(future.as_ptr().addr()) {
            distinct.push(future);
        }
    }
    Ok(distinct)
}

impl Inner {
    fn watch(&mut self) {
        // SAFETY: the futures are kept in `futures` until they are reported, or `watched`
        // is dropped.
        let tasks: Vec<_> = self
            .futures
            .iter()
            .flatten()
            .map(|future| unsafe { Borrowed::new(future.get()) })
            .collect();
        let ready = &mut self.ready;
        // SAFETY: `futures` keeps the futures until they are reported, or `watched` is dropped.
        unsafe {
            self.watched
                .add(0, tasks.iter().map(Borrowed::task), |place| {
                    ready.push_back(place);
                });
        }
    }

    fn next(&mut self, py: Python<'_>) -> PyResult<Option<Py<Future>>> {
        if self.left == 0 {
            return Ok(None);
        }
        waiting::breathe(py, &mut self.calls)?;
        let next = loop {
            match self.next_place(py)? {
                // One that was yielded because of a deadlock may be reported later.
                Some(place) if self.futures[place].is_none() => {}
                next => break next,
            }
        };
        let Some(place) = next else {
            let message = format!(
                "{} (of {}) futures unfinished",
                self.left,
                self.futures.len()
            );
            self.end();
            return Err(PyTimeoutError::new_err(message));
        };
        self.left -= 1;
        self.places.remove(place);
        Ok(self.futures[place].take())
    }

    fn end(&mut self) {
        self.watched = Watched::new();
        self.ready.clear();
        self.futures.clear();
        self.places = Places::default();
        self.left = 0;
    }

    fn next_place(&mut self, py: Python<'_>) -> PyResult<Option<usize>> {
        let Self {
            watched,
            futures,
            places,
            ready,
            end,
            ..
        } = self;
        if let Some(place) = ready.pop_front() {
            return Ok(Some(place));
        }
        let Some(end) = end else {
            return match watched.next_without_waiting() {
                Some(place) => Ok(Some(place)),
                None => wait_for_next(py, watched, futures, places, None),
            };
        };
        loop {
            if end.is_over(py)? {
                return Ok(None);
            }
            // Those that are done in time are yielded, however long that takes.
            while let Some(place) = watched.next_without_waiting() {
                ready.push_back(place);
            }
            if let Some(place) = ready.pop_front() {
                return Ok(Some(place));
            }
            let deadline = if end.is_nan(py) {
                refuse_nan(&end.left(py)?)?;
                None
            } else {
                end.deadline(py)?
            };
            if let Some(place) = wait_for_next(py, watched, futures, places, deadline)? {
                return Ok(Some(place));
            }
        }
    }
}

/// Waits for the next future that is done. Returns none when the time has passed.
fn wait_for_next(
    py: Python<'_>,
    watched: &mut Watched,
    futures: &[Option<Py<Future>>],
    places: &Places,
    deadline: Option<Instant>,
) -> PyResult<Option<usize>> {
    waiting::detached(py, |stop| {
        let needed: &Futures<'_> = &|f| {
            let mut futures = places
                .iter(futures)
                .filter_map(|place| futures[place].as_ref());
            futures.any(|future| {
                // SAFETY: the future is kept meanwhile.
                let task = unsafe { Borrowed::new(future.get()) };
                f(task.task())
            })
        };
        let next = next_ready(watched, deadline, needed, stop);
        if next.is_none() && deadline.is_none() {
            // A deadlock: any of those left tells the cycle when it is asked. (Or a signal,
            // whose exception comes before this.)
            let place = places.iter(futures).next()?;
            watched.forget(place);
            return Some(place);
        }
        next
    })
}

#[pymethods]
impl AsCompleted {
    fn __iter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<Future>>> {
        self.0
            .try_lock()
            .map_err(|_| {
                PyRuntimeError::new_err(
                    "the iterator is in use by another thread; use it in one thread at a time",
                )
            })?
            .next(py)
    }

    /// Returns the next future; a value that is sent has no effect.
    fn send(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> PyResult<Py<Future>> {
        drop(value);
        self.__next__(py)?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Ends the iteration. The futures are left as they are.
    fn close(&self) -> PyResult<()> {
        let Ok(mut inner) = self.0.try_lock() else {
            return Err(PyRuntimeError::new_err(
                "the iterator is in use by another thread; use it in one thread at a time",
            ));
        };
        inner.end();
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(inner) = self.0.try_lock() else {
            return Ok(());
        };
        inner
            .futures
            .iter()
            .flatten()
            .try_for_each(|future| visit.call(future))
    }
}
