//! One worker, as the pool sees it: what it was handed, and what has come back.
//!
//! A worker runs its frames in the order in which they were written, and answers each
//! before it claims the next. So at most one of the frames in flight is claimed and not
//! answered: that is the task it runs.
//!
//! `member/send.rs` has what goes to it, `member/receive.rs` what comes back.

#![forbid(unsafe_code)]

mod receive;
mod send;

use super::channel::{
    Attachment, CAPACITY, Claim, HEADER, Lane, Lent, Nap, Reader, Received, Reply, ReplyKind, Rest,
    Watch, Writer,
};
use super::child::Child;
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
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers, which are moved once"
)]
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
    /// When it is killed if it has not ended by itself, as it was asked to.
    pub(super) kill_at: Option<Instant>,
    /// When it could work.
    pub(super) ready_since: Option<Instant>,
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
    /// The initializer's argument, until it is written.
    opening: Option<Arc<[u8]>>,
    /// How much of the argument of the last task in flight (or the initializer's, which comes before
    /// all tasks), and of what fills its frame up, was written; none if all is.
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
            kill_at: None,
            ready_since: None,
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
            opening: None,
            sending: None,
            incoming: None,
            next_number: 0,
            known: Vec::new(),
            head: Vec::with_capacity(HEADER),
        }
    }

    /// Returns the tasks that the worker was handed and has not answered.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.in_flight.iter().map(|flight| &flight.task)
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

    /// Whether the worker has begun with its first task.
    pub(super) fn has_begun_first(&self) -> bool {
        self.in_flight
            .front()
            .is_some_and(|flight| self.has_begun(flight))
    }

    /// Whether the worker has been at its first task for longer than `limit`, as far as can be seen.
    pub(super) fn is_long_at_first(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.since) > limit
            && self.has_begun_first()
            // Otherwise the task has ended, and its answer waits to be received.
            && matches!(self.reader.available(), Ok(0))
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
            self.handed -= flight.task.weight();
            taken.push(flight.task);
        }
        self.note_idle();
        taken
    }

    /// Takes back what the worker has not begun with of the tasks that come after `order`, the last
    /// first.
    pub(super) fn take_back_after(&mut self, order: (u64, u32)) -> Vec<Task> {
        let later = self.in_flight.iter().rev();
        let later = later.take_while(|flight| flight.task.order() > order);
        let keep = self.in_flight.len() - later.count();
        self.take_back(keep)
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
        self.handed -= flight.task.weight();
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
