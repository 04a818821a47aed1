//! Futures of calls that worker processes carry out.
//!
//! # Protocol
//! The thread that receives a reply, which is not attached, puts the bytes into the future. The reply is *opened*,
//! which means unpickled, in one of two ways.
//!
//! - A *plain* reply consists of numbers, texts and the like, as its worker says. The future is finished when the
//!   reply has come. The first thread that asks for the outcome opens the reply. If two ask at the same time,
//!   both unpickle, and both get the object that the first has put into the future.
//! - Any other reply may run Python code, and refer to something in its worker. As in the standard library, a
//!   thread of the pool opens it on arrival (`interp/jobs.rs`), once, and then finishes the future. Until then the
//!   future is claimed, and the pool keeps its workers.
//!
//! The reply to a span comes in parts, which are kept by their first items until an iterator takes them. Each item
//! has its own outcome: an error counts for the items of its part only, as replies for other items may come
//! later. The last part finishes the future.
//!
//! `content` is under a lock, which is held for no Python code.

use crate::future::object::Future;
use crate::future::observers::Observers;
use crate::future::plain;
use crate::future::reply::{Content, Held, Message, Parts, message, shared};
use crate::interp::jobs::{Job, Settled};
use crate::interp::process_errors;
use crate::interp::room::Taken;
use crate::interp::signals::cannot_be_told;
use crate::pickle::{buffers, replies, unpickling};
use concurrent_futures::engine::{Kept, Permit, Phase, PoolId, RemoteAnswer, TaskRef};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of items of an open span: more than any span has.
const OPEN: u32 = u32::MAX / 2;

/// A pool of processes, as its futures see it.
pub(crate) trait RemotePool: Settled + Send + Sync {
    /// Returns the identity of the pool in its tasks.
    fn id(&self) -> PoolId;

    /// Recalls a task and calls `cancel`, if its worker has not begun it. Returns whether it did.
    fn recall(&self, task: &TaskRef, cancel: &mut dyn FnMut()) -> bool;

    /// Returns whether a worker has begun a task that is running by its word.
    fn has_begun(&self, task: &TaskRef) -> bool;

    /// Ends a task, and its worker if the worker is running it. Returns whether the task will end.
    fn terminate(&self, task: &TaskRef) -> bool;

    /// Leaves a reply to the thread that unpickles. Returns whether that thread is to be started.
    fn open_later(&self, unopened: Unopened) -> bool;

    /// Breaks the pool, if the pool breaks by replies that cannot be unpickled. Returns the error that the
    /// future raises.
    fn unpickling_failed(&self, py: Python<'_>, error: PyErr) -> PyErr;

    /// Notes that a task no longer counts as one that the pool has.
    fn note_departure(&self);

    /// Starts the thread that unpickles, if one is wanted.
    fn start_opener(&self, py: Python<'_>);

    /// Leaves the callbacks of a future that is done to the thread for callbacks.
    fn call_back(&self, future: &Bound<'_, Future>);

    /// Leaves a future that was claimed and has its outcome to the thread for callbacks, which makes it
    /// done.
    fn finish(&self, future: &Bound<'_, Future>);
}

/// The additional state of a future of a process pool.
pub(crate) struct Remote {
    pool: Arc<dyn RemotePool>,
    content: Mutex<Content>,
    /// Whether the task has failed, rather than the reply been lost.
    failed: AtomicBool,
    /// Whether no thread waits for the rest of a span.
    abandoned: AtomicBool,
    /// The permit of a pending task, if pending tasks are bounded, and the room for its bytes.
    places: Mutex<(Option<Permit>, Option<Taken>)>,
    /// A future that is finished when there is a result for an item of a span. Its lock is taken after that
    /// of the content.
    milestone: Mutex<Option<(u32, TaskRef)>>,
    /// The name of the function, if no definition has it.
    call_name: Option<Box<str>>,
}

/// The results for an item of a span and those behind it, or why there are none.
pub(crate) enum Part<'py> {
    /// The results, from this item on.
    Results(Vec<Bound<'py, PyAny>>),
    /// No results, because of this exception.
    Exception(PyErr),
    /// No reply yet.
    Missing,
}

impl Remote {
    pub(crate) fn new(pool: Arc<dyn RemotePool>, permit: Option<Permit>) -> Self {
        Self::with(pool, Content::Nothing, permit)
    }

    /// Makes the state of calls for several items.
    pub(crate) fn of_span(pool: Arc<dyn RemotePool>, items: u32, permit: Option<Permit>) -> Self {
        let parts = Parts {
            missing: items,
            ..Parts::default()
        };
        Self::with(pool, Content::Parts(parts), permit)
    }

    /// Makes the state of calls for items of which more may come, up to [`close_span`](Self::close_span).
    pub(crate) fn of_open_span(pool: Arc<dyn RemotePool>) -> Self {
        Self::of_span(pool, OPEN, None)
    }

    /// Closes the span: no more items come than these. Returns whether all results are there already: then
    /// the caller is to make the future done.
    pub(crate) fn close_span(&self, items: u32) -> bool {
        let mut content = self.content();
        let Content::Parts(parts) = &mut *content else {
            return false;
        };
        parts.missing = parts.missing.saturating_sub(OPEN - items);
        parts.missing == 0
    }

    fn with(pool: Arc<dyn RemotePool>, content: Content, permit: Option<Permit>) -> Self {
        Self {
            pool,
            content: Mutex::new(content),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            places: Mutex::new((permit, None)),
            milestone: Mutex::new(None),
            call_name: None,
        }
    }

    /// Names the function of the call.
    pub(crate) fn named(mut self, name: String) -> Self {
        self.call_name = Some(name.into_boxed_str());
        self
    }

    /// Returns the name of the function of the call, if it was given.
    pub(crate) fn call_name(&self) -> Option<String> {
        self.call_name.as_deref().map(str::to_owned)
    }

    pub(crate) fn pool(&self) -> &dyn RemotePool {
        &*self.pool
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns whether no thread waits for the rest of a span.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Tells the worker not to begin the rest of the span.
    pub(crate) fn abandon(&self) {
        // ORDERING: Relaxed: what is begun meanwhile is begun.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Recalls the task of the future and calls `cancel`, if its worker has not begun it. Returns whether it
    /// did.
    pub(crate) fn recall(&self, future: &Future, cancel: &mut dyn FnMut()) -> bool {
        // SAFETY: the caller has the future meanwhile.
        let task = unsafe { future.task() };
        future.state().phase() == Phase::Running && self.pool.recall(&task, cancel)
    }

    /// Returns whether a worker has begun the task of the future, if the task is running by its word.
    pub(crate) fn has_begun(&self, future: &Future) -> bool {
        // SAFETY: the caller has the future meanwhile.
        let task = unsafe { future.task() };
        self.pool.has_begun(&task)
    }

    /// Ends the task of the future, and its worker if the worker is running the task.
    pub(crate) fn terminate(&self, future: &Future) -> bool {
        // SAFETY: the caller has the future meanwhile.
        let task = unsafe { future.task() };
        self.pool.terminate(&task)
    }

    /// Makes the state of another future of the same pool.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(Arc::clone(&self.pool), None)
    }

    /// Releases the permit, and the room of the bytes.
    pub(crate) fn leave(&self) {
        drop(mem::take(&mut *self.places()));
    }

    /// Notes that the task has left its pool, as the task was answered or cancelled.
    pub(crate) fn depart(&self) {
        self.leave();
        self.pool.note_departure();
    }

    /// Takes room for the task's bytes.
    pub(crate) fn occupy(&self, taken: Option<Taken>) {
        self.places().1 = taken;
    }

    /// Returns whether the task holds a permit or room.
    pub(crate) fn has_place(&self) -> bool {
        let places = self.places();
        places.0.is_some() || places.1.is_some()
    }

    fn places(&self) -> MutexGuard<'_, (Option<Permit>, Option<Taken>)> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a reply of the task.
    pub(crate) fn keep(&self, task: &TaskRef, items: Range<u32>, answer: RemoteAnswer<'_>) -> Kept {
        self.depart();
        let is_plain = match &answer {
            RemoteAnswer::Value { bytes, .. } => unpickling::is_plain(bytes),
            RemoteAnswer::Failure(bytes) => unpickling::is_plain_failure(bytes),
            RemoteAnswer::Error(_) => true,
        };
        let mut content = self.content();
        match (&mut *content, answer) {
            (Content::Parts(parts), RemoteAnswer::Value { bytes, attachment })
                if !replies::is_plain(&bytes) =>
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
                return self.after_part(content);
            }
            (Content::Parts(parts), answer) => {
                if parts.keep(items, answer) {
                    self.failed.store(true, Ordering::Relaxed);
                }
                return self.after_part(content);
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

    /// Reaches the milestone of a span of which a part has come, if its item is there. Returns whether the span
    /// is complete. Releases the lock.
    fn after_part(&self, content: MutexGuard<'_, Content>) -> Kept {
        let Content::Parts(parts) = &*content else {
            return Kept::Partly;
        };
        let is_complete = parts.missing == 0;
        let milestone = self.reached(parts);
        drop(content);
        if let Some(milestone) = milestone {
            reach(&milestone);
        }
        if is_complete {
            Kept::Whole
        } else {
            Kept::Partly
        }
    }

    fn open_later(&self, unopened: Unopened) -> Kept {
        if self.pool.open_later(unopened) {
            Kept::ToSettle
        } else {
            Kept::Partly
        }
    }

    /// Unpickles results of a span, from this item on. Returns whether the span is complete by that.
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
            match replies::read_all(py, bytes, message.attachment.as_ref()) {
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
        let kept = self.after_part(content);
        drop(message);
        kept == Kept::Whole
    }

    /// Returns the milestone, if its item has a reply.
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

    /// Takes the reply for an item of a span. The items before it were taken.
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
        let read = replies::read(py, bytes, message.attachment.as_ref());
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

    /// Returns the exception of an item that has no result.
    fn raised<'py>(&self, py: Python<'py>, content: &Content) -> PyResult<Part<'py>> {
        Ok(match self.unpickle(py, content)? {
            Opened::Exception(exception) => Part::Exception(PyErr::from_value(exception)),
            Opened::Value(_) => Part::Missing,
        })
    }

    /// Completes a future when there is something for an item of a span, or when nothing is to come.
    pub(crate) fn set_milestone(&self, item: u32, future: &Bound<'_, Future>) {
        // SAFETY: made just now by `of_remote`, by the caller.
        let task = unsafe { Future::enlist(future, self.pool.id()) };
        let content = self.content();
        let former = {
            let mut milestone = self
                .milestone
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            milestone.replace((item, task))
        };
        // Results that came before would not be noticed.
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

    /// Unpickles a reply.
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

/// Finishes a future that only serves as a milestone.
fn reach(milestone: &TaskRef) {
    // SAFETY: no other thread sets its outcome, which is None. Only one waiting thread knows the milestone.
    unsafe {
        if milestone.state().claim().is_ok() {
            milestone.finish_quietly();
        }
    }
}

/// The content of an answer.
enum Opened<'py> {
    Value(Bound<'py, PyAny>),
    Exception(Bound<'py, PyAny>),
}

/// Moves the outcome of a future that is done to the place where futures have their outcome.
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
        // Storing a reference runs no Python code.
        let former = match opened {
            Opened::Value(value) => Future::fill_result(future, value),
            Opened::Exception(exception) => Future::fill_exception(future, exception),
        };
        (mem::replace(&mut *content, Content::Opened), former)
    };
    drop(before);
    Ok(())
}

/// A reply that is to be unpickled.
pub(crate) enum Unopened {
    Whole(TaskRef),
    /// The results of a span that begin with this item.
    Part(TaskRef, u32),
}

impl Job for Unopened {
    type Pool = dyn RemotePool;

    fn run(self, py: Python<'_>) -> Arc<dyn RemotePool> {
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
                    let before = mem::replace(&mut *remote.content(), Content::Opened);
                    drop(before);
                    let error = error.into_value(py).into_bound(py);
                    drop(Future::fill_exception(&future, error.into_any()));
                }
                true
            }
        };
        if is_complete {
            // SAFETY: claimed just now, or by the pool, which has left it to us; the outcome is there.
            unsafe {
                if !task.finish_quietly() {
                    finish(&future);
                }
            }
        }
        Arc::clone(&remote.pool)
    }
}

/// Makes a future done that was claimed and has its outcome, and has its callbacks called.
///
/// # Safety
/// The caller has claimed the future, and its outcome is there.
pub(crate) unsafe fn finish(future: &Bound<'_, Future>) {
    if let (Some(remote), true) = (future.get().remote(), has_callbacks(future)) {
        remote.pool.finish(future);
        return;
    }
    // SAFETY: the caller has claimed the future, and its outcome is there.
    let (observed, told) = unsafe { Future::publish(future, None) };
    if let Err(error) = told {
        cannot_be_told(error, future.py(), Some(future.as_any()));
    }
    if observed || !plain::is_plain(future) {
        // One may have come just before it was done.
        call_back(future);
    }
}

/// Calls the callbacks of a future that is done.
pub(crate) fn call_back(future: &Bound<'_, Future>) {
    if let (Some(remote), true) = (future.get().remote(), has_callbacks(future)) {
        remote.pool.call_back(future);
    }
}

fn has_callbacks(future: &Bound<'_, Future>) -> bool {
    let observers = future.get().observers();
    observers.is_some_and(Observers::has_callbacks) || !plain::is_plain(future)
}
