//! Replies on their way from the workers' streams to their futures.

#![forbid(unsafe_code)]

use crate::process::channel::{Attachment, ReplyKind};
use crate::process::codec::Bytes;
use crate::process::pool::deliver::Delivery;
use crate::process::pool::task::{Ending, Task};
use crate::process::pool::worker_handle::{Answer, Content};
use std::mem;
use std::sync::Arc;

/// Replies on their way to their futures.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) answers: Vec<Answer>,
    pub(crate) shared: Vec<u8>,
    /// Segments that workers do not use any more. Unmapping a segment takes time.
    pub(crate) released: Vec<Arc<Attachment>>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Takes the replies out whose value only foreign code can make; see `deliver.rs`.
    pub(crate) fn take_foreign(&mut self) -> Vec<Delivery> {
        // An error is made by code of ours.
        let is_plain = |answer: &Answer| answer.task.is_plain() || answer.kind != ReplyKind::Value;
        if self.answers.iter().all(is_plain) {
            return Vec::new();
        }
        let answers = mem::take(&mut self.answers).into_iter();
        let (plain, foreign): (Vec<_>, Vec<_>) = answers.partition(is_plain);
        self.answers = plain;
        let delivery = |answer: Answer| Delivery {
            task: answer.task,
            kind: answer.kind,
            bytes: match answer.content {
                Content::Shared(place) => self.shared[place].to_vec(),
                Content::Own(bytes) => bytes,
            },
            attachment: answer.attachment.map(|attachment| *attachment),
        };
        foreign.into_iter().map(delivery).collect()
    }

    /// Ends the tasks of the batch. Returns those with callbacks or wakers, which are to be finished.
    pub(crate) fn end(self) -> Vec<Task> {
        let mut late = Vec::new();
        drop(self.released);
        let shared = self.shared;
        for answer in self.answers {
            let bytes = match answer.content {
                Content::Shared(place) => Bytes::Borrowed(&shared[place]),
                Content::Own(bytes) => Bytes::Owned(bytes),
            };
            let ending = match answer.kind {
                ReplyKind::Value => {
                    Ending::Value(bytes, answer.attachment.map(|attachment| *attachment))
                }
                _ => Ending::Failure(bytes),
            };
            late.extend(answer.task.end(ending));
        }
        late
    }
}
