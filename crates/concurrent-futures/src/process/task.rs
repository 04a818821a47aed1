//! A task on its way to a worker process and back.
//!
//! | where | phase of the future |
//! |---|---|
//! | in the pool's queue | pending; it can be cancelled |
//! | handed to a worker | running, by the word; it can be cancelled as long as the worker has not begun, and `running` says so: the pool is asked |
//! | taken back before the worker began | pending |
//! | its worker died before it began | pending, first in the queue |
//! | its worker died while it ran | finished with an error; pending if it may be repeated |
//! | answered | finished |

use super::callbacks::Callbacks;
use super::channel::{Attachment, Received};
use super::codec::Bytes;
use super::failure::Failure;
use super::function::Invoke;
use super::host::{Argument, CallOrder, Definition, Kept, RemoteAnswer, RemoteCall, RemoteTask};
use super::items::Span;
use super::observed::{Event, Observed};
use super::options::TaskOptions;
use crate::error::TaskError;
use crate::future::state::Advance;
use crate::future::task::Header;
use crate::future::{Call, Future, FutureId, Outcome, Phase, TaskRef};
use crate::panic;
use crate::thread::limit::Permit;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a task comes to.
#[derive(Debug)]
pub(super) enum Ending<'a> {
    /// A value, as bytes, and what came beside them.
    Value(Bytes<'a>, Option<io::Result<Received>>),
    /// The bytes of a [`Failure`].
    Failure(Bytes<'a>),
    Error(TaskError),
}

/// Stands for a call that a worker process carries out.
struct Remote<I>(PhantomData<I>);

impl<I: Invoke> Call for Remote<I> {
    type Output = I::Output;

    fn call(self) -> Outcome<I::Output> {
        Err(TaskError::Abandoned)
    }

    fn name() -> &'static str {
        I::name()
    }
}

/// Whose task it is.
#[derive(Clone, Copy)]
enum Face {
    Rust {
        /// Writes an outcome of the future's type.
        ///
        /// # Safety
        /// The future is this task's, and the caller has started or claimed it.
        write: unsafe fn(&TaskRef, Ending<'_>),
        name: fn() -> &'static str,
        /// Whether to make the value is no foreign code.
        is_plain: bool,
    },
    /// As in [`RemoteTask`].
    Foreign {
        answer: unsafe fn(NonNull<Header>, Range<u32>, RemoteAnswer<'_>) -> Kept,
        settle: unsafe fn(NonNull<Header>),
        is_abandoned: unsafe fn(NonNull<Header>) -> bool,
        leave: unsafe fn(NonNull<Header>),
    },
}

/// What became of a task that was to be handed over.
pub(super) enum Start {
    /// Pending to running.
    Started,
    /// It was cancelled before.
    Cancelled,
    /// Nobody wants the rest of a span.
    Abandoned,
}

/// The argument and attachment of a cancelled task, which needs them no longer.
#[derive(Debug)]
pub(super) struct Stripped {
    _argument: Argument,
    _attachment: Option<Arc<Attachment>>,
}

/// What is left to be done for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// All.
    All,
    /// To publish the outcome, which is written.
    Publish,
    /// To let the face make a value of the answer.
    Settle,
    /// To take notice that it was cancelled.
    Notice,
    /// Nothing: others complete it.
    Nothing,
}

/// A call, and the future that waits for it.
pub(super) struct Task {
    future: TaskRef,
    face: Face,
    /// The function's place.
    pub(super) function: u64,
    /// The function, if a worker has to learn it first.
    pub(super) definition: Option<Arc<Definition>>,
    pub(super) argument: Argument,
    /// What goes beside it.
    pub(super) attachment: Option<Arc<Attachment>>,
    pub(super) options: TaskOptions,
    span: Option<Span>,
    left: Left,
    /// Its place among the pending tasks, if those are bounded.
    pub(super) permit: Option<Permit>,
    /// Whether the future has one.
    has_place: bool,
    observed: Option<Arc<Observed>>,
    /// Whether the observer knows that it was started.
    reported: bool,
    /// Counts the tasks of its pool in the order of submission. The parts of a span have one number.
    pub(super) sequence: u64,
}

impl Task {
    /// A task of the pool that `home` identifies.
    pub(super) fn new<I: Invoke>(
        home: *const (),
        function: u64,
        argument: Vec<u8>,
        options: TaskOptions,
    ) -> (Self, Future<I::Output>) {
        let (ours, handle) = TaskRef::pair(Remote::<I>(PhantomData), home);
        let task = Self {
            future: ours,
            face: Face::Rust {
                write: write::<I>,
                name: I::name,
                is_plain: I::is_plain(),
            },
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
        };
        // SAFETY: the call's output is this type, and this is the task's only handle.
        (task, unsafe { Future::new(handle) })
    }

    /// A task of another face.
    ///
    /// # Safety
    /// The reference is that of a `T`.
    pub(super) unsafe fn foreign<T: RemoteTask>(future: TaskRef, call: RemoteCall) -> Self {
        let place = call.definition.as_ref().map(|known| known.place);
        Self {
            future,
            face: Face::Foreign {
                answer: T::answer,
                settle: T::settle,
                is_abandoned: T::is_abandoned,
                leave: T::leave,
            },
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
        }
    }

    /// Has an observer told what becomes of the task.
    pub(super) fn observe(&mut self, observed: &Arc<Observed>) {
        observed.note(Event::Submitted(self.id()));
        self.observed = Some(Arc::clone(observed));
    }

    /// It is the first that its worker has: if it has not begun, it will at once. (The
    /// observer is told later, as the pool's lock is held.)
    pub(super) fn note_turn(&mut self) {
        if let Some(observed) = &self.observed
            && !self.reported
        {
            observed.note(Event::Started(self.future.id()));
            self.reported = true;
        }
    }

    /// Its future is done.
    fn note_end(&mut self) {
        if let Some(observed) = self.observed.take()
            && self.reported
        {
            observed.note(Event::Finished(self.future.id()));
            observed.tell_later();
        }
    }

    /// What the header of the frame says of the function: its place, and which items.
    pub(super) fn place(&self) -> u64 {
        match &self.span {
            None => self.function,
            Some(span) => pack(self.function, &span.items),
        }
    }

    /// How many items a part has.
    pub(super) fn items(&self) -> u32 {
        self.span
            .as_ref()
            .map_or(1, |span| span.items.end - span.items.start)
    }

    /// As how many tasks it counts: each item that may be by itself is one.
    pub(super) fn weight(&self) -> usize {
        if self.is_of_items() {
            self.items() as usize
        } else {
            1
        }
    }

    /// Which items it has. A tail is one no more, and has those that are there.
    fn range(&mut self) -> Range<u32> {
        let Some(span) = &mut self.span else {
            return 0..1;
        };
        span.cut(u32::MAX);
        span.items.clone()
    }

    /// How many items it has, if it is a span.
    pub(super) fn span_items(&self) -> Option<u32> {
        self.span.as_ref().map(|_| self.items())
    }

    /// Whether each of its items has its own bytes.
    pub(super) fn is_of_items(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.source.is_some())
    }

    /// How many items there are, if more may come.
    pub(super) fn growing(&self) -> Option<u32> {
        let span = self.span.as_ref().filter(|span| span.is_tail)?;
        span.source.as_ref()?.growing()
    }

    /// At least as many bytes as its argument has, or will have.
    pub(super) fn most_bytes(&self) -> usize {
        let source = self.span.as_ref().and_then(|span| span.source.as_ref());
        source.map_or(self.argument.len(), |source| source.most_bytes())
    }

    /// Makes the task a part with at most `most` items, and fetches the part's bytes. Returns the rest.
    pub(super) fn cut(&mut self, most: u32) -> Option<Self> {
        let span = self.span.as_mut()?;
        let rest = span.cut(most);
        if let Some(source) = &span.source {
            self.argument = Argument::Own(source.bytes_of(&span.items));
        }
        rest.map(|rest| self.rest(rest))
    }

    /// Takes all items but the first few, which stay, out of a part.
    pub(super) fn split(&mut self, first: u32) -> Option<Self> {
        let rest = self.span.as_mut()?.cut(first)?;
        Some(self.rest(rest))
    }

    /// A task for other items. It has no bytes of them before it is cut.
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
        }
    }

    /// The place of the task in the order in which tasks start: that of its submission, and of its
    /// first item in a span.
    pub(super) fn order(&self) -> (u64, u32) {
        let first_item = self.span.as_ref().map_or(0, |span| span.items.start);
        (self.sequence, first_item)
    }

    /// Takes the first few items, which are not all, out of a span that was started.
    pub(super) fn take_first(&mut self, items: u32) -> Option<Self> {
        if items == 0 {
            return None;
        }
        let rest = self.split(items)?;
        Some(mem::replace(self, rest))
    }

    pub(super) fn id(&self) -> FutureId {
        self.future.id()
    }

    /// Where its future is, for its face.
    pub(super) fn address(&self) -> NonNull<Header> {
        self.future.address()
    }

    pub(super) fn name(&self) -> &'static str {
        match self.face {
            Face::Rust { name, .. } => name(),
            Face::Foreign { .. } => "a call",
        }
    }

    /// Whether its answer may be made a value by anybody: that calls no foreign code.
    pub(super) fn is_plain(&self) -> bool {
        match self.face {
            Face::Rust { is_plain, .. } => is_plain,
            // As promised; see `RemoteTask`.
            Face::Foreign { .. } => true,
        }
    }

    /// The pool does not take it. In other faces, the caller says what becomes of the future.
    pub(super) fn decline(mut self) {
        if matches!(self.face, Face::Foreign { .. }) {
            self.left = Left::Nothing;
        }
    }

    /// It is handed over: it gives up its place among pending tasks.
    pub(super) fn leave(&mut self) {
        self.permit = None;
        if let (true, Face::Foreign { leave, .. }) = (self.has_place, self.face) {
            self.has_place = false;
            // SAFETY: the future is of this face.
            unsafe { leave(self.future.address()) };
        }
    }

    /// Pending to running, unless it was cancelled.
    pub(super) fn start(&mut self) -> Start {
        match (&mut self.span, self.face) {
            (
                Some(Span {
                    has_begun: true, ..
                }),
                Face::Foreign { is_abandoned, .. },
            ) => {
                // SAFETY: the future is of this face.
                if unsafe { is_abandoned(self.future.address()) } {
                    Start::Abandoned
                } else {
                    Start::Started
                }
            }
            // SAFETY: a pool begins its tasks, which it was given to carry out.
            (span, _) if unsafe { self.future.state().start() } => {
                if let Some(span) = span {
                    span.has_begun = true;
                }
                Start::Started
            }
            _ => Start::Cancelled,
        }
    }

    /// Running to pending: the worker that it was handed to has not begun.
    pub(super) fn give_back(&self) {
        if self.span.is_some() {
            // Other parts of it may be running.
            return;
        }
        // SAFETY: a task that a pool has started is the pool's, and only the pool's, to
        // finish or give back. The phase is not done, so that nobody is notified.
        let went = unsafe {
            self.future
                .state()
                .advance(&[Phase::Running], Phase::Pending, true)
        };
        // In other faces, anybody may set an outcome.
        debug_assert!(went == Advance::Done || matches!(self.face, Face::Foreign { .. }));
    }

    /// Whether it was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(
            self.future.state().phase(),
            Phase::Cancelling | Phase::Cancelled | Phase::Notified
        )
    }

    /// It was cancelled: takes what takes up memory.
    pub(super) fn strip(&mut self) -> Stripped {
        Stripped {
            _argument: mem::replace(&mut self.argument, Argument::Own(Vec::new())),
            _attachment: self.attachment.take(),
        }
    }

    /// A task that was cancelled: [`finish`](Self::finish) takes notice of that, if its face
    /// wants it.
    pub(super) fn into_cancelled(mut self) -> Option<Self> {
        self.left = Left::Notice;
        matches!(self.face, Face::Foreign { .. }).then_some(self)
    }

    /// Whether it is of a span that was started, by this part or another.
    fn is_part(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.has_begun)
    }

    /// Cancels the task if it is pending, and what is left of a span.
    pub(super) fn cancel(self) {
        if self.is_part() {
            self.fail(TaskError::Cancelled);
        } else {
            self.future.cancel();
        }
    }

    /// Ends a task that was started. If it has no callbacks, that is all, and foreign code
    /// runs only to make the value. Otherwise it is given back for
    /// [`finish`](Self::finish).
    pub(super) fn end(mut self, ending: Ending<'_>) -> Option<Self> {
        match self.face {
            // SAFETY: it was started by the pool, which ends it once: `self` is gone or only
            // finished afterwards.
            Face::Rust { write, .. } => unsafe {
                write(&self.future, ending);
                self.left = Left::Publish;
                if !self.future.state().finish_uncalled() {
                    return Some(self);
                }
                self.note_end();
                None
            },
            Face::Foreign { answer, .. } => {
                let is_span = self.span.is_some();
                let items = self.range();
                let remote = match ending {
                    Ending::Value(bytes, attachment) => RemoteAnswer::Value {
                        bytes: bytes.into_cow(),
                        attachment,
                    },
                    Ending::Failure(bytes) => RemoteAnswer::Failure(bytes.into_cow()),
                    Ending::Error(error) => RemoteAnswer::Error(error),
                };
                self.left = Left::Nothing;
                if !is_span && !claim(&self.future) {
                    // Somebody else has set an outcome.
                    return None;
                }
                // SAFETY: started by the pool, and claimed if it is no span.
                match unsafe { answer(self.future.address(), items, remote) } {
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
        }
    }

    /// Runs the callbacks and wakes who waits for a task that [`end`](Self::end) has given
    /// back.
    pub(super) fn finish(self) {
        debug_assert!(matches!(
            self.left,
            Left::Publish | Left::Notice | Left::Settle
        ));
        if self.left == Left::Notice {
            self.future.skip();
        }
        // Dropping it does the rest.
    }

    /// The same, by the thread for callbacks if there is one; but to drop a value that nobody wants is
    /// the calling thread's, which may take its time.
    pub(super) fn finish_here_or_by(self, callbacks: Option<&Arc<Callbacks>>) {
        if self.left == Left::Publish && self.future.state().is_only_dropped() {
            self.finish();
        } else {
            self.finish_by(callbacks);
        }
    }

    /// The same, by the thread for callbacks if there is one.
    pub(super) fn finish_by(self, callbacks: Option<&Arc<Callbacks>>) {
        match callbacks {
            Some(callbacks) => callbacks.run(Box::new(|| self.finish())),
            None => self.finish(),
        }
    }

    /// Ends a task that was started with an error, callbacks and all.
    pub(super) fn fail(self, error: TaskError) {
        if let Some(task) = self.end(Ending::Error(error)) {
            task.finish();
        }
    }

    /// Fails a task unless it was cancelled.
    pub(super) fn reject(mut self, error: TaskError) {
        match self.start() {
            Start::Started | Start::Abandoned => self.fail(error),
            Start::Cancelled => {
                if let Some(task) = self.into_cancelled() {
                    task.finish();
                }
            }
        }
    }
}

/// Claims the future of a task of a pool. False when somebody else has set an outcome.
fn claim(future: &TaskRef) -> bool {
    // SAFETY: a pool sets the outcomes of its tasks, whose calls need no drop.
    unsafe { future.state().claim() }.is_ok()
}

impl Drop for Task {
    /// Nobody may wait forever: what was not finished is finished now.
    fn drop(&mut self) {
        match self.left {
            Left::Publish if !self.future.state().is_done() => {
                // SAFETY: written by `end`, and not finished.
                unsafe { self.future.finish() };
                self.note_end();
            }
            Left::Settle => {
                if let Face::Foreign { settle, .. } = self.face {
                    // SAFETY: the future is of this face.
                    unsafe { settle(self.future.address()) };
                }
            }
            // The parts of a span are its own to end, and their error is kept, too.
            Left::All if self.is_part() => {
                let (items, error) = (self.range(), RemoteAnswer::Error(TaskError::Abandoned));
                if let Face::Foreign { answer, .. } = self.face {
                    // SAFETY: a part of a span that was started, which is ended once: now.
                    // Claimed, if it is complete by that.
                    unsafe {
                        let kept = answer(self.future.address(), items, error);
                        if kept == Kept::Whole && claim(&self.future) {
                            self.future.finish();
                        }
                    }
                }
            }
            Left::All if claim(&self.future) => {
                let error = TaskError::Abandoned;
                // SAFETY: just claimed.
                unsafe {
                    match self.face {
                        Face::Rust { write, .. } => write(&self.future, Ending::Error(error)),
                        Face::Foreign { answer, .. } => {
                            let (items, error) = (self.range(), RemoteAnswer::Error(error));
                            answer(self.future.address(), items, error);
                        }
                    }
                    self.future.finish();
                }
                self.note_end();
            }
            _ => {}
        }
    }
}

/// The place of a function and the tag, less than 2^16, and the items of a span, less than 2^24.
fn pack(function: u64, items: &Range<u32>) -> u64 {
    function | u64::from(items.start) << 16 | u64::from(items.end - items.start) << 40
}

/// What [`pack`] has packed.
pub(super) fn unpack(packed: u64) -> CallOrder {
    let bytes = packed.to_le_bytes();
    let function = u16::from_le_bytes([bytes[0], bytes[1]]);
    let start = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], 0]);
    let length = u32::from_le_bytes([bytes[5], bytes[6], bytes[7], 0]);
    CallOrder {
        place: function & 0x0fff,
        tag: (function >> 12).to_le_bytes()[0],
        items: start..start + length,
    }
}

/// # Safety
/// The task is a `Remote<I>`, and the caller has started or claimed it.
unsafe fn write<I: Invoke>(task: &TaskRef, ending: Ending<'_>) {
    let outcome = match ending {
        Ending::Value(bytes, _) => panic::catch(|| I::receive(bytes))
            .unwrap_or_else(|panic| Err(TaskError::Panicked(panic))),
        Ending::Failure(bytes) => Err(Failure::decode(bytes.as_slice())),
        Ending::Error(error) => Err(error),
    };
    // SAFETY: promised by the caller; the call holds nothing.
    unsafe { task.write_outcome::<Remote<I>>(outcome) };
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {} ({})", self.id(), self.name())
    }
}
