//! Random schedules of faults with the server in memory: clients and hosts are the real ones, and workers are timers.
//!
//! `CONCURRENT_FUTURES_SEED=7` begins at another seed, `CONCURRENT_FUTURES_SCHEDULES=100000` runs that many.

use crate::bus::{Bus, Lane};
use crate::client::{Arrived, Client, ClusterOptions, KeptSettings, Request, Settings, Sink};
use crate::error::ClusterError;
use crate::host;
use crate::memory::{Memory, Random, Server};
use crate::runner::{CallOptions, Ended, Runner, Running};
use crate::wire::{Call, Seal};
use bytes::Bytes;
use std::collections::HashMap;
use std::env;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Sleep, sleep, timeout};

const LEASE: Duration = Duration::from_secs(3);
const TASKS: u64 = 40;
/// The virtual time after which a schedule is stuck.
const STUCK: Duration = Duration::from_secs(600);
/// A time that does not pass.
const NEVER: Duration = Duration::from_secs(100_000);
/// The number of the first task that takes a long time, and that time: longer than a request of a host waits.
const LONG: u64 = 1 << 32;
const LONG_TIME: Duration = Duration::from_secs(30);
/// The time in which something is done that waits for no lease and no answer that is overdue: they take longer.
const SOON: Duration = Duration::from_millis(1500);

/// The futures, and the tasks that workers have begun.
#[derive(Default)]
struct Seen {
    outcomes: HashMap<u64, Vec<Result<Vec<u8>, String>>>,
    begun: HashMap<u64, u32>,
    /// The tasks that have begun, in their order.
    order: Vec<u64>,
}

type Book = Arc<Mutex<Seen>>;

struct Written {
    number: u64,
    book: Book,
}

impl Written {
    fn write(&self, outcome: Result<Vec<u8>, String>) {
        let mut seen = self.book.lock().unwrap();
        seen.outcomes.entry(self.number).or_default().push(outcome);
    }
}

impl Sink for Written {
    fn start(&self) -> bool {
        true
    }

    fn cancel(self: Box<Self>) {
        self.write(Err("cancelled".into()));
    }

    fn complete(self: Box<Self>, arrived: Arrived) {
        self.write(match arrived {
            Arrived::Value(bytes) => Ok(bytes.to_vec()),
            Arrived::Failure(bytes) => Err(String::from_utf8(bytes.to_vec()).unwrap()),
            Arrived::Error(error) => Err(error.to_string()),
        });
    }
}

/// A pool of workers that are timers.
struct Timers {
    book: Book,
    random: Arc<Mutex<Random>>,
    /// Whether tasks are short, so that they share parcels.
    is_short: bool,
    /// Whether the process of the host is dead.
    is_dead: Arc<AtomicBool>,
    /// Those that are free.
    workers: Arc<Semaphore>,
}

struct Timer {
    number: u64,
    argument: Bytes,
    book: Book,
    is_dead: Arc<AtomicBool>,
    /// Waits for a worker, and for its start.
    begin: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>>,
    length: Duration,
    end: Option<(Pin<Box<Sleep>>, OwnedSemaphorePermit)>,
    is_terminated: AtomicBool,
    is_recalled: AtomicBool,
}

impl Runner for Timers {
    fn workers(&self) -> usize {
        2
    }

    fn ahead(&self) -> usize {
        4
    }

    fn knows(&self, call: &Call) -> bool {
        matches!(call, Call::Opaque(_))
    }

    fn run(&self, _: &Call, argument: Bytes, _: CallOptions) -> Box<dyn Running> {
        let mut random = self.random.lock().unwrap();
        let (scale, few) = if self.is_short { (10, 200) } else { (1000, 10) };
        let begin = Duration::from_micros(random.below(3 * scale));
        let longest = if random.below(few) == 0 { 10_000 } else { 50 };
        let mut length = Duration::from_micros(random.below(longest * scale));
        let number = u64::from_le_bytes(argument[..8].try_into().unwrap());
        if number >= LONG {
            length = LONG_TIME;
        }
        let workers = Arc::clone(&self.workers);
        Box::new(Timer {
            number,
            argument,
            book: Arc::clone(&self.book),
            is_dead: Arc::clone(&self.is_dead),
            begin: Some(Box::pin(async move {
                let worker = workers.acquire_owned().await.unwrap();
                sleep(begin).await;
                worker
            })),
            length,
            end: None,
            is_terminated: AtomicBool::new(false),
            is_recalled: AtomicBool::new(false),
        })
    }

    fn close(&self) {}
}

impl Future for Timer {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        if self.is_recalled.load(Ordering::SeqCst) {
            return Poll::Ready(Ended::Untouched);
        }
        if self.is_terminated.load(Ordering::SeqCst) {
            return Poll::Ready(Ended::Failure(b"terminated".to_vec()));
        }
        if let Some(begin) = &mut self.begin {
            let Poll::Ready(worker) = begin.as_mut().poll(context) else {
                return Poll::Pending;
            };
            self.begin = None;
            self.end = Some((Box::pin(sleep(self.length)), worker));
            let mut seen = self.book.lock().unwrap();
            *seen.begun.entry(self.number).or_default() += 1;
            seen.order.push(self.number);
        }
        if let Some((end, _)) = &mut self.end
            && end.as_mut().poll(context).is_pending()
        {
            return Poll::Pending;
        }
        Poll::Ready(Ended::Value(value_of(&self.argument)))
    }
}

impl Running for Timer {
    fn recall(&self) -> bool {
        let is_ours = self.begin.is_some();
        self.is_recalled.fetch_or(is_ours, Ordering::SeqCst);
        is_ours
    }

    fn terminate(&self) -> bool {
        self.is_terminated.store(true, Ordering::SeqCst);
        true
    }
}

fn value_of(argument: &[u8]) -> Vec<u8> {
    [argument, b" done"].concat()
}

struct OneHost {
    bus: Arc<Memory>,
    stop: watch::Sender<bool>,
    is_dead: Arc<AtomicBool>,
}

fn start_host(server: &Arc<Server>, book: &Book, seed: u64, is_short: bool) -> OneHost {
    let (bus, is_dead) = (server.connect(), Arc::<AtomicBool>::default());
    let runner = Timers {
        book: Arc::clone(book),
        random: Arc::new(Mutex::new(Random(seed))),
        is_short,
        is_dead: Arc::clone(&is_dead),
        workers: Arc::new(Semaphore::new(2)),
    };
    let settings = host::Settings {
        queue: "q".into(),
        environment: "e".into(),
        machine: "m".into(),
        seal: Seal::new(Some(b"key")),
        drain: Duration::from_secs(1),
        objects: None,
    };
    let (stop, stopped) = watch::channel(false);
    let ours = Arc::clone(&bus);
    tokio::spawn(async move {
        host::serve(ours, Arc::new(runner), settings, None, stopped, None)
            .await
            .unwrap();
    });
    OneHost { bus, stop, is_dead }
}

/// Starts a client, whose tasks are of the priority.
async fn start_client(server: &Arc<Server>, priority: u8) -> Arc<Client> {
    let settings = Settings {
        lane: Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority,
        },
        seal: Seal::new(Some(b"key")),
        wait_for_workers: NEVER,
        most_deliveries: 100_000,
        kept: None,
        objects: None,
    };
    let client = Arc::new(Client::new(server.connect(), settings).unwrap());
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(Arc::clone(&client).work(ready));
    is_ready.await.unwrap();
    client
}

fn submit_to(client: &Client, book: &Book, number: u64, argument: Vec<u8>) {
    let sink = Written {
        number,
        book: Arc::clone(book),
    };
    let call = Call::Opaque(Vec::new());
    let request = Request::new(call, argument.into(), ClusterOptions::new());
    client.submit(number, request, Box::new(sink), None);
}

/// Waits for something that comes.
async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let comes = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(STUCK, comes).await.is_ok(), "{what}");
}

fn argument_of(number: u64, length: usize) -> Vec<u8> {
    let mut argument = number.to_le_bytes().to_vec();
    argument.resize(argument.len() + length, number.to_le_bytes()[0]);
    argument
}

/// A client, three hosts, and the server between them.
struct Scene {
    random: Random,
    seed: u64,
    /// Whether tasks are short, and come in bursts.
    is_short: bool,
    server: Arc<Server>,
    book: Book,
    client: Arc<Client>,
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
    async fn with(
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

    fn submit(&self, number: u64, argument: Vec<u8>) {
        submit_to(&self.client, &self.book, number, argument);
    }

    /// Submits tasks of some bytes.
    fn submit_all(&self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.submit(number, argument_of(number, 5));
        }
    }

    async fn wait_until_begun(&self, numbers: impl Iterator<Item = u64> + Clone) {
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
    async fn finish(&self) {
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

    fn check(&self, arguments: &[Vec<u8>]) {
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
    for number in 0..tasks {
        let length = if scene.random.below(20) == 0 {
            300_000
        } else {
            5
        };
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

/// Runs so many schedules in virtual time, unless the variables say otherwise.
fn each_seed<F: Future<Output = ()>>(schedules: u64, run: impl Fn(u64) -> F) {
    let number = |name, default| {
        let given = env::var(name).ok();
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let first: u64 = number("CONCURRENT_FUTURES_SEED", 1);
    for seed in first..first + number("CONCURRENT_FUTURES_SCHEDULES", schedules) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}

#[tokio::test(start_paused = true)]
async fn short_tasks_of_a_burst_share_messages() {
    let scene = Scene::with(1, Random(1), (0, 0), true).await;
    let arguments: Vec<_> = (0..3000).map(|number| argument_of(number, 5)).collect();
    for (number, argument) in (0..).zip(&arguments) {
        scene.submit(number, argument.clone());
    }
    scene.finish().await;
    scene.check(&arguments);
    let pushed = scene.server.pushed();
    assert!(pushed < 1500, "{pushed} messages for 3,000 tasks");
}

/// Hosts without a free worker give tasks back again and again. Wherever a task is on its way, it is cancelled, and
/// those that are left find a new host.
#[tokio::test(start_paused = true)]
async fn a_task_that_comes_back_again_and_again_is_cancelled_or_runs_soon() {
    for seed in 1..=10 {
        let mut scene = Scene::with(seed, Random(seed), (0, 0), true).await;
        // From now on, hosts take more tasks than they have workers for.
        scene.submit_all(0..300);
        wait_until("they are done", || scene.client.unfinished() == 0).await;
        let long = LONG..LONG + 6;
        scene.submit_all(long.clone());
        scene.wait_until_begun(long).await;
        scene.submit_all(300..340);
        for number in (300..340).step_by(2) {
            let pause = scene.random.below(100);
            sleep(Duration::from_millis(pause)).await;
            let cancelled = timeout(SOON, scene.client.cancel(number)).await;
            match cancelled {
                Ok(Some(sink)) => sink.cancel(),
                Ok(None) => panic!("seed {seed}: {number} is not cancelled"),
                Err(error) => panic!("seed {seed}: the cancellation of {number}: {error}"),
            }
        }
        let _host = start_host(&scene.server, &scene.book, seed, true);
        // Before any of the others has a free worker.
        let begun = scene.wait_until_begun((301..340).step_by(2));
        assert!(timeout(LONG_TIME / 2, begun).await.is_ok(), "seed {seed}");
        let seen = scene.book.lock().unwrap();
        assert!(
            (300..340)
                .step_by(2)
                .all(|number| !seen.begun.contains_key(&number))
        );
    }
}

/// A request of a host ends while the host is busy. So it does not know any more that there is no urgent task.
#[tokio::test(start_paused = true)]
async fn no_task_begins_before_an_urgent_one_when_the_requests_of_a_host_have_ended() {
    for seed in 1..=20 {
        let (server, book) = (Server::new(seed, 0, 0, LEASE), Book::default());
        let clients = [
            start_client(&server, 0).await,
            start_client(&server, 2).await,
        ];
        let _host = start_host(&server, &book, seed, true);
        let submit = |priority: usize, number| {
            submit_to(&clients[priority], &book, number, argument_of(number, 5));
        };
        submit(0, LONG);
        submit(0, LONG + 1);
        let has_begun = |count| book.lock().unwrap().order.len() == count;
        wait_until("the workers are busy", || has_begun(2)).await;
        sleep(LONG_TIME.saturating_sub(Duration::from_secs(5))).await;
        for number in 0..4 {
            submit(0, number);
            submit(1, 10 + number);
        }
        wait_until("all have begun", || has_begun(10)).await;
        let order = book.lock().unwrap().order.clone();
        assert!(
            order[2..6].iter().all(|number| *number >= 10),
            "{seed}: {order:?}"
        );
    }
}

/// The server's clock is an hour ahead, or behind, or is set while a client works.
#[tokio::test(start_paused = true)]
async fn hosts_ask_about_no_task_whatever_the_clocks_show() {
    const HOUR: u64 = 3_600_000;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ours = u64::try_from(since.unwrap().as_millis()).unwrap();
    for clock in [ours, ours + HOUR, ours - HOUR] {
        let (server, book) = (Server::new(1, 0, 0, LEASE), Book::default());
        server.set_clock(clock);
        let client = start_client(&server, 1).await;
        let _host = start_host(&server, &book, 1, true);
        let run = async |numbers: std::ops::Range<u64>| {
            for number in numbers {
                submit_to(&client, &book, number, argument_of(number, 5));
            }
            wait_until("they are done", || client.unfinished() == 0).await;
            server.questions()
        };
        assert_eq!(run(0..100).await, 0);
        sleep(Duration::from_secs(1000)).await;
        assert_eq!(run(100..200).await, 0);
        // The host asks about a task. So the client learns that the server has another clock.
        server.set_clock(clock + 2 * HOUR);
        assert_ne!(run(200..201).await, 0);
        sleep(Duration::from_secs(1)).await;
        let asked = server.questions();
        assert_eq!(run(201..300).await, asked);
    }
}

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
        let request = Request::new(call, argument.into(), ClusterOptions::new());
        self.client.submit(number, request, sink, None);
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
