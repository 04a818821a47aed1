//! A byte stream in shared memory, for one writer and one reader.
//!
//! # Protocol
//! Positions count bytes from the beginning of the stream and never go back. `tail` is behind the last byte
//! written, `head` behind the last byte read. The writer copies bytes behind `tail`, then publishes the new
//! `tail`. The reader copies bytes from `head`, then releases them by a new `head`. Neither makes a system
//! call.
//!
//! A side that has nothing to do sets a flag, *then* looks once more, and sleeps on the socket. The other side
//! publishes, *then* looks at the flag, and writes to the socket if the flag is set. A side may also nap on
//! the flag itself, for a short time. A futex wakes it, and wakes only one of several threads that could nap.
//!
//! With a full fence between the two steps on both sides, at least one of them sees the other's store, and no
//! wake-up is lost.
//!
//! In the middle of a long value, a sleeping side is *patient*: it is woken for half a stream, and not for
//! each piece. A wake-up costs more than copying a piece. A patient side does not sleep for ever. A patient
//! side is also woken when the other side says *that this is all* for now. The other side says so when it is
//! through with a value, or is about to sleep itself. Or the other side has filled or emptied the stream,
//! which is more than half of it.
//!
//! A writer also publishes the CPU on which it runs, for spinning readers (`spin.rs`). That is a hint, on which
//! nothing relies.
//!
//! # Drafts
//! A writer may show the beginning of a message before it publishes the message. It writes a *draft* behind the
//! tail, and counts the valid part of the draft by one word, which costs no more than the bytes. No reader looks
//! at a draft while its writer lives. If the writer dies in the middle of the message, the reader takes the
//! counted part of the draft.
//!
//! A draft names the tail at which it begins. Publishing the message moves the tail, and so ends the draft,
//! whether or not the message has the same bytes at the same place. At no time does the reader find both, or
//! neither. Each step is one store, and stores are seen in their order, so that it makes no difference where
//! the writer dies.
//!
//! # Invariants
//! 1. `head <= tail <= head + capacity`. A side that finds the other's position against this reports [`Corrupt`];
//!    the memory is not touched outside the stream in any case.
//! 2. Bytes between `head` and `tail` are not written; bytes outside of that range are not read.
//! 3. Each side keeps its own position in private memory, and only publishes it: the other cannot change it.
//! 4. The counts of a draft that begins at the tail only grow, or the draft is dropped as a whole.

#![forbid(unsafe_code)]

use crate::process::channel::flag::Flag;
use crate::process::channel::memory::{Direction, Memory, Positions};
use crate::runtime::os::cpu;
use crate::runtime::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::Arc;
use std::time::Duration;

/// The other side's position makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel's memory is corrupt")]
pub(crate) struct Corrupt;

/// The side is awake.
const AWAKE: u32 = 0;
/// The side sleeps on the socket.
const ASLEEP: u32 = 1;
/// The side naps on the flag itself.
const NAPPING: u32 = 2;
/// The side sleeps on the socket in the middle of a long value.
const PATIENT: u32 = 3;

/// The way in which a side sleeps, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ParkState {
    /// Awake: the side looks by itself, and needs no wake-up.
    Awake = AWAKE,
    /// Asleep: every message wakes the side.
    Asleep = ASLEEP,
    /// Asleep in a long value: only half a stream, or the end of the bytes for now, wakes the side.
    Patient = PATIENT,
}

/// Looks at the other side's flag after something was published; returns whether the side must be woken.
/// `is_enough` says whether that is enough to wake a patient side. Returns true if the other side is to be
/// woken by the socket; wakes a side that naps.
fn is_to_wake(flag: &Flag, is_enough: impl FnOnce() -> bool) -> bool {
    // ORDERING: the fence orders what was published before the look at the flag; see
    // the protocol.
    fence(Ordering::SeqCst);
    let rest = flag.get();
    if rest == AWAKE || rest == PATIENT && !is_enough() {
        return false;
    }
    match flag.swap(AWAKE) {
        AWAKE => false,
        NAPPING => {
            flag.wake();
            false
        }
        _ => true,
    }
}

/// Sets or takes back the flag of a side that is about to sleep.
fn set_rest(flag: &Flag, rest: ParkState) {
    flag.set(rest as u32);
    // ORDERING: the fence orders the flag before the look that follows; see the
    // protocol.
    fence(Ordering::SeqCst);
}

/// Returns one more than the number of the CPU on which the calling thread runs; zero if unknown.
fn this_cpu() -> u32 {
    if cfg!(loom_models) {
        return 0;
    }
    cpu::of_this_thread().map_or(0, |cpu| cpu.wrapping_add(1))
}

fn is_beside(positions: &Positions) -> bool {
    let cpu = this_cpu();
    // ORDERING: Relaxed: a hint.
    cpu != 0 && positions.writer_cpu().load(Ordering::Relaxed) == cpu
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Writer {
    memory: Arc<Memory>,
    direction: Direction,
    /// The position behind the last byte written, published or not.
    tail: u64,
}

impl Writer {
    /// Makes the supervisor's end.
    pub(crate) fn to_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::ToWorker)
    }

    /// Makes the worker's end.
    pub(crate) fn from_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::FromWorker)
    }

    fn new(memory: &Arc<Memory>, direction: Direction) -> Self {
        Self {
            memory: Arc::clone(memory),
            direction,
            tail: 0,
        }
    }

    fn positions(&self) -> &Positions {
        self.memory.positions(self.direction)
    }

    /// Returns the position of the next byte to write.
    pub(crate) fn position(&self) -> u64 {
        self.tail
    }

    /// Returns the position up to which the reader has released bytes.
    pub(crate) fn consumed(&self) -> Result<u64, Corrupt> {
        // ORDERING: Acquire, so that we write to memory after the reader's last look.
        let head = self.positions().head().load(Ordering::Acquire);
        match self.tail.checked_sub(head) {
            Some(unread) if unread <= self.memory.capacity() as u64 => Ok(head),
            _ => Err(Corrupt),
        }
    }

    /// Returns how many bytes can be written now.
    pub(crate) fn room(&self) -> Result<usize, Corrupt> {
        let unread = self.tail - self.consumed()?;
        // Not more than the capacity.
        Ok(self.memory.capacity() - usize::try_from(unread).map_err(|_| Corrupt)?)
    }

    /// Writes as many bytes as there is room for; returns how many. [`publish`](Self::publish) publishes
    /// them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let length = bytes.len().min(self.room()?);
        self.memory
            .write(self.direction, self.tail, &bytes[..length]);
        self.tail += length as u64;
        Ok(length)
    }

    /// Shows the reader the written bytes. `and_that_is_all`, if no more follow for now. Returns true if the
    /// reader is to be woken.
    #[must_use]
    pub(crate) fn publish(&self, and_that_is_all: bool) -> bool {
        // ORDERING: Release publishes the bytes.
        self.positions().tail().store(self.tail, Ordering::Release);
        is_to_wake(self.positions().reader_sleeps(), || {
            let is_much = |room| room <= self.memory.capacity() / 2;
            and_that_is_all || self.room().is_ok_and(is_much)
        })
    }

    /// Publishes the CPU on which the calling thread runs, for [`is_beside`](Reader::is_beside).
    pub(crate) fn note_cpu(&self) {
        // ORDERING: Relaxed: a hint.
        let noted = self.positions().writer_cpu();
        let cpu = this_cpu();
        if noted.load(Ordering::Relaxed) != cpu {
            noted.store(cpu, Ordering::Relaxed);
        }
    }

    /// Announces whether and how this side is about to sleep until there is room. The caller looks once more
    /// afterwards.
    pub(crate) fn set_rest(&self, rest: ParkState) {
        set_rest(self.positions().writer_sleeps(), rest);
    }

    /// Begins a draft of the bytes that are written next; no item counts yet. All bytes before it are
    /// published.
    pub(crate) fn begin_draft(&self) {
        let draft = self.positions().draft();
        // ORDERING: Release, here and below: each store comes after those before it, of the
        // bytes too, wherever this process ends.
        draft.progress.store(0, Ordering::Release);
        draft.position.store(self.tail, Ordering::Release);
    }

    /// Writes a part of the draft, `offset` bytes behind its beginning. The caller has checked that there is
    /// room.
    pub(crate) fn write_draft(&self, offset: usize, bytes: &[u8]) {
        self.memory
            .write(self.direction, self.tail + offset as u64, bytes);
    }

    /// Publishes how many items of the draft count, and the number of their bytes.
    pub(crate) fn count_draft(&self, items: u32, length: u32) {
        let progress = u64::from(items) | u64::from(length) << 32;
        let draft = self.positions().draft();
        // ORDERING: see above.
        draft.progress.store(progress, Ordering::Release);
    }

    /// Returns the word at the beginning of the frame that was written at `position`.
    pub(crate) fn word(&self, position: u64) -> &AtomicU32 {
        self.memory.word(self.direction, position)
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    memory: Arc<Memory>,
    direction: Direction,
    /// The position behind the last byte read, released or not.
    head: u64,
}

impl Reader {
    /// Makes the supervisor's end.
    pub(crate) fn from_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::FromWorker)
    }

    /// Makes the worker's end.
    pub(crate) fn to_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::ToWorker)
    }

    fn new(memory: &Arc<Memory>, direction: Direction) -> Self {
        Self {
            memory: Arc::clone(memory),
            direction,
            head: 0,
        }
    }

    fn positions(&self) -> &Positions {
        self.memory.positions(self.direction)
    }

    /// Returns how many bytes can be read now.
    pub(crate) fn available(&self) -> Result<usize, Corrupt> {
        // ORDERING: Acquire pairs with the Release in `publish`.
        let tail = self.positions().tail().load(Ordering::Acquire);
        let unread = tail.checked_sub(self.head).ok_or(Corrupt)?;
        match usize::try_from(unread) {
            Ok(unread) if unread <= self.memory.capacity() => Ok(unread),
            _ => Err(Corrupt),
        }
    }

    /// Copies the next bytes to the end of `bytes` without taking them, if all of them are there.
    pub(crate) fn peek(&self, length: usize, bytes: &mut Vec<u8>) -> Result<bool, Corrupt> {
        let there = self.available()? >= length;
        if there {
            self.memory.read(self.direction, self.head, length, bytes);
        }
        Ok(there)
    }

    /// Moves up to `length` bytes to the end of `bytes`; returns how many.
    pub(crate) fn read(&mut self, length: usize, bytes: &mut Vec<u8>) -> Result<usize, Corrupt> {
        let length = length.min(self.available()?);
        self.memory.read(self.direction, self.head, length, bytes);
        self.head += length as u64;
        Ok(length)
    }

    /// Skips up to `length` bytes; returns how many.
    pub(crate) fn skip(&mut self, length: usize) -> Result<usize, Corrupt> {
        let length = length.min(self.available()?);
        self.head += length as u64;
        Ok(length)
    }

    /// Gives the room of the bytes that were read back. `and_that_is_all`, if no more follow for now. Returns
    /// true if the writer is to be woken.
    #[must_use]
    pub(crate) fn release(&self, and_that_is_all: bool) -> bool {
        // ORDERING: Release, so that the writer writes there after our last look.
        self.positions().head().store(self.head, Ordering::Release);
        is_to_wake(self.positions().writer_sleeps(), || {
            let is_little = |unread| unread <= self.memory.capacity() / 2;
            and_that_is_all || self.available().is_ok_and(is_little)
        })
    }

    /// Returns the draft that a writer has left at its end: the number of items, and their bytes, which begin
    /// at `offset`.
    pub(crate) fn draft(&self, offset: usize) -> Option<(u32, Vec<u8>)> {
        let draft = self.positions().draft();
        // ORDERING: Acquire pairs with the Release in `count_draft`.
        let progress = draft.progress.load(Ordering::Acquire);
        let position = draft.position.load(Ordering::Acquire);
        if position != self.head || self.available() != Ok(0) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "its halves")]
        let (items, length) = (progress as u32, (progress >> 32) as usize);
        if items == 0 || offset.checked_add(length)? > self.memory.capacity() {
            return None;
        }
        let mut bytes = Vec::new();
        let from = self.head + offset as u64;
        self.memory.read(self.direction, from, length, &mut bytes);
        Some((items, bytes))
    }

    /// Announces whether and how this side is about to sleep until there is something to read. The caller
    /// looks once more afterwards.
    pub(crate) fn set_rest(&self, rest: ParkState) {
        set_rest(self.positions().reader_sleeps(), rest);
    }

    /// Prepares a nap until there is something to read. The caller looks once more afterwards. Returns none where
    /// the system has no naps.
    pub(crate) fn begin_nap(&self) -> Option<FutexPark> {
        if !Flag::takes_naps() {
            return None;
        }
        let flag = self.positions().reader_sleeps();
        flag.set(NAPPING);
        // ORDERING: as in `set_rest`.
        fence(Ordering::SeqCst);
        Some(FutexPark {
            memory: Arc::clone(&self.memory),
            direction: self.direction,
        })
    }

    /// Returns whether the calling thread runs on the CPU on which the writer last ran.
    pub(crate) fn is_beside(&self) -> bool {
        is_beside(self.positions())
    }

    /// Returns a view for threads that do not have the reader.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            memory: Arc::clone(&self.memory),
            direction: self.direction,
            head: self.head,
        }
    }

    /// Returns the word at the beginning of the next frame.
    pub(crate) fn word(&self) -> &AtomicU32 {
        self.memory.word(self.direction, self.head)
    }
}

/// Tells whether the writer has published something since a moment.
#[derive(Debug)]
pub(crate) struct Watch {
    memory: Arc<Memory>,
    direction: Direction,
    head: u64,
}

impl Watch {
    pub(crate) fn has_news(&self) -> bool {
        // ORDERING: Relaxed: a hint. A thread that reads looks at the position itself.
        let positions = self.memory.positions(self.direction);
        positions.tail().load(Ordering::Relaxed) != self.head
    }

    /// Returns whether the calling thread runs on the CPU on which the writer last ran.
    pub(crate) fn is_beside(&self) -> bool {
        is_beside(self.memory.positions(self.direction))
    }
}

/// The nap of a thread that waits for the writer, and does not hold the reader.
#[derive(Debug)]
pub(crate) struct FutexPark {
    memory: Arc<Memory>,
    direction: Direction,
}

impl FutexPark {
    fn flag(&self) -> &Flag {
        self.memory.positions(self.direction).reader_sleeps()
    }

    /// Sleeps until the writer publishes, another thread ends the nap, or the time is over; may wake
    /// spuriously.
    pub(crate) fn sleep(&self, limit: Duration) {
        self.flag().sleep(NAPPING, limit);
    }

    /// Ends the nap of another thread.
    pub(crate) fn end(&self) {
        if self.flag().swap(AWAKE) == NAPPING {
            self.flag().wake();
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn stream(capacity: usize) -> (Writer, Reader) {
        let (_, memory) = Memory::create(capacity).unwrap();
        (Writer::to_worker(&memory), Reader::to_worker(&memory))
    }

    #[test]
    fn bytes_come_out_as_they_went_in_round_and_round() {
        let (mut writer, mut reader) = stream(64);
        let sent: Vec<u8> = (0..10_000).map(|n: u32| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let sender = thread::spawn(move || {
            let mut done = 0;
            while done < sent.len() {
                done += writer.write(&sent[done..]).unwrap();
                let _ = writer.publish(true);
                thread::yield_now();
            }
        });
        let mut received = Vec::new();
        while received.len() < expected.len() {
            reader.read(usize::MAX, &mut received).unwrap();
            let _ = reader.release(true);
            thread::yield_now();
        }
        sender.join().unwrap();
        assert_eq!(received, expected);
    }

    #[test]
    fn a_sleeping_reader_is_to_be_woken_once() {
        let (mut writer, reader) = stream(64);
        reader.set_rest(ParkState::Asleep);
        assert_eq!(writer.write(b"bytes").unwrap(), 5);
        assert!(writer.publish(true));
        assert!(!writer.publish(true));
    }

    #[test]
    fn a_waiting_writer_is_to_be_woken_once() {
        let (mut writer, mut reader) = stream(64);
        assert_eq!(writer.write(&[0; 100]).unwrap(), 64);
        writer.set_rest(ParkState::Asleep);
        let _ = writer.publish(true);
        assert_eq!(reader.skip(8).unwrap(), 8);
        assert!(reader.release(true));
        assert!(!reader.release(true));
        assert_eq!(writer.room().unwrap(), 8);
    }

    #[test]
    fn a_patient_reader_is_woken_for_half_a_stream_or_all_that_comes() {
        let (mut writer, mut reader) = stream(64);
        reader.set_rest(ParkState::Patient);
        assert_eq!(writer.write(&[1; 24]).unwrap(), 24);
        assert!(!writer.publish(false));
        assert_eq!(writer.write(&[1; 8]).unwrap(), 8);
        assert!(writer.publish(false));
        assert_eq!(reader.skip(32).unwrap(), 32);
        let _ = reader.release(false);
        reader.set_rest(ParkState::Patient);
        assert_eq!(writer.write(&[1; 8]).unwrap(), 8);
        assert!(!writer.publish(false));
        assert!(writer.publish(true));
    }

    #[test]
    fn a_patient_writer_is_woken_for_half_a_stream_or_all_that_is_read() {
        let (mut writer, mut reader) = stream(64);
        assert_eq!(writer.write(&[1; 64]).unwrap(), 64);
        let _ = writer.publish(false);
        writer.set_rest(ParkState::Patient);
        assert_eq!(reader.skip(24).unwrap(), 24);
        assert!(!reader.release(false));
        assert_eq!(reader.skip(8).unwrap(), 8);
        assert!(reader.release(false));
        writer.set_rest(ParkState::Patient);
        assert!(reader.release(true));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_reader_knows_whether_the_writer_was_on_its_cpu() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
        let (writer, reader) = stream(64);
        assert!(!reader.is_beside());
        // The affinity is this thread's only, which ends with the test.
        thread::spawn(move || {
            let stay = |cpu| {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).unwrap();
            };
            let allowed = sched_getaffinity(None).unwrap();
            let here = sched_getcpu();
            stay(here);
            writer.note_cpu();
            assert!(reader.is_beside());
            assert!(reader.watch().is_beside());
            let others = (0..CpuSet::MAX_CPU).filter(|&cpu| cpu != here && allowed.is_set(cpu));
            for cpu in others.take(1) {
                stay(cpu);
                assert!(!reader.is_beside());
            }
        })
        .join()
        .unwrap();
    }

    proptest! {
        #[test]
        fn positions_against_the_protocol_are_reported(tail: u64, head: u64) {
            let (mut writer, mut reader) = stream(64);
            prop_assert_eq!(writer.write(&[1; 24]).unwrap(), 24);
            let _ = writer.publish(true);
            writer.positions().head().store(head, Ordering::Relaxed);
            reader.positions().tail().store(tail, Ordering::Relaxed);
            prop_assert_eq!(writer.room().is_ok(), head <= 24);
            prop_assert_eq!(reader.available().is_ok(), tail <= 64);
            let mut bytes = Vec::new();
            let _ = reader.read(usize::MAX, &mut bytes);
            prop_assert!(bytes.len() <= 64);
        }
    }
}
