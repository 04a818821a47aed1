//! Schedules of a session, whose clients come and go.

use super::parties::{Book, OneHost, Written, argument_of, start_host, value_of};
use super::{LEASE, NEVER, STUCK, TASKS, each_seed};
use crate::bus::{Bus, Lane};
use crate::client::{Client, ClusterOptions, KeptSettings, Settings, Sink, Submission};
use crate::error::ClusterError;
use crate::memory::{Memory, Random, Server};
use crate::wire::{Call, Seal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// A session, whose clients come and go.
struct Sessions {
    random: Random,
    seed: u64,
    server: Arc<Server>,
    book: Book,
    hosts: [OneHost; 3],
    client: Arc<Client>,
    bus: Arc<Memory>,
    /// The number of the next future in this process.
    next: u64,
    /// The futures of the present client, by the task if it is known.
    futures: Vec<(u64, Option<u64>)>,
    story: String,
}

impl Sessions {
    async fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let (lost, doubled) = match random.below(3) {
            0 => (0, 0),
            1 => (10, 30),
            _ => (50, 50),
        };
        let server = Server::new(seed ^ 1, lost, doubled, LEASE);
        let book = Book::default();
        let (client, bus) = Self::open(&server, false, None).await.unwrap();
        Self {
            hosts: [0, 1, 2].map(|n| start_host(&server, &book, seed ^ n, false)),
            story: format!("seed {seed}, {lost} of 1000 lost, {doubled} doubled:"),
            random,
            seed,
            server,
            book,
            client,
            bus,
            next: 0,
            futures: Vec::new(),
        }
    }

    /// Makes a client that has the session, as soon as no other one has it. None if `rival` has it again.
    async fn open(
        server: &Arc<Server>,
        must_exist: bool,
        rival: Option<(&Client, &Memory)>,
    ) -> Option<(Arc<Client>, Arc<Memory>)> {
        let opened = timeout(STUCK, Self::open_patiently(server, must_exist, rival));
        opened.await.expect("the session can be opened")
    }

    async fn open_patiently(
        server: &Arc<Server>,
        must_exist: bool,
        rival: Option<(&Client, &Memory)>,
    ) -> Option<(Arc<Client>, Arc<Memory>)> {
        loop {
            let settings = Settings {
                lane: Lane {
                    queue: "q".into(),
                    environment: "e".into(),
                    priority: 1,
                    rank: 0,
                },
                seal: Seal::new(Some(b"key")),
                wait_for_workers: NEVER,
                most_deliveries: 100_000,
                kept: Some(KeptSettings {
                    name: "s".into(),
                    age: NEVER,
                    replicas: 1,
                }),
                objects: None,
            };
            let bus = server.connect();
            let ours: Arc<dyn Bus> = Arc::<Memory>::clone(&bus);
            let client = Arc::new(Client::new(ours, settings).unwrap());
            if client.claim_session().await.is_ok() {
                let (ready, is_ready) = oneshot::channel();
                tokio::spawn(Arc::clone(&client).work(ready));
                is_ready.await.unwrap();
                match client.open_session(must_exist).await {
                    Ok(()) => return Some((client, bus)),
                    Err(ClusterError::UnknownSession { .. }) => panic!("the session is unknown"),
                    // A call was lost.
                    Err(_) => {}
                }
            }
            sleep(LEASE / 10).await;
            if rival.is_some_and(|(client, bus)| client.is_owner() && !bus.is_cut()) {
                return None;
            }
        }
    }

    fn sink(&mut self, task: Option<u64>) -> (u64, Box<dyn Sink>) {
        let number = self.next;
        self.next += 1;
        self.futures.push((number, task));
        let book = Arc::clone(&self.book);
        (number, Box::new(Written { number, book }))
    }

    fn submit(&mut self, task: u64, argument: Vec<u8>) {
        let (number, sink) = self.sink(Some(task));
        let call = Call::Opaque(Vec::new());
        let submission = Submission::single(call, argument.into(), ClusterOptions::new());
        self.client.submit(number, submission, sink, None);
    }

    /// Replaces the client.
    async fn replace_client(&mut self) {
        let is_all = match self.random.below(3) {
            0 => {
                self.story += " leave";
                let is_all = self.client.unplaced() == 0;
                self.client.abandon();
                self.client.release().await;
                is_all
            }
            1 => {
                self.story += " kill";
                self.bus.cut(true);
                self.client.unplaced() == 0
            }
            _ => {
                // It comes back, and finds that it has lost the session.
                self.story += " cut";
                let bus = Arc::clone(&self.bus);
                bus.cut(true);
                let pause = LEASE + Duration::from_millis(self.random.below(6000));
                tokio::spawn(async move {
                    sleep(pause).await;
                    bus.cut(false);
                });
                self.client.unplaced() == 0
            }
        };
        let before = self.futures.len();
        let rival = Some((&*self.client, &*self.bus));
        let opened = Self::open(&self.server, is_all && before > 0, rival).await;
        let Some((client, bus)) = opened else {
            // The old one came back before another one was there.
            self.story += " back";
            return;
        };
        (self.client, self.bus) = (client, bus);
        self.futures.clear();
        let client = Arc::clone(&self.client);
        client.claim_found(|_| true, || self.sink(None));
        let found = self.futures.len();
        // A record of a client that was cut off may come late.
        assert!(
            found >= before || !is_all,
            "{found} of {before} tasks are found: {}",
            self.story
        );
    }

    async fn happen(&mut self, number: u64) {
        match self.random.below(40) {
            0 | 1 => {
                self.story += " host";
                let which = usize::try_from(self.random.below(3)).unwrap();
                let host = start_host(&self.server, &self.book, self.seed ^ number, false);
                let host = std::mem::replace(&mut self.hosts[which], host);
                if self.random.below(2) == 0 {
                    host.is_dead.store(true, Ordering::SeqCst);
                    host.bus.cut(true);
                } else {
                    // A host that has ended has no receiver.
                    let _ = host.stop.send(true);
                }
            }
            2 => {
                self.story += " restart";
                self.server.restart();
            }
            3 => {
                self.story += " lose";
                self.server.lose_tasks();
            }
            4 => {
                let pause = self.random.below(2 * 3000);
                self.story += " pause";
                self.bus.cut(true);
                sleep(Duration::from_millis(pause)).await;
                self.bus.cut(false);
            }
            5..8 => self.replace_client().await,
            _ => {}
        }
    }

    /// Waits until all futures of the last client are done, and checks them.
    async fn finish(&mut self, arguments: &[Vec<u8>]) {
        self.server.calm();
        let is_done = async {
            while (self.client.unfinished(), self.server.tasks()) != (0, 0) {
                sleep(Duration::from_millis(500)).await;
            }
        };
        let is_done = timeout(STUCK, is_done).await.is_ok();
        let left = (self.client.unfinished(), self.server.tasks());
        assert!(is_done, "tasks are left: {left:?}: {}", self.story);
        let mut last = None;
        let seen = self.book.lock().unwrap();
        for (number, task) in &self.futures {
            let outcomes = seen.outcomes.get(number).map_or(&[][..], Vec::as_slice);
            let [Ok(bytes)] = outcomes else {
                panic!("{number} has {outcomes:?}: {}", self.story);
            };
            let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(task.is_none_or(|task| task == found), "{}", self.story);
            // In the order of their submission, each once.
            assert!(last < Some(found), "{last:?}, {found}: {}", self.story);
            last = Some(found);
            let argument = &arguments[usize::try_from(found).unwrap()];
            assert_eq!(*bytes, value_of(argument), "{}", self.story);
        }
    }
}

/// Runs the schedule of a seed with a session.
async fn run_session(seed: u64) {
    let mut scene = Sessions::new(seed).await;
    let mut arguments = Vec::new();
    for task in 0..TASKS {
        let long = scene.random.below(20) == 0;
        let argument = argument_of(task, if long { 300_000 } else { 5 });
        arguments.push(argument.clone());
        scene.submit(task, argument);
        let pause = scene.random.below(20);
        sleep(Duration::from_millis(pause)).await;
        scene.happen(task).await;
    }
    scene.finish(&arguments).await;
    // A later client finds the same tasks, and their outcomes.
    let before = scene.futures.len();
    scene.client.release().await;
    let opened = Sessions::open(&scene.server, before > 0, None).await;
    (scene.client, scene.bus) = opened.unwrap();
    scene.futures.clear();
    let client = Arc::clone(&scene.client);
    client.claim_found(|_| true, || scene.sink(None));
    assert!(scene.futures.len() >= before, "{}", scene.story);
    scene.finish(&arguments).await;
}

#[test]
fn each_task_of_a_session_is_found_whatever_the_network_does() {
    each_seed(10, run_session);
}
