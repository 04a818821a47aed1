//! The results of a span that a worker has done before it answers.
//!
//! # Protocol
//! The worker copies each result into the stream as soon as the result is there, to its place in the later reply.
//! That is a draft of the reply (`channel/ring.rs`): it wakes no thread, and costs little more than the bytes. The
//! reply, when it is written, begins with the same bytes at the same place. If the worker dies before that, the
//! supervisor takes the draft as the reply for the items in it. Of the other items, some may have been begun,
//! and none was answered.
//!
//! A reply of several items must be published at once, as no draft can be behind half a reply. So the reply is
//! no longer than the room in the stream, and than one published piece. If the next result does not fit, the
//! results so far are sent as a *part*, and the draft of another reply begins. A single result that is too
//! long is a part of its own: the call pauses until the part is sent. No other result can be lost meanwhile.
//!
//! # Invariants
//! 1. The draft is the beginning of the reply, or the draft counts nothing.
//! 2. A reply that is published piece by piece has one item.

#![forbid(unsafe_code)]

use crate::process::channel::{Corrupt, HEADER, Reply, ReplyKind, Writer};
use crate::process::contract::{Answer, Progress};
use crate::process::forks;
use crate::process::worker::{PIECE, Trouble};
use crate::runtime::os::fork;
use crate::runtime::os::socket::Socket;
use std::time::Instant;

/// The draft of an answer.
pub(crate) struct PartialReply<'a> {
    writer: &'a mut Writer,
    socket: &'a Socket,
    /// The number of the frame that it replies to.
    number: u64,
    /// The moment since when the worker has been at the items in the draft.
    since: Instant,
    has_begun: bool,
    items: u32,
    /// The number of the reply's bytes in the draft.
    length: usize,
    trouble: Option<Trouble>,
}

impl<'a> PartialReply<'a> {
    pub(crate) fn new(writer: &'a mut Writer, socket: &'a Socket, number: u64) -> Self {
        Self {
            writer,
            socket,
            number,
            since: Instant::now(),
            has_begun: false,
            items: 0,
            length: 0,
            trouble: None,
        }
    }

    /// Ends the draft: the call is over, and will be answered, `otherwise` than by the draft. Returns the
    /// nanoseconds of the part that was not sent.
    pub(crate) fn end(self, otherwise: bool) -> Result<u64, Trouble> {
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        if otherwise && self.items > 0 {
            self.writer.count_draft(0, 0);
        }
        Ok(nanoseconds(self.since))
    }

    /// Returns whether the whole reply fits in at once.
    fn has_room(&self, answer: &Answer) -> bool {
        let frame = HEADER + answer.bytes.len().next_multiple_of(8);
        answer.tail.is_none()
            && answer.attachment.is_none()
            && frame <= PIECE
            && self.writer.room().is_ok_and(|room| frame <= room)
    }

    /// Sends the content of the draft.
    fn send_part(&mut self, answer: &mut Answer) -> Result<(), Trouble> {
        let part = answer.bytes.get(..self.length).ok_or(Corrupt)?;
        let reply = Reply {
            kind: ReplyKind::Part,
            is_attached: false,
            is_stamped: false,
            left: self.items,
            length: part.len() as u64,
            nanoseconds: nanoseconds(self.since),
            number: self.number,
        };
        let zeros = &[0; 8][..part.len().next_multiple_of(8) - part.len()];
        for piece in [&reply.encode()[..], part, zeros] {
            if self.writer.write(piece)? < piece.len() {
                // There was room for it when it was drafted.
                return Err(Corrupt.into());
            }
        }
        if self.writer.publish(true) {
            self.socket.wake()?;
        }
        answer.bytes.drain(..self.length);
        self.has_begun = false;
        self.items = 0;
        self.length = 0;
        self.since = Instant::now();
        Ok(())
    }
}

impl Progress for PartialReply<'_> {
    fn note(&mut self, answer: &mut Answer) -> bool {
        if forks::is_fork() {
            // The call has forked, and this is the child: its parent goes on.
            fork::leave();
        }
        let fits = self.has_room(answer) || self.send(answer) && self.has_room(answer);
        if !fits {
            return false;
        }
        if !self.has_begun {
            self.writer.begin_draft();
            self.has_begun = true;
        }
        self.writer
            .write_draft(HEADER + self.length, &answer.bytes[self.length..]);
        self.length = answer.bytes.len();
        self.items += 1;
        // Not more than a piece.
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        self.writer.count_draft(self.items, length);
        true
    }

    fn send(&mut self, answer: &mut Answer) -> bool {
        if self.items > 0
            && let Err(trouble) = self.send_part(answer)
        {
            self.trouble = Some(trouble);
        }
        self.trouble.is_none()
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::process::channel::{Memory, Reader};

    /// The supervisor's end of the channel.
    struct Supervisor {
        reader: Reader,
        /// The messages that were sent: the number in the frame, and the bytes.
        sent: Vec<(u32, Vec<u8>)>,
    }

    impl Supervisor {
        /// Returns the draft that the supervisor would find if the worker ended now.
        fn draft(&mut self) -> Option<(u32, Vec<u8>)> {
            let mut head = Vec::new();
            while self.reader.peek(HEADER, &mut head).unwrap() {
                let reply = Reply::decode(&head).unwrap();
                self.reader.skip(HEADER).unwrap();
                let length = usize::try_from(reply.length).unwrap();
                let mut bytes = Vec::new();
                self.reader.read(length, &mut bytes).unwrap();
                let zeros = length.next_multiple_of(8) - length;
                self.reader.skip(zeros).unwrap();
                self.sent.push((reply.left, bytes));
                head.clear();
            }
            let _ = self.reader.release(true);
            self.reader.draft(HEADER)
        }
    }

    fn channel(capacity: usize) -> (Supervisor, Writer, Socket) {
        let (_, memory) = Memory::create(capacity).unwrap();
        let supervisor = Supervisor {
            reader: Reader::from_worker(&memory),
            sent: Vec::new(),
        };
        let writer = Writer::from_worker(&memory);
        (supervisor, writer, Socket::pair().unwrap().0)
    }

    #[test]
    fn each_item_counts_as_soon_as_it_was_noted() {
        let (mut supervisor, mut writer, socket) = channel(4096);
        let mut answer = Answer::default();
        let mut draft = PartialReply::new(&mut writer, &socket, 7);
        for item in 0..10_u8 {
            let before = answer.bytes.clone();
            let noted = (item > 0).then_some((u32::from(item), before));
            assert_eq!(supervisor.draft(), noted);
            answer.bytes.extend([item; 3]);
            assert_eq!(supervisor.draft(), noted);
            assert!(draft.note(&mut answer));
        }
        assert!(draft.end(false).is_ok());
        assert_eq!(supervisor.sent, []);
    }

    #[test]
    fn an_answer_that_is_published_puts_an_end_to_its_draft() {
        let (mut supervisor, mut writer, socket) = channel(4096);
        for round in 0..3 {
            let mut answer = Answer::default();
            let mut draft = PartialReply::new(&mut writer, &socket, round);
            answer.bytes.extend([1; 8]);
            assert_eq!(supervisor.draft(), None);
            assert!(draft.note(&mut answer));
            assert!(draft.end(false).is_ok());
            let drafted = Some((1, vec![1; 8]));
            assert_eq!(supervisor.draft(), drafted);
            let reply = Reply {
                kind: ReplyKind::Value,
                is_attached: false,
                is_stamped: false,
                left: 0,
                length: 8,
                nanoseconds: 0,
                number: round,
            };
            assert_eq!(writer.write(&reply.encode()), Ok(HEADER));
            assert_eq!(writer.write(&answer.bytes), Ok(8));
            assert_eq!(supervisor.draft(), drafted);
            let _ = writer.publish(true);
            assert_eq!(supervisor.draft(), None);
            assert_eq!(supervisor.sent.pop(), Some((0, vec![1; 8])));
        }
    }

    #[test]
    fn results_that_do_not_fit_are_sent_in_parts_except_a_long_item() {
        let (mut supervisor, mut writer, socket) = channel(256);
        let mut answer = Answer::default();
        let mut draft = PartialReply::new(&mut writer, &socket, 1);
        for item in 0..3_u8 {
            answer.bytes.extend([item; 50]);
            assert!(draft.note(&mut answer));
        }
        let first = answer.bytes.clone();
        assert_eq!(supervisor.draft(), Some((3, first.clone())));
        // There is room for this one in the stream, but not together with the others. First, they
        // are to be read.
        answer.bytes.extend([3; 80]);
        assert!(!draft.note(&mut answer));
        assert_eq!(answer.bytes, [3; 80]);
        assert_eq!(supervisor.draft(), None);
        assert_eq!(supervisor.sent, [(3, first.clone())]);
        assert!(draft.note(&mut answer));
        assert_eq!(supervisor.draft(), Some((1, vec![3; 80])));
        answer.bytes.extend([4; 240]);
        assert!(!draft.note(&mut answer));
        assert_eq!(answer.bytes, [4; 240]);
        assert_eq!(supervisor.draft(), None);
        assert_eq!(supervisor.sent, [(3, first), (1, vec![3; 80])]);
        assert!(draft.end(false).is_ok());
    }

    #[test]
    fn another_answer_than_the_drafted_one_counts_alone() {
        let (mut supervisor, mut writer, socket) = channel(256);
        let mut answer = Answer::default();
        let mut draft = PartialReply::new(&mut writer, &socket, 1);
        answer.bytes.push(1);
        assert!(draft.note(&mut answer));
        assert!(draft.end(true).is_ok());
        assert_eq!(supervisor.draft(), None);
    }
}
