//! The content of replies from worker processes, before Python objects are made of it.

use concurrent_futures::TaskError;
use concurrent_futures::engine::{MappedSegment, RemoteAnswer};
use pyo3::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The content of a reply.
#[derive(Clone)]
pub(super) enum Content {
    /// No reply, or other code has set an outcome.
    Nothing,
    Value(Message),
    Failure(Bytes),
    Error(TaskError),
    /// The worker has sent the reply, but it could not be received as a whole.
    Lost(Arc<io::Error>),
    /// An exception that was raised in this process.
    Raised(Arc<PyErr>),
    /// The replies for parts of a span.
    Parts(Parts),
    /// The content was moved to where futures have their outcome.
    Opened,
}

/// The bytes of a reply, and its out-of-band buffers.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) attachment: Option<Arc<MappedSegment>>,
}

/// The replies for the items of a span.
#[derive(Clone, Default)]
pub(super) struct Parts {
    pub(super) missing: u32,
    /// The results, by the first of their items.
    pub(super) results: BTreeMap<u32, Held>,
    /// The reasons why some items have no results.
    pub(super) errors: Vec<(Range<u32>, Content)>,
}

/// The results of some items of a span.
#[derive(Clone)]
pub(super) enum Held {
    /// Plain results, and the offset of their bytes.
    Bytes(Message, usize),
    /// This many results, which are to be opened on arrival.
    Unopened(Message, u32),
    Objects(Arc<[Py<PyAny>]>),
}

impl Parts {
    /// Returns whether an item has something that can be taken.
    pub(super) fn has(&self, item: u32) -> bool {
        let is_open = |held: &Held| !matches!(held, Held::Unopened(..));
        self.results.get(&item).is_some_and(is_open) || self.error(item).is_some()
    }

    /// Returns the reason why an item has no result.
    pub(super) fn error(&self, item: u32) -> Option<&Content> {
        let mut errors = self.errors.iter();
        let (_, error) = errors.find(|(items, _)| items.contains(&item))?;
        Some(error)
    }

    /// Keeps a reply for some items, whose results are plain. Returns whether the items have failed.
    pub(super) fn keep(&mut self, items: Range<u32>, answer: RemoteAnswer<'_>) -> bool {
        self.missing = self.missing.saturating_sub(items.end - items.start);
        let error = match answer {
            RemoteAnswer::Value { bytes, attachment } => match message(bytes, attachment) {
                Ok(message) => {
                    let held = Held::Bytes(message, 0);
                    self.results.insert(items.start, held);
                    return false;
                }
                Err(error) => Content::Lost(Arc::new(error)),
            },
            RemoteAnswer::Failure(bytes) => Content::Failure(shared(bytes)),
            RemoteAnswer::Error(error) => Content::Error(error),
        };
        self.errors.push((items, error));
        true
    }
}

/// Makes a message of the bytes of a reply and its buffers.
///
/// # Errors
/// The reason why the buffers were not received.
pub(super) fn message(
    bytes: Cow<'_, [u8]>,
    attachment: Option<io::Result<MappedSegment>>,
) -> io::Result<Message> {
    let attachment = attachment.transpose()?.map(Arc::new);
    let bytes = shared(bytes);
    Ok(Message { bytes, attachment })
}

/// Keeps bytes for several threads.
pub(super) fn shared(bytes: Cow<'_, [u8]>) -> Bytes {
    match bytes {
        Cow::Borrowed(bytes) => match Tiny::of(bytes) {
            Some(tiny) => Bytes::Tiny(tiny),
            None => Bytes::Short(Arc::from(bytes)),
        },
        Cow::Owned(bytes) => Bytes::Long(Arc::new(bytes)),
    }
}

/// Bytes that several threads may be reading.
#[derive(Clone)]
pub(super) enum Bytes {
    Tiny(Tiny),
    Short(Arc<[u8]>),
    /// The bytes stay where they were received.
    Long(Arc<Vec<u8>>),
}

/// A few bytes, as many as a number takes. One thread would allocate memory for them, and another would free
/// it.
#[derive(Clone, Copy)]
pub(super) struct Tiny {
    length: u8,
    bytes: [u8; Self::MOST],
}

impl Tiny {
    const MOST: usize = 14;

    fn of(bytes: &[u8]) -> Option<Self> {
        let mut tiny = [0; Self::MOST];
        tiny.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self {
            length: u8::try_from(bytes.len()).ok()?,
            bytes: tiny,
        })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Tiny(Tiny { length, bytes }) => &bytes[..usize::from(*length)],
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}
