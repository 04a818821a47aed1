//! Tests of a parent that is killed while it starts a worker.

use crate::common::process::{Gate, hold, is_alive};
use crate::common::{LONG, eventually};
use crate::programs::{own_path, program, until_supervisor_sleeps};
use concurrent_futures::{ProcessPoolExecutor, StartMethod};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The variable with the path of a gate, before which each started process waits before it comes to `init`.
const LATE: &str = "CONCURRENT_FUTURES_TEST_LATE";

/// To be called first in `main`.
pub(crate) fn be_late() {
    let is_started = env::var_os("CONCURRENT_FUTURES_WORKER").is_some();
    if let (Some(gate), true) = (env::var_os(LATE), is_started) {
        hold(PathBuf::from(gate));
    }
}

/// An initializer that does not end by itself.
#[allow(clippy::needless_pass_by_value, reason = "a task has its argument")]
fn begin(mark: PathBuf) {
    fs::write(mark, "").unwrap();
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Starts workers, and says when the supervisor has nothing left to do for them.
pub(crate) fn parent(arguments: &[String]) {
    let method = match arguments[0].as_str() {
        "fork" => StartMethod::ForkServer,
        _ => StartMethod::Spawn,
    };
    let pool = ProcessPoolExecutor::builder()
        .max_workers(2)
        .start_method(method)
        .initializer(begin, PathBuf::from(&arguments[1]))
        .build()
        .unwrap();
    let futures: Vec<_> = (0..2)
        .map(|n| pool.submit(|n: u32| n, n).unwrap())
        .collect();
    until_supervisor_sleeps();
    println!("asleep");
    for future in futures {
        future.result().unwrap();
    }
}

/// A program that starts workers, in a group of its own.
struct Parent(Child);

impl Parent {
    fn start(method: &str, backend: &str, mark: &Path, gate: Option<&Gate>) -> Self {
        let mut command = starting(method, mark);
        command.env("CONCURRENT_FUTURES_BACKEND", backend);
        if let Some(gate) = gate {
            command.env(LATE, gate.path());
        }
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// The processes of the group that are no zombies.
    fn others(&self) -> Vec<u32> {
        let group = self.0.id().to_string();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
            let fields: Vec<&str> = rest.split(' ').collect();
            fields.get(2) == Some(&group.as_str()) && fields[0] != "Z"
        })
        .collect()
    }
}

impl Drop for Parent {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in self.others() {
            crate::common::process::send(pid, rustix::process::Signal::KILL);
        }
    }
}

fn starting(method: &str, mark: &Path) -> Command {
    let mut command = program(&own_path(), &["starts", method, mark.to_str().unwrap()]);
    command.process_group(0).stdout(Stdio::piped());
    command
}

/// Both backends with both start methods.
fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["auto", "portable"]
        .into_iter()
        .flat_map(|backend| ["spawn", "fork"].map(|method| (backend, method)))
}

pub(crate) fn a_worker_that_starts_after_its_parents_death_begins_nothing() {
    for (backend, method) in ways() {
        let gate = Gate::new();
        let mark = gate.path().join("begun");
        let mut parent = Parent::start(method, backend, &mark, Some(&gate));
        let late = gate.wait_until_reached();
        // The settings and the initializer are on their way by then, as far as they come before the worker's answer.
        let mut line = String::new();
        let output = parent.0.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "asleep\n");
        parent.kill();
        assert!(is_alive(late), "{backend}, {method}");
        gate.open();
        eventually("no process is left", || parent.others().is_empty());
        assert!(!mark.exists(), "{backend}, {method}: the worker has begun");
    }
}

pub(crate) fn a_parent_that_is_killed_at_any_moment_of_a_start_leaves_nothing() {
    for (backend, method) in ways() {
        let gate = Gate::new();
        let mark = gate.path().join("begun");
        // The time that a start takes here.
        let start = Instant::now();
        let mut first = Parent::start(method, backend, &mark, None);
        eventually("a worker has begun", || mark.exists());
        let whole = start.elapsed();
        first.kill();
        eventually("no process is left", || first.others().is_empty());
        for part in 0..16 {
            let mut parent = Parent::start(method, backend, &mark, None);
            thread::sleep(whole * part / 14);
            parent.kill();
            let killed = Instant::now();
            while !parent.others().is_empty() {
                assert!(killed.elapsed() < LONG, "{backend}, {method}, part {part}");
                thread::sleep(Duration::from_millis(1));
            }
            assert_no_memory_is_left(parent.0.id());
        }
    }
}

/// Checks that a process has left no file with a length among the system's names for shared memory. A name without a
/// length may be left, if the process was killed in the moment before it would have removed the name.
fn assert_no_memory_is_left(pid: u32) {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with(&format!("cf-{pid}-")) {
            assert_eq!(entry.metadata().unwrap().len(), 0, "{name}");
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
