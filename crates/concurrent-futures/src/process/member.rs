//! One worker, as the pool sees it: what it was handed, and what has come back.
//!
//! A worker runs its frames in the order in which they were written, and answers each
//! before it claims the next. So at most one of the frames in flight is claimed and not
//! answered: that is the task it runs.

#![forbid(unsafe_code)]

use super::channel::{
    Attachment, CAPACITY, Call, Claim, Corrupt, HEADER, Lane, Lent, Nap, Order, Reader, Received,
    Releases, Reply, ReplyKind, Rest, Watch, Writer, padded, reserve,
};
use super::child::Child;
use super::host::Definition;
use super::task::Task;
use crate::sync::atomic::AtomicU32;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is written or read before the other side is shown: so that both work on a
/// long value at the same time.
const PIECE: usize = 128 * 1024;

/// What an idle worker's stream has room for at least; this is when a patient writer is woken.
const HALF: usize = CAPACITY / 2;
const _: () = assert!(HALF > 2 * HEADER + Definition::LONGEST + RELEASE);

/// The longest frame that gives back segments.
const RELEASE: usize = HEADER + Releases::MOST * size_of::<u64>();

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not said that it can work.
    Starting,
    /// It takes tasks.
    Ready,
    /// It was told to end when it is done.
    Closing,
}

/// Why the supervisor killed a worker.
#[derive(Clone, Debug)]
pub(super) enum Kill {
    /// Its task ran too long.
    TimeLimit,
    /// Its task was terminated.
    Terminated,
    /// Something is wrong with it.
    Fault(Arc<str>),
}

/// A task that was handed to a worker.
#[derive(Debug)]
struct Flight {
    task: Task,
    number: u64,
    /// Where its frame is in the stream.
    position: u64,
}

/// A long answer that is being read.
#[derive(Debug)]
struct Incoming {
    reply: Reply,
    bytes: Vec<u8>,
    /// Bytes left, with what fills the frame up.
    left: u64,
}

/// What came from a worker.
#[derive(Debug)]
pub(super) enum Arrival {
    Answer(Answer),
    /// The worker can work.
    Ready,
    /// It cannot: the bytes of the failure.
    Unusable(Vec<u8>),
}

/// The answer to a task.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) task: Task,
    pub(super) kind: ReplyKind,
    pub(super) content: Content,
    /// What came beside it, or why it is lost.
    pub(super) attachment: Option<Box<io::Result<Received>>>,
    /// How long the task ran.
    pub(super) nanoseconds: u64,
    /// What of the task's span was not begun, and the tasks behind it, the last first.
    pub(super) rest: Vec<Task>,
}

/// Where the bytes of an answer are.
#[derive(Debug)]
pub(super) enum Content {
    Shared(std::ops::Range<usize>),
    Own(Vec<u8>),
}

/// A task whose worker has died.
#[derive(Debug)]
pub(super) enum Orphan {
    /// The worker had not begun.
    NotBegun(Task),
    /// The worker was running it.
    Running(Task),
}

pub(super) struct Member {
    pub(super) child: Arc<Child>,
    pub(super) stage: Stage,
    pub(super) killed: Option<Kill>,
    /// Whether its task has run for so long that nothing is queued behind it.
    pub(super) stalled: bool,
    /// It has nothing to do, but frames that were recalled fill its stream: it will pass over
    /// them when it comes to it.
    pub(super) clogged: bool,
    /// Tasks it was ever handed.
    pub(super) handed: usize,
    /// When it was started, and then, when the task that it runs came to its turn.
    pub(super) since: Instant,
    writer: Writer,
    reader: Reader,
    /// For what goes beside the streams; none if nothing does.
    lane: Option<Lane>,
    /// What was sent through it.
    lent: Lent,
    /// What the worker does not use any more.
    pub(super) released: Vec<Arc<Attachment>>,
    in_flight: VecDeque<Flight>,
    /// How much of the argument of the last task in flight, and of what fills its frame
    /// up, was written; none if all is.
    sending: Option<usize>,
    incoming: Option<Incoming>,
    next_number: u64,
    /// The functions that it knows, by their places; see `Definition`.
    known: Vec<u64>,
    /// For headers.
    head: Vec<u8>,
}

impl Member {
    pub(super) fn new(
        child: Arc<Child>,
        writer: Writer,
        reader: Reader,
        lane: Option<Lane>,
    ) -> Self {
        Self {
            child,
            stage: Stage::Starting,
            killed: None,
            stalled: false,
            clogged: false,
            handed: 0,
            since: Instant::now(),
            writer,
            reader,
            lane,
            lent: Lent::default(),
            released: Vec::new(),
            in_flight: VecDeque::new(),
            sending: None,
            incoming: None,
            next_number: 0,
            known: Vec::new(),
            head: Vec::with_capacity(HEADER),
        }
    }

    /// The tasks that it has.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it can be given a task.
    pub(super) fn takes_tasks(&self) -> bool {
        self.stage == Stage::Ready && self.killed.is_none() && !self.clogged
    }

    /// Whether it waits for one.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.takes_tasks()
    }

    /// The task that it runs, if it has one.
    pub(super) fn current(&self) -> Option<&Task> {
        Some(&self.in_flight.front()?.task)
    }

    /// Whether it has the task.
    pub(super) fn has(&self, id: crate::future::FutureId) -> bool {
        self.in_flight.iter().any(|flight| flight.task.id() == id)
    }

    /// Whether the frame of a task fits in now.
    pub(super) fn has_room_for_task(&self, task: &Task) -> bool {
        let definition = self.missing(task).map_or(0, |missing| {
            HEADER + missing.bytes.len().next_multiple_of(8)
        });
        self.has_room_for(RELEASE + definition + task.argument.len().next_multiple_of(8))
    }

    /// Whether the frame of an argument so long fits in now.
    fn has_room_for(&self, length: usize) -> bool {
        let room = self.writer.room().unwrap_or(0);
        self.sending.is_none() && room >= HEADER + length.next_multiple_of(8)
    }

    /// What the worker has to learn first.
    fn missing<'a>(&self, task: &'a Task) -> Option<&'a Definition> {
        let definition = task.definition.as_deref()?;
        let known = self.known.get(usize::from(definition.place));
        (known != Some(&definition.number)).then_some(definition)
    }

    /// Has the worker learn the function of a task, if it does not know it.
    fn teach(&mut self, task: &Task) -> Result<(), Corrupt> {
        let Some(missing) = self.missing(task) else {
            return Ok(());
        };
        let call = Call {
            order: Order::Define,
            is_attached: false,
            length: missing.bytes.len() as u64,
            function: missing.place.into(),
            number: u64::MAX,
        };
        self.write_whole(&call, &missing.bytes)?;
        let place = usize::from(missing.place);
        if self.known.len() <= place {
            self.known.resize(place + 1, 0);
        }
        self.known[place] = missing.number;
        Ok(())
    }

    /// Hands a task over. What does not fit in is written later, by
    /// [`pump`](Self::pump): only for a worker that has nothing else.
    pub(super) fn hand(&mut self, task: Task) -> Result<(), Corrupt> {
        self.give_back()?;
        self.teach(&task)?;
        if let (Some(attachment), Some(lane)) = (&task.attachment, &self.lane) {
            // The worker has nothing else to do, and has received what was sent before. One that
            // has closed its end is on its way to the end.
            let _ = lane.send(attachment, Duration::ZERO);
            self.lent.note(attachment);
        }
        let call = Call {
            order: Order::Call,
            is_attached: task.attachment.is_some(),
            length: task.argument.len() as u64,
            function: task.place(),
            number: self.next_number,
        };
        if self.in_flight.is_empty() {
            self.since = Instant::now();
        }
        let is_first = self.in_flight.is_empty();
        let mut task = task;
        if is_first {
            task.note_turn();
        }
        self.in_flight.push_back(Flight {
            task,
            number: self.next_number,
            position: self.writer.position(),
        });
        self.next_number += 1;
        self.handed += 1;
        self.write_whole(&call, &[])?;
        self.sending = Some(0);
        self.pump()?;
        if self.sending.is_some() {
            // Nobody may be there to go on, but whom the worker wakes when there is room.
            self.writer.set_rest(Rest::Patient);
            // Once more: room that came before wakes nobody.
            self.pump()?;
        }
        Ok(())
    }

    /// Gives the worker back what it has sent, and nobody uses any more.
    fn give_back(&mut self) -> Result<(), Corrupt> {
        let lane = self.lane.as_ref();
        let Some(released) = lane.and_then(|lane| lane.releases().take()) else {
            return Ok(());
        };
        let call = Call {
            order: Order::Release,
            is_attached: false,
            length: released.len() as u64,
            function: 0,
            number: u64::MAX,
        };
        self.write_whole(&call, &released)
    }

    /// Writes a header and a short payload.
    fn write_whole(&mut self, call: &Call, payload: &[u8]) -> Result<(), Corrupt> {
        // There is room: the whole frame fits in, or the worker has nothing and is not clogged.
        let whole = HEADER + payload.len().next_multiple_of(8);
        let zeros = whole - HEADER - payload.len();
        let written = self.writer.write(&call.encode())?
            + self.writer.write(payload)?
            + self.writer.write(&[0; 8][..zeros])?;
        if written == whole {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }

    /// Sends the call of the initializer, before anything else.
    pub(super) fn initialize(&mut self, function: u64, argument: &[u8]) -> Result<(), Corrupt> {
        self.order(Order::Initialize, function, argument)
    }

    /// Tells the worker to end when it has done what it has.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Closing;
        if self.order(Order::Close, 0, &[]).is_err() {
            // There is no room, or the memory is corrupt.
            self.child.kill();
        }
    }

    fn order(&mut self, order: Order, function: u64, argument: &[u8]) -> Result<(), Corrupt> {
        if !self.has_room_for(argument.len()) {
            return Err(Corrupt);
        }
        let call = Call {
            order,
            is_attached: false,
            length: argument.len() as u64,
            function,
            number: u64::MAX,
        };
        self.write_whole(&call, argument)?;
        self.publish(true);
        Ok(())
    }

    /// Shows the worker what was written, `and_that_is_all` for now.
    fn publish(&self, and_that_is_all: bool) {
        self.writer.note_cpu();
        if self.writer.publish(and_that_is_all) {
            self.wake();
        }
    }

    fn wake(&self) {
        // A worker that has closed its end is on its way to the end.
        let _ = self.child.socket.wake();
    }

    /// Writes what there is room for.
    pub(super) fn pump(&mut self) -> Result<(), Corrupt> {
        while let (Some(done), Some(flight)) = (self.sending, self.in_flight.back()) {
            let argument = &flight.task.argument;
            let whole = argument.len().next_multiple_of(8);
            let end = argument.len().min(done + PIECE);
            let mut written = match argument.get(done..end) {
                Some(piece) => self.writer.write(piece)?,
                None => 0,
            };
            if done + written >= argument.len() {
                let zeros = &[0; 8][..whole - (done + written)];
                written += self.writer.write(zeros)?;
            }
            self.sending = (done + written < whole).then_some(done + written);
            self.publish(self.sending.is_none());
            // Only a full stream is a reason to stop: it has woken a patient worker.
            if written == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is something to receive or to write.
    pub(super) fn has_work(&self) -> bool {
        !matches!(self.reader.available(), Ok(0))
            || self.sending.is_some() && !matches!(self.writer.room(), Ok(0))
            || self.clogged && !self.is_full()
    }

    /// Whether there is not much room. (A function to be learnt, and an argument that is not
    /// long, have more than enough in the half of a stream.)
    fn is_full(&self) -> bool {
        matches!(self.writer.room(), Ok(0..HALF))
    }

    /// To be called when the worker may have got idle.
    fn note_idle(&mut self) {
        self.clogged = self.in_flight.is_empty() && self.is_full();
    }

    /// Has the worker write to the socket when something happens, or not.
    pub(super) fn set_asleep(&self, asleep: bool) {
        let rest = |is_long| match (asleep, is_long) {
            (false, _) => Rest::Awake,
            (true, true) => Rest::Patient,
            (true, false) => Rest::Asleep,
        };
        self.reader.set_rest(rest(self.incoming.is_some()));
        let waits_for_room = self.sending.is_some() || self.clogged;
        self.writer.set_rest(if waits_for_room {
            rest(true)
        } else {
            Rest::Awake
        });
    }

    /// Whether a thread may nap until something comes: it is not woken for room.
    pub(super) fn lets_nap(&self) -> bool {
        self.sending.is_none() && !self.clogged
    }

    /// What tells whether something has come, without the pool's lock.
    pub(super) fn watch(&self) -> Watch {
        self.reader.watch()
    }

    /// Has the worker wake one thread, without the socket.
    pub(super) fn begin_nap(&self) -> Nap {
        self.reader.begin_nap()
    }

    /// Receives what has come, short answers into `shared`, and goes on with writing.
    pub(super) fn receive(
        &mut self,
        arrivals: &mut Vec<Arrival>,
        shared: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        self.pump()?;
        self.clogged &= self.is_full();
        let before = arrivals.len();
        let mut result = Ok(true);
        let mut read = false;
        while let Ok(true) = result {
            result = self.receive_one(arrivals, shared);
            read |= matches!(result, Ok(true));
        }
        if (read || self.incoming.is_some()) && self.reader.release(true) {
            self.wake();
        }
        if arrivals.len() > before {
            if let Some(first) = self.in_flight.front_mut() {
                first.task.note_turn();
                self.since = Instant::now();
            }
            self.note_idle();
        }
        result.map(drop)
    }

    fn receive_one(
        &mut self,
        arrivals: &mut Vec<Arrival>,
        shared: &mut Vec<u8>,
    ) -> Result<bool, Corrupt> {
        if self.incoming.is_some() {
            return self.receive_more(arrivals);
        }
        self.head.clear();
        if !self.reader.peek(HEADER, &mut self.head)? {
            return Ok(false);
        }
        let reply = Reply::decode(&self.head)?;
        let frame = padded(reply.length).ok_or(Corrupt)?;
        let length = usize::try_from(reply.length).map_err(|_| Corrupt)?;
        self.reader.skip(HEADER)?;
        let available = self.reader.available()? as u64;
        if frame > available || length > PIECE {
            let mut bytes = Vec::new();
            reserve(&mut bytes, length)?;
            self.incoming = Some(Incoming {
                reply,
                bytes,
                left: frame,
            });
            return Ok(true);
        }
        let start = shared.len();
        self.reader.read(length, shared)?;
        self.reader.skip(length.next_multiple_of(8) - length)?;
        self.arrive(
            reply,
            Content::Shared(start..start + length),
            arrivals,
            shared,
        )?;
        Ok(true)
    }

    fn receive_more(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool, Corrupt> {
        let Some(incoming) = &mut self.incoming else {
            return Ok(false);
        };
        let payload = usize::try_from(incoming.reply.length).map_err(|_| Corrupt)?;
        let missing = payload - incoming.bytes.len();
        let read = if missing > 0 {
            self.reader.read(missing.min(PIECE), &mut incoming.bytes)?
        } else {
            let fill = usize::try_from(incoming.left).map_err(|_| Corrupt)?;
            self.reader.skip(fill)?
        };
        incoming.left -= read as u64;
        if incoming.left > 0 {
            if read > 0 && self.reader.release(false) {
                self.wake();
            }
            return Ok(read > 0);
        }
        if let Some(incoming) = self.incoming.take() {
            let content = Content::Own(incoming.bytes);
            self.arrive(incoming.reply, content, arrivals, &mut Vec::new())?;
        }
        Ok(true)
    }

    /// A whole frame has come.
    fn arrive(
        &mut self,
        reply: Reply,
        content: Content,
        arrivals: &mut Vec<Arrival>,
        shared: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        let is_answer = matches!(
            reply.kind,
            ReplyKind::Value | ReplyKind::Failure | ReplyKind::Part
        );
        let attachment = match (reply.is_attached, &self.lane) {
            (false, _) => None,
            (true, Some(lane)) if is_answer => Some(Box::new(lane.receive().map_err(|_| Corrupt)?)),
            _ => return Err(Corrupt),
        };
        match (reply.kind, self.stage) {
            (ReplyKind::Ready, Stage::Closing) => {}
            (ReplyKind::Release, _) => {
                let bytes = match &content {
                    Content::Shared(place) => &shared[place.clone()],
                    Content::Own(bytes) => bytes,
                };
                let mut released = self.lent.released(bytes);
                self.released.append(&mut released);
            }
            (ReplyKind::Ready, Stage::Starting) => {
                self.stage = Stage::Ready;
                arrivals.push(Arrival::Ready);
            }
            (ReplyKind::Unusable, Stage::Starting) => {
                let bytes = match content {
                    Content::Shared(place) => shared.split_off(place.start),
                    Content::Own(bytes) => bytes,
                };
                arrivals.push(Arrival::Unusable(bytes));
            }
            (ReplyKind::Value | ReplyKind::Failure, Stage::Ready | Stage::Closing) => {
                let mut flight = self.in_flight.pop_front().ok_or(Corrupt)?;
                if flight.number != reply.number
                    || self.in_flight.is_empty() && self.sending.is_some()
                {
                    self.in_flight.push_front(flight);
                    return Err(Corrupt);
                }
                self.stalled = false;
                // If it came to its turn and to its end since we looked.
                flight.task.note_turn();
                let mut rest = Vec::new();
                if reply.left > 0 {
                    let begun = flight.task.items().checked_sub(reply.left);
                    let begun = begun.filter(|begun| *begun > 0).ok_or(Corrupt)?;
                    // The worker waits until we say that we have read this: what is behind comes
                    // after the rest, as before.
                    rest = self.take_back(0);
                    rest.push(flight.task.split(begun).ok_or(Corrupt)?);
                }
                arrivals.push(Arrival::Answer(Answer {
                    task: flight.task,
                    kind: reply.kind,
                    content,
                    attachment,
                    nanoseconds: reply.nanoseconds,
                    rest,
                }));
            }
            (ReplyKind::Part, Stage::Ready | Stage::Closing) => {
                let flight = self.in_flight.front_mut().ok_or(Corrupt)?;
                if flight.number != reply.number {
                    return Err(Corrupt);
                }
                arrivals.push(Arrival::Answer(Answer {
                    task: flight.task.take_first(reply.left).ok_or(Corrupt)?,
                    kind: ReplyKind::Value,
                    content,
                    attachment,
                    nanoseconds: reply.nanoseconds,
                    rest: Vec::new(),
                }));
            }
            _ => return Err(Corrupt),
        }
        Ok(())
    }

    /// Whether the worker has begun with its first task.
    pub(super) fn has_begun_first(&self) -> bool {
        self.in_flight
            .front()
            .is_some_and(|flight| self.has_begun(flight))
    }

    /// Whether the worker has begun with a frame.
    fn has_begun(&self, flight: &Flight) -> bool {
        // What was not read is still there as it was written, with the claim. It was read; or
        // the memory is corrupt, and it may have been.
        !self.is_unread(flight) || Claim::Taken.holds(self.word(flight))
    }

    /// Whether the frame is still in the stream.
    fn is_unread(&self, flight: &Flight) -> bool {
        let consumed = self.writer.consumed();
        consumed.is_ok_and(|consumed| consumed <= flight.position)
    }

    fn word(&self, flight: &Flight) -> &AtomicU32 {
        self.writer.word(flight.position)
    }

    /// Takes back what the worker has not begun with, the last first, but for `keep` tasks.
    pub(super) fn take_back(&mut self, keep: usize) -> Vec<Task> {
        let mut taken = Vec::new();
        while self.in_flight.len() > keep {
            let Some(flight) = self.in_flight.pop_back() else {
                break;
            };
            // A frame that is not written to its end is its worker's: it has nothing else.
            let recalled = self.sending.is_none()
                && self.is_unread(&flight)
                && Claim::Recalled.claim(self.word(&flight));
            if !recalled {
                self.in_flight.push_back(flight);
                break;
            }
            self.handed -= 1;
            taken.push(flight.task);
        }
        self.note_idle();
        taken
    }

    /// Takes back one task, if the worker has not begun with it.
    pub(super) fn recall(&mut self, id: crate::future::FutureId) -> Option<Task> {
        let place = self
            .in_flight
            .iter()
            .position(|flight| flight.task.id() == id)?;
        let is_last = place + 1 == self.in_flight.len();
        let is_whole = !is_last || self.sending.is_none();
        let flight = &self.in_flight[place];
        if !is_whole || !self.is_unread(flight) || !Claim::Recalled.claim(self.word(flight)) {
            return None;
        }
        self.handed -= 1;
        let flight = self.in_flight.remove(place);
        self.note_idle();
        flight.map(|flight| flight.task)
    }

    /// Whether the worker has begun with a task; none if it does not have it.
    pub(super) fn has_begun_with(&self, id: crate::future::FutureId) -> Option<bool> {
        let flight = self
            .in_flight
            .iter()
            .find(|flight| flight.task.id() == id)?;
        Some(self.has_begun(flight))
    }

    /// What a dead worker had done of the span that it was at, from which it is taken: it has not
    /// answered, but each result was in the memory at once, as a draft of the answer. All that it
    /// has sent was received.
    pub(super) fn take_draft(&mut self) -> Option<Answer> {
        let flight = self.in_flight.front_mut()?;
        let items = flight.task.span_items()?;
        let (done, bytes) = self.reader.draft(HEADER)?;
        let task = if done == items {
            self.in_flight.pop_front()?.task
        } else {
            flight.task.take_first(done)?
        };
        Some(Answer {
            task,
            kind: ReplyKind::Value,
            content: Content::Own(bytes),
            attachment: None,
            nanoseconds: 0,
            rest: Vec::new(),
        })
    }

    /// What a dead worker has left.
    pub(super) fn orphans(&mut self) -> Vec<Orphan> {
        let flights = mem::take(&mut self.in_flight);
        let orphan = |flight: Flight| {
            if self.has_begun(&flight) {
                Orphan::Running(flight.task)
            } else {
                Orphan::NotBegun(flight.task)
            }
        };
        flights.into_iter().map(orphan).collect()
    }
}
