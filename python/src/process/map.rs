//! `map` on worker processes: the iterator over its results.
//!
//! `source.rs` submits the items. Each item has its own result or exception; results are unpickled when their turn
//! comes.

use crate::future::object::Future;
use crate::future::remote::{Part, Remote};
use crate::interp::shared_generator::EXECUTING;
use crate::interp::time_limit::End;
use crate::interp::try_lock_cell::{Exclusive, Taken};
use crate::interp::{stdlib, waiting};
use crate::process::pool::ProcessPool;
use crate::process::source::{Producer, Source, Span};
use crate::process::task;
use crate::thread::map::{cancel_dropped, checked_buffersize};
use pyo3::exceptions::{
    PyBaseException, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::ptr;
use std::vec;

/// The iterator over results, in the order of the items.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct SpanIterator(Exclusive<Results>);

struct Results {
    /// The number of calls, for `breathe`.
    calls: u8,
    /// Whether an item was asked for.
    begun: bool,
    /// Whether nothing more is to come: after the last item, an exception, or `close`.
    ended: bool,
    spans: VecDeque<Span>,
    /// The number of items of the first span that were yielded, or are in `current`.
    taken: u32,
    /// The type of the object that stands for the result of a failed item.
    failed_item: Py<PyAny>,
    /// The results that were unpickled.
    current: vec::IntoIter<Py<PyAny>>,
    end: Option<End>,
    /// The items that are still to be submitted.
    source: Option<Source>,
}

pub(crate) fn map<'py>(
    executor: &Bound<'py, ProcessPool>,
    function: Bound<'py, PyAny>,
    iterables: Bound<'py, PyTuple>,
    timeout: Option<&Bound<'py, PyAny>>,
    size: Option<usize>,
    buffersize: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, SpanIterator>> {
    let py = executor.py();
    let buffersize = checked_buffersize(buffersize)?;
    let end = End::of(timeout)?;
    let size = match buffersize {
        None => size,
        Some(_) => Some(size.unwrap_or(1)),
    };
    let source = Source::new(executor, function, iterables, size)?;
    let mut results = Results {
        calls: 0,
        begun: false,
        ended: false,
        spans: VecDeque::new(),
        taken: 0,
        failed_item: stdlib::failed_item(py)?.clone().unbind(),
        current: Vec::new().into_iter(),
        end,
        source: None,
    };
    // If the items fail in the middle of it, what was submitted runs all the same.
    if source.is_divisible() {
        let mut producer = Producer::new(executor, &source, &mut results.spans);
        let mut added = Ok(());
        for item in source.items.bind(py).clone() {
            added = item
                .and_then(|item| producer.add(&item))
                .and_then(|()| waiting::breathe(py, &mut results.calls));
            if added.is_err() {
                break;
            }
        }
        let ended = producer.end();
        added.and(ended)?;
    } else {
        let mut room = buffersize.unwrap_or(usize::MAX);
        let mut is_more = true;
        while room > 0 && is_more {
            is_more = source.submit_chunk(executor, &mut results.spans)?;
            waiting::breathe(py, &mut results.calls)?;
            room -= 1;
        }
        results.source = is_more.then_some(source);
    }
    Bound::new(py, SpanIterator(Exclusive::new(results)))
}

impl Results {
    /// Cancels the calls that have not started, from the last to the first, as the standard library does.
    fn cancel(&mut self, py: Python<'_>) -> PyResult<()> {
        self.source = None;
        self.current = Vec::new().into_iter();
        self.taken = 0;
        let mut first = Ok(());
        for span in self.spans.drain(..).rev() {
            let future = span.future.bind(py);
            if span.is_call {
                first = first.and(Future::cancel_unbegun(future).map(drop));
                continue;
            }
            if let Some(remote) = future.get().remote() {
                remote.abandon();
            }
            let (_, told) = Future::cancel_pending(future, None);
            first = first.and(told);
        }
        first
    }

    /// Submits the next span, if there is one, and the executor is still there.
    fn submit_next(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let executor = source.executor.bind(py).call0()?;
        let next = match executor.cast::<ProcessPool>() {
            Ok(executor) => source.submit_chunk(executor, &mut self.spans)?,
            Err(_) => false,
        };
        if !next {
            self.source = None;
        }
        Ok(())
    }

    /// Returns the next unpickled result, if there is one, and `breathe` is not due.
    fn at_hand(&mut self, py: Python<'_>) -> Option<Py<PyAny>> {
        let result = self.current.as_slice().first()?.bind(py);
        if self.is_failed(result) || !waiting::holds_breath(&mut self.calls) {
            return None;
        }
        self.current.next()
    }

    fn is_failed(&self, result: &Bound<'_, PyAny>) -> bool {
        ptr::addr_eq(result.get_type_ptr(), self.failed_item.as_ptr())
    }

    /// Returns the next unpickled result.
    fn next_of_current<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // This thread is the only one to have the result.
        let Some(result) = self.current.next() else {
            return Ok(None);
        };
        let result = result.into_bound(py);
        if self.is_failed(&result) {
            let mut error = result.getattr("data")?;
            if !error.is_instance_of::<PyBaseException>() {
                error = stdlib::rebuild_exception(py)?.call1((error,))?;
            }
            return Err(stdlib::raising(&error));
        }
        Ok(Some(result))
    }

    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.begun = true;
        let next = self.find_next(py);
        self.ended |= !matches!(next, Ok(Some(_)));
        next
    }

    fn find_next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        waiting::breathe(py, &mut self.calls)?;
        loop {
            if let Some(result) = self.next_of_current(py)? {
                return Ok(Some(result));
            }
            let Some(span) = self.spans.front() else {
                return Ok(None);
            };
            if self.taken >= span.items {
                self.spans.pop_front();
                self.taken = 0;
                continue;
            }
            if self.taken == 0 {
                // Its turn has come: one more may be submitted.
                self.submit_next(py)?;
            }
            if let Some(result) = self.take_call(py)? {
                return Ok(Some(result));
            }
            self.open_part(py)?;
        }
    }

    /// Returns the next result of the first span, if its future has the result.
    fn take_call<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(span) = self.spans.front().filter(|span| span.is_call) else {
            return Ok(None);
        };
        let future = span.future.bind(py);
        Future::wait_until(future, self.end.as_ref())?;
        let result = Future::take_result(future)?;
        let is_chunk = span.items > 1;
        self.spans.pop_front();
        if !is_chunk {
            return Ok(Some(result));
        }
        let results = result.cast_into::<PyList>()?;
        let results: Vec<_> = results.iter().map(Bound::unbind).collect();
        self.current = results.into_iter();
        self.next_of_current(py)
    }

    /// Waits for the next results, and unpickles them.
    fn open_part(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(span) = self.spans.front() else {
            return Ok(());
        };
        let future = span.future.bind(py).clone();
        let Some(remote) = future.get().remote() else {
            return Err(PyRuntimeError::new_err(
                "the future of an item is no future of this package's process pools",
            ));
        };
        loop {
            let was_done = future.get().state().is_done();
            match remote.take_part(py, self.taken)? {
                Part::Results(results) => {
                    self.taken += u32::try_from(results.len())?;
                    let results: Vec<_> = results.into_iter().map(Bound::unbind).collect();
                    self.current = results.into_iter();
                    return Ok(());
                }
                Part::Exception(error) => return Err(stdlib::raising(error.value(py))),
                Part::Missing if was_done => return Err(stdlib::cancelled(py)),
                Part::Missing => wait_for_part(&future, remote, self.taken, self.end.as_ref())?,
            }
        }
    }
}

/// Waits until there is something for an item of a span.
fn wait_for_part(
    span: &Bound<'_, Future>,
    remote: &Remote,
    item: u32,
    end: Option<&End>,
) -> PyResult<()> {
    let milestone = task::make(span.py(), remote.sibling())?;
    remote.set_milestone(item, &milestone);
    Future::wait_until(&milestone, end)
}

impl SpanIterator {
    /// Returns the results, or an error if another thread has taken them.
    fn results(&self, this: &Bound<'_, Self>) -> PyResult<Taken<'_, Results>> {
        let results = self.0.take(this.py());
        results.ok_or_else(|| PyValueError::new_err(EXECUTING))
    }

    /// Returns a generator like this iterator, for attributes that only the interpreter can make.
    fn twin(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        stdlib::result_iterator(py)?.call1((py.None(),))
    }

    /// Returns the next result, if it is there, and no Python code is to run for it.
    pub(crate) fn at_hand<'py>(this: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let result = this.get().0.take(this.py())?.at_hand(this.py())?;
        Some(result.into_bound(this.py()))
    }
}

#[pymethods]
impl SpanIterator {
    fn __iter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        crate::thread::map::next_of(&this.get().0, this.as_any(), Results::next, Results::cancel)
    }

    /// Returns how many results are still to come, at least.
    fn __length_hint__(this: &Bound<'_, Self>) -> usize {
        let Some(results) = this.get().0.take(this.py()) else {
            return 0;
        };
        let items: usize = results.spans.iter().map(|span| span.items as usize).sum();
        (items + results.current.len()).saturating_sub(results.taken as usize)
    }

    /// Ends the iteration, and cancels the calls that have not started.
    ///
    /// If no result was ever asked for, the calls are left to run.
    fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        let mut results = this.get().results(this)?;
        results.ended = true;
        if results.begun {
            return results.cancel(this.py());
        }
        results.source = None;
        results.spans.clear();
        Ok(())
    }

    /// Returns the next result, as `next` does; a value that is sent has no effect.
    fn send<'py>(this: &Bound<'py, Self>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !value.is_none() && !this.get().results(this)?.begun {
            return Err(PyTypeError::new_err(
                "can't send non-None value to a just-started generator",
            ));
        }
        Self::__next__(this)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Ends the iteration, as `close` does, and raises the exception.
    #[pyo3(signature = (*exception))]
    fn throw<'py>(
        this: &Bound<'py, Self>,
        exception: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        drop(this.get().results(this)?);
        // A generator that has nothing to end raises the exception, or refuses a wrong one.
        let thrown = Self::twin(this.py())?.call_method1("throw", exception);
        if let Err(error) = &thrown
            && !error.is_instance_of::<PyTypeError>(this.py())
        {
            Self::close(this)?;
        }
        thrown
    }

    /// Returns the class that `isinstance` looks at besides the type, as tools ask whether the iterator is a
    /// generator.
    #[getter(__class__)]
    fn class<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("types")?.getattr("GeneratorType")
    }

    #[getter]
    fn gi_running(this: &Bound<'_, Self>) -> bool {
        this.get().0.take(this.py()).is_none()
    }

    #[getter]
    fn gi_suspended(this: &Bound<'_, Self>) -> bool {
        let results = this.get().0.take(this.py());
        results.is_some_and(|results| results.begun && !results.ended)
    }

    /// Returns the name of the state, as generators do from CPython 3.15 on.
    #[cfg(Py_3_15)]
    #[getter]
    fn gi_state(this: &Bound<'_, Self>) -> &'static str {
        match this.get().0.take(this.py()) {
            None => "GEN_RUNNING",
            Some(results) if results.ended => "GEN_CLOSED",
            Some(results) if results.begun => "GEN_SUSPENDED",
            Some(_) => "GEN_CREATED",
        }
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "an attribute")]
    fn gi_yieldfrom(&self) -> Option<Py<PyAny>> {
        None
    }

    #[getter]
    fn gi_code(this: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Ok(Self::twin(this.py())?.getattr("gi_code")?.unbind())
    }

    /// Returns a frame, as long as the iterator may yield more.
    #[getter]
    fn gi_frame(this: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let results = this.get().0.take(this.py());
        if results.is_some_and(|results| results.ended) {
            return Ok(None);
        }
        Ok(Some(Self::twin(this.py())?.getattr("gi_frame")?.unbind()))
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
        let mut spans = results.spans.iter();
        let mut current = results.current.as_slice().iter();
        spans.try_for_each(|span| visit.call(&span.future))?;
        current.try_for_each(|result| visit.call(result))
    }
}

impl Drop for SpanIterator {
    fn drop(&mut self) {
        let results = self.0.get_mut();
        if !results.spans.is_empty() && results.begun {
            cancel_dropped(|py| results.cancel(py));
        }
    }
}
