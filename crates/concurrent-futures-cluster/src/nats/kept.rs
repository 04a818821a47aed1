//! The stores of kept sessions, on the disks of the server: their tasks, records, outcomes, payloads, and owners.
//!
//! | stream | contents |
//! |---|---|
//! | `cf-tasks-QUEUE+kept` | tasks, on subjects `cf.t.QUEUE+kept.ENVIRONMENT.PRIORITY+RANK.SESSION.NUMBER`; the newest attempt replaces older ones. The first rank has no name |
//! | `cf-records-QUEUE+kept` | records of tasks, on subjects `cf.r.QUEUE+kept.SESSION.NUMBER`; the first one stays |
//! | `cf-outcomes-QUEUE+kept` | outcomes, on subjects `cf.o.QUEUE+kept.SESSION.NUMBER`, and marks of runs behind them; the first one stays |
//! | `cf-payloads-QUEUE+kept` | payloads in parts, as those of a queue |
//! | `cf-sessions-QUEUE` | the owners of sessions, on subjects `cf.s.QUEUE.SESSION`, each for one lease |
//!
//! Each message has its own age, except those of owners.

#![forbid(unsafe_code)]

use super::stores::{
    PublishFailure, outcome_subject, outcomes_of, payloads_of, record_subject, records_of, tasks_of,
};
use super::{DUPLICATE_WINDOW, Nats, PATIENCE, refused};
use crate::bus::kept::{Claimed, Found, KeptBus, KeptTask, Listed, kept_of};
use crate::bus::{BusError, Lane, Later, StoreKey};
use crate::wire::Id;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    self, DirectGetErrorKind, DiscardPolicy, RetentionPolicy, StorageType,
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;

/// The most tasks that are removed at once.
const AT_ONCE: usize = 64;

/// The shortest age that the server knows.
const SHORTEST: Duration = Duration::from_secs(1);

fn sessions_of(queue: &str) -> String {
    format!("cf-sessions-{queue}")
}

fn owner_subject(queue: &str, session: Id) -> String {
    format!("cf.s.{queue}.{session}")
}

/// Returns an age in the seconds that the server counts.
fn rounded(age: Duration) -> Duration {
    let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
    Duration::from_secs(seconds).max(SHORTEST)
}

impl Nats {
    /// Returns the properties of the stores of a queue's kept sessions.
    fn kept_stores(&self, queue: &str, replicas: usize) -> [stream::Config; 5] {
        let kept = kept_of(queue);
        let store = |name: String, subjects: String| stream::Config {
            name,
            subjects: vec![subjects],
            storage: StorageType::File,
            num_replicas: replicas,
            max_messages_per_subject: 1,
            allow_direct: true,
            allow_message_ttl: true,
            ..stream::Config::default()
        };
        let first_stays = |config| stream::Config {
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..config
        };
        [
            stream::Config {
                retention: RetentionPolicy::WorkQueue,
                duplicate_window: DUPLICATE_WINDOW,
                ..store(tasks_of(&kept), format!("cf.t.{kept}.>"))
            },
            first_stays(store(records_of(&kept), format!("cf.r.{kept}.>"))),
            first_stays(store(outcomes_of(&kept), format!("cf.o.{kept}.>"))),
            store(payloads_of(&kept), format!("cf.p.{kept}.>")),
            stream::Config {
                max_age: self.lease,
                duplicate_window: self.lease.min(DUPLICATE_WINDOW),
                allow_message_ttl: false,
                ..store(sessions_of(queue), format!("cf.s.{queue}.>"))
            },
        ]
    }

    /// Publishes a message. None if a condition of the message, or of its stream, does not hold.
    async fn put(&self, subject: String, message: PublishMessage) -> Result<Option<u64>, BusError> {
        let sent = self.context.send_publish(subject, message).await;
        let stored = match sent {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) => Ok(Some(stored.sequence)),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence => Ok(None),
                PublishErrorKind::StreamNotFound => {
                    self.doubt();
                    Err(BusError::NoListener)
                }
                PublishErrorKind::TimedOut => Err(BusError::TimedOut),
                PublishErrorKind::BrokenPipe => Err(BusError::Closed),
                _ if error.to_string().contains("per subject") => Ok(None),
                _ => Err(refused(error)),
            },
        }
    }

    /// Returns the newest message of a stream on a subject.
    pub(super) async fn newest(
        &self,
        stream: String,
        subject: String,
    ) -> Result<Option<Found>, BusError> {
        let stream = self.context.get_stream_no_info(stream).await;
        let stream = stream.map_err(refused)?;
        match timeout(PATIENCE, stream.direct_get_last_for_subject(subject)).await {
            Err(_) => Err(BusError::TimedOut),
            Ok(Ok(found)) => Ok(Some(Found {
                number: found.sequence,
                id: found
                    .headers
                    .get(async_nats::header::NATS_MESSAGE_ID)
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                frame: found.payload,
            })),
            Ok(Err(error)) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Ok(Err(error)) => {
                self.doubt();
                Err(refused(error))
            }
        }
    }

    /// Removes what a stream without consumers has on subjects.
    pub(super) async fn remove(&self, stream: String, subjects: String) -> Result<(), BusError> {
        let stream = self.context.get_stream_no_info(stream).await;
        let stream = stream.map_err(refused)?;
        let purged = timeout(PATIENCE, stream.purge().filter(subjects)).await;
        let purged = purged.map_err(|_| BusError::TimedOut)?;
        purged.map(drop).map_err(refused)
    }

    /// Removes the task of a subject, whichever attempt of it there is.
    ///
    /// It goes by its number. The server (2.15.1) that purges the subject forgets other tasks of the consumer that hosts
    /// have. It neither delivers those again nor removes them.
    async fn remove_task(&self, stream: String, subject: String) -> Result<(), BusError> {
        let mut failed: Option<(u64, BusError)> = None;
        loop {
            let found = self.newest(stream.clone(), subject.clone()).await?;
            let number = match (found, failed.take()) {
                (None, _) => return Ok(()),
                // It is still there.
                (Some(found), Some((number, error))) if found.number == number => {
                    return Err(error);
                }
                (Some(found), _) => found.number,
            };
            let held = self.context.get_stream_no_info(&stream).await;
            let removed = timeout(PATIENCE, held.map_err(refused)?.delete_message(number)).await;
            if let Err(error) = removed.map_err(|_| BusError::TimedOut)? {
                failed = Some((number, refused(error)));
            }
        }
    }

    /// Removes all tasks of a session.
    async fn remove_tasks(&self, queue: &str, session: Id) -> Result<(), BusError> {
        let stream = tasks_of(queue);
        let listed = async {
            let stream = self.context.get_stream_no_info(&stream).await;
            let stream = stream.map_err(refused)?;
            let subjects = stream.info_with_subjects(format!("cf.t.{queue}.*.*.{session}.>"));
            let found: Vec<(String, usize)> = subjects
                .await
                .map_err(refused)?
                .try_collect()
                .await
                .map_err(refused)?;
            Ok(found)
        };
        let listed = timeout(PATIENCE, listed).await;
        let listed = listed.unwrap_or(Err(BusError::TimedOut))?;
        let removals = listed
            .into_iter()
            .map(|(subject, _)| Ok(self.remove_task(stream.clone(), subject)));
        futures_util::stream::iter(removals)
            .try_buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn keep_first(
        &self,
        subject: String,
        content: Bytes,
        age: Duration,
    ) -> Result<bool, BusError> {
        let message = PublishMessage::build().payload(content).ttl(rounded(age));
        Ok(self.put(subject, message).await?.is_some())
    }

    async fn list_numbers(&self, stream: String, prefix: String) -> Result<Vec<u64>, BusError> {
        let listed = async {
            let stream = self.context.get_stream_no_info(stream).await;
            let stream = stream.map_err(refused)?;
            let found = stream.info_with_subjects(format!("{prefix}*")).await;
            let found = found.map_err(refused)?;
            let found: Vec<(String, usize)> = found.try_collect().await.map_err(refused)?;
            let numbers = found.iter();
            let numbers = numbers.filter_map(|(subject, _)| subject.strip_prefix(&prefix));
            let mut numbers: Vec<u64> = numbers.filter_map(|text| text.parse().ok()).collect();
            numbers.sort_unstable();
            Ok(numbers)
        };
        let listed = timeout(PATIENCE, listed).await;
        listed.unwrap_or(Err(BusError::TimedOut))
    }
}

impl KeptBus for Nats {
    fn ensure_kept<'a>(&'a self, queue: &'a str, replicas: usize) -> Later<'a, bool> {
        Box::pin(async move {
            let stores = self.kept_stores(queue, replicas).into_iter();
            let made = stores.map(|config| async {
                if self.found(config.name.clone()).await?.is_some() {
                    return Ok(false);
                }
                // Another client may be faster.
                let made = self.context.get_or_create_stream(config).await;
                made.map(|_| true).map_err(refused)
            });
            let made = timeout(2 * PATIENCE, try_join_all(made)).await;
            let made = made.map_err(|_| BusError::TimedOut)??;
            Ok(made.contains(&true))
        })
    }

    fn has_kept<'a>(&'a self, queue: &'a str) -> Later<'a, bool> {
        Box::pin(async move {
            let found = self.found(tasks_of(&kept_of(queue))).await?;
            Ok(found.is_some())
        })
    }

    fn push_kept<'a>(
        &'a self,
        lane: &'a Lane,
        task: KeptTask,
        id: &'a str,
        frame: Bytes,
        age: Duration,
    ) -> Later<'a, u64> {
        Box::pin(async move {
            let message = PublishMessage::build()
                .payload(frame)
                .message_id(id)
                .ttl(rounded(age))
                .expected_stream(tasks_of(&lane.queue));
            let pushed = self.put(task.subject(lane), message).await?;
            pushed.ok_or(BusError::NoListener)
        })
    }

    fn find<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, Option<Found>> {
        Box::pin(self.newest(tasks_of(&lane.queue), task.subject(lane)))
    }

    fn remove_kept<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, ()> {
        Box::pin(self.remove_task(tasks_of(&lane.queue), task.subject(lane)))
    }

    fn keep_for<'a>(
        &'a self,
        store_key: &'a StoreKey,
        content: Bytes,
        age: Duration,
    ) -> Later<'a, bool> {
        Box::pin(async move {
            match store_key {
                StoreKey::Outcome { queue, id } => {
                    let subject = outcome_subject(queue, id);
                    self.keep_first(subject, content, age).await
                }
                StoreKey::Record { queue, id } => {
                    let subject = record_subject(queue, id);
                    self.keep_first(subject, content, age).await
                }
                StoreKey::Object { queue, name, .. } => {
                    let age = Some(rounded(age));
                    match self.store(queue, name, &content, age).await {
                        Ok(()) => Ok(true),
                        Err(PublishFailure::Other(error)) => Err(error),
                        Err(PublishFailure::NoStream) => Err(BusError::NoListener),
                    }
                }
                // It has an age of its own.
                StoreKey::Host { .. } => self.keep_value(store_key, content).await,
            }
        })
    }

    fn numbers<'a>(&'a self, queue: &'a str, session: Id, what: Listed) -> Later<'a, Vec<u64>> {
        let kept = kept_of(queue);
        let (stream, letter) = match what {
            Listed::Records => (records_of(&kept), "r"),
            Listed::Outcomes => (outcomes_of(&kept), "o"),
        };
        Box::pin(self.list_numbers(stream, format!("cf.{letter}.{kept}.{session}.")))
    }

    fn claim<'a>(
        &'a self,
        queue: &'a str,
        session: Id,
        owner: Bytes,
        last: u64,
    ) -> Later<'a, Claimed> {
        Box::pin(async move {
            let message = PublishMessage::build()
                .payload(owner)
                .expected_last_subject_sequence(last);
            let subject = owner_subject(queue, session);
            if let Some(number) = self.put(subject.clone(), message).await? {
                return Ok(Claimed::Ours(number));
            }
            let found = self.newest(sessions_of(queue), subject).await?;
            Ok(found.map_or(Claimed::Free, |found| {
                Claimed::Theirs(found.number, found.frame)
            }))
        })
    }

    fn release<'a>(&'a self, queue: &'a str, session: Id, last: u64) -> Later<'a, ()> {
        Box::pin(async move {
            let stream = self.context.get_stream_no_info(sessions_of(queue)).await;
            let stream = stream.map_err(refused)?;
            // A later claim of another owner stays.
            let purge = stream.purge().sequence(last + 1);
            let purge = purge.filter(owner_subject(queue, session));
            let purged = timeout(PATIENCE, purge).await;
            let purged = purged.map_err(|_| BusError::TimedOut)?;
            purged.map(drop).map_err(refused)
        })
    }

    fn discard<'a>(&'a self, queue: &'a str, session: Id) -> Later<'a, ()> {
        Box::pin(async move {
            let kept = kept_of(queue);
            self.remove_tasks(&kept, session).await?;
            for (stream, subjects) in [
                (records_of(&kept), format!("cf.r.{kept}.{session}.>")),
                (outcomes_of(&kept), format!("cf.o.{kept}.{session}.>")),
                (payloads_of(&kept), format!("cf.p.{kept}.{session}.>")),
            ] {
                self.remove(stream, subjects).await?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Door;
    use crate::bus::kept::session_of;
    use crate::bus::{Bus, Settle, Supplied};
    use crate::server::{self, Server};
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;
    use std::collections::HashSet;
    use std::error::Error;

    type Test = Result<(), Box<dyn Error>>;

    const HOUR: Duration = Duration::from_secs(3600);

    fn lane() -> Lane {
        Lane {
            queue: "q+kept".into(),
            environment: "e".into(),
            priority: 1,
            rank: 0,
        }
    }

    #[allow(clippy::print_stderr, reason = "says that it was skipped")]
    async fn start() -> Result<Option<(Server, [Nats; 2])>, Box<dyn Error>> {
        let Some(program) = server::for_tests() else {
            eprintln!("skipped: there is no nats-server; `make cluster` installs it");
            return Ok(None);
        };
        let server = Server::start(Some(program)).await?;
        let door = Door {
            token: Some(server.token.clone()),
            lease: Duration::from_secs(1),
            ..Door::default()
        };
        let one = door.connect_nats(&server.url, "one").await?;
        let two = door.connect_nats(&server.url, "two").await?;
        assert!(!two.has_kept("q").await?);
        assert!(one.ensure_kept("q", 1).await?);
        assert!(!two.ensure_kept("q", 1).await?);
        assert!(two.has_kept("q").await?);
        Ok(Some((server, [one, two])))
    }

    #[tokio::test]
    async fn one_of_two_claims_wins_until_its_lease_ends() -> Test {
        let Some((_server, [one, two])) = start().await? else {
            return Ok(());
        };
        let [s, t] = ["s", "t"].map(|name| session_of("q", name));
        let (ours, theirs) = (Bytes::from("one"), Bytes::from("two"));
        let (first, second) = tokio::join!(
            one.claim("q", s, ours.clone(), 0),
            two.claim("q", s, theirs.clone(), 0)
        );
        let number = match (first?, second?) {
            (Claimed::Ours(number), Claimed::Theirs(of, content)) => {
                assert_eq!((of, content), (number, ours.clone()));
                number
            }
            (Claimed::Theirs(of, content), Claimed::Ours(number)) => {
                assert_eq!((of, content), (number, theirs.clone()));
                number
            }
            both => panic!("{both:?}"),
        };
        let Claimed::Ours(renewed) = one.claim("q", s, ours.clone(), number).await? else {
            panic!("the claim does not hold");
        };
        // Another session has its own owner.
        assert!(matches!(
            two.claim("q", t, theirs.clone(), 0).await?,
            Claimed::Ours(_)
        ));
        let last = loop {
            match two.claim("q", s, theirs.clone(), 0).await? {
                Claimed::Ours(number) => break number,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let refused = one.claim("q", s, ours.clone(), renewed).await?;
        assert_eq!(refused, Claimed::Theirs(last, theirs.clone()));
        // The end of an old claim is not that of a newer one.
        one.release("q", s, renewed).await?;
        let refused = one.claim("q", s, ours.clone(), 0).await?;
        assert_eq!(refused, Claimed::Theirs(last, theirs));
        two.release("q", s, last).await?;
        assert_eq!(one.claim("q", s, ours.clone(), last).await?, Claimed::Free);
        assert!(matches!(
            one.claim("q", s, ours, 0).await?,
            Claimed::Ours(_)
        ));
        Ok(())
    }

    #[tokio::test]
    async fn the_first_record_stays_and_a_session_lists_its_own() -> Test {
        let Some((_server, [one, two])) = start().await? else {
            return Ok(());
        };
        let [s, t] = ["s", "t"].map(|name| session_of("q", name));
        for number in [10, 9, 1_u64 << 60] {
            let record = StoreKey::record("q+kept", s, number);
            assert!(one.keep_for(&record, "a".into(), HOUR).await?);
            assert!(!two.keep_for(&record, "b".into(), HOUR).await?);
            let outcome = StoreKey::outcome("q+kept", s, number + 1);
            assert!(one.keep_for(&outcome, "a".into(), HOUR).await?);
            assert!(!two.keep_for(&outcome, "b".into(), HOUR).await?);
            // A mark is no outcome.
            let mark = StoreKey::mark("q+kept", s, number, 1, false);
            assert!(one.keep_for(&mark, "a".into(), HOUR).await?);
            assert!(!two.keep_for(&mark, "b".into(), HOUR).await?);
        }
        let of_another = StoreKey::record("q+kept", t, 11);
        assert!(one.keep_for(&of_another, "a".into(), HOUR).await?);
        let object = StoreKey::object("q+kept", s, &[7; 32], 1_000_000);
        let long = Bytes::from(vec![7; 1_000_000]);
        assert!(one.keep_for(&object, long.clone(), HOUR).await?);
        assert_eq!(two.fetch_value(&object).await?, Some(long));
        let records = two.numbers("q", s, Listed::Records).await?;
        assert_eq!(records, [9, 10, 1 << 60]);
        let outcomes = two.numbers("q", s, Listed::Outcomes).await?;
        assert_eq!(outcomes, [10, 11, (1 << 60) + 1]);
        let record = StoreKey::record("q+kept", s, 9);
        assert_eq!(two.fetch_value(&record).await?, Some("a".into()));
        two.forget_value(&record).await?;
        assert_eq!(two.fetch_value(&record).await?, None);
        one.discard("q", s).await?;
        assert!(two.numbers("q", s, Listed::Records).await?.is_empty());
        assert!(two.numbers("q", s, Listed::Outcomes).await?.is_empty());
        assert_eq!(two.fetch_value(&object).await?, None);
        assert_eq!(two.numbers("q", t, Listed::Records).await?, [11]);
        Ok(())
    }

    #[tokio::test]
    async fn a_task_is_found_by_its_subject_and_replaced_by_its_next_attempt() -> Test {
        let Some((_server, [one, two])) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let task = KeptTask {
            session: session_of("q", "s"),
            number: 7,
        };
        assert_eq!(two.find(&lane, task).await?, None);
        for (id, number) in [("s.1", 1), ("s.1", 1), ("s.2", 2)] {
            let pushed = one.push_kept(&lane, task, id, id.into(), HOUR);
            assert_eq!(pushed.await?, number);
        }
        let newest = Found {
            number: 2,
            id: "s.2".into(),
            frame: "s.2".into(),
        };
        assert_eq!(two.find(&lane, task).await?, Some(newest));
        let other = KeptTask { number: 8, ..task };
        one.push_kept(&lane, other, "s.3", "s.3".into(), HOUR)
            .await?;
        two.remove_kept(&lane, task).await?;
        assert_eq!(two.find(&lane, task).await?, None);
        assert!(two.find(&lane, other).await?.is_some());
        one.discard("q", task.session).await?;
        assert_eq!(two.find(&lane, other).await?, None);
        assert_eq!(two.find(&lane, task).await?, None);
        Ok(())
    }

    #[tokio::test]
    async fn a_removed_task_takes_no_delivery_of_another_one_along() -> Test {
        const TASKS: u64 = 400;
        let Some((_server, [client, host])) = start().await? else {
            return Ok(());
        };
        let lane = lane();
        let session = session_of("q", "s");
        let mut supply = host.supply(&lane).await?;
        let lane = &lane;
        let tasks = async {
            for number in 0..TASKS {
                let task = KeptTask { session, number };
                let id = number.to_string();
                client
                    .push_kept(lane, task, &id, Bytes::from(id.clone()), HOUR)
                    .await?;
            }
            Ok::<_, BusError>(())
        };
        let host = &host;
        let client = &client;
        let runs = async {
            let mut ends = FuturesUnordered::new();
            let mut left: HashSet<String> = (0..TASKS).map(|number| number.to_string()).collect();
            while !left.is_empty() {
                if supply.open() == 0 {
                    supply.ask(4, Duration::from_secs(60)).await?;
                }
                let delivery = tokio::select! {
                    Some(ended) = ends.next() => {
                        ended?;
                        continue;
                    }
                    supplied = supply.next() => match supplied? {
                        Supplied::Task(delivery) => delivery,
                        Supplied::Empty | Supplied::Less => continue,
                    },
                };
                let number: u64 = delivery.id.parse().unwrap();
                // Of five tasks, one is given back at first, and one is cancelled.
                let is_given_back = number.is_multiple_of(5) && delivery.deliveries == 1;
                if !is_given_back {
                    left.remove(&delivery.id);
                }
                ends.push(async move {
                    let how = if is_given_back {
                        Settle::Back
                    } else {
                        Settle::Done
                    };
                    let settled = host.settle(&delivery.token, how);
                    if number % 5 == 1 {
                        let task = KeptTask { session, number };
                        tokio::try_join!(client.remove_kept(lane, task), settled).map(drop)
                    } else {
                        settled.await
                    }
                });
            }
            while let Some(ended) = ends.next().await {
                ended?;
            }
            Ok::<_, BusError>(())
        };
        timeout(Duration::from_secs(60), async {
            tokio::try_join!(tasks, runs)
        })
        .await??;
        Ok(())
    }

    #[tokio::test]
    async fn more_copies_than_nodes_are_refused() -> Test {
        let Some((_server, [one, _])) = start().await? else {
            return Ok(());
        };
        let error = one.ensure_kept("r", 3).await.unwrap_err();
        assert!(error.to_string().contains("replicas"), "{error}");
        Ok(())
    }
}
