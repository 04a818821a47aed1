//! `map`, and the iterator over its results.

use crate::future::object::Future;
use crate::future::plain;
use crate::interp::aside::aside;
use crate::interp::shared_generator::EXECUTING;
use crate::interp::time_limit::End;
use crate::interp::try_lock_cell::Exclusive;
use crate::interp::{entry, interned, stdlib, waiting};
use crate::thread::item::{Functions, ItemHandle};
use crate::thread::pace::{self, Pace};
use crate::thread::pool::ThreadPool;
use concurrent_futures::engine::{deadline_after, wait_until_done};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::VecDeque;
use std::mem;

/// The iterator over results, in the order of the items.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct ResultIterator(Exclusive<Results>);

struct Results {
    /// The number of calls, for `breathe`.
    calls: u8,
    /// Whether an item was asked for.
    begun: bool,
    handles: VecDeque<Handle>,
    end: Option<End>,
    /// The calls that are still to be submitted.
    source: Option<Source>,
    pace: Pace,
}

/// The handle of a call.
pub(crate) enum Handle {
    Item(ItemHandle),
    /// A future of any kind: that of a `submit` that a program has put in the place of ours.
    Future(Py<PyAny>),
}

impl Handle {
    /// Cancels the call if it has not started.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Item(item) => match item.successor(py) {
                None => {
                    item.cancel();
                    Ok(())
                }
                Some(future) => cancel(future.as_any()),
            },
            Self::Future(future) => cancel(future.bind(py)),
        }
    }
}

struct Source {
    executor: Py<PyWeakrefReference>,
    function: Py<PyAny>,
    items: Py<PyIterator>,
    /// Whether the iterator gives the only argument, and not a tuple.
    is_unary: bool,
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
    let way = Way::of(executor)?;
    let is_unary = matches!(way, Way::Items) && iterables.len() == 1;
    let items = if is_unary {
        iterables.get_item(0)?.try_iter()?
    } else {
        zip(py, iterables)?
    };
    let mut results = Results {
        calls: 0,
        begun: false,
        handles: VecDeque::new(),
        end,
        source: None,
        pace: Pace::default(),
    };
    let mut submitter = Submitter {
        executor,
        functions: Functions::new(function, is_unary),
        way,
    };
    let mut room = buffersize.unwrap_or(usize::MAX);
    let mut rest = items.clone();
    while room > 0 {
        let Some(arguments) = rest.next() else {
            break;
        };
        results.handles.push_back(submitter.submit(arguments?)?);
        waiting::breathe(py, &mut results.calls)?;
        room -= 1;
    }
    if room == 0 {
        results.source = Some(Source {
            executor: PyWeakrefReference::new(executor.as_any())?.unbind(),
            function: submitter.functions.function().clone().unbind(),
            items: items.unbind(),
            is_unary,
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
    stdlib::zip(py)?.call1(iterables)?.try_iter()
}

/// The way in which calls are submitted.
enum Way<'py> {
    /// Without a future for each.
    Items,
    /// With futures, as `submit` makes them.
    Futures,
    /// By the method `submit` of a subclass, or of the executor itself.
    Overridden(Bound<'py, PyAny>),
}

impl<'py> Way<'py> {
    fn of(executor: &Bound<'py, ThreadPool>) -> PyResult<Self> {
        let py = executor.py();
        let name = interned::submit(py);
        let submit = executor.get_type().getattr(name)?;
        let of_its_own = match executor.getattr_opt(interned::dict(py))? {
            Some(attributes) => attributes.contains(name)?,
            None => false,
        };
        Ok(if !entry::leads_to(0, &submit) || of_its_own {
            Self::Overridden(executor.getattr(name)?)
        } else if ThreadPool::takes_items(executor)?
            && plain::are_all_plain(py)
            && !waiting::is_threading_replaced(py)?
        {
            Self::Items
        } else {
            Self::Futures
        })
    }
}

struct Submitter<'a, 'py> {
    executor: &'a Bound<'py, ThreadPool>,
    functions: Functions<'py>,
    way: Way<'py>,
}

impl<'py> Submitter<'_, 'py> {
    /// Submits the call of an item.
    fn submit(&mut self, item: Bound<'py, PyAny>) -> PyResult<Handle> {
        let py = self.executor.py();
        let item = match &self.way {
            Way::Items => {
                match ThreadPool::submit_item(self.executor, &mut self.functions, item)? {
                    Ok(handle) => return Ok(Handle::Item(handle)),
                    Err(item) => item,
                }
            }
            _ => item,
        };
        let function = self.functions.function();
        let arguments = if self.functions.is_unary() {
            PyTuple::new(py, [item])?
        } else {
            item.cast_into::<PyTuple>()?
        };
        let future = match &self.way {
            Way::Items | Way::Futures => {
                ThreadPool::submit_call(self.executor, function.clone(), arguments, None)?
            }
            Way::Overridden(submit) => {
                let function = PyTuple::new(py, [function])?;
                submit.call1(function.add(arguments)?.cast_into::<PyTuple>()?)?
            }
        };
        Ok(Handle::Future(future.unbind()))
    }
}

impl Results {
    /// Cancels the calls that have not started, from the last to the first. So no worker that becomes free starts one behind
    /// a cancelled one.
    fn cancel(&mut self, py: Python<'_>) -> PyResult<()> {
        self.source = None;
        let mut first = Ok(());
        for handle in self.handles.drain(..).rev() {
            first = first.and(handle.cancel(py));
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
        let mut submitter = Submitter {
            executor,
            functions: Functions::new(source.function.bind(py).clone(), source.is_unary),
            way: Way::of(executor)?,
        };
        self.handles.push_back(submitter.submit(arguments?)?);
        Ok(())
    }

    /// Returns the next result and its handle, if the result is there.
    fn at_hand<'py>(&mut self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, Handle)> {
        if self.source.is_some() {
            return None;
        }
        let result = match self.handles.front_mut()? {
            Handle::Item(item) => {
                if !item.task().state().is_done() || !waiting::holds_breath(&mut self.calls) {
                    return None;
                }
                // SAFETY: the caller has taken the iterator.
                unsafe { item.take_result(py) }?
            }
            Handle::Future(future) => {
                let future = plain::cast(future.bind(py))?;
                let result = Future::result_at_hand(future)?;
                if !waiting::holds_breath(&mut self.calls) {
                    return None;
                }
                result
            }
        };
        self.begun = true;
        Some((result, self.handles.pop_front()?))
    }

    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.begun = true;
        if self.handles.is_empty() {
            return Ok(None);
        }
        self.submit_next(py)?;
        waiting::breathe(py, &mut self.calls)?;
        self.nap(py)?;
        let Some(mut handle) = self.handles.pop_front() else {
            return Ok(None);
        };
        let result = match &mut handle {
            Handle::Item(item) => self.result_of_item(py, item),
            Handle::Future(future) => {
                let future = future.bind(py);
                match plain::cast(future) {
                    Some(ours) => self.result_of(ours),
                    None => self.result_of_other(future),
                }
            }
        };
        if result.is_err() {
            handle.cancel(py)?;
        }
        result.map(Some)
    }

    /// Waits for a later result if the next one is not there and calls are short; see `pace.rs`.
    ///
    /// With an interpreter lock, a thread that is woken waits for its turn, and so finds many results anyway.
    fn nap(&mut self, py: Python<'_>) -> PyResult<()> {
        if !cfg!(Py_GIL_DISABLED) || self.source.is_some() || self.end.is_some() {
            return Ok(());
        }
        let Some(Handle::Item(next)) = self.handles.front() else {
            return Ok(());
        };
        if next.task().state().is_done() {
            return Ok(());
        }
        let ahead = self.pace.ahead(self.handles.len());
        if ahead > 0
            && let Some(Handle::Item(later)) = self.handles.get(ahead)
        {
            let end = deadline_after(pace::PATIENCE);
            // The wait for the next result comes after this one, and reports a deadlock.
            let _ = waiting::detached(py, |stop| wait_until_done(later.task(), end, stop))?;
        }
        Ok(())
    }

    fn result_of<'py>(&self, future: &Bound<'py, Future>) -> PyResult<Bound<'py, PyAny>> {
        Future::wait_until(future, self.end.as_ref())?;
        Future::take_result(future)
    }

    fn result_of_item<'py>(
        &self,
        py: Python<'py>,
        item: &mut ItemHandle,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !item.task().state().is_done() {
            let end = self.end.as_ref();
            let deadline = end.map(|end| end.deadline(py)).transpose()?.flatten();
            let task = item.task();
            let done = waiting::detached(py, |stop| wait_until_done(task, deadline, stop))?;
            match done {
                Ok(true) => {}
                Ok(false) => return Err(stdlib::timed_out()),
                Err(deadlock) => return Err(stdlib::deadlock(py, &deadlock)),
            }
        }
        if let Some(future) = item.successor(py) {
            return self.result_of(future);
        }
        // SAFETY: the caller has taken the iterator.
        unsafe { item.take_outcome(py) }
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
        let (result, handle) = this.get().0.take(this.py())?.at_hand(this.py())?;
        // The iterator is not taken any more: Python code may run.
        drop(handle);
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
                let handles = mem::take(&mut results.handles);
                drop(results);
                drop(handles);
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
        results.handles.iter().try_for_each(|handle| match handle {
            // SAFETY: this is `__traverse__`, and no thread has taken the iterator.
            Handle::Item(item) => unsafe { item.traverse(visit) },
            Handle::Future(future) => visit.call(future),
        })
    }

    fn __clear__(&self) {
        // An iterator that is garbage is in no thread's hands.
        Python::attach(|py| {
            let Some(mut results) = self.0.take(py) else {
                return;
            };
            if results.begun {
                drop(results);
                cancel_dropped(|py| match self.0.take(py) {
                    Some(mut results) => results.cancel(py),
                    None => Ok(()),
                });
            } else {
                let source = results.source.take();
                let handles = mem::take(&mut results.handles);
                drop(results);
                drop((source, handles));
            }
        });
    }
}

impl Drop for ResultIterator {
    fn drop(&mut self) {
        let results = self.0.get_mut();
        if !results.handles.is_empty() && results.begun {
            cancel_dropped(|py| results.cancel(py));
        }
    }
}
