//! The messages between clients and hosts, and their authentication.
//!
//! A message is *sealed*: an authentication code (HMAC with SHA-256, of the queue's key), and then the body. The
//! code covers the kind of the message and its *place*: the subject on which the message travels, or the message
//! that it answers. So no message passes for another one. A receiver checks the code before it reads the body.
//! Without a key, messages have no code.

#![forbid(unsafe_code)]

use bytes::Bytes;
use ring::{digest, hmac, rand};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// The version of the messages. Each message begins with it.
const VERSION: u8 = 6;
/// The length of an authentication code.
const CODE: usize = 32;

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Task,
    Report,
    Receipt,
    Order,
    Answer,
    Question,
    Host,
    /// The properties of a kept task for later clients.
    Record,
    /// The owner of a kept session.
    Owner,
    /// The mark of a run of a kept task.
    Mark,
}

/// The reason why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the message is of another version of the protocol")]
    Version,
    #[error("the authentication code is not that of the queue's key")]
    Code,
    #[error("the message is malformed")]
    Malformed,
}

/// The key of a queue, by which messages are sealed.
#[derive(Clone)]
pub(crate) struct Seal(Option<hmac::Key>);

impl Seal {
    pub(crate) fn new(key: Option<&[u8]>) -> Self {
        Self(key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// Returns whether messages are authenticated.
    pub(crate) fn is_keyed(&self) -> bool {
        self.0.is_some()
    }

    /// Returns bytes that differ for different keys, and tell nothing about them.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let key = self.0.as_ref();
        key.map(|key| hmac::sign(key, b"environment").as_ref().to_vec())
            .unwrap_or_default()
    }

    fn context(key: &hmac::Key, kind: Kind, place: &[u8], body: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(key);
        context.update(&[VERSION, kind as u8]);
        context.update(&u64::try_from(place.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(place);
        context.update(body);
        context
    }

    /// Seals a message.
    pub(crate) fn seal<T: Serialize>(&self, kind: Kind, place: &[u8], message: &T) -> Bytes {
        let mut bytes = vec![VERSION];
        let start = if self.is_keyed() { 1 + CODE } else { 1 };
        bytes.resize(start, 0);
        // Texts, numbers and bytes always serialise.
        bytes = postcard::to_extend(message, bytes).unwrap_or_default();
        if let (Some(key), Some(body)) = (&self.0, bytes.get(start..)) {
            let code = Self::context(key, kind, place, body).sign();
            bytes[1..start].copy_from_slice(code.as_ref());
        }
        Bytes::from(bytes)
    }

    /// Opens a message.
    ///
    /// # Errors
    /// [`Refused`], before any of the body is read if the code is wrong.
    pub(crate) fn open<'a, T: Deserialize<'a>>(
        &self,
        kind: Kind,
        place: &[u8],
        bytes: &'a [u8],
    ) -> Result<T, Refused> {
        let (version, rest) = bytes.split_first().ok_or(Refused::Malformed)?;
        if *version != VERSION {
            return Err(Refused::Version);
        }
        let body = match &self.0 {
            None => rest,
            Some(key) => {
                let (code, body) = rest.split_at_checked(CODE).ok_or(Refused::Code)?;
                let own = Self::context(key, kind, place, body).sign();
                if !bool::from(own.as_ref().ct_eq(code)) {
                    return Err(Refused::Code);
                }
                body
            }
        };
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            _ => Err(Refused::Malformed),
        }
    }
}

impl Seal {
    /// Returns the outcome of a task in a report that a host has stored. None if the message is none.
    pub(crate) fn stored_in(
        &self,
        subject: &str,
        number: u64,
        frame: &[u8],
    ) -> Option<(u32, Outcome)> {
        let opened = self.open::<Report>(Kind::Report, subject.as_bytes(), frame);
        let mut ended = opened.ok()?.ended.into_iter();
        ended
            .find(|(of, _, outcome)| *of == number && !matches!(outcome, Outcome::Returned(_)))
            .map(|(_, attempt, outcome)| (attempt, outcome))
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("is_keyed", &self.is_keyed())
            .finish_non_exhaustive()
    }
}

/// A random number that names a client's session, or a host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Id([u8; 16]);

impl Id {
    /// Draws an identity that no other has.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn random() -> std::io::Result<Self> {
        random().map(Self)
    }

    /// Makes an identity of the beginning of a hash.
    pub(crate) fn of(hash: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(bytes)
    }
}

/// Returns random bytes.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::SecureRandom::fill(&rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| std::io::Error::other("the system has no random numbers"))?;
    Ok(bytes)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns bytes as digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

/// Returns the hash of a payload. It is another one than [`hash`], as payloads are long: four times as fast, or more.
pub(crate) fn hash_of_payload(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Returns the hash of bytes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The identity of a task: its session, its number there, and how often the client has submitted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TaskId {
    pub(crate) session: Id,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.session, self.number, self.attempt)
    }
}

/// The function of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Call {
    /// A place in the table of calls that all programs of one build have.
    Entry(u64),
    /// A place there, of a call for several items, whose worker gets a token before the argument. By the token, it tells
    /// its host of results that are there.
    Span(u64),
    /// Bytes that only the runner of the host understands.
    Opaque(Vec<u8>),
    /// A function that has a name in the host's program; see [`register!`](crate::register).
    Named {
        /// The name.
        name: String,
        /// The types of the argument and of the result, as the client knows them.
        types: String,
    },
}

/// Bytes in a message, or the name of an object that has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    Inline(Bytes),
    Object {
        hash: [u8; 32],
        length: u64,
    },
    /// An object in the object store, and not on the server.
    Elsewhere {
        hash: [u8; 32],
        length: u64,
    },
}

/// The effect of a host's loss on a task that it had started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OnHostLoss {
    /// Another host runs the task again.
    #[default]
    Rerun,
    /// The task fails with [`HostLost`](crate::HostLost).
    Fail,
}

/// The properties of a task that its host must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: u32,
    /// The number of deliveries beyond which the host asks the client. Of a kept task: the number of hosts that it may
    /// take along.
    pub(crate) deliveries: u32,
    /// The properties of a task that outlives its client.
    pub(crate) kept: Option<KeptTerms>,
}

/// The properties of a kept task that its host must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptTerms {
    /// The time for which the server keeps the outcome.
    pub(crate) age: Duration,
    pub(crate) on_host_loss: OnHostLoss,
}

/// The properties of a kept task for later clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) environment: String,
    pub(crate) priority: u8,
    pub(crate) rank: u8,
    pub(crate) call: Call,
    pub(crate) argument: Payload,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) on_host_loss: OnHostLoss,
    /// The time for which the server keeps the task.
    pub(crate) age: Duration,
    /// The type of the result, by its name; empty for other frontends.
    pub(crate) result: String,
}

/// The owner of a kept session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) machine: String,
    pub(crate) pid: u32,
    /// Tells owners of one process from each other.
    pub(crate) nonce: [u8; 16],
}

/// The mark of a run of a kept task: the host, and a number that no other run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) host: Id,
    pub(crate) nonce: [u8; 16],
}

/// The identity of a parcel: its session, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ParcelId {
    pub(crate) session: Id,
    pub(crate) serial: u64,
}

impl fmt::Display for ParcelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.serial)
    }
}

/// The tasks of one message on its way to a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) id: ParcelId,
    /// When it was sent, in milliseconds since 1970 by the server's clock. Zero if the client does not know that time.
    pub(crate) sent: u64,
    pub(crate) tasks: Vec<Task>,
}

/// A task on its way to a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) number: u64,
    pub(crate) attempt: u32,
    pub(crate) call: Call,
    pub(crate) terms: Terms,
    pub(crate) argument: Payload,
}

/// The outcome of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Value(Payload),
    /// An error, as the engine encodes it.
    Failure(Bytes),
    /// The host has not the task's function.
    NoFunction(String),
    /// The host gives the task back without an outcome.
    Returned(Why),
    /// A host was lost that ran the kept task, which is not to run again.
    HostLost,
    /// The number of hosts that were lost while they ran the kept task.
    Poison(u32),
    /// The host could not use the object store.
    NoStore(String),
}

/// The reason why a host gives a task back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Why {
    /// The host ends.
    Drained,
    /// The task was delivered so many times.
    Deliveries(u64),
    /// The object with its argument is not there.
    NoObject,
    /// The client has recalled it.
    Recalled,
    /// The host ends, and has ended the task, which had begun.
    Ended,
    /// No worker was free for the task for some time.
    Busy,
}

impl Why {
    /// Returns whether the host gives a kept task back to the server.
    pub(crate) fn is_to_server(self) -> bool {
        matches!(self, Self::Busy | Self::Drained | Self::Ended)
    }
}

/// News of a host for the client of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) host: Id,
    /// The host's machine and process, which name its lanes in recordings.
    pub(crate) machine: String,
    pub(crate) pid: u32,
    /// When the report was made, in nanoseconds of the host's clock. That clock has any beginning.
    pub(crate) clock: u64,
    /// The number of tasks that the host runs at once.
    pub(crate) workers: u32,
    /// The average time that the host's tasks take; none until one has ended.
    pub(crate) pace: Option<Duration>,
    /// Tasks that the host has.
    pub(crate) held: Vec<(u64, u32)>,
    /// Tasks that run.
    pub(crate) started: Vec<(u64, u32)>,
    pub(crate) ended: Vec<(u64, u32, Outcome)>,
    /// The runs of those among them that have run here, in the same order.
    pub(crate) runs: Vec<Run>,
    /// Parts of the values of tasks that run.
    pub(crate) parts: Vec<TaskPart>,
    /// Whether the outcomes may be stored. The client removes them before it answers.
    pub(crate) may_be_stored: bool,
}

/// The run of a task, with times of the host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) number: u64,
    /// The place among the workers of the host, from 0.
    pub(crate) place: u32,
    pub(crate) start: u64,
    pub(crate) took: u64,
}

/// A part of the value of a task, which the runner and the client's frontend understand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskPart {
    pub(crate) number: u64,
    /// The place of the part in the value.
    pub(crate) first: u64,
    pub(crate) payload: Payload,
}

/// A client's answer to a report: all outcomes are settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The tasks among those that have started which the client does not wait for. No host is to run them.
    pub(crate) unwanted: Vec<(u64, u32)>,
}

/// An order of a client to a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// About a task that the host has.
    Task { task: TaskId, what: What },
    /// To run a parcel that is not on the server.
    Run {
        environment: String,
        priority: u8,
        parcel: Parcel,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// Gives the task up, unless it has begun.
    Recall,
    /// Ends the task, also if it runs.
    Terminate,
}

/// A host's answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The task is given up, and will not run here.
    GivenUp,
    /// The task runs.
    Runs,
    /// The task ends.
    Ends,
    /// The host has no such task.
    Unknown,
    /// The host has the parcel from now on.
    Taken,
    /// The host does not take the parcel, and runs nothing of it.
    Refused,
}

/// A host's question to a client: which of the tasks are still open? The answer has their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) tasks: Vec<(u64, u32)>,
    /// Lets no old answer pass for a new one.
    pub(crate) nonce: [u8; 16],
}

/// A host, as the registry shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    pub(crate) id: Id,
    pub(crate) queue: String,
    pub(crate) environment: String,
    pub(crate) machine: String,
    pub(crate) pid: u32,
    pub(crate) workers: u32,
    pub(crate) figures: Figures,
}

/// The work of a host since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) running: u32,
    /// The tasks that have ended with an outcome, failed ones included.
    pub(crate) ended: u64,
    pub(crate) failed: u64,
    /// The tasks that were given back.
    pub(crate) returned: u64,
    /// The average time that a task takes; none until one has ended.
    pub(crate) pace: Option<Duration>,
}

impl HostInfo {
    /// Returns the name of the machine.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Returns the process id of the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the number of tasks that the host runs at once.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// Returns the queue whose tasks the host runs.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Returns the environment whose tasks the host runs.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            queue,
            environment,
            machine,
            pid,
            workers,
            ..
        } = self;
        write!(
            f,
            "process {pid} on {machine} (queue {queue}, environment {environment}, {workers} workers)"
        )
    }
}

/// Returns the subject on which hosts of a queue say that they have entered the registry.
pub(crate) fn news_of(queue: &str) -> String {
    format!("cf.w.{queue}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_opens_with_its_key_its_kind_and_its_place_only() {
        let seal = Seal::new(Some(b"secret"));
        let sealed = seal.seal(Kind::Task, b"cf.t.q", &7_u32);
        assert_eq!(seal.open::<u32>(Kind::Task, b"cf.t.q", &sealed), Ok(7));
        let other = Seal::new(Some(b"Secret"));
        assert_eq!(
            other.open::<u32>(Kind::Task, b"cf.t.q", &sealed),
            Err(Refused::Code)
        );
        assert_eq!(
            seal.open::<u32>(Kind::Order, b"cf.t.q", &sealed),
            Err(Refused::Code)
        );
        assert_eq!(
            seal.open::<u32>(Kind::Task, b"cf.t.p", &sealed),
            Err(Refused::Code)
        );
        let open = Seal::new(None);
        let unsealed = open.seal(Kind::Task, b"cf.t.q", &7_u32);
        assert_eq!(open.open::<u32>(Kind::Task, b"", &unsealed), Ok(7));
        assert_eq!(
            seal.open::<u32>(Kind::Task, b"cf.t.q", &unsealed),
            Err(Refused::Code)
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let seal = Seal::new(Some(b"secret"));
        let sealed = seal.seal(Kind::Report, b"place", &(1_u64, "text"));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.to_vec();
                changed[at] ^= 1 << bit;
                let opened = seal.open::<(u64, &str)>(Kind::Report, b"place", &changed);
                assert!(opened.is_err(), "byte {at}, bit {bit}");
            }
            assert!(
                seal.open::<(u64, &str)>(Kind::Report, b"place", &sealed[..at])
                    .is_err()
            );
        }
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic() {
        let seal = Seal::new(None);
        for round in 0..20_000_u64 {
            let noise = hash(&round.to_le_bytes());
            let mut bytes = vec![VERSION];
            bytes.extend(noise.iter().take(usize::from(noise[31]) % 32));
            let _ = seal.open::<Parcel>(Kind::Task, b"", &bytes);
            let _ = seal.open::<Report>(Kind::Report, b"", &bytes);
            let _ = seal.open::<Order>(Kind::Order, b"", &bytes);
        }
    }
}
