//! The calls of the server, by a NATS server with `JetStream`. All code that knows NATS is in this folder.
//!
//! A queue has four stores on the server, which are made when they are first used, and again when they are gone:
//!
//! | store | contents |
//! |---|---|
//! | stream `cf-tasks-QUEUE` | tasks, on subjects `cf.t.QUEUE.ENVIRONMENT.PRIORITY`; an acknowledged one is removed. One consumer for each environment and priority |
//! | stream `cf-outcomes-QUEUE` | outcomes whose client did not answer, on subjects `cf.o.QUEUE.TASK`; the first message of a subject stays |
//! | bucket `cf-hosts-QUEUE` | the hosts, which write themselves again before their entry ends |
//! | stream `cf-payloads-QUEUE` | payloads that are too long for a message, in parts on subjects `cf.p.QUEUE.SESSION.HASH.PART` |
//!
//! A queue with kept sessions has five more, which clients make; see `kept.rs`.

#![forbid(unsafe_code)]

mod kept;
mod look;
mod pulls;
mod stores;
mod tasks;
mod values;

use crate::bus::{Bus, BusError, Lane, Later, Note, Notes, Settle, StoreKey, Supply, Withdrawn};
use async_nats::jetstream;
use async_nats::{Client, ConnectOptions, Event, RequestErrorKind, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt;
pub(crate) use look::QueueLook;
use percent_encoding::percent_decode_str;
use pulls::Pulls;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The time after which a call to the server has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time that the last messages have to leave this process.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// The time for which the server knows the identities of published tasks.
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The way to a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// Those of the nodes of the server.
    pub(crate) addresses: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) nkey: Option<String>,
    pub(crate) require_tls: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) lease: Duration,
    /// The subject under which answers come.
    pub(crate) inbox: &'static str,
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
            .custom_inbox_prefix(access.inbox)
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
        if let Some((user, password)) = access
            .addresses
            .iter()
            .find_map(|address| login_in(address))
        {
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
        let connecting = timeout(2 * PATIENCE, options.connect(&access.addresses[..]));
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

impl Bus for Nats {
    fn push<'a>(&'a self, lane: &'a Lane, id: &'a str, frame: Bytes) -> Later<'a, u64> {
        Box::pin(self.push_task(lane, id, frame))
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
        Box::pin(self.withdraw_task(lane, number, id))
    }

    fn has<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, bool> {
        Box::pin(self.has_task(lane, number, id))
    }

    fn time<'a>(&'a self, lane: &'a Lane) -> Later<'a, u64> {
        Box::pin(self.server_time(lane))
    }

    fn send<'a>(&'a self, subject: &'a str, payload: Bytes) -> Later<'a, ()> {
        Box::pin(async move {
            let sent = self.client.publish(subject.to_owned(), payload).await;
            sent.map_err(|_| BusError::Closed)
        })
    }

    fn flush(&self) -> Later<'_, ()> {
        Box::pin(async {
            let flushed = timeout(LAST_WRITE, self.client.flush()).await;
            let flushed = flushed.map_err(|_| BusError::TimedOut)?;
            flushed.map_err(|_| BusError::Closed)
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

    fn listen<'a>(&'a self, subject: &'a str) -> Later<'a, Notes> {
        Box::pin(async move {
            let subscribed = self.client.subscribe(subject.to_owned()).await;
            // The server reads a connection in order: it knows of the subscription before all that is sent from now on.
            let messages = subscribed.map_err(refused)?;
            Ok(Notes::new(messages.map(|message| Note {
                reply: message.reply.map(|reply| reply.to_string()),
                payload: message.payload,
            })))
        })
    }

    fn keep<'a>(&'a self, store_key: &'a StoreKey, content: Bytes) -> Later<'a, bool> {
        Box::pin(self.keep_value(store_key, content))
    }

    fn fetch<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, Option<Bytes>> {
        Box::pin(self.fetch_value(store_key))
    }

    fn forget<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, ()> {
        Box::pin(self.forget_value(store_key))
    }

    fn hosts<'a>(&'a self, queue: &'a str) -> Later<'a, Vec<Bytes>> {
        Box::pin(self.list_hosts(queue))
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
