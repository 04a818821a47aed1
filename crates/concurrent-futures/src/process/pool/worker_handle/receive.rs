//! The receiving half of a worker's handle: replies.

#![forbid(unsafe_code)]

use crate::process::channel::{
    Corrupt, HEADER, MappedSegment, Reply, ReplyKind, STAMP, padded, reserve,
};
use crate::process::pool::worker_handle::{
    Answer, Arrival, Content, Incoming, PIECE, Stage, WorkerHandle,
};
use std::io;
use std::time::Instant;

impl WorkerHandle {
    /// Receives the frames that have come, short answers into `shared`, and goes on with writing.
    pub(crate) fn receive(
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

    /// Handles a whole frame that has come.
    fn arrive(
        &mut self,
        reply: Reply,
        content: Content,
        arrivals: &mut Vec<Arrival>,
        shared: &mut Vec<u8>,
    ) -> Result<(), Corrupt> {
        let mut content = content;
        let stamp = if reply.is_stamped {
            Some(take_stamp(&mut content, shared)?)
        } else {
            None
        };
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
            (ReplyKind::Ready, Stage::Starting) if self.opening.is_none() => {
                self.stage = Stage::Ready;
                self.ready_since = Some(Instant::now());
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
                    let begun = begun.filter(|begun| *begun > 0);
                    let Some(unbegun) = begun.and_then(|begun| flight.task.split(begun)) else {
                        // It stays in flight: dropped here, under a lock, it would call callbacks.
                        self.in_flight.push_front(flight);
                        return Err(Corrupt);
                    };
                    // The worker waits until we say that we have read this: what is behind comes
                    // after the rest, as before.
                    rest = self.take_back(0);
                    self.handed = self.handed.saturating_sub(unbegun.weight());
                    rest.push(unbegun);
                }
                let length = attached_length(attachment.as_deref());
                self.record_run(&flight.task, &reply, stamp, (content.bytes(shared), length));
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
                let task = flight.task.take_first(reply.left).ok_or(Corrupt)?;
                let length = attached_length(attachment.as_deref());
                self.record_run(&task, &reply, stamp, (content.bytes(shared), length));
                arrivals.push(Arrival::Answer(Answer {
                    task,
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
}

/// Returns the length of the out-of-band buffers of an answer.
fn attached_length(attachment: Option<&io::Result<MappedSegment>>) -> usize {
    let segment = attachment.and_then(|attachment| attachment.as_ref().ok());
    segment.map_or(0, MappedSegment::len)
}

/// Takes the stamp off the end of an answer.
fn take_stamp(content: &mut Content, shared: &[u8]) -> Result<[u64; 2], Corrupt> {
    let bytes = content.bytes(shared);
    let (_, stamp) = bytes.split_last_chunk::<STAMP>().ok_or(Corrupt)?;
    let (begin, end) = stamp.split_at(STAMP / 2);
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    let stamp = [number(begin).ok_or(Corrupt)?, number(end).ok_or(Corrupt)?];
    match content {
        Content::Shared(place) => place.end -= STAMP,
        Content::Own(bytes) => bytes.truncate(bytes.len() - STAMP),
    }
    Ok(stamp)
}
