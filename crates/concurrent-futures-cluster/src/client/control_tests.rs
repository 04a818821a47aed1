//! Tests of cancellation with hosts that are played: the order of their messages is chosen.

use super::{Arrived, Client, ClusterOptions, Request, Settings, Sink, Stage};
use crate::bus::{Bus, Lane};
use crate::memory::{Memory, Server};
use crate::wire::{Answer, Call, Id, Kind, Receipt, Report, Seal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(3);
const TASK: u64 = 7;

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

/// Starts a client whose task is on the server.
async fn client_with_task(bus: &Arc<Memory>) -> Arc<Client> {
    let settings = Settings {
        lane: Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority: 1,
        },
        seal: seal(),
        wait_for_workers: Duration::from_secs(3600),
        most_deliveries: 3,
        kept: None,
        objects: None,
    };
    let ours: Arc<dyn Bus> = Arc::<Memory>::clone(bus);
    let client = Arc::new(Client::new(ours, settings).unwrap());
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(Arc::clone(&client).work(ready));
    is_ready.await.unwrap();
    let call = Call::Opaque(Vec::new());
    let request = Request::new(call, "x".into(), ClusterOptions::new());
    client.submit(TASK, request, Box::new(Nothing), None);
    let is_published = || matches!(client.lock().entries[&TASK].stage, Stage::Published(_));
    wait_until(is_published).await;
    client
}

async fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Returns the report of a host that has the task, or has begun it.
fn report(host: Id, has_begun: bool) -> Report {
    let tasks = vec![(TASK, 1)];
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

#[tokio::test(start_paused = true)]
async fn a_task_that_another_host_has_begun_meanwhile_is_not_cancelled() {
    let server = Server::new(1, 0, 0, LEASE);
    let client = client_with_task(&server.connect()).await;
    let hosts = server.connect();
    let (slow, other) = (Id::random().unwrap(), Id::random().unwrap());
    let mut orders = hosts.listen(&format!("cf.h.q.{slow}")).await.unwrap();
    let subject = format!("cf.c.{}", client.session);
    let sealed = |report| seal().seal(Kind::Report, subject.as_bytes(), &report);
    let held = sealed(report(slow, false));
    hosts.send(&subject, held).await.unwrap();
    wait_until(|| client.lock().entries[&TASK].holder == Some(slow)).await;
    let cancelling = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.cancel(TASK).await }
    });
    let order = orders.recv().await.unwrap();
    // The lease of the slow host had ended: another host has the task as well, and may begin.
    let begun = sealed(report(other, true));
    let receipt = hosts.request(&subject, begun.clone(), LEASE).await.unwrap();
    let receipt: Receipt = seal().open(Kind::Receipt, &begun, &receipt).unwrap();
    assert_eq!(receipt.unwanted, []);
    // Only then does the slow one obey.
    let answer = seal().seal(Kind::Answer, &order.payload, &Answer::GivenUp);
    hosts.send(&order.reply.unwrap(), answer).await.unwrap();
    assert!(cancelling.await.unwrap().is_none());
    assert!(client.has_begun(TASK));
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_asks_a_server_again_that_has_failed() {
    let server = Server::new(1, 0, 0, LEASE);
    let bus = server.connect();
    let client = client_with_task(&bus).await;
    bus.cut(true);
    let cancelling = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.cancel(TASK).await }
    });
    // Less than the time after which the first question has failed.
    sleep(Duration::from_millis(400)).await;
    bus.cut(false);
    assert!(cancelling.await.unwrap().is_some());
    assert_eq!((server.tasks(), client.unfinished()), (0, 0));
}
