//! The source of items of `map` on worker processes, and their submission.
//!
//! Each item is pickled by itself, as each is a call by itself: an object that two items share is copied
//! for each call. Short items that are plain (numbers, texts and the like) are collected into *spans*. The
//! engine hands spans to workers, as many items at a time as are worth a message (`items.rs` of the engine).
//! Any other item is a task of its own, as `submit` makes one, and so is each item where tasks have limits
//! of their own. A *chunk*, whose size the caller has given, is one pickle and one task.
//!
//! An item may run before the producer has made the next one: producers may wait for that. So each item
//! of a producer that can run code is pushed before the next one is asked for. Lists, ranges and the like
//! cannot; their items are pushed some at a time.

use crate::future::Future;
use crate::map::zip;
use crate::pickling::{Pickled, Tag};
use crate::process_pool::{self, ProcessPool};
use crate::remote::{self, Remote};
use crate::span_results;
use crate::stdlib;
use concurrent_futures::TaskOptions;
use concurrent_futures::engine::{Argument, CallSpan, Definition, Items, RemoteCall, TaskRef};
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyDict, PyFrozenSet, PyIterator, PyList, PyRange, PySet, PyString, PyTuple,
    PyWeakrefReference,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// The bytes that a span may have.
const BYTES: usize = 32 * 1024;
/// The most items of a span.
const MOST: usize = 2048;
/// Longer items are tasks of their own; measured.
const ALONE: usize = 8 * 1024;
/// How many items of lists and the like are pushed together at first.
const FEW: usize = 16;
/// The same later.
const MANY: usize = 1024;

/// Calls that were submitted together.
pub(crate) struct Span {
    pub(crate) future: Py<Future>,
    pub(crate) items: u32,
    /// Whether its future has the outcome: of a single call; or of a chunk, with the list of its results.
    pub(crate) is_call: bool,
}

/// Where items come from.
pub(crate) struct Source {
    pub(crate) executor: Py<PyWeakrefReference>,
    pub(crate) function: Py<PyAny>,
    pub(crate) items: Py<PyIterator>,
    /// Whether each item is the only argument.
    is_single: bool,
    /// How many items make a chunk, if the caller has said so.
    size: Option<usize>,
    /// Whether asking for the next item runs no code of others.
    is_plain: bool,
    options: TaskOptions,
}

impl Source {
    pub(crate) fn new<'py>(
        executor: &Bound<'py, ProcessPool>,
        function: Bound<'py, PyAny>,
        iterables: Bound<'py, PyTuple>,
        size: Option<usize>,
    ) -> PyResult<Self> {
        let py = executor.py();
        let is_single = iterables.len() == 1;
        let is_plain = iterables.iter_borrowed().all(|each| is_plain(&each));
        let items = if is_single {
            iterables.get_item(0)?.try_iter()?
        } else {
            zip(py, iterables)?
        };
        Ok(Self {
            executor: PyWeakrefReference::new(executor.as_any())?.unbind(),
            function: function.unbind(),
            items: items.unbind(),
            is_single,
            size,
            is_plain,
            options: executor.get().default_options()?,
        })
    }

    /// Submits the next chunk. False if there is none.
    pub(crate) fn submit_chunk(
        &self,
        executor: &Bound<'_, ProcessPool>,
        spans: &mut VecDeque<Span>,
    ) -> PyResult<bool> {
        let py = executor.py();
        let items = self.items.bind(py).clone();
        let list = items
            .take(self.size.unwrap_or(1))
            .collect::<PyResult<Vec<_>>>()?;
        let function = self.function.bind(py);
        let (future, is_call) = match &list[..] {
            [] => return Ok(false),
            [item] => {
                let arguments = self.arguments(item)?;
                let options = self.options;
                let future =
                    ProcessPool::submit_call(executor, function, &arguments, None, options)?;
                (future, true)
            }
            list => {
                let (is_single, options) = (self.is_single, self.options);
                let plain =
                    ProcessPool::submit_plain_chunk(executor, function, list, is_single, options)?;
                match plain {
                    Some(future) => (future, false),
                    None => (self.submit_pickled_chunk(executor, list)?, true),
                }
            }
        };
        spans.push_back(Span {
            future: future.unbind(),
            items: u32::try_from(list.len())?,
            is_call,
        });
        Ok(true)
    }

    /// Submits items that are not plain as one call of [`call_chunk`].
    fn submit_pickled_chunk<'py>(
        &self,
        executor: &Bound<'py, ProcessPool>,
        list: &[Bound<'py, PyAny>],
    ) -> PyResult<Bound<'py, Future>> {
        let py = executor.py();
        let arguments = (
            self.function.bind(py),
            PyList::new(py, list)?,
            self.is_single,
        );
        let arguments = arguments.into_pyobject(py)?;
        let function = stdlib::call_chunk(py)?;
        ProcessPool::submit_call(executor, function, &arguments, None, self.options)
    }

    /// The arguments of a call.
    fn arguments<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        if self.is_single {
            return PyTuple::new(item.py(), [item]);
        }
        Ok(item.cast::<PyTuple>()?.clone())
    }

    /// Whether each item is a task of its own, unless the engine divides what it is in.
    pub(crate) fn is_divisible(&self) -> bool {
        self.size.is_none()
    }
}

/// Calls a function for each item of a chunk, and returns the results. Each item is the only argument if
/// `is_single`, or else a tuple of all. Worker processes call this.
#[pyfunction]
pub(crate) fn call_chunk<'py>(
    function: &Bound<'py, PyAny>,
    items: &Bound<'py, PyList>,
    is_single: bool,
) -> PyResult<Bound<'py, PyList>> {
    let results = PyList::empty(items.py());
    for item in items {
        let result = if is_single {
            function.call1((item,))
        } else {
            function.call(item.cast_into::<PyTuple>()?, None)
        };
        results.append(result?)?;
    }
    Ok(results)
}

/// Whether going through an iterable runs no code of others.
fn is_plain(iterable: &Bound<'_, PyAny>) -> bool {
    iterable.is_exact_instance_of::<PyList>()
        || iterable.is_exact_instance_of::<PyTuple>()
        || iterable.is_exact_instance_of::<PyRange>()
        || iterable.is_exact_instance_of::<PyString>()
        || iterable.is_exact_instance_of::<PyBytes>()
        || iterable.is_exact_instance_of::<PyDict>()
        || iterable.is_exact_instance_of::<PySet>()
        || iterable.is_exact_instance_of::<PyFrozenSet>()
}

/// Submits items, each as soon as its producer may rely on it.
pub(crate) struct Producer<'a, 'py> {
    executor: &'a Bound<'py, ProcessPool>,
    source: &'a Source,
    spans: &'a mut VecDeque<Span>,
    open: Option<Open<'py>>,
    /// Items that were not pushed: their bytes, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// How many items are pushed together.
    together: usize,
    /// How many items were pushed while there may have been too few workers.
    first: usize,
}

/// A span that further items may come to.
struct Open<'py> {
    future: Bound<'py, Future>,
    task: TaskRef,
    definition: Arc<Definition>,
    items: Arc<Items>,
    number: usize,
    length: usize,
}

impl<'a, 'py> Producer<'a, 'py> {
    pub(crate) fn new(
        executor: &'a Bound<'py, ProcessPool>,
        source: &'a Source,
        spans: &'a mut VecDeque<Span>,
    ) -> Self {
        Self {
            executor,
            source,
            spans,
            open: None,
            bytes: Vec::new(),
            ends: Vec::new(),
            together: FEW,
            first: 0,
        }
    }

    /// Submits an item, or collects it until it is pushed with others.
    pub(crate) fn add(&mut self, item: &Bound<'py, PyAny>) -> PyResult<()> {
        let is_spanned = self.opens()?;
        let start = self.bytes.len();
        if is_spanned && span_results::append_item(item, &mut self.bytes) {
            if self.bytes.len() - start <= ALONE {
                return self.added(start);
            }
            self.bytes.truncate(start);
        }
        let arguments = self.source.arguments(item)?;
        let function = self.source.function.bind(item.py());
        let shared = self.executor.get().shared()?;
        let plain = shared
            .functions
            .pickle_plain(function, &arguments, None, &shared.pickling)?;
        match plain {
            Some(pickled)
                if is_spanned
                    && pickled.attachment.is_none()
                    && pickled.argument.len() <= ALONE =>
            {
                span_results::append_pickled_item(&pickled.argument, &mut self.bytes);
                self.added(start)
            }
            plain => self.submit_alone(&arguments, plain),
        }
    }

    /// Sees to a span for items that are plain. False if there must not be one.
    fn opens(&mut self) -> PyResult<bool> {
        if self.open.as_ref().is_some_and(|open| open.number > 0) {
            return Ok(true);
        }
        let shared = self.executor.get().shared()?;
        if shared.feeder.left() > 0 {
            // Calls that were submitted before come first.
            return Ok(false);
        }
        if self.open.is_none() {
            let function = self.source.function.bind(self.executor.py());
            let definition = shared.functions.definition(function)?;
            self.open = definition
                .map(|definition| self.begin(definition))
                .transpose()?;
        }
        Ok(self.open.is_some())
    }

    fn begin(&self, definition: Arc<Definition>) -> PyResult<Open<'py>> {
        ProcessPool::prepare(self.executor)?;
        let shared = self.executor.get().shared()?;
        let remote = Remote::of_open_span(Arc::clone(shared));
        let future = Future::of_remote(self.executor.py(), remote)?;
        Ok(Open {
            task: remote::enlist(&future, shared),
            future,
            definition,
            items: Items::new(),
            number: 0,
            length: 0,
        })
    }

    /// An item was added from `start` on, which may be too much for the span.
    fn added(&mut self, start: usize) -> PyResult<()> {
        let length = self.bytes.len() - start;
        let is_too_much = |open: &Open<'_>| {
            open.number > 0 && (open.length + length > BYTES || open.number >= MOST)
        };
        let full = self.open.as_ref().filter(|open| is_too_much(open));
        if let Some(definition) = full.map(|open| Arc::clone(&open.definition)) {
            let item = self.bytes.split_off(start);
            self.close()?;
            self.bytes = item;
            self.open = Some(self.begin(definition)?);
        }
        if let Some(open) = &mut self.open {
            open.number += 1;
            open.length += length;
        }
        self.ends.push(u32::try_from(self.bytes.len())?);
        if !self.source.is_plain || self.ends.len() >= self.together {
            self.push()?;
        }
        Ok(())
    }

    /// Pushes the added items, for workers to take.
    fn push(&mut self) -> PyResult<()> {
        let (Some(open), number) = (&self.open, self.ends.len()) else {
            return Ok(());
        };
        if number == 0 {
            return Ok(());
        }
        let executor = self.executor;
        let pool = executor.get();
        if !self.source.is_plain {
            // The producer may have shut it down. A tail would run what comes all the same.
            ProcessPool::check_open(executor)?;
        }
        pool.note_submitted(number)?;
        let is_without_tail = open.items.push(&mut self.bytes, &mut self.ends);
        if is_without_tail {
            let tag = if self.source.is_single {
                Tag::SingleSpan
            } else {
                Tag::Span
            };
            let call = RemoteCall {
                definition: Some(Arc::clone(&open.definition)),
                tag: tag as u8,
                argument: Argument::Own(Vec::new()),
                attachment: None,
                span: Some(CallSpan::Tail(Arc::clone(&open.items))),
                options: self.source.options,
                has_place: false,
            };
            ProcessPool::submit_items(executor, &open.future, &open.task, call)?;
        }
        // There may be work for more workers than are there.
        let most = pool.max_workers()?;
        let left = number.min(most.saturating_sub(self.first));
        self.first += left;
        for _ in 0..left {
            if !pool.shared()?.pool.want_another_worker() {
                break;
            }
            process_pool::start_worker(executor.py(), pool.shared()?)?;
        }
        self.together = MANY;
        Ok(())
    }

    /// Submits an item that is long, or not plain, as a task of its own.
    fn submit_alone(
        &mut self,
        arguments: &Bound<'py, PyTuple>,
        plain: Option<Pickled>,
    ) -> PyResult<()> {
        self.close()?;
        let executor = self.executor;
        ProcessPool::prepare(executor)?;
        let function = self.source.function.bind(executor.py());
        let options = self.source.options;
        let future = ProcessPool::submit_with_plain(
            executor, function, arguments, None, plain, None, options,
        )?;
        self.spans.push_back(Span {
            future: future.unbind(),
            items: 1,
            is_call: true,
        });
        Ok(())
    }

    /// No more items come to the span.
    fn close(&mut self) -> PyResult<()> {
        let pushed = self.push();
        let Some(open) = self.open.take() else {
            return pushed;
        };
        if open.number == 0 {
            // It can be used for what comes behind.
            self.open = Some(open);
            return pushed;
        }
        open.items.complete();
        // All that were pushed: those that are left were refused.
        let items = u32::try_from(open.number - self.ends.len())?;
        self.bytes.clear();
        self.ends.clear();
        let remote = open.future.get().remote();
        if remote.is_some_and(|remote| remote.close_span(items)) {
            // Nobody else makes it done; should it be cancelled, it is done.
            let _ = Future::set_outcome(&open.future, || {});
        }
        self.spans.push_back(Span {
            future: open.future.unbind(),
            items,
            is_call: false,
        });
        pushed
    }

    /// There are no more items.
    pub(crate) fn end(mut self) -> PyResult<()> {
        self.close()
    }
}
