//! A session in the schedule: its clients end in order or are killed, and others are attached.
//!
//! Each task is found by the next client, as long as the server keeps its disk. A client that lives while the server loses
//! its disk records again what is not done: so it ends only when that is done.

use crate::common::{Host, Notes, PATIENCE, Server, wait_until};
use crate::{Failure, Random, Value, work};
use concurrent_futures::{Future, Shutdown, TaskError};
use concurrent_futures_cluster::{ClusterError, ClusterExecutor};
use std::collections::HashSet;
use std::env;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = "schedule";
/// The number of the session's first task: no other task has it.
const FIRST: u64 = 1_000_000;
/// The number of tasks that a client submits which is to be killed.
const BATCH: u64 = 25;

/// Returns the argument of a task: its number, its time, and the length of its value.
fn argument_of(n: u64) -> (u64, u64, usize) {
    (n, n % 12, if n % 50 == 7 { 300_000 } else { 10 })
}

/// Checks a value, and returns the number of its task.
fn task_of((value, bytes): Value) -> u64 {
    let n = value / 3;
    assert_eq!((value, bytes), crate::value_of(argument_of(n)));
    n
}

/// Opens the session as soon as no other client has it, and the server answers.
fn open(url: &str) -> ClusterExecutor {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let builder = ClusterExecutor::builder()
            .url(url)
            .lease(crate::common::LEASE);
        match builder.most_deliveries(1000).session(NAME).build() {
            Ok(executor) => return executor,
            Err(error) => assert!(
                Instant::now() < deadline,
                "the session stays closed: {error}"
            ),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A future of the present client, and its task if that is known.
struct Mine {
    future: Future<Value>,
    task: Option<u64>,
}

/// A client of this program.
struct Here {
    executor: ClusterExecutor,
    futures: Vec<Mine>,
    called: Arc<AtomicUsize>,
}

impl Here {
    fn open(server: &Server) -> Result<Self, ClusterError> {
        let executor = open(&server.url());
        let found = executor.futures::<Value>()?;
        let mut here = Self {
            executor,
            futures: Vec::new(),
            called: Arc::default(),
        };
        for future in found {
            here.add(future, None);
        }
        Ok(here)
    }

    fn add(&mut self, future: Future<Value>, task: Option<u64>) {
        let called = Arc::clone(&self.called);
        future.add_done_callback(move |_| {
            called.fetch_add(1, Ordering::SeqCst);
        });
        self.futures.push(Mine { future, task });
    }
}

/// A client of another program, which is killed at its end.
struct There {
    program: Host,
    notes: Notes,
    tasks: Range<u64>,
}

enum Client {
    Here(Box<Here>),
    There(There),
}

/// The session, and the facts about its tasks.
pub(crate) struct Session {
    /// None in between.
    client: Option<Client>,
    next: u64,
    cancelled: HashSet<u64>,
    terminated: HashSet<u64>,
    /// The tasks that a client has seen done. The server may have lost their outcomes since.
    done: HashSet<u64>,
    /// The tasks of a client that was killed before their records were confirmed.
    doubtful: HashSet<u64>,
    /// Whether the server has lost its disk since the present client came.
    has_lost_disk: bool,
    variables: [(&'static str, String); 1],
}

impl Session {
    /// Begins the session. The processes of its clients have the variable.
    pub(crate) fn begin(
        server: &Server,
        variable: (&'static str, String),
    ) -> Result<Self, Failure> {
        Ok(Self {
            client: Some(Client::Here(Box::new(Here::open(server)?))),
            next: FIRST,
            cancelled: HashSet::new(),
            terminated: HashSet::new(),
            done: HashSet::new(),
            doubtful: HashSet::new(),
            has_lost_disk: false,
            variables: [variable],
        })
    }

    /// Submits a task, if the present client is one of this program.
    pub(crate) fn submit(&mut self) -> Result<(), Failure> {
        if let Some(Client::Here(here)) = &mut self.client {
            let n = self.next;
            self.next += 1;
            let future = here.executor.submit(work, argument_of(n))?;
            here.add(future, Some(n));
        }
        Ok(())
    }

    /// Cancels or terminates a task of the present client.
    pub(crate) fn end_one(&mut self, random: &mut Random, story: &mut String) {
        let Some(Client::Here(here)) = &self.client else {
            return;
        };
        let known: Vec<(u64, &Future<Value>)> = here
            .futures
            .iter()
            .filter_map(|mine| Some((mine.task?, &mine.future)))
            .collect();
        if known.is_empty() {
            return;
        }
        let which = usize::try_from(random.below(known.len() as u64)).unwrap();
        let (task, future) = known[which];
        if random.below(2) == 0 {
            if future.cancel() {
                *story += " cancel-kept";
                self.cancelled.insert(task);
            }
        } else if future.terminate() {
            *story += " terminate-kept";
            // One that no host has begun is cancelled.
            let ended = if future.is_cancelled() {
                &mut self.cancelled
            } else {
                &mut self.terminated
            };
            ended.insert(task);
        }
    }

    /// Prepares for the loss of the server's disk: from now on, a client must be there that knows all tasks.
    pub(crate) fn before_loss(&mut self) {
        if let Some(Client::There(there)) = &self.client {
            there.notes.wait_for("attached");
        }
        self.has_lost_disk = true;
    }

    /// Ends the present client, and attaches another one.
    pub(crate) fn replace(
        &mut self,
        server: &Server,
        random: &mut Random,
        story: &mut String,
    ) -> Result<(), Failure> {
        match self.client.take() {
            Some(Client::Here(here)) => {
                *story += " leave";
                self.leave(*here, story);
            }
            Some(Client::There(there)) => {
                *story += " kill-client";
                self.kill(there);
            }
            None => {}
        }
        self.has_lost_disk = false;
        self.client = Some(if random.below(2) == 0 {
            Client::Here(Box::new(Here::open(server)?))
        } else {
            let tasks = self.next..self.next + BATCH;
            self.next = tasks.end;
            let notes = Notes::new();
            let (name, value) = &self.variables[0];
            let (first, end) = (tasks.start.to_string(), tasks.end.to_string());
            let variables = [
                (*name, &**value),
                ("CLUSTER_TEST_FIRST", &first),
                ("CLUSTER_TEST_END", &end),
            ];
            let program = server.program_with("session_client", &notes.path(), &variables);
            Client::There(There {
                program,
                notes,
                tasks,
            })
        });
        Ok(())
    }

    /// Ends a client of this program in order: its tasks go on.
    fn leave(&mut self, here: Here, story: &str) {
        if self.has_lost_disk {
            wait_until("the tasks are done that the server had lost", || {
                here.futures.iter().all(|mine| mine.future.is_done())
            });
        }
        assert!(here.executor.flush(PATIENCE), "{story}");
        here.executor.shutdown(Shutdown::NoWait);
        self.check(here, story);
    }

    fn kill(&mut self, mut there: There) {
        if self.has_lost_disk {
            // It has checked all values.
            there.notes.wait_for("done");
            self.done.extend(FIRST..self.next);
        }
        // Each record is confirmed from then on.
        if there.notes.named("flushed").is_empty() {
            self.doubtful.extend(there.tasks);
        }
        there.program.kill();
    }

    /// Drops a client of this program, and checks its futures: each is done once, with the right outcome, in the order of
    /// submission. Returns the tasks with a value.
    fn check(&mut self, here: Here, story: &str) -> HashSet<u64> {
        drop(here.executor);
        let count = here.futures.len();
        wait_until("all callbacks of the session are called", || {
            here.called.load(Ordering::SeqCst) >= count
        });
        assert_eq!(here.called.load(Ordering::SeqCst), count, "{story}");
        let mut found = HashSet::new();
        let (mut last, mut terminated) = (None, 0);
        for Mine { mut future, task } in here.futures {
            match future.result_timeout(PATIENCE) {
                Ok(value) => {
                    let n = task_of(value);
                    assert!(task.is_none_or(|task| task == n), "{n}: {story}");
                    assert!(last < Some(n), "{last:?} comes before {n}: {story}");
                    assert!(!self.cancelled.contains(&n), "{n} was cancelled: {story}");
                    last = Some(n);
                    found.insert(n);
                }
                Err(TaskError::Abandoned) => {}
                Err(TaskError::Cancelled) if task.is_some_and(|n| self.cancelled.contains(&n)) => {}
                Err(TaskError::Terminated) if task.is_none_or(|n| self.terminated.contains(&n)) => {
                    terminated += 1;
                }
                Err(error) => panic!("a task of the session has {error:?}: {story}"),
            }
        }
        assert!(terminated <= self.terminated.len(), "{story}");
        self.done.extend(&found);
        found
    }

    /// Waits for all tasks, checks that each is found, and removes the session.
    pub(crate) fn finish(mut self, server: &Server, story: &mut String) -> Result<(), Failure> {
        match self.client.take() {
            Some(Client::Here(here)) => self.leave(*here, story),
            Some(Client::There(there)) => self.kill(there),
            None => {}
        }
        *story += " last-client";
        let here = Here::open(server)?;
        wait_until("all tasks of the session are done", || {
            here.futures.iter().all(|mine| mine.future.is_done())
        });
        wait_until("no task of the session is left", || {
            stored(server, "tasks") == 0
        });
        here.executor.discard()?;
        for store in ["tasks", "records", "outcomes", "payloads"] {
            assert_eq!(stored(server, store), 0, "{store}: {story}");
        }
        self.check(here, story);
        let lost: Vec<u64> = (FIRST..self.next)
            .filter(|n| !self.done.contains(n) && !self.cancelled.contains(n))
            .filter(|n| !self.terminated.contains(n) && !self.doubtful.contains(n))
            .collect();
        assert!(lost.is_empty(), "{lost:?} are lost: {story}");
        write!(story, " ({} kept tasks)", self.done.len())?;
        Ok(())
    }
}

/// Returns the number of messages of a store of kept sessions.
fn stored(server: &Server, store: &str) -> u64 {
    let stored = server.ask(async |context| {
        let stream = context
            .get_stream(format!("cf-{store}-default+kept"))
            .await?;
        Ok(stream.cached_info().state.messages)
    });
    stored.unwrap_or(u64::MAX)
}

/// The program of a client that is killed.
pub(crate) fn client(folder: &str) -> Result<(), Failure> {
    let note = |name| std::fs::write(Path::new(folder).join(name), "");
    let number = |name| -> Result<u64, Failure> { Ok(env::var(name)?.parse()?) };
    let tasks = number("CLUSTER_TEST_FIRST")?..number("CLUSTER_TEST_END")?;
    let executor = open(&env::var("CLUSTER_TEST_URL")?);
    let mut futures = executor.futures::<Value>()?;
    note("attached")?;
    for n in tasks {
        futures.push(executor.submit(work, argument_of(n))?);
    }
    if executor.flush(PATIENCE) {
        note("flushed")?;
    }
    for mut future in futures {
        match future.result_timeout(PATIENCE) {
            Ok(value) => drop(task_of(value)),
            // By an earlier client.
            Err(TaskError::Terminated) => {}
            Err(error) => return Err(error.into()),
        }
    }
    note("done")?;
    loop {
        thread::park();
    }
}
