//! The sending half of a worker's handle: tasks, the functions that they need, and orders.

#![forbid(unsafe_code)]

use crate::process::channel::{Call, Corrupt, HEADER, Order, ParkState, Releases};
use crate::process::contract::Definition;
use crate::process::pool::task::Task;
use crate::process::pool::worker_handle::{HALF, InFlight, PIECE, Stage, WorkerHandle};
use crate::recording::recorder;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest frame that gives back segments.
const RELEASE: usize = HEADER + Releases::MOST * size_of::<u64>();
const _: () = assert!(HALF > 2 * HEADER + Definition::LONGEST + RELEASE);

impl WorkerHandle {
    /// Returns whether the frame of a task fits in now.
    pub(crate) fn has_room_for_task(&self, task: &Task) -> bool {
        let definition = self.missing(task).map_or(0, |missing| {
            HEADER + missing.bytes.len().next_multiple_of(8)
        });
        self.has_room_for(RELEASE + definition + task.most_bytes().next_multiple_of(8))
    }

    /// Returns whether the frame of an argument so long fits in now.
    fn has_room_for(&self, length: usize) -> bool {
        let room = self.writer.room().unwrap_or(0);
        self.sending.is_none() && room >= HEADER + length.next_multiple_of(8)
    }

    /// Returns the function that the worker must learn before it can run the task.
    fn missing<'a>(&self, task: &'a Task) -> Option<&'a Definition> {
        let definition = task.definition.as_deref()?;
        let known = self.known.get(usize::from(definition.place));
        (known != Some(&definition.number)).then_some(definition)
    }

    /// Sends the function of a task, unless the worker knows it.
    fn teach(&mut self, task: &Task) -> Result<(), Corrupt> {
        let Some(missing) = self.missing(task) else {
            return Ok(());
        };
        let call = Call {
            order: Order::Define,
            is_attached: false,
            is_stamped: false,
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

    /// Dispatches a task. Bytes that do not fit into the stream are written later by [`pump`](Self::pump),
    /// which happens only to a worker that has no other task.
    pub(crate) fn hand(&mut self, task: Task) -> Result<(), Corrupt> {
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
            is_stamped: recorder::is_on(),
            length: task.argument.len() as u64,
            function: task.place(),
            number: self.next_number,
        };
        if self.in_flight.is_empty() {
            self.since = Instant::now();
        }
        let is_first = self.in_flight.is_empty();
        let mut task = task;
        self.handed += task.weight();
        if is_first {
            task.note_turn();
        }
        self.in_flight.push_back(InFlight {
            task,
            number: self.next_number,
            position: self.writer.position(),
        });
        self.next_number += 1;
        self.write_whole(&call, &[])?;
        self.sending = Some(0);
        self.pump_patiently()
    }

    /// Writes as many bytes as the stream has room for, and asks the worker for a wake-up for the rest.
    fn pump_patiently(&mut self) -> Result<(), Corrupt> {
        self.pump()?;
        if self.sending.is_some() {
            // Maybe the only thread to go on is the one that the worker wakes when there is room.
            self.writer.set_rest(ParkState::Patient);
            // Once more: room that came before has woken no thread.
            self.pump()?;
        }
        Ok(())
    }

    /// Gives the worker its segments back that no object uses any more.
    fn give_back(&mut self) -> Result<(), Corrupt> {
        let lane = self.lane.as_ref();
        let Some(released) = lane.and_then(|lane| lane.releases().take()) else {
            return Ok(());
        };
        let call = Call {
            order: Order::Release,
            is_attached: false,
            is_stamped: false,
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

    /// Sends the call of the initializer, before anything else. Bytes that do not fit are written later, as
    /// those of a task.
    pub(crate) fn initialize(&mut self, function: u64, argument: Arc<[u8]>) -> Result<(), Corrupt> {
        let call = Call {
            order: Order::Initialize,
            is_attached: false,
            is_stamped: false,
            length: argument.len() as u64,
            function,
            number: u64::MAX,
        };
        self.write_whole(&call, &[])?;
        self.opening = Some(argument);
        self.sending = Some(0);
        self.pump_patiently()
    }

    /// Tells the worker to end when it has done its tasks.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closing;
        if self.order(Order::Close).is_err() {
            // There is no room, or the memory is corrupt.
            self.child.kill();
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Corrupt> {
        if !self.has_room_for(0) {
            return Err(Corrupt);
        }
        let call = Call {
            order,
            is_attached: false,
            is_stamped: false,
            length: 0,
            function: 0,
            number: u64::MAX,
        };
        self.write_whole(&call, &[])?;
        self.publish(true);
        Ok(())
    }

    /// Shows the worker the written bytes. `and_that_is_all`, if no more follow for now.
    pub(crate) fn publish(&self, and_that_is_all: bool) {
        self.writer.note_cpu();
        if self.writer.publish(and_that_is_all) {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        // A worker that has closed its end is on its way to the end.
        let _ = self.child.socket.wake();
    }

    /// Writes as many bytes as the stream has room for.
    pub(crate) fn pump(&mut self) -> Result<(), Corrupt> {
        while let Some(done) = self.sending {
            let argument: &[u8] = match (&self.opening, self.in_flight.back()) {
                (Some(argument), _) => argument,
                (None, Some(flight)) => &flight.task.argument,
                (None, None) => break,
            };
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
            if self.sending.is_none() {
                self.opening = None;
            }
            self.publish(self.sending.is_none());
            // Only a full stream is a reason to stop: it has woken a patient worker.
            if written == 0 {
                break;
            }
        }
        Ok(())
    }
}
