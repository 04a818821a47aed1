//! A byte stream in shared memory, for one writer and one reader.
//!
//! # Protocol
//! Positions count bytes from the beginning of the stream and never go back: `tail` is
//! what was written, `head` what was read. The writer copies bytes behind `tail`, then
//! publishes the new `tail`; the reader copies bytes from `head`, then releases them by a
//! new `head`. Neither makes a system call.
//!
//! Who has nothing to do sets a flag, *then* looks once more, and sleeps on the socket; the
//! other side publishes, *then* looks at the flag, and writes to the socket if it is set.
//! A side may also nap on the flag itself, for a short time: it is woken by a futex, and so is
//! a single thread of several that could.
//!
//! With a full fence between the two steps on both sides, at least one of them sees what
//! the other did, and no wake-up is lost.
//!
//! In the middle of a long value, whoever sleeps is *patient*: it is woken for half a stream,
//! not for each piece, as each wake-up costs more than to copy one. Nobody sleeps for ever for
//! it: a side that is through with a value, or is about to sleep itself, says *that this is
//! all* for now, which wakes a patient one too; or it has filled or emptied the stream, which
//! is more than half of one.
//!
//! A writer also says on which CPU it runs, for those who wait awake (`spin.rs`): a hint, which
//! nothing relies on.
//!
//! # Drafts
//! A writer may show what it has of a message before it publishes that: it writes a *draft*
//! behind the tail, and says how much of it counts, by one word, which costs no more than the
//! bytes. Nobody looks at a draft while its writer lives. If the writer ends for good in the
//! middle of the message, the reader takes what counts of the draft.
//!
//! A draft says at which tail it begins. By publishing the message, with the same bytes at the same
//! place or others, the tail moves, and the draft is over: at no time does the reader find both,
//! or neither. Each step is one store, and stores are seen in their order, so that it makes
//! no difference where the writer ends.
//!
//! # Invariants
//! 1. `head <= tail <= head + capacity`. A side that finds the other's position against
//!    this reports [`Corrupt`]; the memory is not touched outside the stream in any case.
//! 2. Bytes between `head` and `tail` are not written; what is not between them is not
//!    read.
//! 3. Each side keeps its own position in private memory, and only publishes it: the
//!    other cannot change it.
//! 4. What counts of a draft that begins at the tail does not change but to become more, or nothing.

#![forbid(unsafe_code)]

use super::flag::Flag;
use super::memory::{Direction, Memory, Positions};
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use rustix::thread::Timespec;
use std::sync::Arc;

/// The other side's position makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel's memory is corrupt")]
pub(in crate::process) struct Corrupt;

/// The other side is awake.
const AWAKE: u32 = 0;
/// It sleeps on the socket.
const ASLEEP: u32 = 1;
/// It naps on the flag itself.
const NAPPING: u32 = 2;
/// It sleeps on the socket in the middle of a long value.
const PATIENT: u32 = 3;

/// How a side sleeps, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::process) enum Rest {
    /// Nothing wakes it: it looks by itself.
    Awake = AWAKE,
    /// Anything wakes it.
    Asleep = ASLEEP,
    /// Only what is worth it does: half a stream, or all that comes for now.
    Patient = PATIENT,
}

/// Looks at a flag after something was published, which `is_enough` to wake even a patient
/// one; true if the other side is to be woken by the socket. One that naps is woken here.
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
fn set_rest(flag: &Flag, rest: Rest) {
    flag.set(rest as u32);
    // ORDERING: the fence orders the flag before the look that follows; see the
    // protocol.
    fence(Ordering::SeqCst);
}

/// One more than the number of the CPU on which the calling thread runs; zero means none.
fn this_cpu() -> u32 {
    #[cfg(loom_models)]
    return 0;
    #[cfg(not(loom_models))]
    u32::try_from(rustix::thread::sched_getcpu()).map_or(0, |cpu| cpu.wrapping_add(1))
}

fn is_beside(positions: &Positions) -> bool {
    // ORDERING: Relaxed: a hint.
    positions.writer_cpu().load(Ordering::Relaxed) == this_cpu()
}

/// The writing end.
#[derive(Debug)]
pub(in crate::process) struct Writer {
    memory: Arc<Memory>,
    direction: Direction,
    /// What was written, published or not.
    tail: u64,
}

impl Writer {
    /// The supervisor's end.
    pub(in crate::process) fn to_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::ToWorker)
    }

    /// The worker's end.
    pub(in crate::process) fn from_worker(memory: &Arc<Memory>) -> Self {
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

    /// Where the next byte goes.
    pub(in crate::process) fn position(&self) -> u64 {
        self.tail
    }

    /// What the reader has read.
    pub(in crate::process) fn consumed(&self) -> Result<u64, Corrupt> {
        // ORDERING: Acquire, so that we write to memory after the reader's last look.
        let head = self.positions().head().load(Ordering::Acquire);
        match self.tail.checked_sub(head) {
            Some(unread) if unread <= self.memory.capacity() as u64 => Ok(head),
            _ => Err(Corrupt),
        }
    }

    /// How many bytes can be written now.
    pub(in crate::process) fn room(&self) -> Result<usize, Corrupt> {
        let unread = self.tail - self.consumed()?;
        // Not more than the capacity.
        Ok(self.memory.capacity() - usize::try_from(unread).map_err(|_| Corrupt)?)
    }

    /// Writes what there is room for; returns how much. It is published by
    /// [`publish`](Self::publish).
    pub(in crate::process) fn write(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let length = bytes.len().min(self.room()?);
        self.memory
            .write(self.direction, self.tail, &bytes[..length]);
        self.tail += length as u64;
        Ok(length)
    }

    /// Shows the reader what was written, `and_that_is_all` for now. True if it is to be
    /// woken.
    #[must_use]
    pub(in crate::process) fn publish(&self, and_that_is_all: bool) -> bool {
        // ORDERING: Release publishes the bytes.
        self.positions().tail().store(self.tail, Ordering::Release);
        is_to_wake(self.positions().reader_sleeps(), || {
            let is_much = |room| room <= self.memory.capacity() / 2;
            and_that_is_all || self.room().is_ok_and(is_much)
        })
    }

    /// Says where the calling thread runs, for [`is_beside`](Reader::is_beside).
    pub(in crate::process) fn note_cpu(&self) {
        // ORDERING: Relaxed: a hint.
        let noted = self.positions().writer_cpu();
        let cpu = this_cpu();
        if noted.load(Ordering::Relaxed) != cpu {
            noted.store(cpu, Ordering::Relaxed);
        }
    }

    /// Says whether and how this side is about to sleep until there is room; look once more
    /// afterwards.
    pub(in crate::process) fn set_rest(&self, rest: Rest) {
        set_rest(self.positions().writer_sleeps(), rest);
    }

    /// Begins a draft of what is written next, of which nothing counts yet. All that was written
    /// before is published.
    pub(in crate::process) fn begin_draft(&self) {
        let draft = self.positions().draft();
        // ORDERING: Release, here and below: each store comes after those before it, of the
        // bytes too, wherever this process ends.
        draft.progress.store(0, Ordering::Release);
        draft.position.store(self.tail, Ordering::Release);
    }

    /// Writes some of the draft, at so many bytes behind its beginning; there is room.
    pub(in crate::process) fn write_draft(&self, offset: usize, bytes: &[u8]) {
        self.memory
            .write(self.direction, self.tail + offset as u64, bytes);
    }

    /// Says how many items of the draft count, and how many bytes these are together.
    pub(in crate::process) fn count_draft(&self, items: u32, length: u32) {
        let progress = u64::from(items) | u64::from(length) << 32;
        let draft = self.positions().draft();
        // ORDERING: see above.
        draft.progress.store(progress, Ordering::Release);
    }

    /// The word at the beginning of a frame that was written at `position`.
    pub(in crate::process) fn word(&self, position: u64) -> &AtomicU32 {
        self.memory.word(self.direction, position)
    }
}

/// The reading end.
#[derive(Debug)]
pub(in crate::process) struct Reader {
    memory: Arc<Memory>,
    direction: Direction,
    /// What was read, released or not.
    head: u64,
}

impl Reader {
    /// The supervisor's end.
    pub(in crate::process) fn from_worker(memory: &Arc<Memory>) -> Self {
        Self::new(memory, Direction::FromWorker)
    }

    /// The worker's end.
    pub(in crate::process) fn to_worker(memory: &Arc<Memory>) -> Self {
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

    /// How many bytes can be read now.
    pub(in crate::process) fn available(&self) -> Result<usize, Corrupt> {
        // ORDERING: Acquire pairs with the Release in `publish`.
        let tail = self.positions().tail().load(Ordering::Acquire);
        let unread = tail.checked_sub(self.head).ok_or(Corrupt)?;
        match usize::try_from(unread) {
            Ok(unread) if unread <= self.memory.capacity() => Ok(unread),
            _ => Err(Corrupt),
        }
    }

    /// Copies the next bytes to the end of `bytes` without taking them, if all of them
    /// are there.
    pub(in crate::process) fn peek(
        &self,
        length: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, Corrupt> {
        let there = self.available()? >= length;
        if there {
            self.memory.read(self.direction, self.head, length, bytes);
        }
        Ok(there)
    }

    /// Takes up to `length` bytes to the end of `bytes`; returns how many.
    pub(in crate::process) fn read(
        &mut self,
        length: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<usize, Corrupt> {
        let length = length.min(self.available()?);
        self.memory.read(self.direction, self.head, length, bytes);
        self.head += length as u64;
        Ok(length)
    }

    /// Passes over up to `length` bytes; returns how many.
    pub(in crate::process) fn skip(&mut self, length: usize) -> Result<usize, Corrupt> {
        let length = length.min(self.available()?);
        self.head += length as u64;
        Ok(length)
    }

    /// Gives the room of what was read back, `and_that_is_all` for now. True if the writer
    /// is to be woken.
    #[must_use]
    pub(in crate::process) fn release(&self, and_that_is_all: bool) -> bool {
        // ORDERING: Release, so that the writer writes there after our last look.
        self.positions().head().store(self.head, Ordering::Release);
        is_to_wake(self.positions().writer_sleeps(), || {
            let is_little = |unread| unread <= self.memory.capacity() / 2;
            and_that_is_all || self.available().is_ok_and(is_little)
        })
    }

    /// What the writer, which has ended, has left of the message that it was about to publish: the
    /// number of items, and their bytes, which begin at `offset`.
    pub(in crate::process) fn draft(&self, offset: usize) -> Option<(u32, Vec<u8>)> {
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

    /// Says whether and how this side is about to sleep until there is something to read;
    /// look once more afterwards.
    pub(in crate::process) fn set_rest(&self, rest: Rest) {
        set_rest(self.positions().reader_sleeps(), rest);
    }

    /// Prepares a nap until there is something to read; look once more afterwards.
    pub(in crate::process) fn begin_nap(&self) -> Nap {
        let flag = self.positions().reader_sleeps();
        flag.set(NAPPING);
        // ORDERING: as in `set_rest`.
        fence(Ordering::SeqCst);
        Nap {
            memory: Arc::clone(&self.memory),
            direction: self.direction,
        }
    }

    /// Whether the calling thread is where the writer was last.
    pub(in crate::process) fn is_beside(&self) -> bool {
        is_beside(self.positions())
    }

    /// What a thread can look at without the reader.
    pub(in crate::process) fn watch(&self) -> Watch {
        Watch {
            memory: Arc::clone(&self.memory),
            direction: self.direction,
            head: self.head,
        }
    }

    /// The word at the beginning of the frame that comes next.
    pub(in crate::process) fn word(&self) -> &AtomicU32 {
        self.memory.word(self.direction, self.head)
    }
}

/// Tells whether something has come since.
#[derive(Debug)]
pub(in crate::process) struct Watch {
    memory: Arc<Memory>,
    direction: Direction,
    head: u64,
}

impl Watch {
    pub(in crate::process) fn has_news(&self) -> bool {
        // ORDERING: Relaxed: a hint. Who reads looks at the position itself.
        let positions = self.memory.positions(self.direction);
        positions.tail().load(Ordering::Relaxed) != self.head
    }

    /// Whether the calling thread is where the writer was last.
    pub(in crate::process) fn is_beside(&self) -> bool {
        is_beside(self.memory.positions(self.direction))
    }
}

/// A reader's nap, which is slept without the reader.
#[derive(Debug)]
pub(in crate::process) struct Nap {
    memory: Arc<Memory>,
    direction: Direction,
}

impl Nap {
    fn flag(&self) -> &Flag {
        self.memory.positions(self.direction).reader_sleeps()
    }

    /// Sleeps until the writer publishes something, somebody ends the nap, the time is
    /// over, or for no reason.
    pub(in crate::process) fn sleep(&self, limit: &Timespec) {
        self.flag().sleep(NAPPING, limit);
    }

    /// Ends the nap of another thread.
    pub(in crate::process) fn end(&self) {
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
        reader.set_rest(Rest::Asleep);
        assert_eq!(writer.write(b"bytes").unwrap(), 5);
        assert!(writer.publish(true));
        assert!(!writer.publish(true));
    }

    #[test]
    fn a_waiting_writer_is_to_be_woken_once() {
        let (mut writer, mut reader) = stream(64);
        assert_eq!(writer.write(&[0; 100]).unwrap(), 64);
        writer.set_rest(Rest::Asleep);
        let _ = writer.publish(true);
        assert_eq!(reader.skip(8).unwrap(), 8);
        assert!(reader.release(true));
        assert!(!reader.release(true));
        assert_eq!(writer.room().unwrap(), 8);
    }

    #[test]
    fn a_patient_reader_is_woken_for_half_a_stream_or_all_that_comes() {
        let (mut writer, mut reader) = stream(64);
        reader.set_rest(Rest::Patient);
        assert_eq!(writer.write(&[1; 24]).unwrap(), 24);
        assert!(!writer.publish(false));
        assert_eq!(writer.write(&[1; 8]).unwrap(), 8);
        assert!(writer.publish(false));
        assert_eq!(reader.skip(32).unwrap(), 32);
        let _ = reader.release(false);
        reader.set_rest(Rest::Patient);
        assert_eq!(writer.write(&[1; 8]).unwrap(), 8);
        assert!(!writer.publish(false));
        assert!(writer.publish(true));
    }

    #[test]
    fn a_patient_writer_is_woken_for_half_a_stream_or_all_that_is_read() {
        let (mut writer, mut reader) = stream(64);
        assert_eq!(writer.write(&[1; 64]).unwrap(), 64);
        let _ = writer.publish(false);
        writer.set_rest(Rest::Patient);
        assert_eq!(reader.skip(24).unwrap(), 24);
        assert!(!reader.release(false));
        assert_eq!(reader.skip(8).unwrap(), 8);
        assert!(reader.release(false));
        writer.set_rest(Rest::Patient);
        assert!(reader.release(true));
    }

    #[test]
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
