//! Futures of calls that worker processes carry out.
//!
//! # Protocol
//! The answer is kept as the bytes that have come, by whichever thread receives them, which is
//! not attached. The future is finished by that. It is *opened*, which is to say unpickled, by
//! the first thread that asks for the outcome. Should two ask at the same time, both
//! unpickle, and both get what the first has put into the future.
//!
//! `content` is under a lock, which is held for no Python code.

use crate::future::Future;
use crate::process_pool::Shared;
use crate::released;
use crate::stdlib;
use crate::unpickling;
use concurrent_futures::TaskError;
use concurrent_futures::engine::{
    Cancel, ForeignTask, Header, Permit, RemoteAnswer, RemoteTask, VTable,
};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::borrow::Cow;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The operations of futures whose task is carried out in another process.
pub(crate) static VTABLE: VTable = VTable::of::<RemoteFuture>();

/// What a future of a process pool has besides.
pub(crate) struct Remote {
    pool: Arc<Shared>,
    content: Mutex<Content>,
    /// Whether it is the task that has failed, or the answer that did not come.
    failed: AtomicBool,
    /// Whether nobody wants the rest of a span.
    abandoned: AtomicBool,
    /// Its place among the tasks that are not done, if these are limited.
    permit: Mutex<Option<Permit>>,
}

/// An answer.
#[derive(Clone)]
enum Content {
    /// It has not come, or somebody else has set an outcome.
    Nothing,
    Value(Arc<[u8]>),
    Failure(Arc<[u8]>),
    Error(TaskError),
    /// Parts of a span, of so many items, so many of which have come.
    Parts(Parts),
    /// It is where futures have their outcome.
    Opened,
}

/// The answers for the items of a span.
#[derive(Clone)]
struct Parts {
    missing: u32,
    /// Each with the first of its items.
    parts: Vec<(u32, Arc<[u8]>)>,
}

impl Remote {
    pub(crate) fn new(pool: Arc<Shared>, permit: Option<Permit>) -> Self {
        Self::with(pool, Content::Nothing, permit)
    }

    /// For the calls of several items.
    pub(crate) fn of_span(pool: Arc<Shared>, items: u32) -> Self {
        let parts = Parts {
            missing: items,
            parts: Vec::new(),
        };
        Self::with(pool, Content::Parts(parts), None)
    }

    fn with(pool: Arc<Shared>, content: Content, permit: Option<Permit>) -> Self {
        Self {
            pool,
            content: Mutex::new(content),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            permit: Mutex::new(permit),
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

    pub(crate) fn pool(&self) -> &Arc<Shared> {
        &self.pool
    }

    /// Gives up the place among the tasks that are not done.
    pub(crate) fn leave(&self) {
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        drop(permit.take());
    }

    /// Keeps an answer. Returns whether it is complete.
    fn keep(&self, answer: RemoteAnswer<'_>) -> bool {
        self.leave();
        let mut content = self.content();
        match (&mut *content, answer) {
            (Content::Parts(parts), RemoteAnswer::Value(bytes, items)) => {
                parts.parts.push((items.start, shared(bytes)));
                parts.missing = parts.missing.saturating_sub(items.end - items.start);
                return parts.missing == 0;
            }
            // The first error of a span is the span's.
            (Content::Failure(_) | Content::Error(_), _) => return false,
            (content, RemoteAnswer::Value(bytes, _)) => *content = Content::Value(shared(bytes)),
            (content, RemoteAnswer::Failure(bytes)) => {
                self.failed.store(true, Ordering::Relaxed);
                *content = Content::Failure(shared(bytes));
            }
            (content, RemoteAnswer::Error(error)) => {
                self.failed.store(true, Ordering::Relaxed);
                *content = Content::Error(error);
            }
        }
        true
    }

    /// The answers of a span that has finished, in the order of its items; or the exception
    /// that all of them have.
    pub(crate) fn take_parts(&self, py: Python<'_>) -> Result<Vec<Arc<[u8]>>, PyErr> {
        let content = mem::replace(&mut *self.content(), Content::Opened);
        match content {
            Content::Parts(mut parts) => {
                parts.parts.sort_unstable_by_key(|(start, _)| *start);
                Ok(parts.parts.into_iter().map(|(_, bytes)| bytes).collect())
            }
            other => Err(match self.unpickle(py, &other)? {
                Opened::Exception(exception) => PyErr::from_value(exception),
                Opened::Value(_) => stdlib::cancelled(py),
            }),
        }
    }

    /// Makes objects of an answer.
    ///
    /// # Errors
    /// `KeyboardInterrupt`, when that came meanwhile.
    fn unpickle<'py>(&self, py: Python<'py>, content: &Content) -> PyResult<Opened<'py>> {
        let unpickled = match content {
            Content::Value(bytes) => unpickling::value(py, bytes).map(Opened::Value),
            Content::Failure(bytes) => unpickling::failure(py, bytes).map(Opened::Exception),
            Content::Error(error) => {
                let error = self.pool.task_error(py, error);
                return Ok(Opened::Exception(error.into_value(py).into_bound(py).into_any()));
            }
            Content::Nothing | Content::Parts(_) | Content::Opened => {
                return Ok(Opened::Value(py.None().into_bound(py)));
            }
        };
        match unpickled {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Err(error),
            Err(error) => {
                let error = self.pool.unpickling_failed(py, error);
                Ok(Opened::Exception(error.into_value(py).into_bound(py).into_any()))
            }
            Ok(opened) => Ok(opened),
        }
    }
}

fn shared(bytes: Cow<'_, [u8]>) -> Arc<[u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Arc::from(bytes),
        Cow::Owned(bytes) => Arc::from(bytes),
    }
}

/// What is in an answer.
enum Opened<'py> {
    Value(Bound<'py, PyAny>),
    Exception(Bound<'py, PyAny>),
}

/// Puts the outcome of a future where futures have it.
///
/// # Errors
/// `KeyboardInterrupt`, when that came meanwhile: then it is still to be opened.
pub(crate) fn open(future: &Bound<'_, Future>) -> PyResult<()> {
    let Some(remote) = future.get().remote() else {
        return Ok(());
    };
    if !future.get().state().is_done() {
        return Ok(());
    }
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

/// What the engine does with such a future.
struct RemoteFuture;

// SAFETY: as for `Future`, whose objects these are.
unsafe impl ForeignTask for RemoteFuture {
    /// No thread of this process calls it.
    unsafe fn execute(_: NonNull<Header>) -> bool {
        false
    }

    unsafe fn finish(task: NonNull<Header>) {
        // SAFETY: promised by the caller.
        unsafe { Future::finish_task(task) };
    }

    unsafe fn fail(task: NonNull<Header>, error: TaskError) {
        // SAFETY: promised by the caller: started, so that it may claim and finish.
        unsafe {
            let future = Future::at(task);
            if future.as_ref().state().claim().is_ok() {
                Self::answer(task, RemoteAnswer::Error(error));
                Self::finish(task);
            }
        }
    }

    unsafe fn cancel(task: NonNull<Header>) -> Cancel {
        // SAFETY: promised by the caller.
        unsafe { <Future as ForeignTask>::cancel(task) }
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
    unsafe fn answer(task: NonNull<Header>, answer: RemoteAnswer<'_>) -> bool {
        // SAFETY: the pool has a reference to the future, which has this part.
        let future = unsafe { Future::at(task).as_ref() };
        future.remote().is_none_or(|remote| remote.keep(answer))
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
    call: concurrent_futures::engine::RemoteCall,
) -> Result<bool, concurrent_futures::SubmitError> {
    /// Copying more than this takes longer than letting other threads run.
    const LONG: usize = 64 * 1024;
    // SAFETY: made just now with our table, and kept by the caller until we return.
    let task = unsafe { Future::enlist(future, pool.pool.home()) };
    let is_long = call.argument.len() > LONG;
    // SAFETY: it is a future of ours.
    let submit = move || unsafe { pool.pool.submit::<RemoteFuture>(task, call) };
    if is_long { py.detach(submit) } else { submit() }
}
