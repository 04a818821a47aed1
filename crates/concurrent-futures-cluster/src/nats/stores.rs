//! The stores of a queue on the server, which are made when they are first used, and again when they are gone.

#![forbid(unsafe_code)]

use super::{DUPLICATE_WINDOW, Nats, refused};
use crate::bus::kept::queue_of;
use crate::bus::{BusError, Lane};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::kv;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use std::time::Duration;

/// The time for which outcomes and objects of lost clients stay.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The numbers of tasks that hosts may have, and of waiting requests for tasks. The server's defaults, 1,000 and
/// 512, make further hosts wait without a word.
const MOST_HELD: i64 = 1 << 20;
const MOST_WAITING: i64 = 1 << 16;
impl Nats {
    pub(super) async fn ensure_stream(&self, config: stream::Config) -> Result<(), BusError> {
        let name = config.name.clone();
        if !self.is_known(&name) {
            let made = self.context.get_or_create_stream(config).await;
            made.map_err(refused)?;
            self.learn(name);
        }
        Ok(())
    }

    pub(super) async fn ensure_tasks(&self, queue: &str) -> Result<(), BusError> {
        // The stores of kept sessions are made by their clients.
        if queue_of(queue).is_some() {
            return Ok(());
        }
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

    pub(super) async fn ensure_outcomes(&self, queue: &str) -> Result<(), BusError> {
        if queue_of(queue).is_some() {
            return Ok(());
        }
        self.ensure_stream(stream::Config {
            name: outcomes_of(queue),
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

    pub(super) async fn ensure_consumer(&self, lane: &Lane) -> Result<(), BusError> {
        let name = consumer_of(lane);
        let full = format!("{}/{name}", tasks_of(&lane.queue));
        if self.is_known(&full) {
            return Ok(());
        }
        let is_kept = queue_of(&lane.queue).is_some();
        self.ensure_tasks(&lane.queue).await?;
        let stream = self.tasks(&lane.queue).await?;
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: if is_kept {
                format!("{}.>", lane.subject())
            } else {
                lane.subject()
            },
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

    pub(super) async fn tasks(&self, queue: &str) -> Result<Stream<()>, BusError> {
        let stream = self.context.get_stream_no_info(tasks_of(queue)).await;
        stream.map_err(refused)
    }

    /// Makes the registry of hosts, unless it is known.
    pub(super) async fn ensure_hosts(&self, queue: &str) -> Result<(), BusError> {
        if !self.is_known(&hosts_of(queue)) {
            self.hosts_bucket(queue).await?;
        }
        Ok(())
    }

    pub(super) async fn hosts_bucket(&self, queue: &str) -> Result<kv::Store, BusError> {
        let bucket = hosts_of(queue);
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

    pub(super) async fn ensure_payloads(&self, queue: &str) -> Result<(), BusError> {
        if queue_of(queue).is_some() {
            return Ok(());
        }
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

    /// Publishes a message into a stream.
    pub(super) async fn publish(
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
}

/// The way in which a publication failed.
pub(super) enum PublishFailure {
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

pub(super) fn tasks_of(queue: &str) -> String {
    format!("cf-tasks-{queue}")
}

pub(super) fn consumer_of(lane: &Lane) -> String {
    format!("{}-{}", lane.environment, lane.level())
}

pub(super) fn outcomes_of(queue: &str) -> String {
    format!("cf-outcomes-{queue}")
}

pub(super) fn records_of(queue: &str) -> String {
    format!("cf-records-{queue}")
}

pub(super) fn payloads_of(queue: &str) -> String {
    format!("cf-payloads-{queue}")
}

/// Returns the bucket of the registry of a queue.
fn hosts_of(queue: &str) -> String {
    format!("cf-hosts-{queue}")
}

/// Returns the subject of an entry of the registry.
pub(super) fn host_subject(queue: &str, name: &str) -> String {
    format!("$KV.{}.{name}", hosts_of(queue))
}

pub(super) fn part_subject(queue: &str, name: &str, index: usize) -> String {
    format!("cf.p.{queue}.{name}.{index}")
}

pub(super) fn record_subject(queue: &str, id: &str) -> String {
    format!("cf.r.{queue}.{id}")
}

pub(super) fn outcome_subject(queue: &str, id: &str) -> String {
    format!("cf.o.{queue}.{id}")
}
