//! Tests of cancellation with hosts that are played: the order of their messages is chosen.

use super::{
    Arrived, Client, ClusterOptions, Entry, KeptSettings, Settings, Sink, Stage, Submission,
};
use crate::bus::{Bus, Lane, Supplied};
use crate::memory::{Memory, Server};
use crate::wire::{Answer, Call, Id, Kind, Outcome, Payload, Receipt, Report, Seal};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(super) const LEASE: Duration = Duration::from_secs(3);
pub(super) const TASK: u64 = 7;

struct Nothing;

impl Sink for Nothing {
    fn start(&self) -> bool {
        true
    }

    fn cancel(self: Box<Self>) {}

    fn complete(self: Box<Self>, _: Arrived) {}
}

fn seal() -> Seal {
    Seal::new(Some(b"key"))
}

/// Makes a client, which does nothing yet.
pub(super) fn new_client(bus: &Arc<Memory>, kept: Option<KeptSettings>) -> Arc<Client> {
    let settings = Settings {
        lane: Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority: 1,
            rank: 0,
        },
        seal: seal(),
        wait_for_workers: Duration::from_secs(3600),
        most_deliveries: 3,
        kept,
        objects: None,
    };
    let ours: Arc<dyn Bus> = Arc::<Memory>::clone(bus);
    Arc::new(Client::new(ours, settings).unwrap())
}

/// Starts a client.
pub(super) async fn client_of(bus: &Arc<Memory>, kept: Option<KeptSettings>) -> Arc<Client> {
    let client = new_client(bus, kept);
    client.claim_session().await.unwrap();
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(Arc::clone(&client).work(ready));
    is_ready.await.unwrap();
    client.open_session(false).await.unwrap();
    client
}

/// Starts a client whose task is on the server. Returns it with the number of the task there.
async fn client_with_task(bus: &Arc<Memory>, kept: Option<KeptSettings>) -> (Arc<Client>, u64) {
    let client = client_of(bus, kept).await;
    let call = Call::Opaque(Vec::new());
    let submission = Submission::single(call, "x".into(), ClusterOptions::new());
    client.submit(TASK, submission, Box::new(Nothing), None);
    let number = client.wire(TASK);
    wait_until(|| of_task(&client, number, is_published)).await;
    (client, number)
}

/// Returns whether a task was published, and is as `is_so` says.
fn of_task(client: &Client, number: u64, is_so: impl Fn(&Entry) -> bool) -> bool {
    client.lock().entries.get(&number).is_some_and(is_so)
}

fn is_published(entry: &Entry) -> bool {
    matches!(entry.stage, Stage::Published(_))
}

pub(super) async fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Returns the report of a host that has an attempt of a task, or has begun it.
pub(super) fn report(host: Id, number: u64, attempt: u32, has_begun: bool) -> Report {
    let tasks = vec![(number, attempt)];
    let (held, started) = if has_begun {
        (Vec::new(), tasks)
    } else {
        (tasks, Vec::new())
    };
    Report {
        host,
        machine: "m".into(),
        pid: 1,
        clock: 0,
        workers: 1,
        pace: None,
        held,
        started,
        ended: Vec::new(),
        runs: Vec::new(),
        parts: Vec::new(),
        may_be_stored: false,
    }
}

/// Returns the message with a report, and its subject.
pub(super) fn sealed(client: &Client, report: &Report) -> (String, Bytes) {
    let subject = format!("cf.c.{}", client.session);
    let sealed = seal().seal(Kind::Report, subject.as_bytes(), report);
    (subject, sealed)
}

/// Tells a client that a host begins an attempt of a task. Returns the tasks that the client does not wait for.
async fn begin(hosts: &Memory, client: &Client, number: u64, attempt: u32) -> Vec<(u64, u32)> {
    let host = Id::random().unwrap();
    let (subject, begun) = sealed(client, &report(host, number, attempt, true));
    let receipt = hosts.request(&subject, begun.clone(), LEASE).await.unwrap();
    let receipt: Receipt = seal().open(Kind::Receipt, &begun, &receipt).unwrap();
    receipt.unwanted
}

fn start_cancel(client: &Arc<Client>) -> JoinHandle<Option<Box<dyn Sink>>> {
    let client = Arc::clone(client);
    tokio::spawn(async move { client.cancel(TASK).await })
}

#[tokio::test(start_paused = true)]
async fn a_task_that_another_host_has_begun_meanwhile_is_not_cancelled() {
    let server = Server::new(1, 0, 0, LEASE);
    let (client, number) = client_with_task(&server.connect(), None).await;
    let hosts = server.connect();
    let slow = Id::random().unwrap();
    let mut orders = hosts.listen(&format!("cf.h.q.{slow}")).await.unwrap();
    let (subject, held) = sealed(&client, &report(slow, number, 1, false));
    hosts.send(&subject, held).await.unwrap();
    wait_until(|| of_task(&client, number, |entry| entry.holder == Some(slow))).await;
    let cancelling = start_cancel(&client);
    let order = orders.recv().await.unwrap();
    // The lease of the slow host had ended: another host has the task as well, and may begin.
    assert_eq!(begin(&hosts, &client, number, 1).await, []);
    // Only then does the slow one obey.
    let answer = seal().seal(Kind::Answer, &order.payload, &Answer::GivenUp);
    hosts.send(&order.reply.unwrap(), answer).await.unwrap();
    assert!(cancelling.await.unwrap().is_none());
    assert!(client.has_begun(TASK));
}

/// The host no longer has the task when it hears of the order, and no other host ever had it. So no host answers.
#[tokio::test(start_paused = true)]
async fn a_cancellation_or_termination_waits_for_no_host_once_there_is_an_outcome() {
    let server = Server::new(1, 0, 0, LEASE);
    for terminates in [false, true] {
        let (client, number) = client_with_task(&server.connect(), None).await;
        let hosts = server.connect();
        let mut orders = hosts.listen("cf.h.q.all").await.unwrap();
        let mut supply = hosts.supply(&client.lane).await.unwrap();
        supply.ask(1, LEASE).await.unwrap();
        assert!(matches!(supply.next().await, Ok(Supplied::Task(_))));
        let since = Instant::now();
        let ours = Arc::clone(&client);
        let ending = tokio::spawn(async move {
            if terminates {
                ours.terminate(TASK).await
            } else {
                ours.cancel(TASK).await.is_some()
            }
        });
        orders.recv().await.unwrap();
        let mut ended = report(Id::random().unwrap(), number, 1, false);
        ended.held.clear();
        let value = Outcome::Value(Payload::Inline(Bytes::new()));
        ended.ended.push((number, 1, value));
        let (subject, ended) = sealed(&client, &ended);
        hosts.send(&subject, ended).await.unwrap();
        assert!(!ending.await.unwrap());
        assert!(since.elapsed() < Duration::from_secs(1));
        assert_eq!(client.unfinished(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_asks_a_server_again_that_has_failed() {
    let server = Server::new(1, 0, 0, LEASE);
    let bus = server.connect();
    let (client, _) = client_with_task(&bus, None).await;
    bus.cut(true);
    let cancelling = start_cancel(&client);
    // Less than the time after which the first question has failed.
    sleep(Duration::from_millis(400)).await;
    bus.cut(false);
    assert!(cancelling.await.unwrap().is_some());
    assert_eq!((server.tasks(), client.unfinished()), (0, 0));
}

/// Starts a client whose task a host has got, and the server has lost. Returns the host's connection.
async fn client_with_lost_task(server: &Arc<Server>) -> (Arc<Client>, Arc<Memory>, u64) {
    let (client, number) = client_with_task(&server.connect(), None).await;
    let hosts = server.connect();
    let lane = client.lane.clone();
    let mut supply = hosts.supply(&lane).await.unwrap();
    supply.ask(1, LEASE).await.unwrap();
    assert!(matches!(supply.next().await, Ok(Supplied::Task(_))));
    server.begin_anew();
    wait_until(|| {
        of_task(&client, number, |entry| {
            entry.attempt == 2 && is_published(entry)
        })
    })
    .await;
    (client, hosts, number)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_host_begins_after_the_server_has_lost_it_is_not_cancelled() {
    let server = Server::new(1, 0, 0, LEASE);
    let (client, hosts, number) = client_with_lost_task(&server).await;
    let cancelling = start_cancel(&client);
    // The first third of a lease is the time in which it need not ask.
    sleep(LEASE / 4).await;
    assert_eq!(begin(&hosts, &client, number, 1).await, [(number, 1)]);
    assert!(cancelling.await.unwrap().is_none());
    assert_eq!(client.unfinished(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_server_has_lost_is_cancelled_once_no_host_can_begin_it() {
    let server = Server::new(1, 0, 0, LEASE);
    let (client, _hosts, _) = client_with_lost_task(&server).await;
    let began = Instant::now();
    assert!(start_cancel(&client).await.unwrap().is_some());
    assert!(began.elapsed() >= LEASE / 3, "{:?}", began.elapsed());
    assert_eq!((server.tasks(), client.unfinished()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_published_twice_is_not_cancelled_while_a_host_may_begin_it() {
    let server = Server::new(1, 0, 0, LEASE);
    let bus = server.connect();
    let client = client_of(&bus, None).await;
    let hosts = server.connect();
    let mut supply = hosts.supply(&client.lane).await.unwrap();
    supply.ask(1, LEASE).await.unwrap();
    let call = Call::Opaque(Vec::new());
    let submission = Submission::single(call, "x".into(), ClusterOptions::new());
    client.submit(TASK, submission, Box::new(Nothing), None);
    // The confirmation is lost.
    assert!(matches!(supply.next().await, Ok(Supplied::Task(_))));
    bus.cut(true);
    server.lose_tasks();
    sleep(Duration::from_millis(600)).await;
    bus.cut(false);
    wait_until(|| of_task(&client, TASK, is_published)).await;
    assert!(of_task(&client, TASK, |entry| entry.attempt == 1));
    let cancelling = start_cancel(&client);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(begin(&hosts, &client, TASK, 1).await, []);
    assert!(cancelling.await.unwrap().is_none());
    assert!(client.has_begun(TASK));
}

fn kept() -> KeptSettings {
    KeptSettings {
        name: "s".into(),
        age: Duration::from_secs(100_000),
        replicas: 1,
    }
}

/// Starts to cancel a kept task, up to the removal of its record, which waits.
async fn cancel_up_to_record(
    server: &Server,
    client: &Arc<Client>,
    number: u64,
) -> JoinHandle<Option<Box<dyn Sink>>> {
    server.hold_removals(true);
    let cancelling = start_cancel(client);
    wait_until(|| of_task(client, number, |entry| entry.stage == Stage::Leaving)).await;
    cancelling
}

#[tokio::test(start_paused = true)]
async fn no_host_begins_a_kept_task_whose_record_is_being_removed() {
    let server = Server::new(1, 0, 0, LEASE);
    let (client, number) = client_with_task(&server.connect(), Some(kept())).await;
    let cancelling = cancel_up_to_record(&server, &client, number).await;
    let hosts = server.connect();
    assert_eq!(begin(&hosts, &client, number, 1).await, [(number, 1)]);
    server.hold_removals(false);
    assert!(cancelling.await.unwrap().is_some());
    assert_eq!((server.tasks(), client.unfinished()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kept_task_whose_record_stays_runs_as_its_next_attempt() {
    let server = Server::new(1, 0, 0, LEASE);
    let bus = server.connect();
    let (client, number) = client_with_task(&bus, Some(kept())).await;
    let cancelling = cancel_up_to_record(&server, &client, number).await;
    bus.cut(true);
    server.hold_removals(false);
    assert!(cancelling.await.unwrap().is_none());
    bus.cut(false);
    let is_next = |entry: &Entry| is_published(entry) && entry.attempt == 2;
    wait_until(|| of_task(&client, number, is_next)).await;
    let hosts = server.connect();
    // A host that had it before knows the attempt that is over.
    assert_eq!(begin(&hosts, &client, number, 1).await, [(number, 1)]);
    assert_eq!(begin(&hosts, &client, number, 2).await, []);
    assert!(client.has_begun(TASK));
}
