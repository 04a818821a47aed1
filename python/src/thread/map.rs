//! `map`, and the iterator over its results.

use crate::future::object::Future;
use crate::future::plain;
use crate::interp::aside::aside;
use crate::interp::shared_generator::EXECUTING;
use crate::interp::time_limit::End;
use crate::interp::try_lock_cell::Exclusive;
use crate::interp::{entry, interned, waiting};
use crate::thread::pool::ThreadPool;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;

/// The iterator over results, in the order of the items.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct ResultIterator(Exclusive<Results>);

struct Results {
    /// The number of calls, for `breathe`.
    calls: u8,
    /// Whether an item was asked for.
    begun: bool,
    futures: VecDeque<Py<PyAny>>,
    end: Option<End>,
    /// The calls that are still to be submitted.
    source: Option<Source>,
}

struct Source {
    executor: Py<PyWeakrefReference>,
    function: Py<PyAny>,
    items: Py<PyIterator>,
}

pub(crate) fn map<'py>(
    executor: &Bound<'py, ThreadPool>,
    function: Bound<'py, PyAny>,
    iterables: Bound<'py, PyTuple>,
    timeout: Option<&Bound<'py, PyAny>>,
    buffersize: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, ResultIterator>> {
    let py = executor.py();
    let buffersize = checked_buffersize(buffersize)?;
    let end = End::of(timeout)?;
    let items = zip(py, iterables)?;
    let mut results = Results {
        calls: 0,
        begun: false,
        futures: VecDeque::new(),
        end,
        source: None,
    };
    let mut submitter = Submitter::new(executor, &function)?;
    let mut room = buffersize.unwrap_or(usize::MAX);
    let mut rest = items.clone();
    while room > 0 {
        let Some(arguments) = rest.next() else {
            break;
        };
        let future = submitter.submit(arguments?)?;
        results.futures.push_back(future.unbind());
        waiting::breathe(py, &mut results.calls)?;
        room -= 1;
    }
    if room == 0 {
        results.source = Some(Source {
            executor: PyWeakrefReference::new(executor.as_any())?.unbind(),
            function: function.unbind(),
            items: items.unbind(),
        });
    }
    Bound::new(py, ResultIterator(Exclusive::new(results)))
}

pub(crate) fn checked_buffersize(size: Option<Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let Some(size) = size.filter(|size| !size.is_none()) else {
        return Ok(None);
    };
    if !size.is_instance_of::<pyo3::types::PyInt>() {
        return Err(PyTypeError::new_err(
            "buffersize must be an integer or None",
        ));
    }
    if !size.gt(0)? {
        return Err(PyValueError::new_err("buffersize must be None or > 0"));
    }
    // More than fits into memory is no limit.
    Ok(Some(size.extract().unwrap_or(usize::MAX)))
}

pub(crate) fn zip<'py>(
    py: Python<'py>,
    iterables: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyIterator>> {
    crate::interp::stdlib::zip(py)?.call1(iterables)?.try_iter()
}

/// Submits through the method `submit`, if a subclass or the executor itself has one of its own.
struct Submitter<'a, 'py> {
    executor: &'a Bound<'py, ThreadPool>,
    function: &'a Bound<'py, PyAny>,
    overridden: Option<Bound<'py, PyAny>>,
}

impl<'a, 'py> Submitter<'a, 'py> {
    fn new(
        executor: &'a Bound<'py, ThreadPool>,
        function: &'a Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let py = executor.py();
        let name = interned::submit(py);
        let submit = executor.get_type().getattr(name)?;
        let of_its_own = match executor.getattr_opt(interned::dict(py))? {
            Some(attributes) => attributes.contains(name)?,
            None => false,
        };
        let overridden = if entry::leads_to(0, &submit) && !of_its_own {
            None
        } else {
            Some(executor.getattr(name)?)
        };
        Ok(Self {
            executor,
            function,
            overridden,
        })
    }

    fn submit(&mut self, arguments: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let arguments = arguments.cast_into::<PyTuple>()?;
        let py = self.executor.py();
        match &self.overridden {
            None => ThreadPool::submit_call(self.executor, self.function.clone(), arguments, None),
            Some(submit) => {
                let function = PyTuple::new(py, [self.function])?;
                submit.call1(function.add(arguments)?.cast_into::<PyTuple>()?)
            }
        }
    }
}

impl Results {
    /// Cancels the calls that have not started.
    fn cancel(&mut self, py: Python<'_>) -> PyResult<()> {
        self.source = None;
        let mut first = Ok(());
        for future in self.futures.drain(..) {
            first = first.and(cancel(future.bind(py)));
        }
        first
    }

    /// Submits the next task, if there is one, and the executor is still there.
    fn submit_next(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let executor = source
            .executor
            .bind(py)
            .call0()?
            .cast_into::<ThreadPool>()
            .ok();
        let next = match &executor {
            Some(executor) => source
                .items
                .bind(py)
                .clone()
                .next()
                .map(|arguments| (executor, arguments)),
            None => None,
        };
        let Some((executor, arguments)) = next else {
            self.source = None;
            return Ok(());
        };
        let function = source.function.bind(py).clone();
        let future = Submitter::new(executor, &function)?.submit(arguments?)?;
        self.futures.push_back(future.unbind());
        Ok(())
    }

    /// Returns the next result and its future, if the result is there.
    fn at_hand<'py>(&mut self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        if self.source.is_some() {
            return None;
        }
        let future = plain::cast(self.futures.front()?.bind(py))?;
        let result = Future::result_at_hand(future)?;
        if !waiting::holds_breath(&mut self.calls) {
            return None;
        }
        self.begun = true;
        let future = self.futures.pop_front()?.into_bound(py);
        Some((result, future))
    }

    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.begun = true;
        if self.futures.is_empty() {
            return Ok(None);
        }
        self.submit_next(py)?;
        waiting::breathe(py, &mut self.calls)?;
        let Some(future) = self.futures.pop_front() else {
            return Ok(None);
        };
        let future = future.into_bound(py);
        let result = match plain::cast(&future) {
            Some(ours) => {
                Future::wait_until(ours, self.end.as_ref()).and_then(|()| Future::take_result(ours))
            }
            None => self.result_of_other(&future),
        };
        if result.is_err() {
            cancel(&future)?;
        }
        result.map(Some)
    }

    /// Returns the result of a future of another kind than executors make, by calling its methods.
    fn result_of_other<'py>(&self, future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        let left = self.end.as_ref().map(|end| end.left(py)).transpose()?;
        let result = future.call_method1(interned::result(py), (left,))?;
        cancel(future)?;
        Ok(result)
    }
}

fn cancel(future: &Bound<'_, PyAny>) -> PyResult<()> {
    future.call_method0(interned::cancel(future.py())).map(drop)
}

/// Returns the next result of an iterator. An iterator that raises is cancelled.
pub(crate) fn next_of<'py, R>(
    results: &Exclusive<R>,
    iterator: &Bound<'py, PyAny>,
    next: impl FnOnce(&mut R, Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>>,
    cancel: impl FnOnce(&mut R, Python<'py>) -> PyResult<()>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = iterator.py();
    let mut results = results
        .take(py)
        .ok_or_else(|| PyValueError::new_err(EXECUTING))?;
    let next = next(&mut results, py);
    if let Err(error) = &next {
        // As with any iterator that has failed, there is nothing more to come.
        cancel(&mut results, py)?;
        if error.is_instance_of::<PyStopIteration>(py) {
            // It would look like the end of the iteration.
            let raised = PyRuntimeError::new_err("generator raised StopIteration");
            raised.set_cause(py, Some(error.clone_ref(py)));
            return Err(raised);
        }
    }
    next
}

/// Cancels the rest of an iteration whose iterator is dropped.
///
/// The standard library's iterator is a generator, which lets all calls run if no code has asked it for an item.
/// So such an iterator does not call this function.
pub(crate) fn cancel_dropped(cancel: impl FnOnce(Python<'_>) -> PyResult<()>) {
    aside(|py| {
        if let Err(error) = cancel(py) {
            error.write_unraisable(py, None);
        }
    });
}

impl ResultIterator {
    /// Returns the next result, if it is there; see `iternext_slot.rs`.
    pub(crate) fn at_hand<'py>(this: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let (result, future) = this.get().0.take(this.py())?.at_hand(this.py())?;
        // The iterator is not taken any more: Python code may run.
        drop(future);
        Some(result)
    }
}

#[pymethods]
impl ResultIterator {
    fn __iter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        next_of(&this.get().0, this.as_any(), Results::next, Results::cancel)
    }

    /// Returns the next result; a value that is sent has no effect.
    fn send<'py>(this: &Bound<'py, Self>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        drop(value);
        Self::__next__(this)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Ends the iteration, and cancels the calls that have not started.
    ///
    /// If no result was ever asked for, the calls are left to run.
    fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        match this.get().0.take(this.py()) {
            Some(mut results) if results.begun => results.cancel(this.py()),
            Some(mut results) => {
                results.source = None;
                results.futures.clear();
                Ok(())
            }
            None => Err(PyValueError::new_err(EXECUTING)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: this is `__traverse__`.
        let Some(results) = (unsafe { self.0.look() }) else {
            return Ok(());
        };
        if let Some(source) = &results.source {
            visit.call(&source.function)?;
            visit.call(&source.items)?;
        }
        results
            .futures
            .iter()
            .try_for_each(|future| visit.call(future))
    }
}

impl Drop for ResultIterator {
    fn drop(&mut self) {
        let results = self.0.get_mut();
        if !results.futures.is_empty() && results.begun {
            cancel_dropped(|py| results.cancel(py));
        }
    }
}
