//! The supply of tasks from a consumer: requests for several tasks each, on one subscription.
//!
//! Each request has its own subject for answers, `INBOX.NUMBER`, which tells the requests apart. A request ends when its
//! tasks have come, or with a remark of the server once its time has passed. A remark may be lost with the server, so
//! that a request also ends by this side's clock.

#![forbid(unsafe_code)]

use super::stores::{consumer_of, tasks_of};
use super::tasks::delivery;
use super::{Nats, PATIENCE, refused};
use crate::bus::{BusError, Lane, Later, Supplied, Supply};
use async_nats::{Message, StatusCode, Subscriber, jetstream};
use futures_util::StreamExt;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A request for tasks.
struct Request {
    number: u64,
    /// The number of tasks that have not come.
    open: usize,
    end: Instant,
}

/// The requests of a host to a consumer.
pub(super) struct Pulls {
    client: async_nats::Client,
    context: jetstream::Context,
    known: Arc<Mutex<HashSet<String>>>,
    connections: watch::Receiver<u64>,
    messages: Subscriber,
    inbox: String,
    subject: String,
    requests: VecDeque<Request>,
    /// The number of the next request.
    next: u64,
}

impl Pulls {
    pub(super) async fn new(nats: &Nats, lane: &Lane) -> Result<Self, BusError> {
        let mut connections = nats.connections.clone();
        connections.mark_unchanged();
        let inbox = nats.client.new_inbox();
        let subscribed = nats.client.subscribe(format!("{inbox}.*")).await;
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
            requests: VecDeque::new(),
            next: 0,
        })
    }

    /// Returns the place of the request that a message answers.
    fn answered(&self, message: &Message) -> Option<usize> {
        let (_, number) = message.subject.rsplit_once('.')?;
        let number: u64 = number.parse().ok()?;
        self.requests
            .iter()
            .position(|request| request.number == number)
    }

    /// Takes what a message says; none if it says nothing.
    fn take(&mut self, message: Message) -> Result<Option<Supplied>, BusError> {
        let request = self.answered(&message);
        match message.status {
            None => {
                if let Some(index) = request
                    && let Some(request) = self.requests.get_mut(index)
                {
                    request.open -= 1;
                    if request.open == 0 {
                        self.requests.remove(index);
                    }
                }
                Ok(delivery(&self.context, message).map(Supplied::Task))
            }
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                let request = request.and_then(|index| self.requests.remove(index));
                Ok(request.map(|request| Supplied::Less(request.open)))
            }
            Some(_) => {
                // The consumer is gone, or the server is about to end.
                self.known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                Err(BusError::NoListener)
            }
        }
    }
}

impl Supply for Pulls {
    fn ask(&mut self, count: usize, wait: Duration) -> Later<'_, ()> {
        Box::pin(async move {
            let number = self.next;
            self.next += 1;
            self.requests.push_back(Request {
                number,
                open: count,
                end: Instant::now() + wait + PATIENCE,
            });
            let request = format!(r#"{{"batch":{count},"expires":{}}}"#, wait.as_nanos());
            let inbox = format!("{}.{number}", self.inbox);
            let asked = self
                .client
                .publish_with_reply(self.subject.clone(), inbox, request.into());
            asked.await.map_err(refused)
        })
    }

    fn next(&mut self) -> Later<'_, Supplied> {
        Box::pin(async move {
            loop {
                let first = self.requests.front().map(|request| request.end);
                let overdue = async {
                    match first {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                };
                let message = tokio::select! {
                    biased;
                    message = self.messages.next() => message,
                    // The requests ended with the connection.
                    _ = self.connections.changed() => return Err(BusError::Closed),
                    () = overdue => {
                        let open = self.requests.pop_front().map_or(0, |request| request.open);
                        return Ok(Supplied::Less(open));
                    }
                };
                if let Some(supplied) = self.take(message.ok_or(BusError::Closed)?)? {
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
        let bus = door.connect(&server.url).await?;
        Ok(Some((server, bus)))
    }

    fn lane() -> Lane {
        Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority: 1,
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
        assert!(matches!(supply.next().await?, Supplied::Less(3)));
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
        assert!(matches!(supply.next().await?, Supplied::Less(1)));
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
