//! The start of worker processes: what they are given, and what becomes of the pool when they
//! do not come to work.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::process::{
    Gate, breaking_death, death, hold, is_alive, pid, pool, send, start_methods,
};
use common::{SHORT, eventually};
use concurrent_futures::{
    Function, ProcessPoolExecutor, Shutdown, StartMethod, TaskError, Value, WorkerExit,
};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

concurrent_futures::init_before_main!();

fn initialized<A: Value>(
    max_workers: usize,
    method: StartMethod,
    initializer: impl Fn(A) + Function,
    argument: A,
) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder()
        .max_workers(max_workers)
        .start_method(method)
        .initializer(initializer, argument)
        .build()
        .unwrap()
}

fn exit(code: i32) {
    std::process::exit(code)
}

/// Ends its worker while the file is there, and writes to the file.
fn die_while_told(told: PathBuf) {
    if let Ok(mut file) = OpenOptions::new().append(true).open(told) {
        file.write_all(b".").unwrap();
        exit(42);
    }
}

#[test]
fn workers_that_die_at_start_break_the_pool_with_the_cause() {
    for method in start_methods() {
        let pool = initialized(2, method, exit, 42);
        let death = breaking_death(pool.submit(|n: u32| n, 1).unwrap());
        assert_eq!(death.exit(), WorkerExit::Code(42));
    }
}

#[test]
fn a_pool_with_a_working_worker_outlives_workers_that_die_at_start() {
    for method in start_methods() {
        let folder = Gate::new();
        let told = folder.path().join("told");
        let pool = initialized(2, method, die_while_told, told.clone());
        let (stays, goes) = (Gate::new(), Gate::new());
        let held = pool.submit(hold, stays.path()).unwrap();
        let staying = stays.wait_until_reached();
        let lost = pool.submit(hold, goes.path()).unwrap();
        let going = goes.wait_until_reached();
        assert_ne!(staying, going);

        std::fs::write(&told, "").unwrap();
        send(going, Signal::KILL);
        assert_eq!(death(lost).pid(), going);
        // More of them in a row than a pool without a worker would bear.
        let deaths = || std::fs::metadata(&told).unwrap().len();
        eventually("workers die at start", || deaths() >= 5);
        stays.open();
        held.result().unwrap();
        for _ in 0..10 {
            assert_eq!(pid(&pool), staying);
        }

        std::fs::remove_file(&told).unwrap();
        let (one, other) = (Gate::new(), Gate::new());
        let futures = [&one, &other].map(|gate| pool.submit(hold, gate.path()).unwrap());
        // Both at a time: there are two again.
        assert_ne!(one.wait_until_reached(), other.wait_until_reached());
        one.open();
        other.open();
        for future in futures {
            future.result().unwrap();
        }
    }
}

#[test]
fn workers_that_die_at_start_break_the_pool_after_the_last_worker_dies() {
    for method in start_methods() {
        let folder = Gate::new();
        let told = folder.path().join("told");
        let pool = initialized(1, method, die_while_told, told.clone());
        let gate = Gate::new();
        let lost = pool.submit(hold, gate.path()).unwrap();
        let pending = pool.submit(|n: u32| n, 1).unwrap();
        let worker = gate.wait_until_reached();
        std::fs::write(&told, "").unwrap();
        send(worker, Signal::KILL);
        assert_eq!(death(lost).pid(), worker);
        assert_eq!(breaking_death(pending).exit(), WorkerExit::Code(42));
    }
}

#[test]
fn an_initializer_runs_in_each_worker_and_may_break_the_pool() {
    use std::sync::OnceLock;
    static NAME: OnceLock<String> = OnceLock::new();
    for method in start_methods() {
        let builder = || {
            ProcessPoolExecutor::builder()
                .max_workers(2)
                .start_method(method)
        };
        let set = |name: String| NAME.set(name).unwrap();
        let pool = builder()
            .initializer(set, "Ada".to_owned())
            .build()
            .unwrap();
        let name = |()| NAME.get().cloned().unwrap();
        assert_eq!(pool.submit(name, ()).unwrap().result().unwrap(), "Ada");
        assert!(NAME.get().is_none());
        let panics = |lucky: bool| assert!(lucky, "not today");
        let pool = builder().initializer(panics, false).build().unwrap();
        let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
        assert!(matches!(error, TaskError::Broken(_)), "{error:?}");
        assert!(error.to_string().contains("not today"), "{error}");
    }
}

#[test]
fn environment_and_folder_of_workers_can_be_set() {
    for method in start_methods() {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .start_method(method)
            .env("CF_TEST_SET", "yes")
            .env_remove("PATH")
            .current_dir("/")
            .build()
            .unwrap();
        let look = |()| {
            let variable = |name| std::env::var(name).ok();
            let folder = std::env::current_dir().unwrap();
            (variable("CF_TEST_SET"), variable("PATH"), folder)
        };
        let seen = pool.submit(look, ()).unwrap().result().unwrap();
        assert_eq!(seen, (Some("yes".into()), None, PathBuf::from("/")));
    }
}

#[test]
fn a_program_that_is_no_worker_is_named() {
    let pool = ProcessPoolExecutor::builder()
        .program("/bin/true")
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(matches!(error, TaskError::Broken(_)));
    let text = error.to_string();
    assert!(
        text.contains("code 0") && text.contains("init() first"),
        "{text}"
    );
    let pool = ProcessPoolExecutor::builder()
        .program("/no/such/program")
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    let pool = ProcessPoolExecutor::builder()
        .program("/bin/cat")
        .start_timeout(SHORT)
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(matches!(error, TaskError::Broken(_)), "{error:?}");
}

#[test]
fn the_fork_server_is_replaced_when_it_dies() {
    let pool = pool(1, StartMethod::ForkServer);
    let worker = pid(&pool);
    let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let server: u32 = fields.split(' ').nth(1).unwrap().parse().unwrap();
    assert_ne!(server, std::process::id());
    send(server, Signal::KILL);
    eventually("the worker is gone", || !is_alive(worker));
    eventually("the pool works again", || {
        pool.submit(|()| std::process::id(), ())
            .unwrap()
            .result()
            .is_ok_and(|pid| pid != worker)
    });
}

/// Returns the children of this process that have ended and were not reaped.
fn zombies() -> usize {
    let ours = std::process::id();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_ours = |entry: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        state == Some("Z") && parent.is_some_and(|parent| parent.parse() == Ok(ours))
    };
    processes.filter(is_ours).count()
}

/// A program that never comes to `init`.
fn endless(folder: &Gate) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.path().join("endless");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn the_start_timeout_holds_for_the_fork_server() {
    let folder = Gate::new();
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .start_method(StartMethod::ForkServer)
        .start_timeout(SHORT)
        .program(endless(&folder))
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(matches!(error, TaskError::Broken(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the fork server was not ready"), "{text}");
}

#[test]
fn a_shutdown_does_not_wait_for_a_fork_server_that_does_not_come() {
    let folder = Gate::new();
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .start_method(StartMethod::ForkServer)
        .program(endless(&folder))
        .build()
        .unwrap();
    let lost = pool.submit(|n: u32| n, 1).unwrap();
    pool.shutdown(Shutdown::CancelPending);
    assert!(lost.is_cancelled());
}

/// Returns whether a process is a child of this one, and no zombie.
fn is_child(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
    let fields: Vec<&str> = rest.split(' ').collect();
    fields[0] != "Z" && fields.get(1) == Some(&std::process::id().to_string().as_str())
}

#[test]
fn fork_servers_that_die_are_reaped() {
    let pool = pool(1, StartMethod::ForkServer);
    for _ in 0..3 {
        let parent = |()| rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let server = loop {
            // A worker whose server was killed may answer before it ends, with another parent by then.
            if let Ok(server) = pool.submit(parent, ()).unwrap().result()
                && is_child(server.cast_unsigned())
            {
                break server.cast_unsigned();
            }
        };
        send(server, Signal::KILL);
        eventually("the fork server is reaped", || {
            !common::process::exists(server)
        });
    }
    drop(pool);
    eventually("no process is left", || zombies() == 0);
}

#[test]
fn workers_that_die_when_they_are_idle_are_started_less_and_less_often() {
    fn doom(told: PathBuf) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(told)
            .unwrap();
        file.write_all(b".").unwrap();
        std::thread::spawn(|| {
            std::thread::sleep(SHORT);
            std::process::abort();
        });
    }
    let folder = Gate::new();
    let told = folder.path().join("told");
    let pool = initialized(1, StartMethod::ForkServer, doom, told.clone());
    let _ = pool.submit(|n: u32| n, 1).unwrap().result();
    let starts = || std::fs::metadata(&told).map_or(0, |told| told.len());
    let start = std::time::Instant::now();
    // The pauses of the last of them double, from 20 ms on: those alone are 0.3 s.
    eventually("it is tried again", || starts() >= 8);
    assert!(start.elapsed() > 10 * SHORT);
    // With one that stays, the pool works again.
    std::fs::remove_dir_all(folder.path()).unwrap();
}

#[test]
fn the_long_argument_of_an_initializer_does_not_stay_in_shared_memory() {
    const LENGTH: usize = 64 << 20;
    static RECEIVED: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let shared = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssShmem:"));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<usize>().unwrap() * 1024
    };
    for method in start_methods() {
        let pool = initialized(
            1,
            method,
            |bytes: Vec<u8>| RECEIVED.set(bytes.len()).unwrap(),
            vec![1; LENGTH],
        );
        let received = pool.submit(|()| RECEIVED.get().copied(), ()).unwrap();
        assert_eq!(received.result().unwrap(), Some(LENGTH));
        assert!(shared() < LENGTH / 2, "{}", shared());
    }
}
