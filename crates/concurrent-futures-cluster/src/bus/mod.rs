//! The seam between the protocol and the server: all that the protocol asks of a server.
//!
//! [`Nats`](crate::nats::Nats) implements it. Calls never wait
//! for ever: a server that does not answer is an error, which passes.

#![forbid(unsafe_code)]

pub(crate) mod kept;

use crate::wire::{Id, hex};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kept::KeptBus;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;

/// The length up to which payloads are part of a message. Messages have a limit of a mebibyte.
pub(crate) const INLINE: usize = 256 * 1024;
/// The number of priorities.
pub(crate) const PRIORITIES: u8 = 3;

/// The future of a call.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, BusError>> + Send + 'a>>;

/// The reason why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// No process listens to the subject of a request.
    #[error("no process answers to the subject")]
    NoListener,
    /// The server, or the process behind it, did not answer in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The server refuses the call.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The connection was closed.
    #[error("the connection is closed")]
    Closed,
}

/// The place of tasks: a queue, an environment, a priority, and a rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(crate) queue: String,
    pub(crate) environment: String,
    pub(crate) priority: u8,
    /// That of kept tasks; see [`RANKS`](kept::RANKS). Other tasks have the first one, 0.
    pub(crate) rank: u8,
}

impl Lane {
    /// Returns the priority and the rank in names.
    pub(crate) fn level(&self) -> String {
        match self.rank {
            0 => self.priority.to_string(),
            rank => format!("{}+{rank}", self.priority),
        }
    }

    /// Returns the subject of the tasks.
    pub(crate) fn subject(&self) -> String {
        let Self {
            queue, environment, ..
        } = self;
        format!("cf.t.{queue}.{environment}.{}", self.level())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

/// A task that the server has delivered to a host.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) frame: Bytes,
    /// The identity with which the task was published; the server keeps it unique for some minutes.
    pub(crate) id: String,
    /// The way to settle the delivery.
    pub(crate) token: String,
    /// The number of times that the server has delivered the task.
    pub(crate) deliveries: u64,
    /// When the task was published, in milliseconds since 1970 by the server's clock.
    pub(crate) published: u64,
}

/// The end of a delivery, or its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// The task is done.
    Done,
    /// The host still has the task.
    Extend,
    /// Another host may have the task at once.
    Back,
}

/// The fate of a task that a client withdraws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// No host has ever got the task, and none will.
    Untaken,
    /// The task may be with a host.
    Delivered,
    /// The task is not on the server.
    Gone,
}

/// A message on a subject.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) payload: Bytes,
    pub(crate) reply: Option<String>,
}

/// The messages on a subject, as they come.
pub(crate) struct Notes(Pin<Box<dyn Stream<Item = Note> + Send>>);

impl Notes {
    pub(crate) fn new(notes: impl Stream<Item = Note> + Send + 'static) -> Self {
        Self(Box::pin(notes))
    }

    /// Waits for the next message; none if no more come. A call that is dropped loses no message.
    pub(crate) async fn recv(&mut self) -> Option<Note> {
        self.0.next().await
    }
}

/// The key of a value that the server keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoreKey {
    /// The outcome of a task. The first one stays.
    Outcome { queue: String, id: String },
    /// The record of a kept task. The first one stays.
    Record { queue: String, id: String },
    /// A payload that is too long for a message.
    Object {
        queue: String,
        name: String,
        length: usize,
    },
    /// A host that is there. It goes by itself unless it is kept again.
    Host { queue: String, name: String },
}

impl StoreKey {
    /// Names the object of a payload of a session.
    pub(crate) fn object(queue: &str, session: Id, hash: &[u8; 32], length: u64) -> Self {
        Self::Object {
            queue: queue.to_owned(),
            name: format!("{session}.{}", hex(hash)),
            length: usize::try_from(length).unwrap_or(usize::MAX),
        }
    }

    /// Names the record of a task of a kept session.
    pub(crate) fn record(queue: &str, session: Id, number: u64) -> Self {
        Self::Record {
            queue: queue.to_owned(),
            id: format!("{session}.{number}"),
        }
    }

    /// Names the last owner of a kept session: the newest one stays.
    pub(crate) fn last_owner(queue: &str, session: Id) -> Self {
        Self::Object {
            queue: queue.to_owned(),
            name: format!("{session}.owner"),
            length: 1,
        }
    }

    /// Names the mark of a run of a kept task, or of its orderly end. It is stored beside the outcome.
    pub(crate) fn mark(queue: &str, session: Id, number: u64, run: u32, ends: bool) -> Self {
        let end = if ends { ".back" } else { "" };
        Self::Outcome {
            queue: queue.to_owned(),
            id: format!("{session}.{number}.{run}{end}"),
        }
    }

    /// Names the outcome of a task of a session.
    pub(crate) fn outcome(queue: &str, session: Id, number: u64) -> Self {
        Self::Outcome {
            queue: queue.to_owned(),
            id: format!("{session}.{number}"),
        }
    }
}

/// An event of a [`Supply`].
#[derive(Debug)]
pub(crate) enum Supplied {
    Task(Delivery),
    /// Some of the tasks that were asked for do not come: the time of the request has passed.
    Less,
    /// The lane has no task that a host has not got: the answer to a probe.
    Empty,
}

/// The tasks of a lane that come to one host, as it asks for them.
pub(crate) trait Supply: Send {
    /// Asks for `count` tasks more. The request holds for the time `wait`.
    fn ask(&mut self, count: usize, wait: Duration) -> Later<'_, ()>;

    /// Asks for one task at once, or else for [`Supplied::Empty`].
    fn probe(&mut self) -> Later<'_, ()>;

    /// Returns how many tasks were asked for and have not come.
    fn open(&self) -> usize;

    /// Returns for how long a request should wait at the server. A request may be lost there without a sign. Then the
    /// host asks again after that time.
    fn wait(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// Returns whether a probe has no answer yet.
    fn is_probing(&self) -> bool;

    /// Returns the next event. An error ends the supply, and all requests. A call that is dropped loses no event.
    fn next(&mut self) -> Later<'_, Supplied>;
}

/// The calls of the server.
pub(crate) trait Bus: KeptBus {
    /// Publishes a task, once for each `id`. Returns its number on the server.
    fn push<'a>(&'a self, lane: &'a Lane, id: &'a str, frame: Bytes) -> Later<'a, u64>;

    /// Opens a supply of tasks.
    fn supply<'a>(&'a self, lane: &'a Lane) -> Later<'a, Box<dyn Supply>>;

    /// Settles a delivery, or extends it.
    fn settle<'a>(&'a self, token: &'a str, how: Settle) -> Later<'a, ()>;

    /// Takes a task back if no host has got it.
    fn withdraw<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, Withdrawn>;

    /// Returns whether a task is on the server.
    fn has<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, bool>;

    /// Returns the time of the clock by which the server notes when tasks were published, in milliseconds since 1970.
    fn time<'a>(&'a self, lane: &'a Lane) -> Later<'a, u64>;

    /// Sends a message to those that listen.
    fn send<'a>(&'a self, subject: &'a str, payload: Bytes) -> Later<'a, ()>;

    /// Waits until all messages have left this process, for a second at most.
    fn flush(&self) -> Later<'_, ()>;

    /// Sends a message, and returns the first answer.
    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Bytes,
        timeout: Duration,
    ) -> Later<'a, Bytes>;

    /// Listens to a subject.
    fn listen<'a>(&'a self, subject: &'a str) -> Later<'a, Notes>;

    /// Keeps a value. Returns false if it is an outcome, and there is one.
    fn keep<'a>(&'a self, store_key: &'a StoreKey, content: Bytes) -> Later<'a, bool>;

    /// Returns a value that is kept.
    fn fetch<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, Option<Bytes>>;

    /// Removes a value.
    fn forget<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, ()>;

    /// Returns the hosts that are there.
    fn hosts<'a>(&'a self, queue: &'a str) -> Later<'a, Vec<Bytes>>;

    /// Returns the time for which a delivery is a host's own, unless the host extends it.
    fn lease(&self) -> Duration;

    /// Returns the number of connections so far: it changes with each new one.
    fn connections(&self) -> watch::Receiver<u64>;
}
