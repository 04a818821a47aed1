//! The life of a worker process: it unpickles calls, makes them, and pickles their results.
//!
//! A worker is attached except while it waits. Signals that come while it waits are handled at once. An interrupt
//! (Ctrl-C) is not meant for an idle worker, and is forgotten.

use crate::interp::os::Ticks;
use crate::interp::process_errors;
use crate::interp::signals::{allow_interrupts, hold_interrupts};
use crate::interp::turns::{checkpoint, checkpoint_at_ticks};
use crate::pickle::buffers;
use crate::pickle::by_name::is_interrupt;
use crate::pickle::callee::Callee;
use crate::pickle::calls::{AS_ONE, Tag};
use crate::pickle::objects::Pickling;
use crate::pickle::replies::{self, Appended, Item};
use crate::pickle::unpickling::loads;
use concurrent_futures::engine::{
    self, Answer, CallOrder, Called, Caller, Definition, MappedSegment, Progress, Segments,
};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time after which a worker leaves the rest of a span to other workers.
const PATIENCE: Duration = Duration::from_millis(2);

/// The bytes of shared memory that a worker keeps for long results.
const KEPT: usize = 32 * 1024 * 1024;
/// The number of results with long buffers that may be on their way, or in use by the parent.
const FILES: usize = 64;

struct Worker<'py> {
    py: Python<'py>,
    /// The names of the functions that were defined.
    functions: Vec<Option<PyResult<Callee>>>,
    /// Whether a call that cannot be unpickled ends the worker, as in the standard library.
    is_strict: bool,
    pickling: Pickling,
    /// The function that makes bytes of an exception.
    pack: Bound<'py, PyAny>,
    /// The exception that ends the worker.
    fatal: Option<PyErr>,
    /// The item at which a part of a span continues, and the offset of its bytes.
    resumed: Cell<Option<(u32, usize)>>,
    ticks: Ticks,
    /// The moment since when the worker has been at a span, if the span pauses.
    paused: Cell<Option<Instant>>,
}

/// A failure before a call is made, or in the call.
enum Failure {
    /// The call cannot be unpickled.
    Unpickling(PyErr),
    /// The call has failed, or pickling its result.
    Call(PyErr),
}

impl<'py> Worker<'py> {
    /// Handles signals that have come, and forgets interrupts.
    fn forget_interrupts(&self) {
        while let Err(error) = self.py.check_signals() {
            if !error.is_instance_of::<PyKeyboardInterrupt>(self.py) {
                error.write_unraisable(self.py, None);
            }
        }
    }

    /// Returns the function that a name stands for now, which the previous call may have changed.
    fn function(&self, place: u16) -> PyResult<Bound<'py, PyAny>> {
        match self.functions.get(usize::from(place)) {
            Some(Some(Ok(callee))) => callee.find(self.py),
            Some(Some(Err(error))) => Err(error.clone_ref(self.py)),
            _ => Err(PyRuntimeError::new_err("the function is not defined")),
        }
    }

    fn make(
        &mut self,
        order: &CallOrder,
        argument: &[u8],
        attachment: Option<io::Result<MappedSegment>>,
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
            Unpickled::Chunk(chunk) => {
                return self.call_chunk(chunk, answer).map_err(Failure::Call);
            }
            Unpickled::Span(span) => return self.call_span(&span, order, answer, progress),
        };
        let result =
            checkpoint_at_ticks(py).and_then(|()| function.call(&arguments, keywords.as_ref()));
        // Before the reply: a thread that waits for it may look at what becomes of them.
        drop((function, arguments, keywords));
        let result = result.map_err(Failure::Call)?;
        self.pickling
            .append_result(&result, answer)
            .map_err(Failure::Call)?;
        drop(result);
        Ok(Called::Returned)
    }

    fn unpickle<'a>(
        &mut self,
        order: &CallOrder,
        argument: &'a [u8],
        attachment: Option<&Arc<MappedSegment>>,
    ) -> PyResult<Unpickled<'a, 'py>> {
        let py = self.py;
        let tag = Tag::of(order.tag & !AS_ONE).ok_or_else(garbled)?;
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
            Tag::Span | Tag::SingleSpan if order.tag & AS_ONE != 0 => Unpickled::Chunk(Chunk {
                function: self.function(order.place)?,
                items: replies::read_chunk(py, argument)?,
                is_single: tag == Tag::SingleSpan,
            }),
            Tag::Span | Tag::SingleSpan => Unpickled::Span(Span {
                place: order.place,
                is_single: tag == Tag::SingleSpan,
                items: argument,
            }),
        })
    }

    /// Calls the function for items of a span: all of them, or as many as there is time for.
    fn call_span(
        &mut self,
        span: &Span<'_>,
        order: &CallOrder,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Result<Called, Failure> {
        let range = &order.items;
        let start = self.paused.take().unwrap_or_else(Instant::now);
        let resumed = (self.resumed.take()).filter(|(item, _)| *item == range.start);
        let whole = span.items;
        let mut left = &whole[resumed.map_or(0, |(_, place)| place)..];
        let mut known = None;
        for index in range.clone() {
            // Looking at the clock would take a third of the time of a short call.
            let has_ticked = self.ticks.has_ticked();
            if has_ticked && index > range.start && start.elapsed() > PATIENCE {
                return Ok(Called::StoppedBefore(range.end - index));
            }
            let called = match self.next_call(span, &mut left, &mut known) {
                Err(error) if self.is_strict && !is_interrupt(self.py, &error) => {
                    return Err(Failure::Unpickling(error));
                }
                Ok(call) if has_ticked => checkpoint(self.py).and_then(|()| call.make()),
                call => call.and_then(ItemCall::make),
            };
            let appended = called.and_then(|result| {
                let appended = replies::append(&result, &self.pickling, &mut answer.bytes);
                drop(result);
                appended
            });
            let appended = match appended {
                Err(error) => match self.packed(&error) {
                    Ok(packed) => replies::append_failure(packed.as_bytes(), &mut answer.bytes),
                    Err(error) => {
                        // The others are done, whatever becomes of this one.
                        progress.send(answer);
                        return Err(Failure::Call(error));
                    }
                },
                Ok(appended) => appended,
            };
            match appended {
                Appended::Yes => {}
                Appended::Apart(apart) => {
                    progress.send(answer);
                    answer.bytes.extend_from_slice(&apart);
                }
                Appended::Long(long) => {
                    progress.send(answer);
                    *answer = long;
                }
            }
            let goes_on = progress.note(answer);
            if !goes_on && index + 1 < range.end && start.elapsed() <= PATIENCE {
                self.paused.set(Some(start));
                self.resumed
                    .set(Some((index + 1, whole.len() - left.len())));
                return Ok(Called::PausedBefore(index + 1));
            }
            if !goes_on {
                return Ok(Called::StoppedBefore(range.end - index - 1));
            }
        }
        Ok(Called::Returned)
    }

    /// Returns the call of the next item of a span. The previous item may have changed the function that the
    /// name stands for, so that a `known` function is looked up again.
    fn next_call(
        &self,
        span: &Span<'_>,
        left: &mut &[u8],
        known: &mut Option<Bound<'py, PyAny>>,
    ) -> PyResult<ItemCall<'py>> {
        let item = replies::read_item(self.py, left)?;
        let callee = self.functions.get(usize::from(span.place));
        let function = match (&*known, callee) {
            (Some(known), Some(Some(Ok(callee)))) if callee.is_found(known) => known.clone(),
            _ => {
                let function = self.function(span.place)?;
                *known = Some(function.clone());
                function
            }
        };
        Ok(match item {
            Item::Plain(item) if span.is_single => ItemCall::One(function, item),
            Item::Plain(item) => ItemCall::Several(function, item.cast_into()?),
            Item::Pickled(pickle) => {
                ItemCall::Several(function, loads(self.py, pickle, None)?.cast_into()?)
            }
        })
    }

    /// Calls the function for items that are one task.
    fn call_chunk(&self, chunk: Chunk<'py>, answer: &mut Answer) -> PyResult<Called> {
        let Chunk {
            function,
            items,
            is_single,
        } = chunk;
        let results = call_chunk(&function, &items, is_single)?;
        checkpoint_at_ticks(self.py)?;
        drop((function, items));
        replies::append_all(&results, &self.pickling, answer)?;
        Ok(Called::Returned)
    }

    /// Returns an exception as bytes.
    fn packed(&self, error: &PyErr) -> PyResult<Bound<'py, PyBytes>> {
        let value = process_errors::value_of(self.py, error);
        Ok(self.pack.call1((value,))?.cast_into::<PyBytes>()?)
    }

    /// Makes the reply of an exception.
    fn raise(&mut self, error: PyErr, answer: &mut Answer) -> Called {
        /// The number of attempts, as an interrupt may come during one and is then the exception of the call.
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
enum Unpickled<'a, 'py> {
    Call(
        Bound<'py, PyAny>,
        Bound<'py, PyTuple>,
        Option<Bound<'py, PyDict>>,
    ),
    Chunk(Chunk<'py>),
    Span(Span<'a>),
}

/// The calls for items that are one task.
struct Chunk<'py> {
    function: Bound<'py, PyAny>,
    items: Bound<'py, PyList>,
    /// Whether each item is the only argument, rather than a tuple of all arguments.
    is_single: bool,
}

/// The calls for items that are a task each.
struct Span<'a> {
    /// The place where the function was defined.
    place: u16,
    is_single: bool,
    /// The bytes of the items, each of which is unpickled when its turn comes.
    items: &'a [u8],
}

/// The call of one item.
enum ItemCall<'py> {
    One(Bound<'py, PyAny>, Bound<'py, PyAny>),
    Several(Bound<'py, PyAny>, Bound<'py, PyTuple>),
}

impl<'py> ItemCall<'py> {
    /// Makes the call. No reference to the arguments is kept.
    fn make(self) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::One(function, argument) => function.call1((argument,)),
            Self::Several(function, arguments) => function.call(arguments, None),
        }
    }
}

fn garbled() -> PyErr {
    PyRuntimeError::new_err("the call is garbled")
}

impl Caller for Worker<'_> {
    fn define(&mut self, place: u16, bytes: &[u8]) {
        let place = usize::from(place.min(Definition::PLACES - 1));
        if self.functions.len() <= place {
            self.functions.resize_with(place + 1, || None);
        }
        self.functions[place] = Some(Callee::from_bytes(self.py, bytes));
    }

    fn call(
        &mut self,
        order: CallOrder,
        argument: &mut Cow<'_, [u8]>,
        attachment: Option<io::Result<MappedSegment>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Called {
        match self.make(&order, argument, attachment, answer, progress) {
            Ok(called) => called,
            Err(Failure::Unpickling(error)) if self.is_strict && !is_interrupt(self.py, &error) => {
                self.fatal = Some(error);
                Called::Ended
            }
            Err(Failure::Unpickling(error) | Failure::Call(error)) => self.raise(error, answer),
        }
    }

    fn send_no_attachments(&mut self) {
        self.pickling.segments = Segments::new(0, 0);
    }

    fn idle(&mut self, wait: &mut dyn FnMut()) {
        let mut wait = OnThisThread(wait);
        self.py.detach(|| wait.call());
        self.forget_interrupts();
    }
}

/// A function that is called while detached, but by the same thread.
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
/// The exception that ends the worker instead: of a call that cannot be unpickled, if `is_strict`.
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
        resumed: Cell::new(None),
        ticks: Ticks::NONE,
        paused: Cell::new(None),
    };
    // They were held while the process started.
    allow_interrupts();
    // SAFETY: the pool of the parent process has passed the channel, which loads the same library.
    let served = unsafe { engine::serve(own(channel), &mut worker) };
    // From now on it ends; an interrupt is for those that do something.
    hold_interrupts();
    worker.forget_interrupts();
    match (worker.fatal, served) {
        (Some(fatal), _) => Err(fatal),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(process_errors::os_error(&error)),
    }
}

/// Tells the pool that this process, and any other, cannot become a worker. The file descriptor
/// is given away.
#[pyfunction]
pub(crate) fn refuse(channel: i32, why: &str) {
    // If the pool has ended, no message is needed.
    let _ = engine::refuse(own(channel), why);
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: it was opened, or received, for this, and no other code closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
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
