//! Outcomes, payloads in parts, and the registry of hosts.

#![forbid(unsafe_code)]

use super::stores::{
    PublishFailure, host_subject, outcome_subject, outcomes_of, part_subject, payloads_of,
    record_subject, records_of,
};
use super::{Nats, PATIENCE, refused};
use crate::bus::{BusError, StoreKey};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use std::time::Duration;
use tokio::time::timeout;

/// The length of a part of a payload: messages have a limit of a mebibyte.
const PART: usize = 512 * 1024;
/// The number of parts that are on the way at once.
const PARTS_AT_ONCE: usize = 16;
/// The most memory that is reserved for a payload before it comes.
const MOST_RESERVED: usize = 64 << 20;

impl Nats {
    pub(super) async fn keep_value(
        &self,
        store_key: &StoreKey,
        content: Bytes,
    ) -> Result<bool, BusError> {
        match store_key {
            StoreKey::Outcome { queue, id } => {
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
            // Kept ones have an age, and come another way.
            StoreKey::Record { .. } => Err(BusError::Refused(String::from("a record has an age"))),
            StoreKey::Object { queue, name, .. } => {
                match self.store(queue, name, &content, None).await {
                    Ok(()) => return Ok(true),
                    Err(PublishFailure::Other(error)) => return Err(error),
                    Err(PublishFailure::NoStream) => self.doubt(),
                }
                self.ensure_payloads(queue).await?;
                match self.store(queue, name, &content, None).await {
                    Ok(()) => Ok(true),
                    Err(PublishFailure::Other(error)) => Err(error),
                    Err(PublishFailure::NoStream) => Err(BusError::NoListener),
                }
            }
            StoreKey::Host { queue, name } => {
                let kept = self.write_host(queue, name, content).await;
                kept.inspect_err(|_| self.doubt())?;
                Ok(true)
            }
        }
    }

    pub(super) async fn fetch_value(
        &self,
        store_key: &StoreKey,
    ) -> Result<Option<Bytes>, BusError> {
        match store_key {
            StoreKey::Outcome { queue, id } => {
                self.ensure_outcomes(queue).await?;
                let subject = outcome_subject(queue, id);
                let found = self.newest(outcomes_of(queue), subject).await?;
                Ok(found.map(|found| found.frame))
            }
            StoreKey::Record { queue, id } => {
                let subject = record_subject(queue, id);
                let found = self.newest(records_of(queue), subject).await?;
                Ok(found.map(|found| found.frame))
            }
            StoreKey::Object {
                queue,
                name,
                length,
            } => {
                self.ensure_payloads(queue).await?;
                self.load(queue, name, *length).await
            }
            StoreKey::Host { queue, name } => {
                let bucket = self.hosts_bucket(queue).await?;
                bucket.get(name.clone()).await.map_err(refused)
            }
        }
    }

    pub(super) async fn forget_value(&self, store_key: &StoreKey) -> Result<(), BusError> {
        match store_key {
            StoreKey::Outcome { queue, id } => {
                self.remove(outcomes_of(queue), outcome_subject(queue, id))
                    .await
            }
            StoreKey::Record { queue, id } => {
                self.remove(records_of(queue), record_subject(queue, id))
                    .await
            }
            StoreKey::Object { queue, name, .. } => {
                self.remove(payloads_of(queue), format!("cf.p.{queue}.{name}.*"))
                    .await
            }
            StoreKey::Host { queue, name } => {
                let bucket = self.hosts_bucket(queue).await?;
                bucket.purge(name).await.map_err(refused)
            }
        }
    }

    /// Writes an entry of the registry, as the client library does it. It would ask for the bucket before each one.
    async fn write_host(&self, queue: &str, name: &str, content: Bytes) -> Result<(), BusError> {
        self.ensure_hosts(queue).await?;
        let message = PublishMessage::build().payload(content);
        match self.publish(host_subject(queue, name), message).await {
            Ok(_) => Ok(()),
            Err(PublishFailure::NoStream) => Err(BusError::NoListener),
            Err(PublishFailure::Other(error)) => Err(error),
        }
    }

    pub(super) async fn list_hosts(&self, queue: &str) -> Result<Vec<Bytes>, BusError> {
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
    }

    /// Stores a payload in parts.
    pub(super) async fn store(
        &self,
        queue: &str,
        name: &str,
        content: &Bytes,
        age: Option<Duration>,
    ) -> Result<(), PublishFailure> {
        let parts = (0..content.len()).step_by(PART).enumerate();
        let sent = parts.map(|(index, start)| {
            let part = content.slice(start..content.len().min(start + PART));
            let mut message = PublishMessage::build().payload(part);
            if let Some(age) = age {
                message = message.ttl(age);
            }
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
}
