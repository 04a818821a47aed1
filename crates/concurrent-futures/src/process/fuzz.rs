//! Fuzzing of the frames: feeds arbitrary bytes to either end of a channel.
//!
//! A worker can write anything, and its tasks can overwrite the shared memory. On arbitrary bytes, the pool
//! must not panic or hang, nor leave a future that is never done. The fuzzer of `fuzz/` calls this; the unit
//! test below is a short run with random bytes.

#![forbid(unsafe_code)]

use crate::id::PoolId;
use crate::process::channel::handshake::{FRONTEND, Refusal, Setup};
use crate::process::channel::{
    CAPACITY, Call, HEADER, MappedSegment, Memory, Order, Reader, Reply, ReplyKind, SegmentChannel,
    Writer,
};
use crate::process::contract::{Answer, CallOrder, Called, Caller, Progress};
use crate::process::failure::Failure;
use crate::process::function::Plain;
use crate::process::options::TaskOptions;
use crate::process::pool::child::Child;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::WorkerHandle;
use crate::process::worker;
use crate::recording::processes::RecordedPool;
use crate::runtime::os::shared::Shared;
use crate::runtime::os::socket::Socket;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Runs both ends of a channel on these bytes.
#[cfg_attr(not(fuzzing), allow(unreachable_pub, reason = "public for the fuzzer"))]
pub fn frames(bytes: &[u8]) {
    decoders(bytes);
    let mut input = Input(bytes);
    let which = input.byte();
    // Where the system refuses something, there is nothing to learn.
    let _ = match which % 2 {
        0 => pool_reads(&mut input),
        _ => worker_reads(&mut input),
    };
}

fn decoders(bytes: &[u8]) {
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(reply.encode()[..], bytes[..HEADER]);
    }
    if let Ok(call) = Call::decode(bytes) {
        assert_eq!(Call::decode(&call.encode()), Ok(call));
    }
    // Most bytes are no settings: of interest is only that decoding returns.
    let _ = Setup::decode(bytes, FRONTEND);
    let _ = Refusal::decode(bytes);
    let _ = Failure::decode(bytes);
}

/// Takes decisions out of bytes. When there are none left, all decisions are 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, most: u8) -> &'a [u8] {
        let length = usize::from(self.byte() % most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// Returns a small number in most cases, and any number in the rest.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            small => u64::from(small % 8),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes an imitation of a frame: its payload may be shorter or longer than the header says.
fn write(writer: &mut Writer, header: &[u8; HEADER], payload: &[u8]) {
    let zeros = payload.len().next_multiple_of(8) - payload.len();
    for bytes in [&header[..], payload, &[0; 8][..zeros]] {
        let _ = writer.write(bytes);
    }
    let _ = writer.publish(true);
}

/// Reads the bytes of a worker, as its pool does.
fn pool_reads(input: &mut Input<'_>) -> io::Result<()> {
    let (_file, memory) = Memory::create(CAPACITY)?;
    let (ours, _theirs) = Socket::pair()?;
    let pidfd = File::open("/dev/null")?.into();
    // No process has this number.
    let child = Child::with_pidfd(i32::MAX.cast_unsigned(), Some(pidfd), ours)?;
    let child = Arc::new(child);
    let (to_worker, from_worker) = (Writer::to_worker(&memory), Reader::from_worker(&memory));
    let pool = Arc::new(RecordedPool::processes(1));
    let mut handle = WorkerHandle::new(child, to_worker, from_worker, None, &pool);
    let mut worker = Writer::from_worker(&memory);
    let (mut arrivals, mut shared) = (Vec::new(), Vec::new());
    let mut futures = Vec::new();
    let mut is_whole = handle.initialize(0, Arc::default()).is_ok();
    while is_whole && !input.is_empty() {
        match input.byte() % 4 {
            0 => {
                let (task, future) = Task::new::<Plain<fn(u64) -> u64, u64, u64>>(
                    PoolId::next(),
                    1,
                    input.bytes(64).to_vec(),
                    TaskOptions::default(),
                );
                futures.push(future);
                if handle.has_room_for_task(&task) {
                    is_whole = handle.hand(task).is_ok();
                }
            }
            1 => {
                let _ = worker.write(input.bytes(128));
                let _ = worker.publish(true);
            }
            2 => {
                let kinds = [
                    ReplyKind::Ready,
                    ReplyKind::Value,
                    ReplyKind::Failure,
                    ReplyKind::Part,
                    ReplyKind::Release,
                    ReplyKind::Unusable,
                ];
                let payload_and_kind = input.byte();
                let kind = kinds[usize::from(payload_and_kind) % kinds.len()];
                let payload = input.bytes(64);
                let reply = Reply {
                    kind,
                    is_attached: payload_and_kind > 250,
                    is_stamped: payload_and_kind % 2 == 1,
                    left: u32::try_from(input.number()).unwrap_or(u32::MAX),
                    length: match input.byte() {
                        255 => input.number(),
                        _ => payload.len() as u64,
                    },
                    nanoseconds: input.number(),
                    number: match kind {
                        ReplyKind::Value | ReplyKind::Failure | ReplyKind::Part => input.number(),
                        _ => u64::MAX,
                    },
                };
                write(&mut worker, &reply.encode(), payload);
            }
            _ => is_whole = handle.receive(&mut arrivals, &mut shared).is_ok(),
        }
    }
    let _ = handle.receive(&mut arrivals, &mut shared);
    let _ = handle.take_draft();
    drop((handle, arrivals));
    assert!(futures.iter().all(crate::Future::is_done));
    Ok(())
}

/// Answers every call: returns the argument, and does what its bytes say.
struct Anyhow;

impl Caller for Anyhow {
    fn call(
        &mut self,
        order: CallOrder,
        argument: &mut Cow<'_, [u8]>,
        _: Option<io::Result<MappedSegment>>,
        answer: &mut Answer,
        progress: &mut dyn Progress,
    ) -> Called {
        answer.bytes.extend_from_slice(argument);
        match order.tag % 4 {
            0 => Called::Returned,
            1 => {
                progress.note(answer);
                progress.send(answer);
                Called::Returned
            }
            2 => Called::Raised,
            _ => Called::Ended,
        }
    }
}

/// Reads the bytes of a pool, as its worker does. The pool is gone afterwards.
fn worker_reads(input: &mut Input<'_>) -> io::Result<()> {
    let (shared, memory) = Memory::create(CAPACITY)?;
    let (ours, theirs) = Socket::pair()?;
    let (_lane, its_lane) = SegmentChannel::pair()?;
    let setup = Setup {
        capacity: CAPACITY as u64,
        memory_limit: None,
        segment: None,
    };
    let Shared::File(file) = shared else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    ours.send(&setup.encode(FRONTEND), Some(file.as_fd()))?;
    ours.send(b"lane", Some(its_lane.as_fd()))?;
    let mut pool = Writer::to_worker(&memory);
    while !input.is_empty() {
        let orders = [
            Order::Call,
            Order::Initialize,
            Order::Define,
            Order::Release,
            Order::Close,
        ];
        let kind = input.byte();
        let payload = input.bytes(64);
        if kind == 255 {
            let _ = pool.write(payload);
            let _ = pool.publish(true);
            continue;
        }
        let call = Call {
            order: orders[usize::from(kind) % orders.len()],
            is_attached: kind > 250,
            is_stamped: kind % 2 == 1,
            length: match input.byte() {
                255 => input.number(),
                _ => payload.len() as u64,
            },
            function: input.number() << (input.byte() % 64),
            number: input.number(),
        };
        write(&mut pool, &call.encode(), payload);
    }
    drop(ours);
    // Most frames end the worker with an error: of interest is only that it ends.
    let _ = worker::serve_frontend(&theirs, &mut Anyhow);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_worker_does_not_wait_for_the_rest_of_a_header() {
        // One byte, and no more.
        frames(&[1, 255, 1, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_corrupt(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            frames(&bytes);
        }
    }
}
