//! The calls of the server, by a NATS server with `JetStream`. All code that knows NATS is in this file, and in `nats/`.
//!
//! A queue has four stores on the server, which are made when they are first used, and again when they are gone:
//!
//! | store | contents |
//! |---|---|
//! | stream `cf-tasks-QUEUE` | tasks, on subjects `cf.t.QUEUE.ENVIRONMENT.PRIORITY`; an acknowledged one is removed. One consumer for each environment and priority |
//! | stream `cf-outcomes-QUEUE` | outcomes whose client did not answer, on subjects `cf.o.QUEUE.TASK`; the first message of a subject stays |
//! | bucket `cf-hosts-QUEUE` | the hosts, which write themselves again before their entry ends |
//! | stream `cf-payloads-QUEUE` | payloads that are too long for a message, in parts on subjects `cf.p.QUEUE.SESSION.HASH.PART` |

#![forbid(unsafe_code)]

mod pulls;

use crate::bus::{Bus, BusError, Delivery, Lane, Later, Note, Settle, Supply, Thing, Withdrawn};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    self, DirectGetErrorKind, DiscardPolicy, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, kv};
use async_nats::{Client, ConnectOptions, Event, RequestErrorKind, ServerAddr};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;
use pulls::Pulls;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// The time after which a call to the server has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time for which the server knows the identities of published tasks.
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The time for which outcomes and objects of lost clients stay.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The numbers of tasks that hosts may have, and of waiting requests for tasks. The server's defaults, 1,000 and
/// 512, make further hosts wait without a word.
const MOST_HELD: i64 = 1 << 20;
const MOST_WAITING: i64 = 1 << 16;
/// The length of a part of a payload: messages have a limit of a mebibyte.
const PART: usize = 512 * 1024;
/// The number of parts that are on the way at once.
const PARTS_AT_ONCE: usize = 16;
/// The most memory that is reserved for a payload before it comes.
const MOST_RESERVED: usize = 64 << 20;

/// The way to a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) nkey: Option<String>,
    pub(crate) require_tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) lease: Duration,
}

/// A connection to a server.
pub(crate) struct Nats {
    client: Client,
    context: jetstream::Context,
    lease: Duration,
    /// The time after which a host that does not write itself again is gone.
    host_ttl: Duration,
    /// The stores and consumers that were there when they were last used.
    known: Arc<Mutex<HashSet<String>>>,
    connections: watch::Receiver<u64>,
}

fn refused(error: impl fmt::Display) -> BusError {
    BusError::Refused(error.to_string())
}

impl Nats {
    /// Connects to a server.
    pub(crate) async fn connect(access: &Access) -> Result<Self, BusError> {
        let (connected, connections) = watch::channel(0_u64);
        let mut options = ConnectOptions::new()
            .name("concurrent-futures")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .subscription_capacity(1 << 16)
            .client_capacity(1 << 14)
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(u64::try_from(attempts * 50).unwrap_or(0).min(1000))
            })
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    connected.send_modify(|count| *count += 1);
                }
                std::future::ready(())
            });
        if let Some((user, password)) = login_in(&access.url) {
            options = match password {
                Some(password) => options.user_and_password(user, password),
                None => options.token(user),
            };
        }
        if let Some(token) = &access.token {
            options = options.token(token.clone());
        }
        if let Some(seed) = &access.nkey {
            options = options.nkey(seed.clone());
        }
        if let Some(path) = &access.credentials {
            let loaded = options.credentials_file(path).await;
            options = loaded.map_err(refused)?;
        }
        if access.require_tls {
            options = options.require_tls(true);
        }
        if let Some(path) = &access.root_certificates {
            options = options.add_root_certificates(path.clone());
        }
        let connecting = timeout(2 * PATIENCE, options.connect(&access.url));
        let client = connecting.await.map_err(|_| BusError::TimedOut)?;
        let client = client.map_err(refused)?;
        let context = jetstream::ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .max_ack_inflight(1 << 16)
            .build(client.clone());
        Ok(Self {
            client,
            context,
            lease: access.lease,
            host_ttl: (2 * access.lease).max(Duration::from_secs(2)),
            known: Arc::default(),
            connections,
        })
    }

    /// Returns the version of the server.
    pub(crate) fn version(&self) -> String {
        self.client.server_info().version
    }

    /// Returns whether the server is at least of this version.
    pub(crate) fn is_at_least(&self, major: i64, minor: i64, patch: i64) -> bool {
        self.client.is_server_compatible(major, minor, patch)
    }

    fn is_known(&self, name: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(name)
    }

    fn learn(&self, name: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name);
    }

    /// Forgets that stores were there.
    fn doubt(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }

    async fn ensure_stream(&self, config: stream::Config) -> Result<(), BusError> {
        let name = config.name.clone();
        if !self.is_known(&name) {
            let made = self.context.get_or_create_stream(config).await;
            made.map_err(refused)?;
            self.learn(name);
        }
        Ok(())
    }

    async fn ensure_tasks(&self, queue: &str) -> Result<(), BusError> {
        self.ensure_stream(stream::Config {
            name: tasks_of(queue),
            subjects: vec![format!("cf.t.{queue}.>")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::Memory,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            ..stream::Config::default()
        })
        .await
    }

    async fn ensure_outcomes(&self, queue: &str) -> Result<(), BusError> {
        self.ensure_stream(stream::Config {
            name: format!("cf-outcomes-{queue}"),
            subjects: vec![format!("cf.o.{queue}.>")],
            storage: StorageType::Memory,
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_age: KEPT,
            allow_direct: true,
            ..stream::Config::default()
        })
        .await
    }

    async fn ensure_consumer(&self, lane: &Lane) -> Result<(), BusError> {
        let name = consumer_of(lane);
        let full = format!("{}/{name}", tasks_of(&lane.queue));
        if self.is_known(&full) {
            return Ok(());
        }
        self.ensure_tasks(&lane.queue).await?;
        let stream = self.tasks(&lane.queue).await?;
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: lane.subject(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.lease,
            max_deliver: -1,
            max_ack_pending: MOST_HELD,
            max_waiting: MOST_WAITING,
            inactive_threshold: KEPT,
            ..pull::Config::default()
        };
        let made = stream.get_or_create_consumer(&name, config).await;
        made.map_err(refused)?;
        self.learn(full);
        Ok(())
    }

    async fn tasks(&self, queue: &str) -> Result<Stream<()>, BusError> {
        let stream = self.context.get_stream_no_info(tasks_of(queue)).await;
        stream.map_err(refused)
    }

    async fn hosts_bucket(&self, queue: &str) -> Result<kv::Store, BusError> {
        let bucket = format!("cf-hosts-{queue}");
        if self.is_known(&bucket) {
            return self.context.get_key_value(bucket).await.map_err(refused);
        }
        let config = kv::Config {
            bucket: bucket.clone(),
            max_age: self.host_ttl,
            history: 1,
            storage: StorageType::Memory,
            ..kv::Config::default()
        };
        let store = match self.context.get_key_value(bucket.clone()).await {
            Ok(store) => store,
            Err(_) => self
                .context
                .create_key_value(config)
                .await
                .map_err(refused)?,
        };
        self.learn(bucket);
        Ok(store)
    }

    async fn ensure_payloads(&self, queue: &str) -> Result<(), BusError> {
        self.ensure_stream(stream::Config {
            name: payloads_of(queue),
            subjects: vec![format!("cf.p.{queue}.>")],
            storage: StorageType::Memory,
            max_messages_per_subject: 1,
            max_age: KEPT,
            allow_direct: true,
            ..stream::Config::default()
        })
        .await
    }

    /// Stores a payload in parts.
    async fn store(&self, queue: &str, name: &str, content: &Bytes) -> Result<(), PublishFailure> {
        let parts = (0..content.len()).step_by(PART).enumerate();
        let sent = parts.map(|(index, start)| {
            let part = content.slice(start..content.len().min(start + PART));
            let message = PublishMessage::build().payload(part);
            self.publish(part_subject(queue, name, index), message)
        });
        let mut sent = futures_util::stream::iter(sent).buffer_unordered(PARTS_AT_ONCE);
        while let Some(stored) = sent.next().await {
            stored?;
        }
        Ok(())
    }

    /// Fetches a payload; none if a part of it is not there.
    async fn load(
        &self,
        queue: &str,
        name: &str,
        length: usize,
    ) -> Result<Option<Bytes>, BusError> {
        let stream = self.context.get_stream_no_info(payloads_of(queue)).await;
        let stream = &stream.map_err(refused)?;
        let parts = (0..length.div_ceil(PART)).map(|index| async move {
            stream
                .direct_get_last_for_subject(part_subject(queue, name, index))
                .await
        });
        let mut parts = futures_util::stream::iter(parts).buffered(PARTS_AT_ONCE);
        // The length may be any number, without a key.
        let mut content = Vec::with_capacity(length.min(MOST_RESERVED));
        while let Some(part) = timeout(PATIENCE, parts.next())
            .await
            .map_err(|_| BusError::TimedOut)?
        {
            match part {
                Ok(part) => content.extend_from_slice(&part.payload),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    self.doubt();
                    return Err(refused(error));
                }
            }
        }
        Ok(Some(content.into()))
    }

    /// Publishes a message into a stream.
    async fn publish(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<u64, PublishFailure> {
        let sent = self
            .context
            .send_publish(subject, message)
            .await
            .map_err(|error| PublishFailure::of(&error))?;
        let ack = sent.await.map_err(|error| PublishFailure::of(&error))?;
        Ok(ack.sequence)
    }

    /// Returns the highest number of the tasks that were delivered to hosts; none if no host has ever come.
    async fn delivered(&self, stream: &Stream<()>, lane: &Lane) -> Result<Option<u64>, BusError> {
        match stream.consumer_info(consumer_of(lane)).await {
            Ok(info) => Ok(Some(info.delivered.stream_sequence)),
            Err(error) => match error.kind() {
                ConsumerInfoErrorKind::NotFound => Ok(None),
                ConsumerInfoErrorKind::TimedOut => Err(BusError::TimedOut),
                _ => Err(refused(error)),
            },
        }
    }
}

/// Returns the user and the password in an address; the client library does not look at them. A user alone is a token.
fn login_in(url: &str) -> Option<(String, Option<String>)> {
    let address: ServerAddr = url.parse().ok()?;
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8_lossy();
        text.into_owned()
    };
    let user = address.username().map(decode)?;
    Some((user, address.password().map(decode)))
}

/// The way in which a publication failed.
enum PublishFailure {
    NoStream,
    Other(BusError),
}

impl PublishFailure {
    fn of(error: &jetstream::context::PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::StreamNotFound => Self::NoStream,
            PublishErrorKind::TimedOut => Self::Other(BusError::TimedOut),
            PublishErrorKind::BrokenPipe => Self::Other(BusError::Closed),
            _ => Self::Other(refused(error)),
        }
    }
}

fn tasks_of(queue: &str) -> String {
    format!("cf-tasks-{queue}")
}

fn consumer_of(lane: &Lane) -> String {
    format!("{}-{}", lane.environment, lane.priority)
}

fn payloads_of(queue: &str) -> String {
    format!("cf-payloads-{queue}")
}

fn part_subject(queue: &str, name: &str, index: usize) -> String {
    format!("cf.p.{queue}.{name}.{index}")
}

fn outcome_subject(queue: &str, id: &str) -> String {
    format!("cf.o.{queue}.{id}")
}

/// Returns the delivery in a message; none if the message is a remark of the server.
fn delivery(context: &jetstream::Context, message: async_nats::Message) -> Option<Delivery> {
    let message = jetstream::Message {
        message,
        context: context.clone(),
    };
    let (deliveries, published) = {
        let info = message.info().ok()?;
        let published = info.published.unix_timestamp_nanos() / 1_000_000;
        (
            u64::try_from(info.delivered).unwrap_or(0),
            u64::try_from(published).unwrap_or(0),
        )
    };
    let headers = message.headers.as_ref();
    let id = headers.and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
    Some(Delivery {
        id: id.map(ToString::to_string).unwrap_or_default(),
        token: message.reply.as_ref()?.to_string(),
        deliveries,
        published,
        frame: message.message.payload,
    })
}

impl Bus for Nats {
    fn push<'a>(&'a self, lane: &'a Lane, id: &'a str, frame: Bytes) -> Later<'a, u64> {
        Box::pin(async move {
            let message = || {
                PublishMessage::build()
                    .payload(frame.clone())
                    .message_id(id)
                    .expected_stream(tasks_of(&lane.queue))
            };
            match self.publish(lane.subject(), message()).await {
                Ok(number) => return Ok(number),
                Err(PublishFailure::Other(error)) => return Err(error),
                Err(PublishFailure::NoStream) => self.doubt(),
            }
            self.ensure_tasks(&lane.queue).await?;
            match self.publish(lane.subject(), message()).await {
                Ok(number) => Ok(number),
                Err(PublishFailure::Other(error)) => Err(error),
                Err(PublishFailure::NoStream) => Err(BusError::NoListener),
            }
        })
    }

    fn supply<'a>(&'a self, lane: &'a Lane) -> Later<'a, Box<dyn Supply>> {
        Box::pin(async move {
            self.ensure_consumer(lane).await?;
            Ok(Box::new(Pulls::new(self, lane).await?) as Box<dyn Supply>)
        })
    }

    fn settle<'a>(&'a self, token: &'a str, how: Settle) -> Later<'a, ()> {
        let word = match how {
            Settle::Done => "+ACK",
            Settle::Extend => "+WPI",
            Settle::Back => "-NAK",
        };
        self.send(token, Bytes::from_static(word.as_bytes()))
    }

    fn withdraw<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, Withdrawn> {
        Box::pin(async move {
            if !self.has(lane, number, id).await? {
                return Ok(Withdrawn::Gone);
            }
            let stream = self.tasks(&lane.queue).await?;
            let is_taken = |last: Option<u64>| last.is_some_and(|last| last >= number);
            if is_taken(self.delivered(&stream, lane).await?) {
                return Ok(Withdrawn::Delivered);
            }
            if !stream.delete_message(number).await.map_err(refused)? {
                return Ok(Withdrawn::Gone);
            }
            // From now on the task is not delivered. It was not, if the number says so now.
            if is_taken(self.delivered(&stream, lane).await?) {
                return Ok(Withdrawn::Delivered);
            }
            Ok(Withdrawn::Untaken)
        })
    }

    fn has<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, bool> {
        Box::pin(async move {
            let stream = self.tasks(&lane.queue).await?;
            match timeout(PATIENCE, stream.direct_get(number)).await {
                Err(_) => Err(BusError::TimedOut),
                Ok(Ok(message)) => {
                    let found = message.headers.get(async_nats::header::NATS_MESSAGE_ID);
                    Ok(found.is_some_and(|found| found.as_str() == id))
                }
                Ok(Err(error)) => match error.kind() {
                    DirectGetErrorKind::NotFound => Ok(false),
                    // Without the stream, no process answers.
                    _ if self
                        .context
                        .get_stream(tasks_of(&lane.queue))
                        .await
                        .is_err()
                        && self.context.query_account().await.is_ok() =>
                    {
                        self.doubt();
                        Ok(false)
                    }
                    _ => Err(refused(error)),
                },
            }
        })
    }

    fn send<'a>(&'a self, subject: &'a str, payload: Bytes) -> Later<'a, ()> {
        Box::pin(async move {
            let sent = self.client.publish(subject.to_owned(), payload).await;
            sent.map_err(|_| BusError::Closed)
        })
    }

    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Bytes,
        limit: Duration,
    ) -> Later<'a, Bytes> {
        Box::pin(async move {
            let request = async_nats::Request::new()
                .payload(payload)
                .timeout(Some(limit));
            let answer = self.client.send_request(subject.to_owned(), request).await;
            match answer {
                Ok(answer) => Ok(answer.payload),
                Err(error) => Err(match error.kind() {
                    RequestErrorKind::TimedOut => BusError::TimedOut,
                    RequestErrorKind::NoResponders => BusError::NoListener,
                    _ => refused(error),
                }),
            }
        })
    }

    fn listen<'a>(&'a self, subject: &'a str) -> Later<'a, mpsc::UnboundedReceiver<Note>> {
        Box::pin(async move {
            let subscribed = self.client.subscribe(subject.to_owned()).await;
            let mut messages = subscribed.map_err(refused)?;
            // The server reads a connection in order: it knows of the subscription before all that is sent from now on.
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                loop {
                    let message = tokio::select! {
                        message = messages.next() => message,
                        () = sender.closed() => None,
                    };
                    let Some(message) = message else { break };
                    let note = Note {
                        reply: message.reply.map(|reply| reply.to_string()),
                        payload: message.payload,
                    };
                    if sender.send(note).is_err() {
                        break;
                    }
                }
            });
            Ok(receiver)
        })
    }

    fn keep<'a>(&'a self, thing: &'a Thing, content: Bytes) -> Later<'a, bool> {
        Box::pin(async move {
            match thing {
                Thing::Outcome { queue, id } => {
                    self.ensure_outcomes(queue).await?;
                    let message = PublishMessage::build().payload(content);
                    match self.publish(outcome_subject(queue, id), message).await {
                        Ok(_) => Ok(true),
                        Err(PublishFailure::NoStream) => {
                            self.doubt();
                            Err(BusError::NoListener)
                        }
                        // The first outcome stays.
                        Err(PublishFailure::Other(BusError::Refused(text)))
                            if text.contains("per subject") =>
                        {
                            Ok(false)
                        }
                        Err(PublishFailure::Other(error)) => Err(error),
                    }
                }
                Thing::Object { queue, name, .. } => {
                    match self.store(queue, name, &content).await {
                        Ok(()) => return Ok(true),
                        Err(PublishFailure::Other(error)) => return Err(error),
                        Err(PublishFailure::NoStream) => self.doubt(),
                    }
                    self.ensure_payloads(queue).await?;
                    match self.store(queue, name, &content).await {
                        Ok(()) => Ok(true),
                        Err(PublishFailure::Other(error)) => Err(error),
                        Err(PublishFailure::NoStream) => Err(BusError::NoListener),
                    }
                }
                Thing::Host { queue, name } => {
                    let kept = match self.hosts_bucket(queue).await {
                        Ok(bucket) => bucket.put(name, content).await.map_err(refused),
                        Err(error) => Err(error),
                    };
                    kept.inspect_err(|_| self.doubt())?;
                    Ok(true)
                }
            }
        })
    }

    fn fetch<'a>(&'a self, thing: &'a Thing) -> Later<'a, Option<Bytes>> {
        Box::pin(async move {
            match thing {
                Thing::Outcome { queue, id } => {
                    self.ensure_outcomes(queue).await?;
                    let stream = self
                        .context
                        .get_stream_no_info(format!("cf-outcomes-{queue}"));
                    let stream = stream.await.map_err(refused)?;
                    let found = stream.direct_get_last_for_subject(outcome_subject(queue, id));
                    match timeout(PATIENCE, found).await {
                        Err(_) => Err(BusError::TimedOut),
                        Ok(Ok(message)) => Ok(Some(message.payload)),
                        Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
                        Ok(Err(error)) => {
                            self.doubt();
                            Err(refused(error))
                        }
                    }
                }
                Thing::Object {
                    queue,
                    name,
                    length,
                } => {
                    self.ensure_payloads(queue).await?;
                    self.load(queue, name, *length).await
                }
                Thing::Host { queue, name } => {
                    let bucket = self.hosts_bucket(queue).await?;
                    bucket.get(name.clone()).await.map_err(refused)
                }
            }
        })
    }

    fn forget<'a>(&'a self, thing: &'a Thing) -> Later<'a, ()> {
        Box::pin(async move {
            match thing {
                Thing::Outcome { queue, id } => {
                    let stream = self
                        .context
                        .get_stream_no_info(format!("cf-outcomes-{queue}"));
                    let stream = stream.await.map_err(refused)?;
                    let purged = stream.purge().filter(outcome_subject(queue, id)).await;
                    purged.map(drop).map_err(refused)
                }
                Thing::Object { queue, name, .. } => {
                    let stream = self.context.get_stream_no_info(payloads_of(queue)).await;
                    let stream = stream.map_err(refused)?;
                    let parts = format!("cf.p.{queue}.{name}.*");
                    let purged = stream.purge().filter(parts).await;
                    purged.map(drop).map_err(refused)
                }
                Thing::Host { queue, name } => {
                    let bucket = self.hosts_bucket(queue).await?;
                    bucket.purge(name).await.map_err(refused)
                }
            }
        })
    }

    fn hosts<'a>(&'a self, queue: &'a str) -> Later<'a, Vec<Bytes>> {
        Box::pin(async move {
            let list = async {
                let bucket = self.hosts_bucket(queue).await?;
                let names = bucket.keys().await.map_err(refused)?;
                let names: Vec<String> = names.try_collect().await.map_err(refused)?;
                let mut hosts = Vec::new();
                for name in names {
                    // An entry may have ended meanwhile.
                    hosts.extend(bucket.get(name).await.map_err(refused)?);
                }
                Ok(hosts)
            };
            let hosts = timeout(PATIENCE, list).await;
            hosts
                .unwrap_or(Err(BusError::TimedOut))
                .inspect_err(|_| self.doubt())
        })
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::login_in;

    #[test]
    fn the_login_is_read_from_the_address() {
        let login = |user: &str, password: Option<&str>| {
            Some((user.to_owned(), password.map(ToOwned::to_owned)))
        };
        assert_eq!(
            login_in("nats://ann:se%40cret@host:4222"),
            login("ann", Some("se@cret"))
        );
        assert_eq!(login_in("tls://token@host"), login("token", None));
        assert_eq!(login_in("nats://host:4222"), None);
    }
}
