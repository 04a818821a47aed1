//! `map` on worker processes, and the iterator over its results.
//!
//! Items are sent as *spans*: the arguments of many items in one pickle. The engine hands a
//! worker as many of them as take some tenths of a millisecond, one at first, and a worker that
//! comes to long ones leaves the rest to others. So each item runs as if it were a task of its
//! own, and costs a small part of one. Each has its own result or exception; results are
//! unpickled when their turn comes.

use crate::aside::aside;
use crate::exclusive::Exclusive;
use crate::future::Future;
use crate::map::{checked_buffersize, zip};
use crate::process_pool::ProcessPool;
use crate::remote::{Part, Remote};
use crate::stdlib;
use crate::time_limit::End;
use crate::waiting;
use concurrent_futures::TaskOptions;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::ptr;
use std::vec;

/// The bytes that a span may have, more or less.
const BYTES: usize = 32 * 1024;
/// The items of the first span, whose size nobody knows.
const FIRST: usize = 16;
/// The most items of a span.
const MOST: usize = 2048;

/// Results in the order of the items.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct SpanIterator(Exclusive<Results>);

struct Results {
    /// For `breathe`.
    calls: u8,
    /// Whether an item was asked for.
    begun: bool,
    spans: VecDeque<Span>,
    /// Items of the first span that were yielded, or are in `current`.
    taken: u32,
    /// The type of what stands for the result of an item that has failed.
    failed_item: Py<PyAny>,
    /// Results that were unpickled.
    current: vec::IntoIter<Py<PyAny>>,
    end: Option<End>,
    /// What is still to be submitted.
    source: Option<Source>,
}

struct Span {
    future: Py<Future>,
    items: u32,
}

/// Where items come from.
struct Source {
    executor: Py<PyWeakrefReference>,
    function: Py<PyAny>,
    items: Py<PyIterator>,
    /// Whether each item is the only argument.
    is_single: bool,
    /// How many items make a span, if that is not for us to say.
    size: Option<usize>,
    options: TaskOptions,
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
    let buffersize = buffersize
        .filter(|size| !size.is_none())
        .map(checked_buffersize)
        .transpose()?;
    let end = End::of(timeout)?;
    let is_single = iterables.len() == 1;
    let items = if is_single {
        iterables.get_item(0)?.try_iter()?
    } else {
        zip(py, iterables)?
    };
    let size = match buffersize {
        None => size,
        Some(_) => Some(size.unwrap_or(1)),
    };
    let source = Source {
        executor: PyWeakrefReference::new(executor.as_any())?.unbind(),
        function: function.unbind(),
        items: items.unbind(),
        is_single,
        size,
        options: executor.get().default_options()?,
    };
    let mut results = Results {
        calls: 0,
        begun: false,
        spans: VecDeque::new(),
        taken: 0,
        failed_item: stdlib::failed_item(py)?.clone().unbind(),
        current: Vec::new().into_iter(),
        end,
        source: None,
    };
    let mut next = FIRST;
    let mut room = buffersize.unwrap_or(usize::MAX);
    let mut is_all = false;
    while room > 0 && !is_all {
        match source.submit(executor, &mut next, &mut results.spans) {
            Ok(true) => {}
            Ok(false) => is_all = true,
            Err(error) => {
                results.cancel(py)?;
                return Err(error);
            }
        }
        py.check_signals()?;
        room -= 1;
    }
    if !is_all {
        results.source = Some(source);
    }
    Bound::new(py, SpanIterator(Exclusive::new(results)))
}

impl Source {
    /// Submits the next span, of about `next` items. False if there are no more.
    fn submit(
        &self,
        executor: &Bound<'_, ProcessPool>,
        next: &mut usize,
        spans: &mut VecDeque<Span>,
    ) -> PyResult<bool> {
        let py = executor.py();
        let size = self.size.unwrap_or(*next);
        let items = self.items.bind(py).clone();
        let list = items.take(size).collect::<PyResult<Vec<_>>>()?;
        let count = list.len();
        if count == 0 {
            return Ok(false);
        }
        if let Some(bytes) = self.submit_list(executor, &list, spans)? {
            *next = (BYTES / (bytes / count).max(1)).clamp(1, MOST);
            return Ok(true);
        }
        // Something in it cannot be pickled: each for itself.
        for item in list.chunks(1) {
            self.submit_list(executor, item, spans)?;
        }
        Ok(true)
    }

    /// Submits these items. Returns how many bytes they are; none if they cannot be pickled
    /// together, but perhaps one by one.
    fn submit_list<'py>(
        &self,
        executor: &Bound<'py, ProcessPool>,
        list: &[Bound<'py, PyAny>],
        spans: &mut VecDeque<Span>,
    ) -> PyResult<Option<usize>> {
        let is_divisible = self.size.is_none();
        let submitted = ProcessPool::submit_span(
            executor,
            self.function.bind(executor.py()),
            list,
            self.is_single,
            is_divisible,
            self.options,
        )?;
        let Some((future, bytes)) = submitted else {
            return Ok(None);
        };
        let items = u32::try_from(list.len())?;
        let future = future.unbind();
        spans.push_back(Span { future, items });
        Ok(Some(bytes))
    }
}

impl Results {
    /// Cancels what has not started.
    fn cancel(&mut self, py: Python<'_>) -> PyResult<()> {
        self.source = None;
        self.current = Vec::new().into_iter();
        let mut first = Ok(());
        for span in self.spans.drain(..) {
            let future = span.future.bind(py);
            if let Some(remote) = future.get().remote() {
                remote.abandon();
            }
            let (_, told) = Future::cancel_pending(future);
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
            Ok(executor) => source.submit(executor, &mut FIRST.clone(), &mut self.spans)?,
            Err(_) => false,
        };
        if !next {
            self.source = None;
        }
        Ok(())
    }

    /// The next of the results that are unpickled, if it is one, and it is not time to breathe.
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

    /// The next of the results that are unpickled.
    fn next_of_current<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Who gets it is the only one to have it.
        let Some(result) = self.current.next() else {
            return Ok(None);
        };
        let result = result.into_bound(py);
        if self.is_failed(&result) {
            let error = stdlib::rebuild_exception(py)?.call1((result.getattr("data")?,))?;
            return Err(stdlib::raising(&error));
        }
        Ok(Some(result))
    }

    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.begun = true;
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
            self.open_part(py)?;
        }
    }

    /// Waits for the next results, and unpickles them.
    fn open_part(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(span) = self.spans.front() else {
            return Ok(());
        };
        let future = span.future.bind(py).clone();
        let Some(remote) = future.get().remote() else {
            return Err(PyRuntimeError::new_err("the future is of another kind"));
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
    let milestone = Future::of_remote(span.py(), remote.sibling())?;
    remote.set_milestone(item, &milestone);
    Future::wait_until(&milestone, end)
}

impl SpanIterator {
    /// The next result, if it is there, and no Python code is to run for it.
    pub(crate) fn at_hand(this: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        this.get().0.take(this.as_any())?.at_hand(this.py())
    }
}

#[pymethods]
impl SpanIterator {
    fn __iter__<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        crate::map::next_of(&this.get().0, this.as_any(), Results::next, Results::cancel)
    }

    /// How many results are still to come, at least.
    fn __length_hint__(this: &Bound<'_, Self>) -> usize {
        let Some(results) = this.get().0.take(this.as_any()) else {
            return 0;
        };
        let items: usize = results.spans.iter().map(|span| span.items as usize).sum();
        items + results.current.len() - results.taken as usize
    }

    /// Ends the iteration, and cancels the calls that have not started.
    ///
    /// If no result was ever asked for, the calls are left to run.
    fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        match this.get().0.take(this.as_any()) {
            Some(mut results) if results.begun => results.cancel(this.py()),
            Some(mut results) => {
                results.source = None;
                results.spans.clear();
                Ok(())
            }
            None => Err(PyValueError::new_err(
                "the iterator is in use by another thread",
            )),
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
        let mut spans = results.spans.iter();
        let mut current = results.current.as_slice().iter();
        spans.try_for_each(|span| visit.call(&span.future))?;
        current.try_for_each(|result| visit.call(result))
    }
}

impl Drop for SpanIterator {
    fn drop(&mut self) {
        let results = self.0.get_mut();
        // As in the standard library, whose iterator is a generator: one that nobody has
        // asked for an item lets all calls run.
        if results.spans.is_empty() || !results.begun {
            return;
        }
        aside(|py| {
            if let Err(error) = results.cancel(py) {
                error.write_unraisable(py, None);
            }
        });
    }
}
