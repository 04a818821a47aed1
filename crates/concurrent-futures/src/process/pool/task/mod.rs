//! A task on its way to a worker process and back.
//!
//! | place of the task | phase of the future |
//! |---|---|
//! | in the pool's queue | pending; it can be cancelled |
//! | dispatched to a worker | `Running` in the state's word, but it can be cancelled, and is not `running`, until the worker begins: the pool is asked |
//! | recalled before the worker began | pending |
//! | its worker died before it began | pending, first in the queue |
//! | its worker died while it ran | finished with an error; pending if it may be repeated |
//! | answered | finished |

mod frontend;
mod parts;

use crate::error::TaskError;
use crate::future::Future;
use crate::id::{FutureId, PoolId};
use crate::limit::Permit;
use crate::process::channel::Attachment;
use crate::process::contract::{Argument, Definition, Kept, RemoteCall, RemoteTask};
use crate::process::function::Invoke;
use crate::process::items::Span;
use crate::process::options::TaskOptions;
use crate::process::pool::callbacks::Callbacks;
use crate::process::pool::observed::{Event, Observed};
use crate::recording::record::RunOutcome;
use crate::recording::recorder;
use crate::runtime::os::clock;
use crate::task::header::Header;
use crate::task::state::Advance;
use crate::task::trace::TaskSpan;
use crate::task::{Phase, TaskRef};
pub(crate) use frontend::Ending;
use frontend::Frontend;
use std::borrow::Cow;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

/// The outcome of an attempt to start a task before its dispatch.
pub(crate) enum Start {
    /// The task has moved from pending to running.
    Started,
    /// The task was cancelled before.
    Cancelled,
    /// No thread waits for the rest of the span.
    Abandoned,
}

/// The argument and attachment of a cancelled task, which needs them no longer.
#[derive(Debug)]
pub(crate) struct Stripped {
    _argument: Argument,
    _attachment: Option<Arc<Attachment>>,
}

/// The work that is left to be done for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The whole task is left to be done.
    All,
    /// The outcome is written, and to be published.
    Publish,
    /// The frontend is to make a value of the answer.
    Settle,
    /// The frontend is to be told of the cancellation.
    Notice,
    /// Nothing is left: other code completes the task.
    Nothing,
}

/// A call, and the future that waits for it.
pub(crate) struct Task {
    future: TaskRef,
    face: Frontend,
    /// The place of the function.
    pub(crate) function: u64,
    /// The function, if a worker has to learn it first.
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) argument: Argument,
    /// The out-of-band buffers of the argument.
    pub(crate) attachment: Option<Arc<Attachment>>,
    pub(crate) options: TaskOptions,
    span: Option<Span>,
    left: Left,
    /// The task's permit, if the pool bounds pending tasks.
    pub(crate) permit: Option<Permit>,
    /// Whether the future has a permit.
    has_place: bool,
    observed: Option<Arc<Observed>>,
    /// Whether the observer was told that the task was started.
    reported: bool,
    /// The task's number in the order of submission to its pool. The parts of a span have one number.
    pub(crate) sequence: u64,
    /// When the task came to its turn, by the clock of recordings; 0 if that was not recorded.
    pub(crate) turn: u64,
    /// When the task was submitted, by the same clock; 0 if times were not measured.
    pub(crate) submitted: u64,
    /// The span of a task of the Rust frontend, for `tracing`.
    trace: TaskSpan,
}

impl Task {
    /// Makes a task of a pool.
    pub(crate) fn new<I: Invoke>(
        pool: PoolId,
        function: u64,
        argument: Vec<u8>,
        options: TaskOptions,
    ) -> (Self, Future<I::Output>) {
        let (face, ours, handle) = Frontend::rust::<I>(pool);
        let task = Self {
            future: ours,
            face,
            function,
            definition: None,
            argument: Argument::Own(argument),
            attachment: None,
            options,
            span: None,
            left: Left::All,
            permit: None,
            has_place: false,
            observed: None,
            reported: false,
            sequence: 0,
            turn: 0,
            submitted: 0,
            trace: TaskSpan::new(I::name),
        };
        (task, handle)
    }

    /// Makes a task of another frontend.
    ///
    /// # Safety
    /// The reference is that of a `T`.
    pub(crate) unsafe fn foreign<T: RemoteTask>(future: TaskRef, call: RemoteCall) -> Self {
        let place = call.definition.as_ref().map(|known| known.place);
        Self {
            future,
            face: Frontend::foreign::<T>(),
            function: u64::from(place.unwrap_or(Definition::PLACES))
                | u64::from(call.tag & 15) << 12,
            definition: call.definition,
            argument: call.argument,
            attachment: call.attachment.map(Arc::new),
            options: call.options,
            span: call.span.map(Span::of_call),
            left: Left::All,
            permit: None,
            has_place: call.has_place,
            observed: None,
            reported: false,
            sequence: 0,
            turn: 0,
            submitted: 0,
            trace: TaskSpan::none(),
        }
    }

    /// Reports the task's events to an observer from now on.
    pub(crate) fn observe(&mut self, observed: &Arc<Observed>) {
        observed.note(Event::Submitted(self.id()));
        self.observed = Some(Arc::clone(observed));
    }

    /// Notes that the task is the next that its worker begins. (The observer is told later, as the pool's
    /// lock is held.)
    pub(crate) fn note_turn(&mut self) {
        if recorder::is_on() && self.turn == 0 {
            self.turn = clock::now();
        }
        if let Some(observed) = &self.observed
            && !self.reported
        {
            observed.note(Event::Started(self.future.id()));
            self.reported = true;
        }
    }

    /// Notes that the task's future is done.
    fn note_end(&mut self) {
        if let Some(observed) = self.observed.take()
            && self.reported
        {
            observed.note(Event::Finished(self.future.id()));
            observed.tell_later();
        }
    }

    /// Makes a task for other items. It has no bytes of them before it is cut.
    fn rest(&self, span: Span) -> Self {
        Self {
            future: self.future.clone(),
            face: self.face,
            function: self.function,
            definition: self.definition.clone(),
            argument: Argument::Own(Vec::new()),
            attachment: None,
            options: self.options,
            span: Some(span),
            left: Left::All,
            permit: None,
            has_place: false,
            observed: None,
            reported: false,
            sequence: self.sequence,
            turn: 0,
            submitted: self.submitted,
            trace: TaskSpan::none(),
        }
    }

    pub(crate) fn id(&self) -> FutureId {
        self.future.id()
    }

    /// Records and counts that the task failed without being started.
    pub(crate) fn note_rejected(&self, outcome: RunOutcome) {
        self.future.note_rejected(outcome);
    }

    /// Notes that the task was cancelled and has left the queue.
    pub(crate) fn note_skipped(&self) {
        self.future.note_skipped();
    }

    /// Returns the address of the task's future, for the frontend.
    pub(crate) fn address(&self) -> NonNull<Header> {
        self.future.address()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.rust_name().unwrap_or("a call")
    }

    /// Returns the name of the function of a task of the Rust frontend.
    pub(crate) fn rust_name(&self) -> Option<&'static str> {
        self.face.rust_name()
    }

    /// Returns the name of the function for people.
    pub(crate) fn function_name(&self) -> Cow<'static, str> {
        let definition = self.definition.as_ref();
        let definition = definition.map(|known| known.bytes.as_slice());
        // SAFETY: the future is this task's.
        let name = unsafe { self.face.function_name(&self.future, definition) };
        name.unwrap_or(Cow::Borrowed("a call"))
    }

    /// Returns the error of the failed call as text, by the bytes of the failure.
    pub(crate) fn error_text(&self, failure: &[u8]) -> Option<String> {
        self.face.error_text(failure)
    }

    /// Returns the error of the first item that has failed as text, by the bytes of the answer; none if this is no
    /// span.
    pub(crate) fn item_error_text(&self, results: &[u8]) -> Option<String> {
        self.span.as_ref()?;
        self.face.item_error_text(results)
    }

    /// Returns the number of bytes of the call.
    pub(crate) fn sent(&self) -> usize {
        let attached = self
            .attachment
            .as_ref()
            .map_or(0, |attachment| attachment.length());
        self.argument.len() + attached
    }

    /// Returns whether any thread may make the value of the answer, as that calls no foreign code.
    pub(crate) fn is_plain(&self) -> bool {
        self.face.is_plain()
    }

    /// Gives the task up, as the pool does not accept it. In some frontends, the caller decides about the
    /// future.
    pub(crate) fn decline(mut self) {
        if self.face.completes_declined() {
            self.left = Left::Nothing;
        }
    }

    /// Releases the task's `max_pending` permit, as the task is dispatched.
    pub(crate) fn leave(&mut self) {
        self.permit = None;
        if self.has_place {
            self.has_place = false;
            // SAFETY: the future is this task's.
            unsafe { self.face.leave(&self.future) };
        }
    }

    /// Moves the task from pending to running, unless it was cancelled.
    pub(crate) fn start(&mut self) -> Start {
        if self.is_part() {
            // SAFETY: the future is this task's.
            return if unsafe { self.face.is_abandoned(&self.future) } {
                Start::Abandoned
            } else {
                Start::Started
            };
        }
        // SAFETY: a pool begins its tasks, which it was given to carry out.
        if !unsafe { self.future.state().start() } {
            return Start::Cancelled;
        }
        if let Some(span) = &mut self.span {
            span.has_begun = true;
        }
        Start::Started
    }

    /// Moves the task from running to pending, as the worker that it was dispatched to has not begun it.
    pub(crate) fn give_back(&self) {
        if self.span.is_some() {
            // Other parts of it may be running.
            return;
        }
        // SAFETY: a task that a pool has started is the pool's, and only the pool's, to
        // finish or give back. The phase is not done, so that no thread is notified.
        let went = unsafe {
            self.future
                .state()
                .advance(&[Phase::Running], Phase::Pending, true)
        };
        debug_assert!(went == Advance::Done || self.face.has_other_setters());
    }

    /// Returns whether the task was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(
            self.future.state().phase(),
            Phase::Cancelling | Phase::Cancelled | Phase::Notified
        )
    }

    /// Takes the argument out of a cancelled task, which takes up memory.
    pub(crate) fn strip(&mut self) -> Stripped {
        Stripped {
            _argument: mem::replace(&mut self.argument, Argument::Own(Vec::new())),
            _attachment: self.attachment.take(),
        }
    }

    /// Returns a cancelled task if its frontend wants to know of the cancellation, by
    /// [`finish`](Self::finish).
    pub(crate) fn into_cancelled(mut self) -> Option<Self> {
        self.left = Left::Notice;
        self.note_skipped();
        self.face.notices_cancellation().then_some(self)
    }

    /// Cancels the task if it is pending, and the rest of a span.
    pub(crate) fn cancel(self) {
        if self.is_part() {
            self.fail(TaskError::Cancelled);
        } else {
            self.future.cancel();
            self.note_skipped();
        }
    }

    /// Ends a task that was started. If the task has no callbacks, that is all, and foreign code runs only to
    /// make the value. Otherwise returns the task for [`finish`](Self::finish).
    pub(crate) fn end(self, ending: Ending<'_>) -> Option<Self> {
        if self.face.has_other_setters() {
            self.end_claimed(ending)
        } else {
            self.end_unclaimed(ending)
        }
    }

    /// Ends a task whose outcome only the pool sets.
    fn end_unclaimed(mut self, ending: Ending<'_>) -> Option<Self> {
        let face = self.face;
        self.trace.end(|| match &ending {
            Ending::Error(error) => Some(error.to_string()),
            Ending::Failure(failure) => face.error_text(failure.as_slice()),
            Ending::Value(..) => None,
        });
        // SAFETY: it was started by the pool, which ends it once: `self` is gone or only
        // finished afterwards.
        unsafe {
            self.face.answer(&self.future, 0..1, ending);
            self.left = Left::Publish;
            if !self.future.state().finish_uncalled() {
                return Some(self);
            }
        }
        self.note_end();
        None
    }

    /// Ends a task, or a part of a span, whose outcome other code may set.
    fn end_claimed(mut self, ending: Ending<'_>) -> Option<Self> {
        let is_span = self.span.is_some();
        let items = self.range();
        self.left = Left::Nothing;
        if !is_span && !claim(&self.future) {
            // Another thread has set an outcome.
            return None;
        }
        // SAFETY: started by the pool, and claimed if it is no span.
        match unsafe { self.face.answer(&self.future, items, ending) } {
            Kept::Partly => return None,
            Kept::ToSettle => {
                self.left = Left::Settle;
                return Some(self);
            }
            Kept::Whole if is_span && !claim(&self.future) => return None,
            Kept::Whole => {}
        }
        self.left = Left::Publish;
        // SAFETY: claimed, and the outcome is written.
        (!unsafe { self.future.finish_quietly() }).then_some(self)
    }

    /// Runs the callbacks and wakes the waiters of a task that [`end`](Self::end) has returned.
    pub(crate) fn finish(self) {
        debug_assert!(matches!(
            self.left,
            Left::Publish | Left::Notice | Left::Settle
        ));
        if self.left == Left::Notice {
            self.future.skip();
        }
        // Dropping it does the rest.
    }

    /// Calls [`finish`](Self::finish) in the thread for callbacks, if there is one. But the calling thread
    /// itself drops a value that no handle asks for, as this thread may take its time.
    pub(crate) fn finish_here_or_by(self, callbacks: Option<&Arc<Callbacks>>) {
        if self.left == Left::Publish && self.future.state().is_only_dropped() {
            self.finish();
        } else {
            self.finish_by(callbacks);
        }
    }

    /// Calls [`finish`](Self::finish) in the thread for callbacks, if there is one, unless any thread may call it.
    pub(crate) fn finish_by(self, callbacks: Option<&Arc<Callbacks>>) {
        match callbacks {
            Some(callbacks) if !self.options.wakes_at_once => {
                callbacks.run(Box::new(|| self.finish()));
            }
            _ => self.finish(),
        }
    }

    /// Ends a task that was started with an error, and runs its callbacks.
    pub(crate) fn fail(self, error: TaskError) {
        if let Some(task) = self.end(Ending::Error(error)) {
            task.finish();
        }
    }

    /// Fails a task unless it was cancelled.
    pub(crate) fn reject(mut self, error: TaskError) {
        match self.start() {
            Start::Started | Start::Abandoned => {
                let outcome = match error {
                    TaskError::Terminated => RunOutcome::Terminated,
                    _ => RunOutcome::Rejected,
                };
                self.note_rejected(outcome);
                self.fail(error);
            }
            Start::Cancelled => {
                if let Some(task) = self.into_cancelled() {
                    task.finish();
                }
            }
        }
    }
}

/// Claims the future of a pool's task. Returns false if another thread has set an outcome.
fn claim(future: &TaskRef) -> bool {
    // SAFETY: a pool sets the outcomes of its tasks, whose calls need no drop.
    unsafe { future.state().claim() }.is_ok()
}

impl Drop for Task {
    /// Finishes a task that was not finished, so that no thread waits forever.
    fn drop(&mut self) {
        match self.left {
            Left::Publish if !self.future.state().is_done() => {
                // SAFETY: written by `end`, and not finished.
                unsafe { self.future.finish() };
                self.note_end();
            }
            // SAFETY: the future is this task's.
            Left::Settle => unsafe { self.face.settle(&self.future) },
            // The parts of a span are its own to end, and their error is kept, too.
            Left::All if self.is_part() => {
                let items = self.range();
                // SAFETY: a part of a span that was started, which is ended once: now.
                // Claimed, if it is complete by that.
                unsafe {
                    let error = Ending::Error(TaskError::Abandoned);
                    let kept = self.face.answer(&self.future, items, error);
                    if kept == Kept::Whole && claim(&self.future) {
                        self.future.finish();
                    }
                }
            }
            Left::All if claim(&self.future) => {
                let items = self.range();
                // SAFETY: just claimed.
                unsafe {
                    let error = Ending::Error(TaskError::Abandoned);
                    self.face.answer(&self.future, items, error);
                    self.future.finish();
                }
                self.note_end();
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {} ({})", self.id(), self.name())
    }
}
