//! Futures of calls that worker processes carry out.
//!
//! # Protocol
//! The answer is kept as the bytes that have come, by whichever thread receives them, which is
//! not attached. It is *opened*, which is to say unpickled, in one of two ways.
//!
//! - A *plain* answer is made of numbers, texts and the like, as its worker says. The future is finished
//!   when the answer has come. The first thread that asks for the outcome opens it. Should two ask
//!   at the same time, both unpickle, and both get what the first has put into the future.
//! - Any other answer may run Python code, and refer to something in its worker. As in the standard
//!   library, a thread of the pool opens it on arrival (`jobs.rs`), once, and then finishes the
//!   future. Until then the future is claimed, and the pool keeps its workers.
//!
//! The answer of a span comes in parts, which are kept by their first items until an iterator takes
//! them. Each item has its own outcome: an error counts for the items of its part, and for no
//! others, whose answers may come later. The future is finished by the last of them.
//!
//! `content` is under a lock, which is held for no Python code.

use crate::buffers;
use crate::feeder::Taken;
use crate::future::Future;
use crate::interrupts::cannot_be_told;
use crate::jobs::Job;
use crate::observers::Observers;
use crate::plain;
use crate::process::attached;
use crate::process_errors;
use crate::process_shared::Shared;
use crate::released;
use crate::span_results;
use crate::unpickling;
use concurrent_futures::engine::{
    Cancel, ForeignTask, Header, Kept, Permit, Phase, Received, RemoteAnswer, RemoteCall,
    RemoteTask, TaskRef, VTable,
};
use concurrent_futures::{SubmitError, TaskError};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The operations of futures whose task is carried out in another process.
pub(crate) static VTABLE: VTable = VTable::of::<RemoteFuture>();

/// The number of items of a span that more may come to: more than any has.
const OPEN: u32 = u32::MAX / 2;

/// What a future of a process pool has besides.
pub(crate) struct Remote {
    pool: Arc<Shared>,
    content: Mutex<Content>,
    /// Whether it is the task that has failed, or the answer that did not come.
    failed: AtomicBool,
    /// Whether nobody wants the rest of a span.
    abandoned: AtomicBool,
    /// The room of a pending task: its place among pending tasks, if these are limited, and
    /// room for its bytes.
    places: Mutex<(Option<Permit>, Option<Taken>)>,
    /// A future that is finished when there is something for an item of a span. Its lock
    /// is taken after that of the content.
    milestone: Mutex<Option<(u32, TaskRef)>>,
}

/// An answer.
#[derive(Clone)]
enum Content {
    /// It has not come, or somebody else has set an outcome.
    Nothing,
    Value(Message),
    Failure(Bytes),
    Error(TaskError),
    /// The worker has sent it, but it could not be received as a whole.
    Lost(Arc<io::Error>),
    /// What was raised in this process.
    Raised(Arc<PyErr>),
    /// Parts of a span, of so many items, so many of which have come.
    Parts(Parts),
    /// It is where futures have their outcome.
    Opened,
}

/// The bytes of an answer, and the long buffers that came beside it.
#[derive(Clone)]
struct Message {
    bytes: Bytes,
    attachment: Option<Arc<Received>>,
}

/// The answers for the items of a span.
#[derive(Clone, Default)]
struct Parts {
    missing: u32,
    /// By the first of their items.
    results: BTreeMap<u32, Held>,
    /// Why there are no results for some items.
    errors: Vec<(Range<u32>, Content)>,
}

/// The results of some items of a span.
#[derive(Clone)]
enum Held {
    /// Plain ones, and where their bytes begin.
    Bytes(Message, usize),
    /// This many results, which are to be opened on arrival.
    Unopened(Message, u32),
    Objects(Arc<[Py<PyAny>]>),
}

impl Parts {
    /// Whether there is something for an item that can be taken.
    fn has(&self, item: u32) -> bool {
        let is_open = |held: &Held| !matches!(held, Held::Unopened(..));
        self.results.get(&item).is_some_and(is_open) || self.error(item).is_some()
    }

    fn error(&self, item: u32) -> Option<&Content> {
        let mut errors = self.errors.iter();
        let (_, error) = errors.find(|(items, _)| items.contains(&item))?;
        Some(error)
    }
}

/// What there is for an item of a span, and those behind it.
pub(crate) enum Part<'py> {
    /// The results, from this item on.
    Results(Vec<Bound<'py, PyAny>>),
    /// There are none, but this.
    Exception(PyErr),
    /// Nothing yet.
    Missing,
}

impl Remote {
    pub(crate) fn new(pool: Arc<Shared>, permit: Option<Permit>) -> Self {
        Self::with(pool, Content::Nothing, permit)
    }

    /// For the calls of several items.
    pub(crate) fn of_span(pool: Arc<Shared>, items: u32, permit: Option<Permit>) -> Self {
        let parts = Parts {
            missing: items,
            ..Parts::default()
        };
        Self::with(pool, Content::Parts(parts), permit)
    }

    /// For the calls of items of which more may come, up to [`close_span`](Self::close_span).
    pub(crate) fn of_open_span(pool: Arc<Shared>) -> Self {
        Self::of_span(pool, OPEN, None)
    }

    /// No more items come than these. Returns whether all are there already: then, the caller is to make
    /// the future done.
    pub(crate) fn close_span(&self, items: u32) -> bool {
        let mut content = self.content();
        let Content::Parts(parts) = &mut *content else {
            return false;
        };
        parts.missing = parts.missing.saturating_sub(OPEN - items);
        parts.missing == 0
    }

    fn with(pool: Arc<Shared>, content: Content, permit: Option<Permit>) -> Self {
        Self {
            pool,
            content: Mutex::new(content),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            places: Mutex::new((permit, None)),
            milestone: Mutex::new(None),
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Has the rest of a span not begun.
    pub(crate) fn abandon(&self) {
        // ORDERING: Relaxed: what is begun meanwhile is begun.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Takes the task of the future back and calls `cancel`, if its worker has not begun with it.
    /// Returns whether it did.
    pub(crate) fn recall(&self, future: &Future, cancel: impl FnOnce()) -> bool {
        // SAFETY: the caller has the future meanwhile.
        let task = unsafe { future.task() };
        let may_be = future.state().phase() == Phase::Running && self.pool.is_of_this_process();
        may_be && self.pool.pool.recall(&task, cancel)
    }

    /// Whether a worker has begun with the task of the future, which is running by its word.
    pub(crate) fn has_begun(&self, future: &Future) -> bool {
        // SAFETY: as above.
        let task = unsafe { future.task() };
        !self.pool.is_of_this_process() || self.pool.pool.has_begun(&task)
    }

    /// Ends the task of the future, and its worker if that is running it.
    pub(crate) fn terminate(&self, future: &Future) -> bool {
        // SAFETY: the caller has the future meanwhile.
        let task = unsafe { future.task() };
        self.pool.is_of_this_process() && self.pool.pool.terminate(&task)
    }

    /// That of another future of the same pool.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(Arc::clone(&self.pool), None)
    }

    /// Gives up what it occupies while it is pending.
    pub(crate) fn leave(&self) {
        drop(mem::take(&mut *self.places()));
    }

    /// Takes room for its bytes.
    pub(crate) fn occupy(&self, taken: Option<Taken>) {
        self.places().1 = taken;
    }

    /// Whether it occupies something.
    pub(crate) fn has_place(&self) -> bool {
        let places = self.places();
        places.0.is_some() || places.1.is_some()
    }

    fn places(&self) -> MutexGuard<'_, (Option<Permit>, Option<Taken>)> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Arc<Shared> {
        &self.pool
    }

    /// Keeps an answer of the task.
    fn keep(&self, task: &TaskRef, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept {
        self.leave();
        let is_plain = match &answer {
            RemoteAnswer::Value { bytes, .. } => unpickling::is_plain(bytes),
            RemoteAnswer::Failure(bytes) => unpickling::is_plain_failure(bytes),
            RemoteAnswer::Error(_) => true,
        };
        let mut content = self.content();
        match (&mut *content, answer) {
            (Content::Parts(parts), RemoteAnswer::Value { bytes, attachment })
                if !span_results::is_plain(&bytes) =>
            {
                match message(bytes, attachment) {
                    Ok(message) => {
                        let number = items.end - items.start;
                        let held = Held::Unopened(message, number);
                        parts.results.insert(items.start, held);
                        drop(content);
                        return self.open_later(Unopened::Part(task.clone(), items.start));
                    }
                    Err(error) => {
                        self.failed.store(true, Ordering::Relaxed);
                        let lost = Content::Lost(Arc::new(error));
                        parts.missing = parts.missing.saturating_sub(items.end - items.start);
                        parts.errors.push((items, lost));
                    }
                }
                let is_complete = parts.missing == 0;
                let milestone = self.reached(parts);
                drop(content);
                if let Some(milestone) = milestone {
                    reach(&milestone);
                }
                return if is_complete {
                    Kept::Whole
                } else {
                    Kept::Partly
                };
            }
            (Content::Parts(parts), answer) => {
                let is_complete = self.keep_part(parts, items, answer);
                let milestone = self.reached(parts);
                drop(content);
                if let Some(milestone) = milestone {
                    reach(&milestone);
                }
                return if is_complete {
                    Kept::Whole
                } else {
                    Kept::Partly
                };
            }
            (content, RemoteAnswer::Value { bytes, attachment }) => {
                *content = match message(bytes, attachment) {
                    Ok(message) => Content::Value(message),
                    Err(error) => {
                        self.failed.store(true, Ordering::Relaxed);
                        Content::Lost(Arc::new(error))
                    }
                };
            }
            (content, RemoteAnswer::Failure(bytes)) => {
                self.failed.store(true, Ordering::Relaxed);
                *content = Content::Failure(shared(bytes));
            }
            (content, RemoteAnswer::Error(error)) => {
                self.failed.store(true, Ordering::Relaxed);
                *content = Content::Error(error);
            }
        }
        drop(content);
        if is_plain {
            return Kept::Whole;
        }
        self.open_later(Unopened::Whole(task.clone()))
    }

    fn open_later(&self, unopened: Unopened) -> Kept {
        match self.pool.opener.add(unopened) {
            Ok(true) => Kept::ToSettle,
            // It is never closed.
            Ok(false) | Err(_) => Kept::Partly,
        }
    }

    /// Opens results of some items of a span, from the first of them on. Returns whether the span is
    /// complete by that.
    fn open_results(&self, py: Python<'_>, first: u32) -> bool {
        let (message, number) = match &*self.content() {
            Content::Parts(parts) => match parts.results.get(&first) {
                Some(Held::Unopened(message, number)) => (message.clone(), *number),
                _ => return false,
            },
            _ => return false,
        };
        let end = first.saturating_add(number);
        let mut opened = Vec::new();
        let mut failure = None;
        let mut start = 0;
        loop {
            let bytes = message.bytes.get(start..).unwrap_or_default();
            match span_results::read_all(py, bytes, message.attachment.as_ref()) {
                Ok(read) => {
                    opened.extend(read.results.into_iter().map(Bound::unbind));
                    match read.stopped {
                        // The next read begins there, and raises the error that stopped this one.
                        Some(stopped) if stopped > 0 => start += stopped,
                        _ => break,
                    }
                }
                Err(error) => {
                    failure = Some(self.pool.unpickling_failed(py, error));
                    break;
                }
            }
        }
        let failed = first.saturating_add(u32::try_from(opened.len()).unwrap_or(u32::MAX));
        let mut content = self.content();
        let Content::Parts(parts) = &mut *content else {
            return false;
        };
        parts.results.remove(&first);
        if !opened.is_empty() {
            parts.results.insert(first, Held::Objects(opened.into()));
        }
        if let Some(error) = failure {
            self.failed.store(true, Ordering::Relaxed);
            let raised = Content::Raised(Arc::new(error));
            parts.errors.push((failed..end, raised));
        }
        parts.missing = parts.missing.saturating_sub(number);
        let is_complete = parts.missing == 0;
        let milestone = self.reached(parts);
        drop(content);
        drop(message);
        if let Some(milestone) = milestone {
            reach(&milestone);
        }
        is_complete
    }

    /// Keeps an answer for some items of a span. Returns whether it was the last.
    fn keep_part(&self, parts: &mut Parts, items: Range<u32>, answer: RemoteAnswer<'_>) -> bool {
        parts.missing = parts.missing.saturating_sub(items.end - items.start);
        let error = match answer {
            RemoteAnswer::Value { bytes, attachment } => match message(bytes, attachment) {
                Ok(message) => {
                    let held = Held::Bytes(message, 0);
                    parts.results.insert(items.start, held);
                    return parts.missing == 0;
                }
                Err(error) => Content::Lost(Arc::new(error)),
            },
            RemoteAnswer::Failure(bytes) => Content::Failure(shared(bytes)),
            RemoteAnswer::Error(error) => Content::Error(error),
        };
        self.failed.store(true, Ordering::Relaxed);
        parts.errors.push((items, error));
        parts.missing == 0
    }

    /// The milestone, if what it stands for is there.
    fn reached(&self, parts: &Parts) -> Option<TaskRef> {
        let mut milestone = self
            .milestone
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (item, _) = milestone.as_ref()?;
        let is_reached = parts.missing == 0 || parts.has(*item);
        let (_, task) = milestone.take_if(|_| is_reached)?;
        Some(task)
    }

    /// Takes what there is for an item of a span. The items before it were taken.
    ///
    /// # Errors
    /// `KeyboardInterrupt`, when that came meanwhile.
    pub(crate) fn take_part<'py>(&self, py: Python<'py>, item: u32) -> PyResult<Part<'py>> {
        let found = match &*self.content() {
            Content::Parts(parts) => match (parts.results.get(&item), parts.error(item)) {
                (Some(held), _) => Ok(held.clone()),
                (None, Some(error)) => Err(error.clone()),
                (None, None) => return Ok(Part::Missing),
            },
            other => Err(other.clone()),
        };
        // Without the lock, as unpickling runs Python code.
        let held = match found {
            Ok(held) => held,
            Err(error) => return self.raised(py, &error),
        };
        let (message, start) = match held {
            Held::Bytes(message, start) => (message, start),
            Held::Unopened(..) => return Ok(Part::Missing),
            Held::Objects(objects) => {
                let taken = match &mut *self.content() {
                    Content::Parts(parts) => parts.results.remove(&item),
                    _ => None,
                };
                drop(taken);
                let results = objects.iter().map(|object| object.bind(py).clone());
                return Ok(Part::Results(results.collect()));
            }
        };
        let bytes = message.bytes.get(start..).unwrap_or_default();
        let read = span_results::read(py, bytes, message.attachment.as_ref());
        let left = match &read {
            Ok(read) => read.stopped.map(|stopped| {
                let next = item + u32::try_from(read.results.len()).unwrap_or(u32::MAX);
                (next, Held::Bytes(message.clone(), start + stopped))
            }),
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {
                return Err(error.clone_ref(py));
            }
            Err(_) => None,
        };
        if let Content::Parts(parts) = &mut *self.content() {
            parts.results.remove(&item);
            parts.results.extend(left);
        }
        Ok(match read {
            Ok(read) => Part::Results(read.results),
            Err(error) => Part::Exception(self.pool.unpickling_failed(py, error)),
        })
    }

    /// What an item without a result raises.
    fn raised<'py>(&self, py: Python<'py>, content: &Content) -> PyResult<Part<'py>> {
        Ok(match self.unpickle(py, content)? {
            Opened::Exception(exception) => Part::Exception(PyErr::from_value(exception)),
            Opened::Value(_) => Part::Missing,
        })
    }

    /// Has a future finish when there is something for an item of a span, or nothing to come.
    pub(crate) fn set_milestone(&self, item: u32, future: &Bound<'_, Future>) {
        // SAFETY: made just now by `of_remote`, by the caller.
        let task = unsafe { Future::enlist(future, self.pool.pool.home()) };
        let content = self.content();
        let former = {
            let mut milestone = self
                .milestone
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            milestone.replace((item, task))
        };
        // What came before would not be noticed.
        let reached = match &*content {
            Content::Parts(parts) => self.reached(parts),
            _ => None,
        };
        drop(content);
        drop(former);
        if let Some(reached) = reached {
            reach(&reached);
        }
    }

    /// Makes objects of an answer.
    ///
    /// # Errors
    /// `KeyboardInterrupt`, when that came meanwhile.
    fn unpickle<'py>(&self, py: Python<'py>, content: &Content) -> PyResult<Opened<'py>> {
        let unpickled = match content {
            Content::Value(Message { bytes, attachment }) => {
                unpickling::value(py, bytes, attachment.as_ref()).map(Opened::Value)
            }
            Content::Lost(error) => {
                let error = buffers::lost(error).into_value(py);
                return Ok(Opened::Exception(error.into_bound(py).into_any()));
            }
            Content::Failure(bytes) => unpickling::failure(py, bytes).map(Opened::Exception),
            Content::Error(error) => {
                let error = process_errors::task_error(py, error);
                return Ok(Opened::Exception(
                    error.into_value(py).into_bound(py).into_any(),
                ));
            }
            Content::Raised(error) => {
                let value = error.value(py).clone().into_any();
                return Ok(Opened::Exception(value));
            }
            Content::Nothing | Content::Parts(_) | Content::Opened => {
                return Ok(Opened::Value(py.None().into_bound(py)));
            }
        };
        match unpickled {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error),
            Err(error) => {
                let error = self.pool.unpickling_failed(py, error);
                Ok(Opened::Exception(
                    error.into_value(py).into_bound(py).into_any(),
                ))
            }
            Ok(opened) => Ok(opened),
        }
    }
}

/// Finishes a future that stands for nothing else.
fn reach(milestone: &TaskRef) {
    // SAFETY: nobody else sets its outcome, which is None. Nobody but one waiting thread knows it.
    unsafe {
        if milestone.state().claim().is_ok() {
            milestone.finish_quietly();
        }
    }
}

fn message(bytes: Cow<'_, [u8]>, attachment: Option<io::Result<Received>>) -> io::Result<Message> {
    let attachment = attachment.transpose()?.map(Arc::new);
    let bytes = shared(bytes);
    Ok(Message { bytes, attachment })
}

fn shared(bytes: Cow<'_, [u8]>) -> Bytes {
    match bytes {
        Cow::Borrowed(bytes) => Bytes::Short(Arc::from(bytes)),
        Cow::Owned(bytes) => Bytes::Long(Arc::new(bytes)),
    }
}

/// Bytes that several threads may be reading.
#[derive(Clone)]
enum Bytes {
    Short(Arc<[u8]>),
    /// They stay where they were received.
    Long(Arc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// What is in an answer.
enum Opened<'py> {
    Value(Bound<'py, PyAny>),
    Exception(Bound<'py, PyAny>),
}

/// Puts the outcome of a future that is done where futures have it.
///
/// # Errors
/// `KeyboardInterrupt`, when that came meanwhile: then it is still to be opened.
pub(crate) fn open(future: &Bound<'_, Future>) -> PyResult<()> {
    match future.get().remote() {
        Some(remote) if future.get().state().is_done() => open_content(future, remote),
        _ => Ok(()),
    }
}

fn open_content(future: &Bound<'_, Future>, remote: &Remote) -> PyResult<()> {
    let py = future.py();
    let content = {
        let content = remote.content();
        match &*content {
            Content::Nothing | Content::Opened | Content::Parts(_) => return Ok(()),
            content => content.clone(),
        }
    };
    let opened = remote.unpickle(py, &content)?;
    let before = {
        let mut content = remote.content();
        if matches!(*content, Content::Opened) {
            return Ok(());
        }
        // Storing a reference into an empty field runs no Python code.
        match opened {
            Opened::Value(value) => Future::fill_result(future, value),
            Opened::Exception(exception) => Future::fill_exception(future, exception),
        }
        mem::replace(&mut *content, Content::Opened)
    };
    drop(before);
    Ok(())
}

/// An answer that is to be opened.
pub(crate) enum Unopened {
    Whole(TaskRef),
    /// The results of a span that begin with this item.
    Part(TaskRef, u32),
}

impl Job for Unopened {
    fn run(self, py: Python<'_>) -> Arc<Shared> {
        let (Self::Whole(task) | Self::Part(task, _)) = &self;
        // SAFETY: it is one of ours, and the reference keeps it.
        let future = unsafe { Future::of(py, task.address()) };
        let remote = future.get().remote();
        // SAFETY: only futures with this part are added.
        let remote = unsafe { remote.unwrap_unchecked() };
        let is_complete = match &self {
            Self::Part(task, first) => {
                let is_complete = remote.open_results(py, *first);
                // SAFETY: a span, of which this part is the last.
                is_complete && unsafe { task.state().claim() }.is_ok()
            }
            Self::Whole(_) => {
                // An interrupt that unpickling raises of its own accord is no other failure.
                if let Err(error) = open_content(&future, remote) {
                    let error = remote.pool.unpickling_failed(py, error);
                    *remote.content() = Content::Opened;
                    let error = error.into_value(py).into_bound(py);
                    Future::fill_exception(&future, error.into_any());
                }
                true
            }
        };
        if is_complete {
            // SAFETY: claimed just now, or by the pool, which has left it to us; the outcome is there.
            unsafe {
                if !task.finish_quietly() {
                    RemoteFuture::finish(task.address());
                }
            }
        }
        Arc::clone(&remote.pool)
    }
}

/// Has the callbacks of a future called that is done.
fn call_back(future: &Bound<'_, Future>) {
    if let (Some(remote), true) = (future.get().remote(), has_callbacks(future)) {
        remote.pool.call_back(future);
    }
}

fn has_callbacks(future: &Bound<'_, Future>) -> bool {
    let observers = future.get().observers();
    observers.is_some_and(Observers::has_callbacks) || !plain::is_plain(future)
}

/// What the engine does with such a future.
pub(crate) struct RemoteFuture;

// SAFETY: as for `Future`, whose objects these are.
unsafe impl ForeignTask for RemoteFuture {
    /// No thread of this process calls it.
    unsafe fn execute(_: NonNull<Header>) -> bool {
        false
    }

    unsafe fn finish(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Future::of(py, task) };
            if let (Some(remote), true) = (future.get().remote(), has_callbacks(&future)) {
                remote.pool.finish(&future);
                return;
            }
            // SAFETY: as above.
            let (observed, told) = unsafe { Future::publish(&future) };
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
            if observed || !plain::is_plain(&future) {
                // One may have come just before it was done.
                call_back(&future);
            }
        });
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        // SAFETY: promised by the caller: started, so that it may claim and finish.
        unsafe {
            let future = Future::at(task);
            if future.as_ref().state().claim().is_ok() {
                Self::answer(task, 0..1, RemoteAnswer::Error(error));
                Self::finish(task);
            }
        }
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Future::of(py, task) };
            let (cancel, told) = Future::cancel_and(&future, |future| {
                call_back(future);
                Ok(())
            });
            if let Err(error) = told {
                cannot_be_told(error, py, Some(future.as_any()));
            }
            cancel
        })
    }

    unsafe fn skip(task: NonNull<Header>) {
        // SAFETY: promised by the caller.
        unsafe { <Future as ForeignTask>::skip(task) }
    }

    unsafe fn failed(task: NonNull<Header>) -> bool {
        // SAFETY: promised by the caller.
        unsafe { <Future as ForeignTask>::failed(task) }
    }

    unsafe fn free(task: NonNull<Header>) {
        released::release(task);
    }

    unsafe fn name(_: NonNull<Header>) -> Cow<'static, str> {
        Cow::Borrowed("a call")
    }
}

// SAFETY: as above; the functions call nothing foreign.
unsafe impl RemoteTask for RemoteFuture {
    unsafe fn answer(task: NonNull<Header>, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        // SAFETY: as above.
        let task = unsafe { TaskRef::borrow(task) };
        let remote = future.remote();
        remote.map_or(Kept::Whole, |remote| remote.keep(&task, items, answer))
    }

    unsafe fn settle(task: NonNull<Header>) {
        attached(|py| {
            // SAFETY: promised by the caller.
            let future = unsafe { Future::of(py, task) };
            if let Some(remote) = future.get().remote() {
                remote.pool.start_opener(py);
            }
        });
    }

    unsafe fn leave(task: NonNull<Header>) {
        // SAFETY: as above.
        let future = unsafe { Future::at(task).as_ref() };
        if let Some(remote) = future.remote() {
            remote.leave();
        }
    }

    unsafe fn is_abandoned(task: NonNull<Header>) -> bool {
        // SAFETY: as above.
        let future = unsafe { Future::at(task).as_ref() };
        future
            .remote()
            .is_some_and(|remote| remote.abandoned.load(Ordering::Relaxed))
    }
}

/// Submits a future that was made for it. Returns whether a worker is to be started.
pub(crate) fn submit(
    py: Python<'_>,
    future: &Bound<'_, Future>,
    pool: &Shared,
    call: RemoteCall,
) -> Result<bool, SubmitError> {
    submit_task(py, enlist(future, pool), pool, call)
}

/// The task of a future that was made for it, for [`submit_task`].
pub(crate) fn enlist(future: &Bound<'_, Future>, pool: &Shared) -> TaskRef {
    // SAFETY: made just now with our table; `free` is called when the last reference is gone.
    unsafe { Future::enlist(future, pool.pool.home()) }
}

/// Submits a task. Returns whether a worker is to be started.
pub(crate) fn submit_task(
    py: Python<'_>,
    task: TaskRef,
    pool: &Shared,
    call: RemoteCall,
) -> Result<bool, SubmitError> {
    /// Copying more than this takes longer than letting other threads run.
    const LONG: usize = 64 * 1024;
    let is_long = call.argument.len() > LONG;
    // SAFETY: it is a future of ours.
    let submit = move || unsafe { pool.pool.submit::<RemoteFuture>(task, call) };
    if is_long { py.detach(submit) } else { submit() }
}
