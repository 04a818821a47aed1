//! Tests of programs that end, are killed, forget `init` or are deleted.

use crate::common::process::{Gate, exists, hold, is_alive};
use crate::common::{LONG, eventually};
use crate::starts;
use concurrent_futures::{BuildError, ProcessPoolExecutor, StartMethod, TaskError};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().filter(|argument| argument == "program");
    let name = program.and_then(|_| arguments.next());
    if name.as_deref() == Some("forgot") {
        return forgot();
    }
    starts::be_late();
    concurrent_futures::init();
    match name.as_deref() {
        Some("starts") => starts::parent(&arguments.collect::<Vec<_>>()),
        Some("parent") => parent(&arguments.collect::<Vec<_>>()),
        Some("deleted") => deleted(),
        Some("replaced") => replaced(),
        Some("answer") => answer(),
        Some("unfinished") => unfinished(),
        Some("from a worker") => from_a_worker(),
        Some("leaks") => leaks(),
        Some("no descriptors") => no_descriptors(),
        Some("no memory") => no_memory(),
        Some(other) => panic!("no program {other}"),
        None => tests(),
    }
}

fn tests() {
    let tests: [(&str, fn()); 16] = [
        (
            "no_worker_outlives_a_killed_parent",
            no_worker_outlives_a_killed_parent,
        ),
        (
            "no_worker_outlives_a_parent_that_ends",
            no_worker_outlives_a_parent_that_ends,
        ),
        (
            "ctrl_c_ends_all_without_a_word",
            ctrl_c_ends_all_without_a_word,
        ),
        (
            "a_program_that_forgot_init_is_told",
            a_program_that_forgot_init_is_told,
        ),
        ("a_deleted_program_goes_on", || expect("deleted", "42")),
        ("a_replaced_program_goes_on", || expect("replaced", "42")),
        ("another_build_is_refused", another_build_is_refused),
        ("a_program_finishes_what_it_submitted", || {
            expect("unfinished", "done");
        }),
        ("a_program_started_by_a_task_is_no_worker", || {
            expect("from a worker", "42");
        }),
        ("nothing_is_left_after_shutdown", || {
            expect("leaks", "nothing");
        }),
        (
            "without_descriptors_the_workers_that_there_are_go_on",
            || {
                expect("no descriptors", "all is well");
            },
        ),
        (
            "without_memory_to_share_the_pool_is_broken_with_the_cause",
            || {
                expect("no memory", "all is well");
            },
        ),
        ("a_worker_prints_to_the_same_output", || {
            expect("answer", "42");
        }),
        (
            "a_closed_standard_input_does_no_harm",
            a_closed_standard_input_does_no_harm,
        ),
        (
            "a_worker_that_starts_after_its_parents_death_begins_nothing",
            starts::a_worker_that_starts_after_its_parents_death_begins_nothing,
        ),
        (
            "a_parent_that_is_killed_at_any_moment_of_a_start_leaves_nothing",
            starts::a_parent_that_is_killed_at_any_moment_of_a_start_leaves_nothing,
        ),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    let passed = tests.len();
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
}

pub(crate) fn own_path() -> PathBuf {
    std::env::current_exe().unwrap()
}

pub(crate) fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.arg("program").args(arguments).stdin(Stdio::null());
    command
}

/// Runs a program, and checks that it prints this and nothing else.
fn expect(name: &str, expected: &str) {
    let output = program(&own_path(), &[name]).output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        output.status.success(),
        "{name}: {}\n{stdout}\n{stderr}",
        output.status
    );
    assert_eq!((stdout.trim(), stderr.trim()), (expected, ""), "{name}");
}

fn pool(method: StartMethod) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder()
        .max_workers(2)
        .start_method(method)
        .build()
        .unwrap()
}

/// Keeps one worker busy and one idle, prints their process ids, and ends as it is told.
fn parent(arguments: &[String]) {
    let method = match arguments[0].as_str() {
        "fork" => StartMethod::ForkServer,
        _ => StartMethod::Spawn,
    };
    // A shell that runs the tests in the background has the signal ignored.
    // SAFETY: the default action runs no code of ours.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    let pool = pool(method);
    let gate = Gate::new();
    let held = pool.submit(hold, gate.path()).unwrap();
    let busy = gate.wait_until_reached();
    let idle = pool
        .submit(|()| std::process::id(), ())
        .unwrap()
        .result()
        .unwrap();
    println!("{busy} {idle}");
    match arguments[1].as_str() {
        "exit" => std::process::exit(0),
        "abort" => std::process::abort(),
        "panic" => {
            std::panic::set_hook(Box::new(|_| ()));
            // Unwinding would wait for the task.
            std::mem::forget((pool, gate, held));
            panic!("as told");
        }
        _ => loop {
            std::thread::park();
        },
    }
}

/// Starts the parent, in a group of its own as a terminal does; returns it and its workers.
fn start_parent(method: &str, end: &str) -> (Child, Vec<u32>) {
    let mut command = program(&own_path(), &["parent", method, end]);
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pids: Vec<u32> = line
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2);
    (child, pids)
}

fn assert_gone_soon(pids: &[u32]) {
    let start = Instant::now();
    for &pid in pids {
        eventually("the worker is gone", || !is_alive(pid));
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

fn no_worker_outlives_a_killed_parent() {
    for method in ["spawn", "fork"] {
        let (mut child, pids) = start_parent(method, "wait");
        assert!(pids.iter().all(|&pid| is_alive(pid)));
        child.kill().unwrap();
        assert_gone_soon(&pids);
        child.wait().unwrap();
    }
}

fn no_worker_outlives_a_parent_that_ends() {
    for method in ["spawn", "fork"] {
        for end in ["exit", "abort", "panic"] {
            let (mut child, pids) = start_parent(method, end);
            child.wait().unwrap();
            assert_gone_soon(&pids);
        }
    }
}

fn ctrl_c_ends_all_without_a_word() {
    for method in ["spawn", "fork"] {
        let (mut child, pids) = start_parent(method, "wait");
        let group = Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, Signal::INT).unwrap();
        assert_gone_soon(&pids);
        child.wait().unwrap();
        let mut words = String::new();
        child.stdout.unwrap().read_to_string(&mut words).unwrap();
        child.stderr.unwrap().read_to_string(&mut words).unwrap();
        assert_eq!(words, "");
    }
}

fn forgot() {
    let error = ProcessPoolExecutor::new().unwrap_err();
    assert!(matches!(error, BuildError::NotInitialized));
    println!("{error}");
}

fn a_program_that_forgot_init_is_told() {
    let output = program(&own_path(), &["forgot"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("init() was not called"),
        "{text}"
    );
    // One that is started as a worker and has forgotten it runs through, and is named.
    let forgetful = Copy::new("forgetful");
    let script = format!("#!/bin/sh\nexec {} program forgot\n", forgetful.0.display());
    let wrapper = forgetful.0.with_extension("sh");
    fs::write(&wrapper, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&wrapper, mode).unwrap();
    let pool = ProcessPoolExecutor::builder()
        .program(&wrapper)
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(error.to_string().contains("init() first"), "{error}");
    fs::remove_file(wrapper).unwrap();
}

/// A copy of this program, for as long as it lives.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let name = format!("concurrent-futures-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::copy(own_path(), &path).unwrap();
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run_all_methods() {
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let answer = pool(method).submit(|n: u32| n * 2, 21).unwrap();
        assert_eq!(answer.result().unwrap(), 42);
    }
    println!("42");
}

fn run_copy(name: &str, run: impl FnOnce(&Path)) {
    if std::env::args().nth(3).is_some() {
        run(&own_path());
        return run_all_methods();
    }
    let copy = Copy::new(name);
    let status = program(&copy.0, &[name, "copy"]).status().unwrap();
    assert!(status.success());
}

fn deleted() {
    run_copy("deleted", |path| fs::remove_file(path).unwrap());
}

fn replaced() {
    run_copy("replaced", |path| {
        let other = path.with_extension("new");
        fs::copy("/bin/true", &other).unwrap();
        fs::rename(other, path).unwrap();
    });
}

fn another_build_is_refused() {
    let other = Copy::new("other");
    let mut bytes = fs::read(&other.0).unwrap();
    // The note's header: lengths of name and content, the kind, the name.
    let note = [&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0"].concat();
    if let Some(place) = bytes.windows(note.len()).position(|window| window == note) {
        bytes[place + note.len()] ^= 1;
    }
    // Without a note it is another file, which is told apart as well.
    fs::write(&other.0, bytes).unwrap();
    let pool = ProcessPoolExecutor::builder()
        .program(&other.0)
        .build()
        .unwrap();
    let error = pool.submit(|n: u32| n, 1).unwrap().result().unwrap_err();
    assert!(error.to_string().contains("another build"), "{error}");
}

fn answer() {
    let print = |text: String| println!("{text}");
    pool(StartMethod::Spawn)
        .submit(print, "42".into())
        .unwrap()
        .result()
        .unwrap();
}

fn unfinished() {
    let pool = pool(StartMethod::Spawn);
    let slow = |millis| {
        std::thread::sleep(Duration::from_millis(millis));
        println!("done");
    };
    drop(pool.submit(slow, 100).unwrap());
}

fn from_a_worker() {
    let run = |path: PathBuf| program(&path, &["answer"]).status().unwrap().success();
    let pool = pool(StartMethod::Spawn);
    assert!(pool.submit(run, own_path()).unwrap().result().unwrap());
}

fn a_closed_standard_input_does_no_harm() {
    let script = format!("exec {} program answer <&-", own_path().display());
    let output = Command::new("/bin/sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "42");
}

/// Counts the system's resources of this process: descriptors, mappings of shared memory, children.
fn holdings() -> (usize, usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = maps.matches("memfd:concurrent-futures").count();
    let me = std::process::id();
    let children = fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    (descriptors, memory, children.split_whitespace().count())
}

fn leaks() {
    let before = holdings();
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        for _ in 0..5 {
            let pool = pool(method);
            let futures: Vec<_> = (0..100)
                .map(|n| pool.submit(|n: u32| n, n).unwrap())
                .collect();
            let pids = pool.worker_pids();
            for future in futures {
                future.result().unwrap();
            }
            let died = pool
                .submit(
                    |code: i32| {
                        if code > 0 {
                            std::process::exit(code)
                        }
                    },
                    1,
                )
                .unwrap();
            assert!(died.result().is_err());
            let long = pool
                .submit(|bytes: Vec<u8>| bytes, vec![0; 1 << 20])
                .unwrap();
            assert_eq!(long.result().unwrap().len(), 1 << 20);
            drop(pool);
            assert!(!pids.iter().any(|&pid| exists(pid)));
        }
    }
    let start = Instant::now();
    // The thread of the supervisor may still be on its way to its end.
    while holdings() != before {
        assert!(
            start.elapsed() < LONG,
            "{:?}, and before {before:?}",
            holdings()
        );
        std::thread::yield_now();
    }
    println!("nothing");
}

/// Calls `f` while the process can have no more of a resource than this.
fn limited<R>(resource: Resource, current: u64, f: impl FnOnce() -> R) -> R {
    let before = getrlimit(resource);
    let limit = Rlimit {
        current: Some(current),
        ..before
    };
    setrlimit(resource, limit).unwrap();
    let result = f();
    setrlimit(resource, before).unwrap();
    result
}

/// Returns the texts of an error and of its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn no_descriptors() {
    let slow = |n: u32| {
        std::thread::sleep(Duration::from_millis(2));
        n
    };
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let started = pool(method);
        let first = started.submit(|()| std::process::id(), ()).unwrap();
        let first = first.result().unwrap();
        let idle = pool(method);
        limited(Resource::Nofile, 3, || {
            let refused = ProcessPoolExecutor::new();
            assert!(matches!(refused, Err(BuildError::System(_))), "{refused:?}");
            // One worker does the work of two.
            let slow: Vec<_> = (0..50).map(|n| started.submit(slow, n).unwrap()).collect();
            for (n, slow) in (0..).zip(slow) {
                assert_eq!(slow.result().unwrap(), n);
            }
            assert_eq!(started.worker_pids(), [first]);
            // Without any worker, the pool says what is wrong, and does not wait for better days.
            let error = idle.submit(square, 3).unwrap().result().unwrap_err();
            assert!(matches!(error, TaskError::Broken(_)), "{error:?}");
            assert!(chain(&error).contains("open files"), "{}", chain(&error));
        });
        // There are some again: the second worker comes.
        let gate = Gate::new();
        let held = started.submit(hold, gate.path()).unwrap();
        gate.wait_until_reached();
        assert_eq!(started.submit(square, 3).unwrap().result().unwrap(), 9);
        gate.open();
        held.result().unwrap();
    }
    println!("all is well");
}

fn square(n: u32) -> u32 {
    n * n
}

/// Returns when the supervisor of a pool has nothing to do: then it has all that it needs. A supervisor that reads waits for
/// a process that is being started.
pub(crate) fn until_supervisor_sleeps() {
    let read = libc::SYS_read.to_string();
    let sleeps = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        threads.flatten().any(|thread| {
            let text = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let call = text("syscall");
            text("comm") == "cf-supervisor\n"
                && text("stat").contains(") S ")
                && call.split_whitespace().next() != Some(&read)
        })
    };
    eventually("the supervisor sleeps", sleeps);
}

fn no_memory() {
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let pool = pool(method);
        until_supervisor_sleeps();
        // Enough for all but the memory that is shared with a worker, which is over 2 MiB.
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        let page_size = u64::try_from(rustix::param::page_size()).unwrap();
        let enough = pages * page_size + (3 << 19);
        let error = limited(Resource::As, enough, || {
            pool.submit(square, 3).unwrap().result().unwrap_err()
        });
        assert!(matches!(error, TaskError::Broken(_)), "{error:?}");
        assert!(chain(&error).contains("memory"), "{}", chain(&error));
    }
    println!("all is well");
}
