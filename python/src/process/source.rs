//! The source of items of `map` on worker processes, and their submission.
//!
//! Each item is pickled by itself, as each is a call by itself: an object that two items share is copied for each
//! call. Short plain items (numbers, texts and the like) are collected into *spans*. The engine dispatches spans to
//! workers, as many items at a time as are worth a message (`items.rs` of the engine). Any other item is a task of
//! its own, as `submit` makes it. So is each item if tasks have limits of their own. A *chunk*, whose size the
//! caller has given, is one pickle and one task.
//!
//! An item may run before the producer has made the next one: producers may wait for that. So each item of a
//! producer that can run code is pushed before the next one is asked for. Lists, ranges and the like run no code;
//! their items are pushed some at a time.

use crate::future::object::Future;
use crate::future::remote::Remote;
use crate::interp::stdlib;
use crate::pickle::calls::{Pickled, Tag};
use crate::pickle::replies;
use crate::process::pool::ProcessPool;
use crate::process::shared::{Shared, start_worker};
use crate::process::task;
use crate::recording::calls::Recorded;
use crate::thread::map::zip;
use concurrent_futures::TaskOptions;
use concurrent_futures::engine::{Argument, CallSpan, Definition, Items, RemoteCall, TaskRef};
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyDict, PyFrozenSet, PyIterator, PyList, PyRange, PySet, PyString, PyTuple,
    PyWeakrefReference,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// The largest number of bytes of a span.
const BYTES: usize = 32 * 1024;
/// The largest number of items of a span.
const MOST: usize = 2048;
/// The length above which items are tasks of their own; measured.
const ALONE: usize = 8 * 1024;
/// The number of items of lists and the like that are pushed together at first.
const FEW: usize = 16;
/// The number of items of lists and the like that are pushed together later.
const MANY: usize = 1024;

/// Calls that were submitted together.
pub(crate) struct Span {
    pub(crate) future: Py<Future>,
    pub(crate) items: u32,
    /// Whether the future has the outcome of a single call, or the list of a chunk's results.
    pub(crate) is_call: bool,
}

/// The source of items, and their way to the pool.
pub(crate) struct Source {
    pub(crate) executor: Py<PyWeakrefReference>,
    pub(crate) function: Py<PyAny>,
    pub(crate) items: Py<PyIterator>,
    /// Whether each item is the only argument.
    is_single: bool,
    /// The number of items of a chunk, if the caller has given it.
    size: Option<usize>,
    /// Whether asking for the next item runs no foreign code.
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

    /// Submits the next chunk. Returns false if there is none.
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

    /// Submits items that are not plain as one call of `call_chunk`.
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

    /// Returns the arguments of a call.
    fn arguments<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        if self.is_single {
            return PyTuple::new(item.py(), [item]);
        }
        Ok(item.cast::<PyTuple>()?.clone())
    }

    /// Returns whether each item is a task of its own, unless the engine divides the span that it is in.
    pub(crate) fn is_divisible(&self) -> bool {
        self.size.is_none()
    }
}

/// Returns whether going through an iterable runs no foreign code.
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

/// Submits items, each as soon as its producer may rely on the submission.
pub(crate) struct Producer<'a, 'py> {
    executor: &'a Bound<'py, ProcessPool>,
    source: &'a Source,
    spans: &'a mut VecDeque<Span>,
    open: Option<Open<'py>>,
    /// The items that were not pushed: their bytes, and the end of each.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// The number of items that are pushed together.
    together: usize,
    /// The number of items that were pushed while the pool may have had too few workers.
    first: usize,
}

/// An open span, to which further items may come.
struct Open<'py> {
    future: Bound<'py, Future>,
    task: TaskRef,
    definition: Arc<Definition>,
    items: Arc<Items>,
    number: usize,
    length: usize,
}

impl Open<'_> {
    /// Returns whether an item of this length may be added. The first item always may.
    fn has_room(&self, length: usize) -> bool {
        self.number == 0 || self.length + length <= BYTES && self.number < MOST
    }
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
        if is_spanned && replies::append_item(item, &mut self.bytes) {
            if self.bytes.len() - start <= ALONE {
                return self.added(start);
            }
            self.bytes.truncate(start);
        }
        let arguments = self.source.arguments(item)?;
        let function = self.source.function.bind(item.py());
        let shared = self.executor.get().shared()?;
        let plain =
            shared
                .functions
                .pickle_plain(function, &arguments, None, &shared.pickling, || true)?;
        match plain {
            Some(pickled)
                if is_spanned
                    && pickled.attachment.is_none()
                    && pickled.argument.len() <= ALONE =>
            {
                replies::append_pickled_item(&pickled.argument, &mut self.bytes);
                self.added(start)
            }
            plain => self.submit_alone(&arguments, plain),
        }
    }

    /// Opens a span for plain items, if none is open. Returns false if there must not be a span.
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
            let definition = shared.functions.definition_for_items(function)?;
            self.open = definition
                .map(|definition| self.begin(definition))
                .transpose()?;
        }
        Ok(self.open.is_some())
    }

    fn begin(&self, definition: Arc<Definition>) -> PyResult<Open<'py>> {
        ProcessPool::prepare(self.executor)?;
        let shared = self.executor.get().shared()?;
        let remote = Remote::of_open_span(Shared::of_futures(shared));
        let future = task::make(self.executor.py(), remote)?;
        let function = self.source.function.bind(self.executor.py());
        if let Some(recorded) = Recorded::of(function, None) {
            recorded.note(shared.pool.describe(), future.get().id(), None);
        }
        Ok(Open {
            task: task::enlist(&future, shared),
            future,
            definition,
            items: Items::new(),
            number: 0,
            length: 0,
        })
    }

    /// Notes that an item was added from `start` on, which may be too much for the span.
    fn added(&mut self, start: usize) -> PyResult<()> {
        let length = self.bytes.len() - start;
        match &mut self.open {
            Some(open) if open.has_room(length) => {
                open.number += 1;
                open.length += length;
            }
            _ => self.open_for(start, length)?,
        }
        self.ends.push(u32::try_from(self.bytes.len())?);
        if !self.source.is_plain || self.ends.len() >= self.together {
            self.push()?;
        }
        Ok(())
    }

    /// Begins another span with the item that was added from `start` on.
    #[cold]
    fn open_for(&mut self, start: usize, length: usize) -> PyResult<()> {
        let full = self.open.as_ref();
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
            start_worker(executor.py(), pool.shared()?)?;
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
        let recorded = Recorded::of(function, Some((arguments, None)));
        let call = (function, arguments, None);
        let future =
            ProcessPool::submit_with_plain(executor, call, plain, None, options, recorded)?;
        self.spans.push_back(Span {
            future: future.unbind(),
            items: 1,
            is_call: true,
        });
        Ok(())
    }

    /// Closes the span: no more items come to it.
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
        // The items that were pushed: the items that are left in `ends` were refused.
        let items = u32::try_from(open.number - self.ends.len())?;
        self.bytes.clear();
        self.ends.clear();
        let remote = open.future.get().remote();
        if remote.is_some_and(|remote| remote.close_span(items)) {
            // No other thread makes it done; if it was cancelled, it is done.
            let _ = Future::set_outcome(&open.future, || {});
        }
        self.spans.push_back(Span {
            future: open.future.unbind(),
            items,
            is_call: false,
        });
        pushed
    }

    /// Closes the source: there are no more items.
    pub(crate) fn end(mut self) -> PyResult<()> {
        self.close()
    }
}
