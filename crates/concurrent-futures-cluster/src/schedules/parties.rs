//! The parties of schedules: clients, their futures, and hosts whose workers are timers.

use super::{NEVER, STUCK};
use crate::bus::Lane;
use crate::client::{Arrived, Client, ClusterOptions, Settings, Sink, Submission};
use crate::error::ClusterError;
use crate::host;
use crate::memory::{Memory, Random, Server};
use crate::runner::{CallOptions, Ended, Runner, Running};
use crate::wire::{Call, Seal};
use bytes::Bytes;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

/// The number of the first task that takes a long time, and that time: longer than a request of a host waits.
pub(super) const LONG: u64 = 1 << 32;
pub(super) const LONG_TIME: Duration = Duration::from_secs(30);
/// The number of a task with which the first runner panics that gets it.
pub(super) const PANIC: u64 = 1 << 33;

/// The futures, and the tasks that workers have begun.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) outcomes: HashMap<u64, Vec<Result<Vec<u8>, String>>>,
    pub(super) begun: HashMap<u64, u32>,
    /// The tasks that have begun, in their order.
    pub(super) order: Vec<u64>,
    has_panicked: bool,
}

pub(super) type Book = Arc<Mutex<Seen>>;

pub(super) struct Written {
    pub(super) number: u64,
    pub(super) book: Book,
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
        let number = u64::from_le_bytes(argument[..8].try_into().unwrap());
        if number == PANIC {
            let had_panicked = {
                let mut seen = self.book.lock().unwrap();
                std::mem::replace(&mut seen.has_panicked, true)
            };
            assert!(had_panicked, "no luck");
        }
        let mut random = self.random.lock().unwrap();
        let (scale, few) = if self.is_short { (10, 200) } else { (1000, 10) };
        let begin = Duration::from_micros(random.below(3 * scale));
        let longest = if random.below(few) == 0 { 10_000 } else { 50 };
        let mut length = Duration::from_micros(random.below(longest * scale));
        if (LONG..PANIC).contains(&number) {
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
            return Poll::Ready(Ended::Failure(Bytes::from_static(b"terminated")));
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
        Poll::Ready(Ended::Value(value_of(&self.argument).into()))
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

pub(super) fn value_of(argument: &[u8]) -> Vec<u8> {
    [argument, b" done"].concat()
}

pub(super) struct OneHost {
    pub(super) bus: Arc<Memory>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<Result<(), ClusterError>>,
    pub(super) is_dead: Arc<AtomicBool>,
    /// Comes when the start of the host is over.
    pub(super) is_ready: oneshot::Receiver<()>,
}

pub(super) fn start_host(server: &Arc<Server>, book: &Book, seed: u64, is_short: bool) -> OneHost {
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
    let runner = Arc::new(runner);
    let (ready, is_ready) = oneshot::channel();
    let serving = host::serve(ours, runner, settings, None, stopped, Some(ready));
    let task = tokio::spawn(serving);
    OneHost {
        bus,
        stop,
        task,
        is_dead,
        is_ready,
    }
}

/// Starts a client, whose tasks are of the priority.
pub(super) async fn start_client(server: &Arc<Server>, priority: u8) -> Arc<Client> {
    let settings = Settings {
        lane: Lane {
            queue: "q".into(),
            environment: "e".into(),
            priority,
            rank: 0,
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

pub(super) fn submit_to(client: &Client, book: &Book, number: u64, argument: Vec<u8>) {
    let sink = Written {
        number,
        book: Arc::clone(book),
    };
    let call = Call::Opaque(Vec::new());
    let submission = Submission::single(call, argument.into(), ClusterOptions::new());
    client.submit(number, submission, Box::new(sink), None);
}

/// Waits for something that comes.
pub(super) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let comes = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(STUCK, comes).await.is_ok(), "{what}");
}

pub(super) fn argument_of(number: u64, length: usize) -> Vec<u8> {
    let mut argument = number.to_le_bytes().to_vec();
    argument.resize(argument.len() + length, number.to_le_bytes()[0]);
    argument
}
