//! Random schedules of faults: tasks run, while hosts and servers are killed, stopped, drained and started anew.
//!
//! Beside them, the clients of a session come and go. `CONCURRENT_FUTURES_SEED=7` tries another schedule,
//! `CONCURRENT_FUTURES_SCHEDULE=3600` runs schedules of consecutive seeds for so many seconds. After each, every future is
//! done once, with the right value unless it was cancelled or terminated. The server has no task left, and no process is.

#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;
mod session;

use common::{Host, LEASE, Server, wait_until};
use concurrent_futures::{Future, ReturnWhen, TaskError, wait};
use rustix::process::Signal;
use session::Session;
use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

concurrent_futures_cluster::init_before_main!();

type Failure = Box<dyn Error + Send + Sync>;
type Test = Result<(), Failure>;
/// The value of a task.
type Value = (u64, Vec<u8>);

const TASKS: u64 = 400;
const HOSTS: usize = 3;

/// Numbers that look random, and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // The generator `splitmix64`.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A task of some milliseconds, with a value of some bytes.
fn work(argument: (u64, u64, usize)) -> Value {
    thread::sleep(Duration::from_millis(argument.1));
    value_of(argument)
}

fn value_of((n, _, length): (u64, u64, usize)) -> Value {
    (3 * n, vec![n.to_le_bytes()[0]; length])
}

struct Submitted {
    future: Future<Value>,
    length: usize,
    is_ended: bool,
}

/// Returns whether a host has ended as it was told to. A host that is told before it has begun is ended by the signal.
fn is_orderly(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(Signal::TERM.as_raw())
}

/// The variable of all processes of a schedule.
const MARK: &str = "CLUSTER_TEST_MARK";

/// Returns the processes that have the mark, their workers included. Linux alone tells.
fn processes_with(mark: &str) -> Vec<String> {
    let mark = format!("{MARK}={mark}\0");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let has_mark = |process: &fs::DirEntry| {
        // One that has ended has none.
        let variables = fs::read(process.path().join("environ")).unwrap_or_default();
        let mut windows = variables.windows(mark.len());
        windows.any(|window| window == mark.as_bytes())
    };
    let found = processes.filter(has_mark);
    found
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Runs the schedule of a seed. Returns a description of what happened.
#[allow(clippy::too_many_lines, reason = "one event after another")]
fn run(seed: u64) -> Result<String, Failure> {
    let mut random = Random(seed);
    let Some(mut server) = Server::start() else {
        return Ok(String::new());
    };
    let mark = format!("{}-{seed}", std::process::id());
    let start_host = |server: &Server| server.host_with(1, &[(MARK, &mark)]);
    let cluster = server.executor().most_deliveries(1000).build()?;
    let mut hosts: Vec<Host> = (0..HOSTS).map(|_| start_host(&server)).collect();
    let mut session = Session::begin(&server, (MARK, mark.clone()))?;
    let called = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    let mut story = format!("seed {seed}:");
    // A task without others before it goes to its host directly.
    let is_patient = random.below(2) == 0;
    for n in 0..TASKS {
        if is_patient && random.below(10) != 0 {
            let before = tasks.iter().map(|task: &Submitted| &task.future);
            // Whether they are done or not.
            let patience = Duration::from_millis(random.below(500));
            wait(before, Some(patience), ReturnWhen::AllCompleted);
        }
        let length = if random.below(100) == 0 { 300_000 } else { 10 };
        let future = cluster.submit(work, (n, random.below(15), length))?;
        let counter = Arc::clone(&called);
        future.add_done_callback(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        tasks.push(Submitted {
            future,
            length,
            is_ended: false,
        });
        if random.below(5) == 0 {
            session.submit()?;
        }
        if random.below(20) != 0 {
            continue;
        }
        let which = usize::try_from(random.below(HOSTS as u64))?;
        let what = random.below(12);
        let began = Instant::now();
        match what {
            0 | 1 => {
                story += " kill-host";
                hosts[which].kill();
                hosts[which] = start_host(&server);
            }
            2 => {
                story += " drain-host";
                let old = std::mem::replace(&mut hosts[which], start_host(&server));
                old.signal(Signal::TERM);
                let status = old.wait();
                assert!(is_orderly(status), "{status}: {story}");
            }
            3 => {
                story += " stop-host";
                let _stopped = hosts[which].stop();
                thread::sleep(LEASE + Duration::from_millis(random.below(300)));
            }
            4 => {
                if random.below(2) == 0 {
                    story += " kill-server";
                    session.before_loss();
                    server.kill();
                } else {
                    // Its disk stays.
                    story += " crash-server";
                    server.crash();
                }
                thread::sleep(Duration::from_millis(random.below(300)));
                server.run();
            }
            5 => {
                story += " delete-stream";
                // It may not be there, just after the server's start.
                let _ = server.delete_tasks();
            }
            6 => {
                let task = usize::try_from(random.below(n + 1))?;
                if tasks[task].future.cancel() {
                    story += " cancel";
                    tasks[task].is_ended = true;
                }
            }
            7 | 8 => session.replace(&server, &mut random, &mut story)?,
            9 => session.end_one(&mut random, &mut story),
            10 => {
                story += " delete-kept-stream";
                // As above.
                let _ = server.delete_kept_tasks();
            }
            _ => {
                let task = usize::try_from(random.below(n + 1))?;
                if tasks[task].future.terminate() {
                    story += " terminate";
                    tasks[task].is_ended = true;
                }
            }
        }
        write!(story, "({} ms)", began.elapsed().as_millis())?;
    }
    for (n, task) in tasks.into_iter().enumerate() {
        let mut future = task.future;
        match future.result_timeout(common::PATIENCE) {
            Ok((value, bytes)) => {
                assert_eq!(value, 3 * n as u64, "{story}");
                assert_eq!(bytes, vec![n.to_le_bytes()[0]; task.length], "{story}");
            }
            Err(TaskError::Cancelled | TaskError::Terminated) if task.is_ended => {}
            Err(error) => panic!("task {n}: {error:?}; {story}"),
        }
    }
    session.finish(&server, &mut story)?;
    wait_until("all callbacks are called", || {
        called.load(Ordering::SeqCst) as u64 == TASKS
    });
    drop(cluster);
    wait_until("nothing is left on the server", || {
        matches!(server.messages(), Ok(0) | Err(_))
    });
    for host in hosts {
        host.signal(Signal::TERM);
        let status = host.wait();
        assert!(is_orderly(status), "{status}: {story}");
    }
    assert_eq!(called.load(Ordering::SeqCst) as u64, TASKS, "{story}");
    // The worker of a host that was killed ends by itself.
    wait_until("no process is left", || processes_with(&mark).is_empty());
    Ok(story)
}

/// The program of a client that is killed. It runs only in a child of the schedule.
#[test]
fn session_client() -> Test {
    match env::var("CLUSTER_TEST_FOLDER") {
        Ok(folder) => session::client(&folder),
        Err(_) => Ok(()),
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "says which schedules ran")]
fn no_schedule_of_faults_loses_or_doubles_an_outcome() -> Test {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let first = number("CONCURRENT_FUTURES_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("CONCURRENT_FUTURES_SCHEDULE").unwrap_or(0));
    let start = Instant::now();
    for seed in first.. {
        let story = run(seed)?;
        eprintln!("{story}");
        if start.elapsed() >= time {
            break;
        }
    }
    Ok(())
}
