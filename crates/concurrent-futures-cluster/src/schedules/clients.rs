//! Schedules of one client, whose tasks end with it.

use super::parties::{
    Book, OneHost, argument_of, start_client, start_host, submit_to, value_of, wait_until,
};
use super::{LEASE, STUCK, TASKS, each_seed};
use crate::client::Client;
use crate::memory::{Random, Server};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A client, three hosts, and the server between them.
pub(super) struct Scene {
    pub(super) random: Random,
    seed: u64,
    /// Whether tasks are short, and come in bursts.
    is_short: bool,
    pub(super) server: Arc<Server>,
    pub(super) book: Book,
    pub(super) client: Arc<Client>,
    hosts: [OneHost; 3],
    /// The cancelled tasks, and how often each had begun.
    cancelled: HashMap<u64, Option<u32>>,
    story: String,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let is_short = random.below(2) == 0;
        let (lost, doubled) = match random.below(4) {
            0 => (0, 0),
            1 => (10, 30),
            2 => (50, 50),
            _ => (200, 100),
        };
        Self::with(seed, random, (lost, doubled), is_short).await
    }

    /// Makes a scene in which these numbers of 1,000 messages are lost, and doubled.
    pub(super) async fn with(
        seed: u64,
        mut random: Random,
        (lost, doubled): (u64, u64),
        is_short: bool,
    ) -> Self {
        let server = Server::new(seed ^ 1, lost, doubled, LEASE);
        let book = Book::default();
        let priority = u8::try_from(random.below(3)).unwrap();
        let client = start_client(&server, priority).await;
        Self {
            hosts: [0, 1, 2].map(|n| start_host(&server, &book, seed ^ n, is_short)),
            story: format!("seed {seed}, {lost} of 1000 lost, {doubled} doubled, {is_short}:"),
            is_short,
            random,
            seed,
            server,
            book,
            client,
            cancelled: HashMap::new(),
        }
    }

    pub(super) fn submit(&self, number: u64, argument: Vec<u8>) {
        submit_to(&self.client, &self.book, number, argument);
    }

    /// Submits tasks of some bytes.
    pub(super) fn submit_all(&self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.submit(number, argument_of(number, 5));
        }
    }

    pub(super) async fn wait_until_begun(&self, numbers: impl Iterator<Item = u64> + Clone) {
        wait_until("the tasks begin", || {
            let seen = self.book.lock().unwrap();
            numbers
                .clone()
                .all(|number| seen.begun.contains_key(&number))
        })
        .await;
    }

    /// Replaces one of the hosts.
    fn replace(&mut self, seed: u64) -> OneHost {
        let which = usize::try_from(self.random.below(3)).unwrap();
        let host = start_host(&self.server, &self.book, self.seed ^ seed, self.is_short);
        std::mem::replace(&mut self.hosts[which], host)
    }

    /// Lets something happen after the submission of a task, or nothing.
    async fn happen(&mut self, number: u64) {
        let what = self.random.below(40);
        let task = self.random.below(number + 1);
        match what {
            0 => {
                self.story += " kill";
                let host = self.replace(number);
                host.is_dead.store(true, Ordering::SeqCst);
                host.bus.cut(true);
            }
            1 => {
                self.story += " drain";
                // A host that has ended has no receiver.
                let _ = self.replace(number).stop.send(true);
            }
            2 => {
                self.story += " anew";
                self.server.begin_anew();
            }
            3 => {
                self.story += " lose";
                self.server.lose_tasks();
            }
            4 => {
                self.story += " cut";
                let which = usize::try_from(self.random.below(3)).unwrap();
                let pause = self.random.below(2 * 3000);
                self.hosts[which].bus.cut(true);
                sleep(Duration::from_millis(pause)).await;
                self.hosts[which].bus.cut(false);
            }
            5..9 => {
                let sink = timeout(Duration::from_secs(10), self.client.cancel(task)).await;
                if let Ok(Some(sink)) = sink {
                    self.story += " cancel";
                    sink.cancel();
                    let begun = self.book.lock().unwrap().begun.get(&task).copied();
                    self.cancelled.insert(task, begun);
                }
            }
            9 => {
                self.story += " terminate";
                self.client.terminate(task).await;
            }
            _ => {}
        }
    }

    /// Waits until no future and no task on the server is left.
    pub(super) async fn finish(&self) {
        self.server.calm();
        let left = || (self.client.unfinished(), self.server.tasks());
        let is_done = async {
            while left() != (0, 0) {
                sleep(Duration::from_millis(500)).await;
            }
        };
        let is_done = timeout(STUCK, is_done).await.is_ok();
        assert!(
            is_done,
            "futures and tasks are left: {:?}: {}",
            left(),
            self.story
        );
    }

    pub(super) fn check(&self, arguments: &[Vec<u8>]) {
        let seen = self.book.lock().unwrap();
        let story = &self.story;
        for (number, argument) in (0..).zip(arguments) {
            let outcomes = seen.outcomes.get(&number).map_or(&[][..], Vec::as_slice);
            match outcomes {
                [Ok(bytes)] if *bytes == value_of(argument) => {}
                [Err(text)] if text == "terminated" => {}
                [Err(text)] if text == "cancelled" => {
                    let begun = seen.begun.get(&number).copied();
                    assert_eq!(self.cancelled[&number], begun, "{number} began: {story}");
                }
                other => panic!("{number} has {} outcomes: {story}", other.len()),
            }
        }
    }
}

/// Runs the schedule of a seed.
async fn run(seed: u64) {
    let mut scene = Scene::new(seed).await;
    let mut arguments = Vec::new();
    let (tasks, pauses) = if scene.is_short {
        (2 * TASKS, 8)
    } else {
        (TASKS, 1)
    };
    // Whether most tasks wait for those before them, so that they go to their hosts directly.
    let is_patient = scene.random.below(3) == 0;
    for number in 0..tasks {
        let length = if scene.random.below(20) == 0 {
            300_000
        } else {
            5
        };
        if is_patient && scene.random.below(8) > 0 {
            let patience = Duration::from_millis(scene.random.below(400));
            let done = wait_until("it is done", || scene.client.unfinished() == 0);
            // Whether it is done or not.
            let _ = timeout(patience, done).await;
        }
        arguments.push(argument_of(number, length));
        scene.submit(number, argument_of(number, length));
        if scene.random.below(pauses) == 0 {
            let pause = scene.random.below(20);
            sleep(Duration::from_millis(pause)).await;
            scene.happen(number).await;
        }
    }
    scene.finish().await;
    scene.check(&arguments);
}

#[test]
fn each_future_is_done_once_whatever_the_network_does() {
    each_seed(100, run);
}
