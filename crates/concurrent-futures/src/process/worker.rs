//! The life of a worker process.
//!
//! It has one thread, which reads a frame, claims it, calls, answers, and reads the next.
//! It ends when it is told to, and when its supervisor is not there any more: the socket
//! ends, and the system kills it should it be busy (`PR_SET_PDEATHSIG`).

#![forbid(unsafe_code)]

use super::channel::{
    Attachment, Call, Claim, Corrupt, HEADER, Lane, Lent, Memory, Order, Packet, Reader, Received,
    Reply, ReplyKind, Rest, Shared, Socket, Writer, padded, reserve,
};
use super::codec::Bytes;
use super::draft::Draft;
use super::handshake::{FACE, Mismatch, NO_LANE, Refusal, Setup};
use super::host::{Answer, Called, Caller};
use super::image::{Identity, image};
use super::spin::Spin;
use super::task::unpack;
use super::{function, os};
use crate::current::Worker;
use crate::deadlock::{Crew, Single};
use crate::panic;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::time::Timespec;
use std::cell::RefCell;
use std::io;
use std::process;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is written or read before the other side is shown.
pub(super) const PIECE: usize = 128 * 1024;
/// How long it naps before it sleeps: a nap is cheaper to end, but nobody who is not there any
/// more ends it.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};
/// How long it waits until the supervisor has taken some of too many attachments.
const PATIENCE: Duration = Duration::from_secs(10);
/// The place of the initializer where there is none.
pub(super) const NO_FUNCTION: u64 = 0;
/// Buffers that have grown beyond this are given back.
const KEPT: usize = 1024 * 1024;

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("its supervisor is not there any more")]
    Alone,
    #[error("its task is to end it")]
    Ended,
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Works for the supervisor at the other end, then ends the process.
pub(super) fn run(socket: &Socket) -> ! {
    // The exit code of a worker that cannot go on, which is no task's doing.
    const TROUBLE: i32 = 70;
    let crew: Arc<dyn Crew> = Arc::new(Single::new());
    let home = ptr::from_ref(socket).cast();
    let ended = Worker::new(home, &crew, None).enter(|| serve(socket));
    match ended {
        Ok(()) | Err(Trouble::Alone) => process::exit(0),
        Err(trouble) => {
            // If that does not arrive, the exit code has to do.
            let _ = socket.send(&Refusal(trouble.to_string()).encode(), None);
            process::exit(TROUBLE)
        }
    }
}

/// The life of a worker of another face, which is no fork or new start of this program.
pub(super) fn serve_face(socket: &Socket, caller: &mut dyn Caller) -> io::Result<()> {
    let ended = open(socket, FACE).and_then(|memory| {
        let lane = match socket.receive(true)? {
            Packet::Message(_, Some(lane)) => Some(Lane::from_fd(lane)?),
            Packet::Message(kind, None) if kind == NO_LANE => {
                caller.send_no_attachments();
                None
            }
            _ => return Err(Trouble::Alone),
        };
        os::watch_forks();
        let foreign = Foreign {
            caller,
            lane,
            lent: Lent::default(),
        };
        Loop::new(socket, &memory, Some(foreign)).run()
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
pub(super) fn refuse(socket: &Socket, why: &str) -> io::Result<()> {
    socket.send(&Refusal(why.to_owned()).encode(), None)
}

fn serve(socket: &Socket) -> Result<(), Trouble> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io::Error::from)?;
    let memory = open(socket, image()?.identity())?;
    os::leave_interrupts_to_parent();
    os::watch_forks();
    panic::install_hook();
    Loop::new(socket, &memory, None).run()
}

/// Does as the first packet says, and attaches to the memory that came with it.
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
        // No process may have more than its hard limit, which is narrower then.
        let most = rustix::process::getrlimit(Resource::Data).maximum;
        let bytes = most.map_or(bytes, |most| most.min(bytes));
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        rustix::process::setrlimit(Resource::Data, limit).map_err(io::Error::from)?;
    }
    let capacity = usize::try_from(setup.capacity).map_err(|_| Corrupt)?;
    let shared = match (file, setup.segment) {
        (_, Some(number)) => Shared::Segment(number),
        (Some(file), None) => Shared::File(file),
        // It was sent: this process has no descriptor left for it.
        (None, None) => return Err(io::Error::from(rustix::io::Errno::MFILE).into()),
    };
    Ok(Memory::attach(&shared, capacity)?)
}

/// What a worker of another face has besides.
struct Foreign<'a> {
    /// Carries out calls.
    caller: &'a mut dyn Caller,
    /// None if nothing goes beside the streams.
    lane: Option<Lane>,
    /// What was sent through it, and is to come back.
    lent: Lent,
}

struct Loop<'a> {
    socket: &'a Socket,
    reader: Reader,
    writer: Writer,
    head: Vec<u8>,
    result: Answer,
    spin: Spin,
    /// Where it is not this program that carries out calls.
    foreign: RefCell<Option<Foreign<'a>>>,
}

impl<'a> Loop<'a> {
    fn new(socket: &'a Socket, memory: &Arc<Memory>, foreign: Option<Foreign<'a>>) -> Self {
        Self {
            socket,
            reader: Reader::to_worker(memory),
            writer: Writer::from_worker(memory),
            head: Vec::with_capacity(HEADER),
            result: Answer::default(),
            spin: Spin::default(),
            foreign: RefCell::new(foreign),
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
                Bytes::Borrowed(&argument)
            } else {
                let mut own = Vec::new();
                reserve(&mut own, length)?;
                self.read(length, &mut own)?;
                Bytes::Owned(own)
            };
            self.skip(whole - call.length)?;
            self.release(true)?;
            self.call(&call, content)?;
        }
    }

    /// The next frame that is this worker's, read up to its payload.
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
            // What belongs to it goes back.
            drop(self.attachment(&call)?);
            self.skip(padded(call.length).ok_or(Corrupt)?)?;
            self.release(true)?;
        }
    }

    fn say_ready(&mut self) -> Result<(), Trouble> {
        self.result.clear();
        self.answer(ReplyKind::Ready, u64::MAX, 0)
    }

    /// Calls a function, and answers.
    fn call(&mut self, call: &Call, argument: Bytes<'_>) -> Result<(), Trouble> {
        if call.order == Order::Initialize && call.function == NO_FUNCTION {
            return self.say_ready();
        }
        if self.foreign.get_mut().is_some() {
            return self.call_foreign(call, &argument);
        }
        let function = function::at(call.function).ok_or(Corrupt)?;
        self.result.clear();
        let start = Instant::now();
        let succeeded = function(argument, &mut self.result.bytes);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if os::is_fork() {
            // The task has forked, and this is the child: its parent answers.
            os::leave();
        }
        match (call.order, succeeded) {
            (Order::Initialize, true) => self.say_ready(),
            (Order::Initialize, false) => self.answer(ReplyKind::Unusable, call.number, 0),
            (_, true) => self.answer(ReplyKind::Value, call.number, nanoseconds),
            (_, false) => self.answer(ReplyKind::Failure, call.number, nanoseconds),
        }
    }

    /// What came beside a call.
    fn attachment(&mut self, call: &Call) -> Result<Option<io::Result<Received>>, Trouble> {
        match (call.is_attached, self.foreign.get_mut()) {
            (false, _) => Ok(None),
            (
                true,
                Some(Foreign {
                    lane: Some(lane), ..
                }),
            ) => Ok(Some(lane.receive()?)),
            (true, _) => Err(Corrupt.into()),
        }
    }

    /// Has the face carry out a call.
    fn call_foreign(&mut self, call: &Call, argument: &Bytes<'_>) -> Result<(), Trouble> {
        let attachment = self.attachment(call)?;
        let Some(foreign) = self.foreign.get_mut() else {
            return Err(Corrupt.into());
        };
        let (order, argument) = (unpack(call.function), argument.as_slice());
        match call.order {
            Order::Define => {
                foreign.caller.define(order.place, argument);
                return Ok(());
            }
            Order::Release => {
                drop(foreign.lent.released(argument));
                return Ok(());
            }
            Order::Call => {}
            Order::Initialize | Order::Close => return Err(Corrupt.into()),
        }
        let mut order = order;
        let mut attachment = attachment;
        loop {
            let Some(foreign) = self.foreign.get_mut() else {
                return Err(Corrupt.into());
            };
            self.result.clear();
            let mut draft = Draft::new(&mut self.writer, self.socket, call.number);
            let outcome = foreign.caller.call(
                order.clone(),
                argument,
                attachment.take(),
                &mut self.result,
                &mut draft,
            );
            let nanoseconds = draft.end(outcome == Called::Raised)?;
            if os::is_fork() {
                // As above.
                os::leave();
            }
            let (kind, left) = match outcome {
                Called::Returned => (ReplyKind::Value, 0),
                Called::StoppedBefore(left) => (ReplyKind::Value, left),
                Called::PausedBefore(_) => (ReplyKind::Part, 1),
                Called::Raised => (ReplyKind::Failure, 0),
                Called::Ended => return Err(Trouble::Ended),
            };
            self.answer_left(kind, left, call.number, nanoseconds)?;
            match outcome {
                Called::PausedBefore(item) => order.items.start = item,
                // What is behind in the stream comes after what was left of this: it is taken back
                // before the answer is released.
                Called::StoppedBefore(1..) => return self.wait_until_read(),
                _ => return Ok(()),
            }
        }
    }

    /// Sends what is in the buffer.
    fn answer(&mut self, kind: ReplyKind, number: u64, nanoseconds: u64) -> Result<(), Trouble> {
        self.answer_left(kind, 0, number, nanoseconds)
    }

    /// The same, of a span; see `Reply::left`.
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
        let length = result.bytes.len() + tail.len();
        let reply = Reply {
            kind,
            is_attached,
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
        self.write(&[0; 8][..zeros], is_short)?;
        // Behind the answer, which has to be where its draft was.
        self.give_back()?;
        self.publish(true)?;
        if result.bytes.capacity() <= KEPT {
            self.result = result;
        }
        Ok(())
    }

    /// Gives back what the supervisor has sent, and nobody uses any more.
    fn give_back(&mut self) -> Result<(), Trouble> {
        let foreign = self.foreign.get_mut().as_ref();
        let lane = foreign.and_then(|foreign| foreign.lane.as_ref());
        let Some(released) = lane.and_then(|lane| lane.releases().take()) else {
            return Ok(());
        };
        let reply = Reply {
            kind: ReplyKind::Release,
            is_attached: false,
            left: 0,
            length: released.len() as u64,
            nanoseconds: 0,
            number: u64::MAX,
        };
        let is_short = self.writer.room()? >= HEADER + released.len();
        self.write(&reply.encode(), is_short)?;
        self.write(&released, is_short)
    }

    /// Sends what goes beside an answer, if there is something.
    fn send_attachment(&mut self, attachment: Option<Attachment>) -> Result<bool, Trouble> {
        let (Some(attachment), Some(foreign)) = (attachment, self.foreign.get_mut()) else {
            return Ok(false);
        };
        let lane = foreign.lane.as_ref().ok_or(Corrupt)?;
        lane.send(&attachment, PATIENCE)
            .map_err(|_| Trouble::Alone)?;
        foreign.lent.note_kept(Arc::new(attachment));
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

    /// Shows the supervisor what was written, `and_that_is_all` for now.
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

    /// Gives back the room of what was read, `and_that_is_all` for now.
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
            let nap = self.reader.begin_nap();
            if !is_there() {
                nap.sleep(&NAP);
            }
            if is_there() {
                self.reader.set_rest(Rest::Awake);
                return Ok(());
            }
            self.sleep(is_there, |rest| self.reader.set_rest(rest), Rest::Asleep)
        })
    }

    /// Waits in the middle of a frame.
    fn wait_for_bytes(&self) -> Result<(), Trouble> {
        self.release(true)?;
        let is_there = || !matches!(self.reader.available(), Ok(0));
        self.wait(&is_there, || {
            self.sleep(is_there, |rest| self.reader.set_rest(rest), Rest::Patient)
        })
    }

    /// Waits until all that was published is read.
    fn wait_until_read(&self) -> Result<(), Trouble> {
        let position = self.writer.position();
        // What makes no sense is found out by who writes.
        let is_read = || {
            self.writer
                .consumed()
                .is_ok_and(|consumed| consumed == position)
        };
        while !is_read() {
            self.wait(&is_read, || {
                self.sleep(is_read, |rest| self.writer.set_rest(rest), Rest::Asleep)
            })?;
        }
        Ok(())
    }

    fn wait_for_room(&self) -> Result<(), Trouble> {
        self.publish(true)?;
        let is_there = || !matches!(self.writer.room(), Ok(0));
        self.wait(&is_there, || {
            self.sleep(is_there, |rest| self.writer.set_rest(rest), Rest::Patient)
        })
    }

    /// Waits for the supervisor: for some microseconds awake, then as `sleep` does.
    fn wait(
        &self,
        is_there: &dyn Fn() -> bool,
        sleep: impl Fn() -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let wait = || {
            if self.spin.until(is_there, || self.reader.is_beside()) {
                return Ok(());
            }
            sleep()
        };
        let mut waited = Ok(());
        match &mut *self.foreign.borrow_mut() {
            Some(foreign) => foreign.caller.idle(&mut || waited = wait()),
            None => waited = wait(),
        }
        waited
    }

    /// Sleeps until the supervisor wakes this side, or is not there any more.
    fn sleep(
        &self,
        is_there: impl Fn() -> bool,
        set_rest: impl Fn(Rest),
        rest: Rest,
    ) -> Result<(), Trouble> {
        set_rest(rest);
        let woken = is_there() || self.socket.sleep()?;
        set_rest(Rest::Awake);
        if woken { Ok(()) } else { Err(Trouble::Alone) }
    }
}
