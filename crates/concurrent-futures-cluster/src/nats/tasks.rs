//! Tasks on the server: a work queue, from which an acknowledged task is removed.

#![forbid(unsafe_code)]

use super::stores::{PublishFailure, consumer_of, tasks_of};
use super::{Nats, PATIENCE, refused};
use crate::bus::{BusError, Delivery, Lane, Withdrawn};
use async_nats::datetime::DateTime;
use async_nats::jetstream;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

impl Nats {
    pub(super) async fn push_task(
        &self,
        lane: &Lane,
        id: &str,
        frame: Bytes,
    ) -> Result<u64, BusError> {
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
    }

    pub(super) async fn withdraw_task(
        &self,
        lane: &Lane,
        number: u64,
        id: &str,
    ) -> Result<Withdrawn, BusError> {
        if !self.has_task(lane, number, id).await? {
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
    }

    pub(super) async fn has_task(
        &self,
        lane: &Lane,
        number: u64,
        id: &str,
    ) -> Result<bool, BusError> {
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
    }

    /// Returns the time of the node that keeps the tasks.
    pub(super) async fn server_time(&self, lane: &Lane) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(rename = "ts")]
            time: String,
        }
        self.ensure_tasks(&lane.queue).await?;
        let subject = format!("STREAM.INFO.{}", tasks_of(&lane.queue));
        let answer = self.context.request(subject, &()).await;
        match answer.map_err(refused)? {
            Response::Ok(Info { time }) => {
                let time = async_nats::datetime::parse_rfc3339(&time).map_err(refused)?;
                Ok(millis(time))
            }
            Response::Err { error } => {
                // The stream is gone.
                self.doubt();
                Err(refused(error))
            }
        }
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

/// Returns a time in milliseconds since 1970.
fn millis(time: DateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// Returns the delivery in a message; none if the message is a remark of the server.
pub(super) fn delivery(
    context: &jetstream::Context,
    message: async_nats::Message,
) -> Option<Delivery> {
    let message = jetstream::Message {
        message,
        context: context.clone(),
    };
    let (deliveries, published) = {
        let info = message.info().ok()?;
        (
            u64::try_from(info.delivered).unwrap_or(0),
            millis(info.published),
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
