//! The pool's handle of one worker: its tasks in flight, and its replies.
//!
//! A worker runs its frames in the order in which they were written, and answers each frame before it claims
//! the next. So at most one of the frames in flight is claimed and not answered: that of the running task.
//!
//! `send.rs` has the sending half, `receive.rs` the receiving half.

#![forbid(unsafe_code)]

mod receive;
mod recorded;
mod send;

use crate::process::channel::{
    Attachment, CAPACITY, Claim, FutexPark, HEADER, LentSegments, MappedSegment, ParkState, Reader,
    Reply, ReplyKind, SegmentChannel, Watch, Writer,
};
use crate::process::pool::child::Child;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::recorded::RecordedWorker;
use crate::recording::processes::RecordedPool;
use crate::runtime::sync::atomic::AtomicU32;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of bytes that are written or read before the other side is shown them. So both sides work on a
/// long value at the same time.
const PIECE: usize = 128 * 1024;

/// Minimum room in the stream of an idle worker, in bytes. A patient writer is woken when the stream has this
/// much room.
const HALF: usize = CAPACITY / 2;

/// The stage of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The worker has not said that it can work.
    Starting,
    /// The worker takes tasks.
    Ready,
    /// The worker was told to end when it is done.
    Closing,
}

/// The reason why the supervisor killed a worker.
#[derive(Clone, Debug)]
pub(crate) enum Kill {
    /// The worker's task ran too long.
    TimeLimit,
    /// The worker's task was terminated.
    Terminated,
    /// The worker is faulty, for this reason.
    Fault(Arc<str>),
}

/// A task that was dispatched to a worker.
#[derive(Debug)]
struct InFlight {
    task: Task,
    number: u64,
    /// The position of the task's frame in the stream.
    position: u64,
}

/// A long answer that is being read.
#[derive(Debug)]
struct Incoming {
    reply: Reply,
    bytes: Vec<u8>,
    /// The bytes left, with the padding of the frame.
    left: u64,
}

/// A message from a worker.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are answers, which are moved once"
)]
pub(crate) enum Arrival {
    Answer(Answer),
    /// The worker can work.
    Ready,
    /// The worker cannot work: the bytes of the failure.
    Unusable(Vec<u8>),
}

/// The answer to a task.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) task: Task,
    pub(crate) kind: ReplyKind,
    pub(crate) content: Content,
    /// The out-of-band buffers of the answer, or why they failed.
    pub(crate) attachment: Option<Box<io::Result<MappedSegment>>>,
    /// The time that the task ran.
    pub(crate) nanoseconds: u64,
    /// The items of the task's span that were not begun, and the tasks behind the span, the last first.
    pub(crate) rest: Vec<Task>,
}

/// The place of the bytes of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    Shared(std::ops::Range<usize>),
    Own(Vec<u8>),
}

impl Content {
    /// Returns the bytes; `shared` has those of short answers.
    pub(crate) fn bytes<'a>(&'a self, shared: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Shared(place) => shared.get(place.clone()).unwrap_or_default(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// A task whose worker has died.
#[derive(Debug)]
pub(crate) enum Orphan {
    /// A task that the worker had not begun.
    NotBegun(Task),
    /// A task that the worker was running.
    Running(Task),
}

pub(crate) struct WorkerHandle {
    pub(crate) child: Arc<Child>,
    pub(crate) stage: Stage,
    pub(crate) killed: Option<Kill>,
    /// The moment when the worker is killed if it has not ended by itself, as it was asked to.
    pub(crate) kill_at: Option<Instant>,
    /// The moment when the worker could work.
    pub(crate) ready_since: Option<Instant>,
    /// Whether the worker's task has run for so long that nothing is queued behind it.
    pub(crate) stalled: bool,
    /// Whether the worker has nothing to do, but recalled frames fill its stream. The worker will pass over
    /// them when it comes to them.
    pub(crate) clogged: bool,
    /// The number of tasks ever dispatched to the worker.
    pub(crate) handed: usize,
    /// The moment when the worker was started, and later, when its running task came to its turn.
    pub(crate) since: Instant,
    writer: Writer,
    reader: Reader,
    /// The channel for segments; none if long buffers go through the streams.
    lane: Option<SegmentChannel>,
    /// Segments that were sent and not yet released.
    lent: LentSegments,
    /// Attachments that the worker has released.
    pub(crate) released: Vec<Arc<Attachment>>,
    in_flight: VecDeque<InFlight>,
    /// The initializer's argument, until it is written.
    opening: Option<Arc<[u8]>>,
    /// Number of bytes written of the argument of the last task in flight, with the padding of the frame.
    /// Before all tasks, the argument is the initializer's. None if all bytes are written.
    sending: Option<usize>,
    incoming: Option<Incoming>,
    next_number: u64,
    /// The functions that the worker knows, by their places; see `Definition`.
    known: Vec<u64>,
    /// A buffer for headers.
    head: Vec<u8>,
    /// The worker in recordings.
    pub(crate) recorded: RecordedWorker,
}

impl WorkerHandle {
    pub(crate) fn new(
        child: Arc<Child>,
        writer: Writer,
        reader: Reader,
        lane: Option<SegmentChannel>,
        pool: &Arc<RecordedPool>,
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
            lent: LentSegments::default(),
            released: Vec::new(),
            in_flight: VecDeque::new(),
            opening: None,
            sending: None,
            incoming: None,
            next_number: 0,
            known: Vec::new(),
            head: Vec::with_capacity(HEADER),
            recorded: RecordedWorker::new(pool),
        }
    }

    /// Returns the tasks that were dispatched to the worker and not answered.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.in_flight.iter().map(|flight| &flight.task)
    }

    /// Returns the number of tasks that the worker has.
    pub(crate) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns whether a task can be dispatched to the worker.
    pub(crate) fn takes_tasks(&self) -> bool {
        self.stage == Stage::Ready && self.killed.is_none() && !self.clogged
    }

    /// Returns whether the worker waits for a task.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.takes_tasks()
    }

    /// Returns the task that the worker runs, if it has one.
    pub(crate) fn current(&self) -> Option<&Task> {
        Some(&self.in_flight.front()?.task)
    }

    /// Returns whether the worker has the task.
    pub(crate) fn has(&self, id: crate::id::FutureId) -> bool {
        self.in_flight.iter().any(|flight| flight.task.id() == id)
    }

    /// Returns whether there is something to receive or to write.
    pub(crate) fn has_work(&self) -> bool {
        !matches!(self.reader.available(), Ok(0))
            || self.sending.is_some() && !matches!(self.writer.room(), Ok(0))
            || self.clogged && !self.is_full()
    }

    /// Returns whether the stream is nearly full. (The half of a stream is more than enough for a function to
    /// be learnt, and an argument that is not long.)
    fn is_full(&self) -> bool {
        matches!(self.writer.room(), Ok(0..HALF))
    }

    /// Notes whether the worker has got idle. To be called when that may be so.
    fn note_idle(&mut self) {
        self.clogged = self.in_flight.is_empty() && self.is_full();
    }

    /// Tells the worker whether to write to the socket when something happens.
    pub(crate) fn set_asleep(&self, asleep: bool) {
        let rest = |is_long| match (asleep, is_long) {
            (false, _) => ParkState::Awake,
            (true, true) => ParkState::Patient,
            (true, false) => ParkState::Asleep,
        };
        self.reader.set_rest(rest(self.incoming.is_some()));
        let waits_for_room = self.sending.is_some() || self.clogged;
        self.writer.set_rest(if waits_for_room {
            rest(true)
        } else {
            ParkState::Awake
        });
    }

    /// Returns whether a thread may nap until something comes: it is not woken for room.
    pub(crate) fn lets_nap(&self) -> bool {
        self.sending.is_none() && !self.clogged
    }

    /// Returns a view that tells without the pool's lock whether something has come.
    pub(crate) fn watch(&self) -> Watch {
        self.reader.watch()
    }

    /// Makes the worker wake one thread by a futex, without the socket.
    pub(crate) fn begin_nap(&self) -> Option<FutexPark> {
        self.reader.begin_nap()
    }

    /// Returns whether the worker has begun with its first task.
    pub(crate) fn has_begun_first(&self) -> bool {
        self.in_flight
            .front()
            .is_some_and(|flight| self.has_begun(flight))
    }

    /// Returns the task that the worker runs, as far as the pool knows.
    pub(crate) fn running(&self) -> Option<&Task> {
        let has_begun = self.has_begun_first() && matches!(self.reader.available(), Ok(0));
        self.current().filter(|_| has_begun)
    }

    /// Returns whether the worker has been at its first task for longer than `limit`, as far as the pool
    /// knows.
    pub(crate) fn is_long_at_first(&self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.since) > limit
            && self.has_begun_first()
            // Otherwise the task has ended, and its answer waits to be received.
            && matches!(self.reader.available(), Ok(0))
    }

    /// Returns whether the worker has begun with a frame.
    fn has_begun(&self, flight: &InFlight) -> bool {
        // An unread frame is still there as it was written, with its claim. A frame that is not there was
        // read; or the memory is corrupt, and it may have been.
        !self.is_unread(flight) || Claim::Taken.holds(self.word(flight))
    }

    /// Returns whether the frame is still in the stream.
    fn is_unread(&self, flight: &InFlight) -> bool {
        let consumed = self.writer.consumed();
        consumed.is_ok_and(|consumed| consumed <= flight.position)
    }

    fn word(&self, flight: &InFlight) -> &AtomicU32 {
        self.writer.word(flight.position)
    }

    /// Recalls the tasks that the worker has not begun, the last first, except for `keep` tasks.
    pub(crate) fn take_back(&mut self, keep: usize) -> Vec<Task> {
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

    /// Recalls the tasks after `order` that the worker has not begun, the last first.
    pub(crate) fn take_back_after(&mut self, order: (u64, u32)) -> Vec<Task> {
        let later = self.in_flight.iter().rev();
        let later = later.take_while(|flight| flight.task.order() > order);
        let keep = self.in_flight.len() - later.count();
        self.take_back(keep)
    }

    /// Recalls one task, if the worker has not begun it.
    pub(crate) fn recall(&mut self, id: crate::id::FutureId) -> Option<Task> {
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

    /// Returns whether the worker has begun with a task; none if it does not have it.
    pub(crate) fn has_begun_with(&self, id: crate::id::FutureId) -> Option<bool> {
        let flight = self
            .in_flight
            .iter()
            .find(|flight| flight.task.id() == id)?;
        Some(self.has_begun(flight))
    }

    /// Takes the results of the span that a dead worker was at. The worker has not sent its answer, but has
    /// copied each result into the memory at once, as a draft of the answer. Requires that everything that
    /// the worker has sent was received.
    pub(crate) fn take_draft(&mut self) -> Option<Answer> {
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

    /// Returns the tasks that a dead worker has left.
    pub(crate) fn orphans(&mut self) -> Vec<Orphan> {
        let flights = mem::take(&mut self.in_flight);
        let orphan = |flight: InFlight| {
            if self.has_begun(&flight) {
                Orphan::Running(flight.task)
            } else {
                Orphan::NotBegun(flight.task)
            }
        };
        flights.into_iter().map(orphan).collect()
    }
}
