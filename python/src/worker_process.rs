//! The life of a worker process: it unpickles calls, makes them, and pickles what they return.
//!
//! It is attached but while it waits. Signals that come while it waits are handled then; an
//! interrupt (Ctrl-C) is not meant for a worker that does nothing, and is forgotten.

use crate::buffers;
use crate::by_name::Name;
use crate::pickling::{self, AS_ONE, NO_PICKLE, Pickling, Tag};
use crate::process_errors;
use crate::span_results::{self, Appended};
use crate::task::{begin_turn, let_others_run};
use crate::ticks::Ticks;
use crate::unpickling::loads;
use concurrent_futures::engine::{
    self, Answer, CallOrder, Called, Caller, Definition, Progress, Received, Segments,
};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::cell::Cell;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A worker that has been at a span for so long leaves the rest to others.
const PATIENCE: Duration = Duration::from_millis(2);

/// How many bytes of shared memory a worker keeps for long results.
const KEPT: usize = 32 * 1024 * 1024;
/// How many results with long buffers may be on their way, or in use by the parent.
const FILES: usize = 64;

struct Worker<'py> {
    py: Python<'py>,
    /// The names of the functions that were defined.
    functions: Vec<Option<PyResult<Name>>>,
    /// Whether what cannot be unpickled ends the worker, as in the standard library.
    is_strict: bool,
    pickling: Pickling,
    /// Makes the bytes of an exception.
    pack: Bound<'py, PyAny>,
    /// What ends the worker.
    fatal: Option<PyErr>,
    /// The span of which it had the last part.
    span: Option<Span<'py>>,
    ticks: Ticks,
    /// Since when it has been at a span, if it pauses.
    paused: Cell<Option<Instant>>,
}

/// What goes wrong before a call is made, or in it.
enum Failure {
    /// The call cannot be unpickled.
    Unpickling(PyErr),
    /// The call, or pickling its result.
    Call(PyErr),
}

impl<'py> Worker<'py> {
    /// Handles signals that have come. An interrupt is forgotten.
    fn forget_interrupts(&self) {
        while let Err(error) = self.py.check_signals() {
            if !error.is_instance_of::<PyKeyboardInterrupt>(self.py) {
                error.write_unraisable(self.py, None);
            }
        }
    }

    /// What the name of a function stands for now: the call before may have changed that.
    fn function(&self, place: u16) -> PyResult<Bound<'py, PyAny>> {
        match self.functions.get(usize::from(place)) {
            Some(Some(Ok(name))) => name.find(self.py),
            Some(Some(Err(error))) => Err(error.clone_ref(self.py)),
            _ => Err(PyRuntimeError::new_err("the function is not defined")),
        }
    }

    fn make(
        &mut self,
        order: &CallOrder,
        argument: &[u8],
        attachment: Option<io::Result<Received>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Result<Called, Failure> {
        let py = self.py;
        let attachment = buffers::received(attachment).map_err(Failure::Call)?;
        let unpickled = self.unpickle(order, argument, attachment.as_ref());
        // From here on, the objects have it.
        drop(attachment);
        let (function, arguments, keywords) = match unpickled.map_err(Failure::Unpickling)? {
            Unpickled::Call(function, arguments, keywords) => (function, arguments, keywords),
            Unpickled::Span(mut span) => {
                let called = self.call_span(&mut span, order, answer, progress);
                self.span = Some(span);
                return called.map_err(Failure::Call);
            }
        };
        let result = function.call(&arguments, keywords.as_ref());
        // Before the answer: who waits for it may look at what becomes of them.
        drop((function, arguments, keywords));
        let result = result.map_err(Failure::Call)?;
        self.pickling
            .append_result(&result, answer)
            .map_err(Failure::Call)?;
        drop(result);
        let_others_run(py);
        Ok(Called::Returned)
    }

    fn unpickle(
        &mut self,
        order: &CallOrder,
        argument: &[u8],
        attachment: Option<&Arc<Received>>,
    ) -> PyResult<Unpickled<'py>> {
        let py = self.py;
        let tag = Tag::of(order.tag & !AS_ONE)
            .ok_or_else(|| PyRuntimeError::new_err("the call is garbled"))?;
        Ok(match tag {
            Tag::Nothing => Unpickled::Call(self.function(order.place)?, PyTuple::empty(py), None),
            Tag::Arguments => {
                let arguments = loads(py, argument, attachment)?.cast_into::<PyTuple>()?;
                Unpickled::Call(self.function(order.place)?, arguments, None)
            }
            Tag::Keywords => {
                let (arguments, keywords) = loads(py, argument, attachment)?.extract()?;
                Unpickled::Call(self.function(order.place)?, arguments, Some(keywords))
            }
            Tag::Whole => {
                let (function, arguments, keywords) = loads(py, argument, attachment)?.extract()?;
                Unpickled::Call(function, arguments, Some(keywords))
            }
            Tag::Span | Tag::SingleSpan | Tag::WholeSpan | Tag::WholeSingleSpan => {
                Unpickled::Span(self.unpickle_span(order.place, tag, argument, attachment)?)
            }
        })
    }

    /// A span, of which this worker may have had a part just now.
    fn unpickle_span(
        &mut self,
        place: u16,
        tag: Tag,
        argument: &[u8],
        attachment: Option<&Arc<Received>>,
    ) -> PyResult<Span<'py>> {
        let py = self.py;
        let garbled = || PyRuntimeError::new_err("the call is garbled");
        let (number, rest) = argument.split_first_chunk().ok_or_else(garbled)?;
        let (kind, bytes) = rest.split_first().ok_or_else(garbled)?;
        if let Some(span) = self.span.take_if(|span| span.number == *number) {
            return Ok(span);
        }
        let items_of = |list: Bound<'py, PyList>| list.iter().map(Some).collect();
        let (function, items) = match tag {
            Tag::WholeSpan | Tag::WholeSingleSpan => {
                let (function, items) = loads(py, bytes, attachment)?.extract()?;
                (function, items_of(items))
            }
            _ if *kind == NO_PICKLE => {
                (self.function(place)?, span_results::read_items(py, bytes)?)
            }
            _ => {
                let function = self.function(place)?;
                (
                    function,
                    items_of(loads(py, bytes, attachment)?.cast_into()?),
                )
            }
        };
        Ok(Span {
            number: *number,
            function,
            items,
            is_single: matches!(tag, Tag::SingleSpan | Tag::WholeSingleSpan),
        })
    }

    /// Calls the function for some of the items: all of them, or as many as there is time for.
    fn call_span(
        &mut self,
        span: &mut Span<'py>,
        order: &CallOrder,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> PyResult<Called> {
        if order.tag & AS_ONE != 0 {
            return self.call_span_as_one(span, order, answer);
        }
        let range = &order.items;
        let start = self.paused.take().unwrap_or_else(Instant::now);
        for index in range.clone() {
            // Looking at the clock would take a third of the time of a short call.
            let has_ticked = self.ticks.has_ticked();
            if has_ticked {
                let_others_run(self.py);
            }
            if has_ticked && index > range.start && start.elapsed() > PATIENCE {
                return Ok(Called::StoppedBefore(range.end - index));
            }
            let called = self
                .function_of(span, order)
                .and_then(|function| span.call(index, &function));
            let appended = called.and_then(|result| {
                let appended = span_results::append(&result, &self.pickling, &mut answer.bytes);
                drop(result);
                appended
            });
            match appended {
                Ok(Appended::Yes) => {}
                Ok(Appended::Long(long)) => {
                    progress.send(answer);
                    *answer = long;
                }
                Err(error) => match self.packed(&error) {
                    Ok(packed) => {
                        span_results::append_failure(packed.as_bytes(), &mut answer.bytes);
                    }
                    Err(error) => {
                        // The others are done, whatever becomes of this one.
                        progress.send(answer);
                        return Err(error);
                    }
                },
            }
            let goes_on = progress.note(answer);
            if !goes_on && index + 1 < range.end && start.elapsed() <= PATIENCE {
                self.paused.set(Some(start));
                return Ok(Called::PausedBefore(index + 1));
            }
            if !goes_on {
                return Ok(Called::StoppedBefore(range.end - index - 1));
            }
        }
        Ok(Called::Returned)
    }

    /// The function of a span for the next of its items. The item before may have changed what its
    /// name stands for.
    fn function_of(&self, span: &Span<'py>, order: &CallOrder) -> PyResult<Bound<'py, PyAny>> {
        if order.place < Definition::PLACES {
            return self.function(order.place);
        }
        Ok(span.function.clone())
    }

    /// Calls the function for some of the items, which are one task.
    fn call_span_as_one(
        &self,
        span: &mut Span<'py>,
        order: &CallOrder,
        answer: &mut Answer,
    ) -> PyResult<Called> {
        let results = PyList::empty(self.py);
        for index in order.items.clone() {
            let function = span.function.clone();
            results.append(span.call(index, &function)?)?;
            let_others_run(self.py);
        }
        span_results::append_all(&results, &self.pickling, answer)?;
        Ok(Called::Returned)
    }

    /// An exception as bytes.
    fn packed(&self, error: &PyErr) -> PyResult<Bound<'py, PyBytes>> {
        let value = process_errors::value_of(self.py, error);
        Ok(self.pack.call1((value,))?.cast_into::<PyBytes>()?)
    }

    /// Makes the answer of an exception.
    fn raise(&mut self, error: PyErr, answer: &mut Answer) -> Called {
        /// An interrupt may come in the middle of it, and is the call's exception then.
        const ATTEMPTS: usize = 3;
        let mut error = error;
        for _ in 0..ATTEMPTS {
            answer.clear();
            match self.packed(&error) {
                Ok(bytes) => {
                    answer.bytes.extend_from_slice(bytes.as_bytes());
                    return Called::Raised;
                }
                Err(other) => error = other,
            }
        }
        self.fatal = Some(error);
        Called::Ended
    }
}

/// A call, or several.
enum Unpickled<'py> {
    Call(
        Bound<'py, PyAny>,
        Bound<'py, PyTuple>,
        Option<Bound<'py, PyDict>>,
    ),
    Span(Span<'py>),
}

struct Span<'py> {
    /// Tells it from other spans.
    number: [u8; 8],
    function: Bound<'py, PyAny>,
    /// The arguments of each item, until it is called.
    items: Vec<Option<Bound<'py, PyAny>>>,
    /// Whether each item is the only argument, rather than all of them.
    is_single: bool,
}

impl<'py> Span<'py> {
    fn call(&mut self, index: u32, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // The item is this call's only: nothing else keeps its arguments.
        let item = self.items.get_mut(index as usize).and_then(Option::take);
        let arguments = item.ok_or_else(|| PyRuntimeError::new_err("the call is garbled"))?;
        if self.is_single {
            return function.call1((arguments,));
        }
        function.call(arguments.cast_into::<PyTuple>()?, None)
    }
}

impl Caller for Worker<'_> {
    fn define(&mut self, place: u16, bytes: &[u8]) {
        let place = usize::from(place.min(Definition::PLACES - 1));
        if self.functions.len() <= place {
            self.functions.resize_with(place + 1, || None);
        }
        self.functions[place] = Some(Name::from_bytes(self.py, bytes));
    }

    fn call(
        &mut self,
        order: CallOrder,
        argument: &[u8],
        attachment: Option<io::Result<Received>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Called {
        match self.make(&order, argument, attachment, answer, progress) {
            Ok(called) => called,
            Err(Failure::Unpickling(error))
                if self.is_strict && !pickling::is_interrupt(self.py, &error) =>
            {
                self.fatal = Some(error);
                Called::Ended
            }
            Err(Failure::Unpickling(error) | Failure::Call(error)) => self.raise(error, answer),
        }
    }

    fn idle(&mut self, wait: &mut dyn FnMut()) {
        self.span = None;
        let mut wait = OnThisThread(wait);
        self.py.detach(|| wait.call());
        begin_turn(self.py);
        self.forget_interrupts();
    }
}

/// What is called while detached, but by the same thread.
struct OnThisThread<'a>(&'a mut dyn FnMut());

// SAFETY: `detach` asks for `Send` to keep out references to Python objects, of which what waits
// here has none; it changes no thread.
unsafe impl Send for OnThisThread<'_> {}

impl OnThisThread<'_> {
    fn call(&mut self) {
        (self.0)();
    }
}

/// Carries out calls until the pool ends. The file descriptor is given away.
///
/// # Errors
/// What ends the worker instead: a call that cannot be unpickled, if `is_strict`.
#[pyfunction]
#[pyo3(signature = (channel, pack, is_strict, by_value))]
pub(crate) fn serve<'py>(
    py: Python<'py>,
    channel: i32,
    pack: Bound<'py, PyAny>,
    is_strict: bool,
    by_value: bool,
) -> PyResult<()> {
    let mut worker = Worker {
        py,
        functions: Vec::new(),
        is_strict,
        pickling: Pickling {
            by_value,
            segments: Segments::new(KEPT, FILES),
        },
        pack,
        fatal: None,
        span: None,
        ticks: Ticks::default(),
        paused: Cell::new(None),
    };
    begin_turn(py);
    // The parent has kept them off while the process started.
    allow_interrupts(true);
    let served = engine::serve(own(channel), &mut worker);
    // From now on it ends; an interrupt is for those that do something.
    allow_interrupts(false);
    worker.forget_interrupts();
    match (worker.fatal, served) {
        (Some(fatal), _) => Err(fatal),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(PyOSError::new_err(error.to_string())),
    }
}

/// Lets interrupts (SIGINT) through to this thread, or keeps them off, and off processes that it
/// starts. Returns whether they came through before.
#[pyfunction]
pub(crate) fn allow_interrupts(allow: bool) -> bool {
    let how = if allow {
        libc::SIG_UNBLOCK
    } else {
        libc::SIG_BLOCK
    };
    // SAFETY: sets of signals, filled by the functions that are there for it.
    unsafe {
        let mut signals = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        libc::pthread_sigmask(how, &raw const signals, &raw mut before);
        libc::sigismember(&raw const before, libc::SIGINT) == 0
    }
}

/// Tells the pool that this process, and any other, cannot become a worker. The file descriptor
/// is given away.
#[pyfunction]
pub(crate) fn refuse(channel: i32, why: &str) {
    // If nobody is there to be told, nobody wants the worker.
    let _ = engine::refuse(own(channel), why);
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: it was opened, or received, for this, and nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
