//! The supply of tasks from a consumer: requests for several tasks each, on one subscription.
//!
//! A task comes under its own subject, and not under that of a request. So tasks are counted against all requests. A
//! request whose time has passed ends with a remark of the server, which says how many of its tasks did not come. The
//! remark may be lost with the server. So the supply ends if the last request is overdue by this side's clock.
//!
//! A *probe* is a request that does not wait. Probes have a subscription of their own, where each answer is that of the
//! oldest probe. While the server is about to send tasks to earlier requests, it refuses a probe. That does not tell
//! whether the lane is empty: the probe is sent again.

#![forbid(unsafe_code)]

use super::stores::{consumer_of, tasks_of};
use super::tasks::delivery;
use super::{Nats, PATIENCE, refused};
use crate::bus::{BusError, Lane, Later, Supplied, Supply};
use async_nats::{Message, StatusCode, Subscriber, jetstream};
use futures_util::StreamExt;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The time for which a request waits at a server of one node, and in a cluster.
const WAIT: Duration = Duration::from_secs(120);
const WAIT_IN_CLUSTER: Duration = Duration::from_secs(20);
/// The pause before a probe is sent again.
const AGAIN: Duration = Duration::from_millis(1);
/// The header of a remark that says how many tasks did not come.
const PENDING: &str = "Nats-Pending-Messages";

/// The requests of a host to a consumer.
pub(super) struct Pulls {
    client: async_nats::Client,
    context: jetstream::Context,
    known: Arc<Mutex<HashSet<String>>>,
    connections: watch::Receiver<u64>,
    messages: Subscriber,
    inbox: String,
    subject: String,
    /// The number of tasks that were asked for and have not come.
    open: usize,
    /// When the remark about the last request must have come.
    end: Instant,
    /// The subscription and the inbox of probes, once there was one.
    probes: Option<(Subscriber, String)>,
    /// When the answer to the probe must have come.
    probe_end: Option<Instant>,
    /// When the probe is sent again, as the server has refused it.
    probe_again: Option<Instant>,
}

impl Pulls {
    pub(super) async fn new(nats: &Nats, lane: &Lane) -> Result<Self, BusError> {
        let mut connections = nats.connections.clone();
        connections.mark_unchanged();
        let inbox = nats.client.new_inbox();
        let subscribed = nats.client.subscribe(inbox.clone()).await;
        Ok(Self {
            client: nats.client.clone(),
            context: nats.context.clone(),
            known: Arc::clone(&nats.known),
            connections,
            messages: subscribed.map_err(refused)?,
            inbox,
            subject: format!(
                "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
                tasks_of(&lane.queue),
                consumer_of(lane)
            ),
            open: 0,
            end: Instant::now(),
            probes: None,
            probe_end: None,
            probe_again: None,
        })
    }

    /// Takes what a message says; none if it says nothing.
    fn take(&mut self, message: Message, is_probe: bool) -> Result<Option<Supplied>, BusError> {
        let remark = match message.status {
            None => {
                let task = delivery(&self.context, message).map(Supplied::Task);
                if !is_probe && task.is_some() {
                    self.open = self.open.saturating_sub(1);
                }
                return Ok(task);
            }
            Some(StatusCode::NOT_FOUND) if is_probe => return Ok(Some(Supplied::Empty)),
            Some(StatusCode::TIMEOUT) if is_probe => {
                self.probe_again = Some(Instant::now() + AGAIN);
                return Ok(None);
            }
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => message,
            Some(_) => {
                // The consumer is gone, or the server is about to end.
                self.forget_known();
                return Err(BusError::NoListener);
            }
        };
        let pending = remark.headers.as_ref();
        let pending = pending.and_then(|headers| headers.get(PENDING)?.as_str().parse().ok());
        // Without a number, none of them is waited for.
        self.open = self.open.saturating_sub(pending.unwrap_or(usize::MAX));
        Ok(Some(Supplied::Less))
    }

    /// From now on, the stores and consumers that the server has are to be looked for.
    fn forget_known(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }

    async fn request(&self, inbox: String, request: String) -> Result<(), BusError> {
        let subject = self.subject.clone();
        let asked = self
            .client
            .publish_with_reply(subject, inbox, request.into());
        asked.await.map_err(refused)
    }
}

impl Supply for Pulls {
    fn ask(&mut self, count: usize, wait: Duration) -> Later<'_, ()> {
        Box::pin(async move {
            self.open += count;
            self.end = Instant::now() + wait + PATIENCE;
            let request = format!(r#"{{"batch":{count},"expires":{}}}"#, wait.as_nanos());
            self.request(self.inbox.clone(), request).await
        })
    }

    fn probe(&mut self) -> Later<'_, ()> {
        Box::pin(async move {
            let inbox = if let Some((_, inbox)) = &self.probes {
                inbox.clone()
            } else {
                let inbox = self.client.new_inbox();
                let subscribed = self.client.subscribe(inbox.clone()).await;
                self.probes = Some((subscribed.map_err(refused)?, inbox.clone()));
                inbox
            };
            self.probe_end = Some(Instant::now() + PATIENCE);
            self.request(inbox, String::from(r#"{"batch":1,"no_wait":true}"#))
                .await
        })
    }

    fn open(&self) -> usize {
        self.open
    }

    fn wait(&self) -> Duration {
        // The nodes of a cluster forget requests when another one leads. A server of one node tells, or ends the
        // connection. Each end of a request takes it time in proportion to the number of idle hosts.
        match self.client.server_info().cluster {
            Some(_) => WAIT_IN_CLUSTER,
            None => WAIT,
        }
    }

    fn is_probing(&self) -> bool {
        self.probe_end.is_some() || self.probe_again.is_some()
    }

    fn next(&mut self) -> Later<'_, Supplied> {
        Box::pin(async move {
            loop {
                let end = Some(self.end).filter(|_| self.open > 0);
                let end = end.into_iter().chain(self.probe_end).min();
                let overdue = async {
                    match end {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                };
                let again = self.probe_again;
                let again = async {
                    match again {
                        Some(again) => sleep_until(again).await,
                        None => std::future::pending().await,
                    }
                };
                let probes = &mut self.probes;
                let answer = async {
                    match probes {
                        Some((messages, _)) => messages.next().await,
                        None => std::future::pending().await,
                    }
                };
                let (message, is_probe) = tokio::select! {
                    biased;
                    message = self.messages.next() => (message, false),
                    message = answer => (message, true),
                    // The requests ended with the connection.
                    _ = self.connections.changed() => return Err(BusError::Closed),
                    () = overdue => {
                        // The consumer may be gone.
                        self.forget_known();
                        return Err(BusError::TimedOut);
                    }
                    () = again => {
                        self.probe().await?;
                        self.probe_again = None;
                        continue;
                    }
                };
                if is_probe {
                    self.probe_end = None;
                }
                if let Some(supplied) = self.take(message.ok_or(BusError::Closed)?, is_probe)? {
                    return Ok(supplied);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Door;
    use crate::bus::{Bus, Settle};
    use crate::server::{self, Server};
    use bytes::Bytes;
    use std::error::Error;
    use tokio::time::{sleep, timeout};

    type Test = Result<(), Box<dyn Error>>;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[allow(clippy::print_stderr, reason = "says that it was skipped")]
    async fn start() -> Result<Option<(Server, Arc<dyn Bus>)>, Box<dyn Error>> {
        let Some(program) = server::for_tests() else {
            eprintln!("skipped: there is no nats-server; `make cluster` installs it");
            return Ok(None);
        };
        let server = Server::start(Some(program)).await?;
        let door = Door {
            token: Some(server.token.clone()),
            ..Door::default()
        };
        let bus = door.connect(&server.url, "inbox").await?;
        Ok(Some((server, bus)))
    }

    fn lane() -> Lane {
        Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority: 1,
            rank: 0,
        }
    }

    #[tokio::test]
    async fn a_request_ends_with_its_tasks_or_with_its_time() -> Test {
        let Some((_server, bus)) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let mut supply = bus.supply(&lane).await?;
        supply.ask(3, SOON).await?;
        assert!(matches!(supply.next().await?, Supplied::Less));
        for id in ["a", "b", "c"] {
            bus.push(&lane, id, Bytes::from(id)).await?;
        }
        // It gets a part of its tasks. Its time is long enough for a server that a busy machine holds up.
        supply.ask(4, 100 * SOON).await?;
        for id in ["a", "b", "c"] {
            let Supplied::Task(delivery) = supply.next().await? else {
                panic!("{id} does not come");
            };
            assert_eq!((&*delivery.id, &*delivery.frame), (id, id.as_bytes()));
            bus.settle(&delivery.token, Settle::Done).await?;
        }
        assert!(matches!(supply.next().await?, Supplied::Less));
        // Tasks that come later find either request. The requests do not end while they have time.
        supply.ask(1, LONG).await?;
        supply.ask(1, LONG).await?;
        for id in ["d", "e"] {
            bus.push(&lane, id, Bytes::from(id)).await?;
            assert!(matches!(supply.next().await?, Supplied::Task(_)));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_task_is_as_old_as_the_server_says_by_its_clock() -> Test {
        let Some((_server, bus)) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let mut supply = bus.supply(&lane).await?;
        supply.ask(1, LONG).await?;
        let before = bus.time(&lane).await?;
        bus.push(&lane, "a", Bytes::from("a")).await?;
        let after = bus.time(&lane).await?;
        let Supplied::Task(delivery) = supply.next().await? else {
            panic!("the task does not come");
        };
        assert!((before..=after).contains(&delivery.published));
        Ok(())
    }

    #[tokio::test]
    async fn a_probe_finds_a_task_or_tells_that_there_is_none() -> Test {
        let Some((_server, bus)) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let mut supply = bus.supply(&lane).await?;
        supply.ask(1, LONG).await?;
        supply.probe().await?;
        assert!(supply.is_probing());
        assert!(matches!(supply.next().await?, Supplied::Empty));
        assert!(!supply.is_probing());
        assert_eq!(supply.open(), 1);
        for id in ["a", "b"] {
            bus.push(&lane, id, Bytes::from(id)).await?;
        }
        assert!(matches!(supply.next().await?, Supplied::Task(_)));
        assert_eq!(supply.open(), 0);
        supply.probe().await?;
        assert!(matches!(supply.next().await?, Supplied::Task(_)));
        assert_eq!((supply.open(), supply.is_probing()), (0, false));
        Ok(())
    }

    #[tokio::test]
    async fn a_probe_that_the_server_refuses_does_not_say_that_the_lane_is_empty() -> Test {
        let Some((_server, bus)) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let mut supply = bus.supply(&lane).await?;
        let (stream, consumer) = (tasks_of(&lane.queue), consumer_of(&lane));
        let pause = format!("$JS.API.CONSUMER.PAUSE.{stream}.{consumer}");
        let until = r#"{"pause_until":"2100-01-01T00:00:00Z"}"#;
        bus.request(&pause, Bytes::from(until), LONG).await?;
        // Two tasks were asked for, and one is there. The server sends it later.
        supply.ask(2, LONG).await?;
        bus.push(&lane, "a", Bytes::from("a")).await?;
        let info = format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}");
        let is_there = async || {
            let answer = bus.request(&info, Bytes::new(), LONG).await?;
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            Ok::<bool, Box<dyn Error>>(answer["num_pending"] == 1)
        };
        while !is_there().await? {
            sleep(SOON).await;
        }
        supply.probe().await?;
        assert!(timeout(5 * SOON, supply.next()).await.is_err());
        assert!(supply.is_probing());
        bus.request(&pause, Bytes::from("{}"), LONG).await?;
        // The server looks at its requests when another one comes.
        supply.ask(1, LONG).await?;
        let Supplied::Task(delivery) = supply.next().await? else {
            panic!("the lane is not empty");
        };
        assert_eq!(delivery.id, "a");
        assert!(matches!(supply.next().await?, Supplied::Empty));
        assert_eq!((supply.open(), supply.is_probing()), (2, false));
        Ok(())
    }

    #[tokio::test]
    async fn a_supply_ends_with_its_consumer_and_a_new_one_makes_it_again() -> Test {
        let Some((_server, bus)) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let mut supply = bus.supply(&lane).await?;
        supply.ask(2, LONG).await?;
        bus.push(&lane, "a", Bytes::from("a")).await?;
        // From now on, the server has the request.
        assert!(matches!(supply.next().await?, Supplied::Task(_)));
        let (stream, consumer) = (tasks_of(&lane.queue), consumer_of(&lane));
        let delete = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
        bus.request(&delete, Bytes::new(), LONG).await?;
        assert!(supply.next().await.is_err());
        let mut supply = bus.supply(&lane).await?;
        supply.ask(2, LONG).await?;
        bus.push(&lane, "b", Bytes::from("b")).await?;
        // The first task was not acknowledged.
        for id in ["a", "b"] {
            let Supplied::Task(delivery) = supply.next().await? else {
                panic!("{id} does not come");
            };
            assert_eq!(delivery.id, id);
        }
        Ok(())
    }
}
