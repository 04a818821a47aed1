//! The life of a worker process.
//!
//! A worker has one thread, which reads a frame, claims it, calls the function, replies, and reads the next
//! frame. The worker ends when it is told to, and when its supervisor has died: the socket ends, and the system
//! kills a busy worker (`PR_SET_PDEATHSIG`).

pub(crate) mod fork_server;
pub(crate) mod init;
mod partial_reply;

use crate::id::PoolId;
use crate::process::channel::handshake::{
    FRONTEND, Mismatch, NO_FUNCTION, NO_LANE, Note, Refusal, Setup,
};
use crate::process::channel::{
    Attachment, Call, Claim, Corrupt, HEADER, LentSegments, MappedSegment, Memory, Order,
    ParkState, Reader, Reply, ReplyKind, STAMP, SegmentChannel, Writer, padded, reserve,
};
use crate::process::contract::{Answer, Called, Caller, unpack};
use crate::process::forks;
use crate::process::function::Trampolines;
use crate::process::worker::partial_reply::PartialReply;
use crate::runtime::crew::{Crew, Single};
use crate::runtime::os::clock;
use crate::runtime::os::image::{Identity, image};
use crate::runtime::os::parent_death::Parent;
use crate::runtime::os::shared::Shared;
use crate::runtime::os::socket::{Packet, Socket};
use crate::runtime::os::{Errno, fallback, fork, limits, parent_death, posix_signals};
use crate::runtime::spin::Spin;
use crate::runtime::spin::place::Place;
use crate::task::current::Worker;
use crate::task::panic;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::time::Duration;

/// The number of bytes that are written or read before the other side is shown them.
pub(crate) const PIECE: usize = 128 * 1024;
/// The time that the worker naps before it sleeps. A nap is cheaper to end, but a supervisor that has died
/// does not end it.
const NAP: Duration = Duration::from_micros(500);
/// The time that the worker waits until the supervisor has taken some of too many attachments.
const PATIENCE: Duration = Duration::from_secs(10);
/// The length beyond which buffers are freed after use.
const KEPT: usize = 1024 * 1024;

/// The reason why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("its supervisor has ended")]
    Alone,
    #[error("its task ends the worker")]
    Ended,
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Works for the supervisor at the other end, then ends the process: also when the parent ends.
pub(crate) fn run(socket: &Socket, parent: &Parent) -> ! {
    // The exit code of a worker that cannot go on, which is no task's doing.
    const TROUBLE: i32 = 70;
    let crew: Arc<dyn Crew> = Arc::new(Single::new());
    let ended = Worker::new(PoolId::next(), &crew, None, None).enter(|| serve(socket, parent));
    match ended {
        Ok(()) | Err(Trouble::Alone) => process::exit(0),
        Err(trouble) => {
            // If that does not arrive, the exit code has to do.
            let _ = socket.send(&Refusal(trouble.to_string()).encode(), None);
            process::exit(TROUBLE)
        }
    }
}

/// Runs a worker of another frontend, which is no fork or new start of this program.
pub(crate) fn serve_frontend(socket: &Socket, caller: &mut dyn Caller) -> io::Result<()> {
    let ended = open(socket, FRONTEND).and_then(|memory| {
        let lane = match socket.receive(true)? {
            Packet::Message(_, Some(lane)) => Some(SegmentChannel::from_fd(lane)?),
            Packet::Message(kind, None) if kind == NO_LANE => {
                caller.send_no_attachments();
                None
            }
            _ => return Err(Trouble::Alone),
        };
        forks::watch_forks();
        Loop::new(socket, &memory, caller, lane).run()
    });
    match ended {
        Ok(()) | Err(Trouble::Alone | Trouble::Ended) => Ok(()),
        Err(trouble) => {
            // If that does not arrive, the error has to do.
            let _ = refuse(socket, &trouble.to_string());
            Err(io::Error::other(trouble))
        }
    }
}

/// Tells the supervisor why this worker cannot work.
pub(crate) fn refuse(socket: &Socket, why: &str) -> io::Result<()> {
    socket.send(&Refusal(why.to_owned()).encode(), None)
}

fn serve(socket: &Socket, parent: &Parent) -> Result<(), Trouble> {
    if !parent_death::end_with_parent(&[socket.as_fd()], parent)? {
        return Err(Trouble::Alone);
    }
    let memory = open(socket, image()?.identity())?;
    posix_signals::leave_interrupts_to_parent();
    forks::watch_forks();
    panic::install_hook();
    Loop::new(socket, &memory, &mut Trampolines, None).run()
}

/// Follows the first packet, and attaches to the memory that came with it.
fn open(socket: &Socket, identity: Identity) -> Result<Arc<Memory>, Trouble> {
    let Packet::Message(setup, file) = socket.receive(true)? else {
        return Err(Trouble::Alone);
    };
    let setup = match Setup::decode(&setup, identity) {
        Ok(setup) => setup,
        Err(Mismatch::OtherBuild) => {
            let text = "the worker is another build of the program than the one that started it";
            return Err(io::Error::other(text).into());
        }
        Err(Mismatch::Garbled) => return Err(Corrupt.into()),
    };
    if let Some(bytes) = setup.memory_limit {
        limits::limit_data(bytes)?;
    }
    let capacity = usize::try_from(setup.capacity).map_err(|_| Corrupt)?;
    let shared = match (file, setup.segment) {
        (_, Some(number)) => Shared::Segment(number),
        (Some(file), None) => Shared::File(file),
        // It was sent: this process has no descriptor left for it.
        (None, None) => return Err(io::Error::from(Errno::MFILE).into()),
    };
    Ok(Memory::attach(&shared, capacity)?)
}

struct Loop<'a> {
    socket: &'a Socket,
    reader: Reader,
    writer: Writer,
    head: Vec<u8>,
    result: Answer,
    /// The stamp of the next answer.
    stamp: Option<[u64; 2]>,
    waiting: Place,
    /// Carries out calls.
    caller: RefCell<&'a mut dyn Caller>,
    /// The channel for segments; none if long buffers go through the streams.
    lane: Option<SegmentChannel>,
    /// Segments that were sent and not yet released.
    lent: LentSegments,
}

impl<'a> Loop<'a> {
    fn new(
        socket: &'a Socket,
        memory: &Arc<Memory>,
        caller: &'a mut dyn Caller,
        lane: Option<SegmentChannel>,
    ) -> Self {
        Self {
            socket,
            reader: Reader::to_worker(memory),
            writer: Writer::from_worker(memory),
            head: Vec::with_capacity(HEADER),
            result: Answer::default(),
            stamp: None,
            waiting: Place::default(),
            caller: RefCell::new(caller),
            lane,
            lent: LentSegments::default(),
        }
    }

    fn run(&mut self) -> Result<(), Trouble> {
        let mut argument = Vec::new();
        loop {
            let call = self.next()?;
            if call.order == Order::Close {
                return Ok(());
            }
            let length = usize::try_from(call.length).map_err(|_| Corrupt)?;
            let whole = padded(call.length).ok_or(Corrupt)?;
            let content = if length <= PIECE {
                argument.clear();
                self.read(length, &mut argument)?;
                Cow::Borrowed(argument.as_slice())
            } else {
                let mut own = Vec::new();
                reserve(&mut own, length)?;
                self.read(length, &mut own)?;
                Cow::Owned(own)
            };
            self.skip(whole - call.length)?;
            self.release(true)?;
            self.call(&call, content)?;
        }
    }

    /// Returns the next frame that is this worker's, read up to its payload.
    fn next(&mut self) -> Result<Call, Trouble> {
        loop {
            self.head.clear();
            match self.reader.available()? {
                0 => {
                    self.wait_for_frame()?;
                    continue;
                }
                // A header is shown as a whole.
                1..HEADER => return Err(Corrupt.into()),
                HEADER.. => self.reader.peek(HEADER, &mut self.head)?,
            };
            let call = Call::decode(&self.head)?;
            let claimed = Claim::Taken.claim(self.reader.word());
            self.reader.skip(HEADER)?;
            if claimed {
                self.writer.note_cpu();
                return Ok(call);
            }
            // The call's attachment goes back to the sender.
            drop(self.attachment(&call)?);
            self.skip(padded(call.length).ok_or(Corrupt)?)?;
            self.release(true)?;
        }
    }

    fn say_ready(&mut self) -> Result<(), Trouble> {
        self.result.clear();
        self.answer(ReplyKind::Ready, u64::MAX, 0)
    }

    /// Returns the out-of-band buffers of a call.
    fn attachment(&self, call: &Call) -> Result<Option<io::Result<MappedSegment>>, Trouble> {
        match (call.is_attached, &self.lane) {
            (false, _) => Ok(None),
            (true, Some(lane)) => Ok(Some(lane.receive()?)),
            (true, None) => Err(Corrupt.into()),
        }
    }

    /// Follows an order, and sends the reply if it was a call.
    fn call(&mut self, call: &Call, mut argument: Cow<'_, [u8]>) -> Result<(), Trouble> {
        if call.order == Order::Initialize && call.function == NO_FUNCTION {
            return self.say_ready();
        }
        let mut attachment = self.attachment(call)?;
        let mut order = unpack(call.function);
        match call.order {
            Order::Define => {
                self.caller.get_mut().define(order.place, &argument);
                return Ok(());
            }
            Order::Release => {
                drop(self.lent.released(&argument));
                return Ok(());
            }
            Order::Call | Order::Initialize => {}
            Order::Close => return Err(Corrupt.into()),
        }
        loop {
            self.result.clear();
            let began = call.is_stamped.then(clock::now);
            let mut draft = PartialReply::new(&mut self.writer, self.socket, call.number);
            let outcome = self.caller.get_mut().call(
                order.clone(),
                &mut argument,
                attachment.take(),
                &mut self.result,
                &mut draft,
            );
            let nanoseconds = draft.end(outcome == Called::Raised)?;
            self.stamp = began.map(|began| [began, clock::now()]);
            if forks::is_fork() {
                // The task has forked, and this is the child: its parent answers.
                fork::leave();
            }
            let (kind, left) = match (outcome, call.order) {
                (Called::Ended, _) => return Err(Trouble::Ended),
                (Called::Returned, Order::Initialize) => return self.say_ready(),
                (Called::Raised, Order::Initialize) => {
                    return self.answer(ReplyKind::Unusable, call.number, 0);
                }
                (Called::Garbled, _) | (_, Order::Initialize) => return Err(Corrupt.into()),
                (Called::Returned, _) => (ReplyKind::Value, 0),
                (Called::StoppedBefore(left), _) => (ReplyKind::Value, left),
                (Called::PausedBefore(_), _) => (ReplyKind::Part, 1),
                (Called::Raised, _) => (ReplyKind::Failure, 0),
            };
            self.answer_left(kind, left, call.number, nanoseconds)?;
            match outcome {
                Called::PausedBefore(item) => order.items.start = item,
                // Frames behind the span in the stream come after the rest of the span: the pool takes
                // them back before the answer is released.
                Called::StoppedBefore(1..) => return self.wait_until_read(),
                _ => return Ok(()),
            }
        }
    }

    /// Sends the reply that is in the buffer.
    fn answer(&mut self, kind: ReplyKind, number: u64, nanoseconds: u64) -> Result<(), Trouble> {
        self.answer_left(kind, 0, number, nanoseconds)
    }

    /// Sends the reply to a span; see `Reply::left`.
    fn answer_left(
        &mut self,
        kind: ReplyKind,
        left: u32,
        number: u64,
        nanoseconds: u64,
    ) -> Result<(), Trouble> {
        let mut result = std::mem::take(&mut self.result);
        let is_attached = self.send_attachment(result.attachment.take())?;
        let tail = result.tail.take();
        let tail = tail.as_deref().unwrap_or_default();
        let mut length = result.bytes.len() + tail.len();
        let room = self.writer.room()?.min(PIECE);
        let fits = |length: usize| HEADER + length.next_multiple_of(8) <= room;
        let mut stamp = Vec::new();
        // A reply that was drafted is published at once: a stamp must not make it too long for that.
        if let Some(times) = self
            .stamp
            .take()
            .filter(|_| fits(length + STAMP) || !fits(length))
        {
            stamp.extend(times.map(u64::to_ne_bytes).as_flattened());
            length += STAMP;
        }
        let reply = Reply {
            kind,
            is_attached,
            is_stamped: !stamp.is_empty(),
            left,
            length: length as u64,
            nanoseconds,
            number,
        };
        let zeros = length.next_multiple_of(8) - length;
        let whole = HEADER + length + zeros;
        let is_short = whole <= PIECE && self.writer.room()? >= whole;
        self.write(&reply.encode(), is_short)?;
        self.write(&result.bytes, is_short)?;
        self.write(tail, is_short)?;
        self.write(&stamp, is_short)?;
        self.write(&[0; 8][..zeros], is_short)?;
        // Behind the answer, which has to be where its draft was.
        self.give_back()?;
        if fallback::is_any() {
            self.tell();
        }
        self.publish(true)?;
        if result.bytes.capacity() <= KEPT {
            self.result = result;
        }
        Ok(())
    }

    /// Tells the supervisor which slower ways this worker goes.
    fn tell(&self) {
        for text in fallback::take() {
            // A note for which there is no room is no reason to wait.
            let _ = self.socket.try_send(&Note(text).encode(), None);
        }
    }

    /// Gives the supervisor its segments back that no object uses any more.
    fn give_back(&mut self) -> Result<(), Trouble> {
        let lane = self.lane.as_ref();
        let Some(released) = lane.and_then(|lane| lane.releases().take()) else {
            return Ok(());
        };
        let reply = Reply {
            kind: ReplyKind::Release,
            is_attached: false,
            is_stamped: false,
            left: 0,
            length: released.len() as u64,
            nanoseconds: 0,
            number: u64::MAX,
        };
        let is_short = self.writer.room()? >= HEADER + released.len();
        self.write(&reply.encode(), is_short)?;
        self.write(&released, is_short)
    }

    /// Sends the attachment of a reply, if there is one.
    fn send_attachment(&mut self, attachment: Option<Attachment>) -> Result<bool, Trouble> {
        let Some(attachment) = attachment else {
            return Ok(false);
        };
        let lane = self.lane.as_ref().ok_or(Corrupt)?;
        lane.send(&attachment, PATIENCE)
            .map_err(|_| Trouble::Alone)?;
        self.lent.note_kept(Arc::new(attachment));
        Ok(true)
    }

    /// Writes all of `bytes`; shows each piece, unless `quietly`.
    fn write(&mut self, bytes: &[u8], quietly: bool) -> Result<(), Trouble> {
        let mut left = bytes;
        while !left.is_empty() {
            let piece = &left[..left.len().min(PIECE)];
            let written = self.writer.write(piece)?;
            left = &left[written..];
            if !quietly {
                self.publish(false)?;
            }
            if written == 0 {
                self.wait_for_room()?;
            }
        }
        Ok(())
    }

    /// Shows the supervisor the written bytes. `and_that_is_all`, if no more follow for now.
    fn publish(&self, and_that_is_all: bool) -> Result<(), Trouble> {
        if self.writer.publish(and_that_is_all) {
            self.socket.wake()?;
        }
        Ok(())
    }

    fn read(&mut self, length: usize, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
        while bytes.len() < length {
            let missing = length - bytes.len();
            if self.reader.read(missing.min(PIECE), bytes)? == 0 {
                self.wait_for_bytes()?;
            } else if missing > PIECE {
                self.release(false)?;
            }
        }
        Ok(())
    }

    fn skip(&mut self, mut length: u64) -> Result<(), Trouble> {
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX);
            match self.reader.skip(most)? {
                0 => self.wait_for_bytes()?,
                skipped => length -= skipped as u64,
            }
        }
        Ok(())
    }

    /// Gives back the room of the bytes that were read. `and_that_is_all`, if no more follow for now.
    fn release(&self, and_that_is_all: bool) -> Result<(), Trouble> {
        if self.reader.release(and_that_is_all) {
            self.socket.wake()?;
        }
        Ok(())
    }

    /// Waits for the beginning of a frame.
    fn wait_for_frame(&self) -> Result<(), Trouble> {
        let is_there = || !matches!(self.reader.available(), Ok(0));
        self.release(true)?;
        self.wait(&is_there, || {
            if let Some(nap) = self.reader.begin_nap()
                && !is_there()
            {
                nap.sleep(NAP);
            }
            if is_there() {
                self.reader.set_rest(ParkState::Awake);
                return Ok(());
            }
            self.sleep(
                is_there,
                |rest| self.reader.set_rest(rest),
                ParkState::Asleep,
            )
        })
    }

    /// Waits in the middle of a frame.
    fn wait_for_bytes(&self) -> Result<(), Trouble> {
        self.release(true)?;
        let is_there = || !matches!(self.reader.available(), Ok(0));
        self.wait(&is_there, || {
            self.sleep(
                is_there,
                |rest| self.reader.set_rest(rest),
                ParkState::Patient,
            )
        })
    }

    /// Waits until all published bytes are read.
    fn wait_until_read(&self) -> Result<(), Trouble> {
        let position = self.writer.position();
        // The writer finds out about positions that make no sense.
        let is_read = || {
            self.writer
                .consumed()
                .is_ok_and(|consumed| consumed == position)
        };
        while !is_read() {
            self.wait(&is_read, || {
                self.sleep(
                    is_read,
                    |rest| self.writer.set_rest(rest),
                    ParkState::Asleep,
                )
            })?;
        }
        Ok(())
    }

    fn wait_for_room(&self) -> Result<(), Trouble> {
        self.publish(true)?;
        let is_there = || !matches!(self.writer.room(), Ok(0));
        self.wait(&is_there, || {
            self.sleep(
                is_there,
                |rest| self.writer.set_rest(rest),
                ParkState::Patient,
            )
        })
    }

    /// Waits for the supervisor: spins for some microseconds, then calls `sleep`.
    fn wait(
        &self,
        is_there: &dyn Fn() -> bool,
        sleep: impl Fn() -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let wait = || {
            let spin = Spin::Place(&self.waiting, &|| self.reader.is_beside());
            if spin.until(is_there) {
                return Ok(());
            }
            sleep()
        };
        let mut waited = Ok(());
        self.caller.borrow_mut().idle(&mut || waited = wait());
        waited
    }

    /// Sleeps until the supervisor wakes this side, or has died.
    fn sleep(
        &self,
        is_there: impl Fn() -> bool,
        set_rest: impl Fn(ParkState),
        rest: ParkState,
    ) -> Result<(), Trouble> {
        set_rest(rest);
        let woken = is_there() || self.socket.sleep()?;
        set_rest(ParkState::Awake);
        if woken { Ok(()) } else { Err(Trouble::Alone) }
    }
}
