//! Looks at the stores of a queue. A look changes nothing on the server, and needs rights to read only.

#![forbid(unsafe_code)]

use super::stores::{outcomes_of, payloads_of, tasks_of};
use super::{Nats, PATIENCE, refused};
use crate::bus::BusError;
use crate::bus::kept::queue_of;
use async_nats::jetstream::consumer;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{DirectGetErrorKind, State, Stream};
use bytes::Bytes;
use futures_util::TryStreamExt;
use std::collections::BTreeMap;
use std::future::Future;
use tokio::time::timeout;

/// The beginning of the names of streams with tasks.
const TASKS: &str = "cf-tasks-";
/// The header of an entry in a bucket that says that the entry was removed.
const REMOVED: &str = "KV-Operation";

/// The state of one environment and priority.
#[derive(Debug, Default)]
pub(crate) struct LaneLook {
    /// The tasks on the server, those that hosts have included.
    pub(crate) tasks: u64,
    /// The tasks that hosts have.
    pub(crate) held: u64,
    /// The tasks that hosts have, and have got before.
    pub(crate) redelivered: u64,
}

/// The state of a queue.
#[derive(Debug, Default)]
pub(crate) struct QueueLook {
    /// Whether the server has a stream of its tasks.
    pub(crate) is_there: bool,
    /// The number of tasks that were ever published, and of those that are there.
    pub(crate) published: u64,
    pub(crate) tasks: u64,
    /// By environment and priority.
    pub(crate) lanes: BTreeMap<(String, u8), LaneLook>,
    pub(crate) outcomes: u64,
    pub(crate) payload_bytes: u64,
    /// The entries of hosts, with their names.
    pub(crate) hosts: Vec<(String, Bytes)>,
}

/// Waits for a call of the server.
async fn in_time<T>(call: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    timeout(PATIENCE, call)
        .await
        .unwrap_or(Err(BusError::TimedOut))
}

/// Returns the environment and the priority in the name of a consumer, or in the end of a subject.
fn lane_in(text: &str, separator: char) -> Option<(String, u8)> {
    let (environment, level) = text.rsplit_once(separator)?;
    // The rank of kept tasks is behind the priority.
    let priority = level.split('+').next()?;
    Some((environment.to_owned(), priority.parse().ok()?))
}

impl Nats {
    /// Returns the names of the queues that the server has.
    pub(crate) async fn queues(&self) -> Result<Vec<String>, BusError> {
        in_time(async {
            let names = self.context.stream_names();
            let names: Vec<String> = names.try_collect().await.map_err(refused)?;
            let mut queues: Vec<String> = names
                .iter()
                .filter_map(|name| name.strip_prefix(TASKS))
                .map(ToOwned::to_owned)
                .collect();
            queues.sort();
            Ok(queues)
        })
        .await
    }

    /// Returns the state of a queue. One that the server does not have is empty.
    pub(crate) async fn look(&self, queue: &str) -> Result<QueueLook, BusError> {
        let mut look = QueueLook::default();
        if let Some(stream) = self.found(tasks_of(queue)).await? {
            look.is_there = true;
            in_time(self.look_at_tasks(queue, &stream, &mut look)).await?;
        }
        if let Some(state) = self.state_of(outcomes_of(queue)).await? {
            look.outcomes = state.messages;
        }
        if let Some(state) = self.state_of(payloads_of(queue)).await? {
            look.payload_bytes = state.bytes;
        }
        // The hosts of kept tasks are those of their queue.
        if queue_of(queue).is_none()
            && let Some(stream) = self.found(format!("KV_cf-hosts-{queue}")).await?
        {
            look.hosts = in_time(hosts_in(queue, &stream)).await?;
        }
        Ok(look)
    }

    /// Returns a stream, with its state; none if there is none.
    pub(super) async fn found(&self, name: String) -> Result<Option<Stream>, BusError> {
        in_time(async {
            match self.context.get_stream(name).await {
                Ok(stream) => Ok(Some(stream)),
                Err(error) => match error.kind() {
                    // The server's code for a stream that is not there.
                    GetStreamErrorKind::JetStream(cause)
                        if cause.error_code()
                            == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(None)
                    }
                    _ => Err(refused(error)),
                },
            }
        })
        .await
    }

    async fn state_of(&self, name: String) -> Result<Option<State>, BusError> {
        let stream = self.found(name).await?;
        Ok(stream.map(|stream| stream.cached_info().state.clone()))
    }

    async fn look_at_tasks(
        &self,
        queue: &str,
        stream: &Stream,
        look: &mut QueueLook,
    ) -> Result<(), BusError> {
        let prefix = format!("cf.t.{queue}.");
        let mut subjects = stream
            .info_with_subjects(format!("{prefix}>"))
            .await
            .map_err(refused)?;
        look.published = subjects.info.state.last_sequence;
        look.tasks = subjects.info.state.messages;
        while let Some((subject, count)) = subjects.try_next().await.map_err(refused)? {
            // The subject of a kept task goes on behind the priority.
            let lane = subject.strip_prefix(&prefix).and_then(|rest| {
                let end = rest.match_indices('.').nth(1);
                lane_in(end.map_or(rest, |(end, _)| &rest[..end]), '.')
            });
            if let Some(lane) = lane {
                look.lanes.entry(lane).or_default().tasks += count as u64;
            }
        }
        let consumers = stream.consumers();
        let consumers: Vec<consumer::Info> = consumers.try_collect().await.map_err(refused)?;
        for consumer in consumers {
            if let Some(lane) = lane_in(&consumer.name, '-') {
                let lane = look.lanes.entry(lane).or_default();
                lane.held += consumer.num_ack_pending as u64;
                lane.redelivered += consumer.num_redelivered as u64;
            }
        }
        Ok(())
    }
}

/// Returns the entries of hosts, with their names.
async fn hosts_in(queue: &str, bucket: &Stream) -> Result<Vec<(String, Bytes)>, BusError> {
    let prefix = format!("$KV.cf-hosts-{queue}.");
    let subjects = bucket.info_with_subjects(">").await.map_err(refused)?;
    let subjects: Vec<(String, usize)> = subjects.try_collect().await.map_err(refused)?;
    let mut hosts = Vec::new();
    for (subject, _) in subjects {
        let found = bucket.direct_get_last_for_subject(subject.clone()).await;
        let entry = match found {
            Ok(entry) => entry,
            // It has ended meanwhile.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => continue,
            Err(error) => return Err(refused(error)),
        };
        let name = subject.strip_prefix(&prefix);
        if let (Some(name), None) = (name, entry.headers.get(REMOVED)) {
            hosts.push((name.to_owned(), entry.payload));
        }
    }
    hosts.sort();
    Ok(hosts)
}
