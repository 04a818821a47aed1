//! Executors with a real server and real hosts: calls, values, errors.

#![cfg(unix)]

mod ahead;
mod cancellation;
#[path = "../common/mod.rs"]
mod common;
mod direct;
#[allow(dead_code, reason = "these tests use a part")]
#[path = "../../../concurrent-futures/tests/common/recording.rs"]
mod document;
mod early_results;
mod order;
mod recordings;
mod settings;

use common::{LEASE, PATIENCE, Server, wait_until};
use concurrent_futures::{
    Executor, MapOptions, ProcessPoolExecutor, ReturnWhen, Shutdown, SubmitError, TaskError,
    ThreadPoolExecutor, WorkerExit, as_completed, wait,
};
use concurrent_futures_cluster::{
    ClusterExecutor, ClusterHost, ClusterOptions, HostInfo, NoFunction,
};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error>>;

fn double(n: u64) -> u64 {
    2 * n
}

fn leave(code: i32) {
    process::exit(code)
}

fn spin((): ()) -> u64 {
    loop {
        std::hint::spin_loop();
    }
}

fn add_to(executor: &impl Executor, futures: &mut Vec<(u64, concurrent_futures::Future<u64>)>) {
    for n in 0..20 {
        futures.push((n, executor.submit(double, n).unwrap()));
    }
}

#[test]
fn the_embedded_mode_needs_no_set_up() -> Test {
    let Some(program) = common::program_or_skip() else {
        return Ok(());
    };
    let cluster = ClusterExecutor::builder()
        .url("embedded")
        .server_program(program)
        .workers(2)
        .build()?;
    assert_eq!(cluster.submit(double, 21)?.result()?, 42);
    let doubles: Result<Vec<u64>, _> = cluster.map(double, 0..1000)?.collect();
    assert_eq!(doubles?, (0..1000).map(double).collect::<Vec<_>>());
    let pid = cluster.submit(|()| process::id(), ())?.result()?;
    assert_ne!(pid, process::id());
    cluster.shutdown(Shutdown::Wait);
    assert!(matches!(
        cluster.submit(double, 1),
        Err(SubmitError::Shutdown)
    ));
    Ok(())
}

#[test]
fn a_host_runs_the_tasks_of_another_process() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().build()?;
    // Before there is a host.
    let early = cluster.submit(double, 1)?;
    let host = server.host(2);
    assert_eq!(early.result()?, 2);
    let hosts = cluster.hosts()?;
    assert_eq!(
        hosts.iter().map(HostInfo::pid).collect::<Vec<_>>(),
        [host.pid()]
    );
    let mut futures = Vec::new();
    for n in 0..500 {
        futures.push((n, cluster.submit(double, n)?));
    }
    let mut seen = BTreeSet::new();
    for (n, future) in as_completed(futures) {
        assert_eq!(future.result()?, 2 * n);
        seen.insert(n);
    }
    assert_eq!(seen.len(), 500);
    Ok(())
}

#[test]
fn a_host_can_be_a_part_of_a_program() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    let host = ClusterHost::builder()
        .url(server.url())
        .lease(LEASE)
        .pool(pool)
        .start()?;
    let cluster = server.executor().build()?;
    assert_eq!(cluster.submit(double, 4)?.result()?, 8);
    host.stop();
    assert!(cluster.hosts()?.is_empty());
    Ok(())
}

#[test]
fn a_host_tells_those_that_wait_for_one() -> Test {
    let Some(mut server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().build()?;
    assert!(!cluster.wait_for_host(Duration::ZERO)?);
    let host_of = |tag: &str| {
        let host = ClusterHost::builder().url(server.url()).tag(tag);
        host.lease(LEASE).start()
    };
    // One for other tasks does not count.
    let other = host_of("other")?;
    assert!(!cluster.wait_for_host(Duration::from_millis(50))?);
    let host = thread::scope(|scope| {
        let waiting = scope.spawn(|| cluster.wait_for_host(PATIENCE));
        let host = host_of("")?;
        assert!(waiting.join().unwrap()?);
        Ok::<_, Box<dyn Error>>(host)
    })?;
    drop(host);
    assert!(!cluster.wait_for_host(Duration::ZERO)?);
    // It enters the registry of a server that begins anew.
    let _host = host_of("")?;
    server.kill();
    server.run();
    assert!(cluster.wait_for_host(PATIENCE)?);
    drop(other);
    Ok(())
}

#[test]
fn futures_of_all_executors_mix() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let threads = ThreadPoolExecutor::builder().max_workers(1).build()?;
    let processes = ProcessPoolExecutor::builder().max_workers(1).build()?;
    let mut futures = Vec::new();
    add_to(&cluster, &mut futures);
    add_to(&threads, &mut futures);
    add_to(&processes, &mut futures);
    let done = wait(
        futures.iter().map(|(_, future)| future),
        Some(PATIENCE),
        ReturnWhen::AllCompleted,
    );
    assert!(done.not_done.is_empty());
    for (n, future) in as_completed(futures) {
        assert_eq!(future.result()?, 2 * n);
    }
    Ok(())
}

#[test]
fn errors_arrive_as_they_are_on_one_machine() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let panicked = cluster
        .submit(|n: u32| assert_eq!(n, 0, "no luck"), 1)?
        .result();
    let Err(TaskError::Panicked(panic)) = panicked else {
        panic!("{panicked:?}");
    };
    assert!(panic.message().contains("no luck"), "{panic}");
    let failed = cluster
        .submit_fallible(|text: String| text.parse::<u16>(), "eighty".into())?
        .result();
    assert_eq!(
        failed.unwrap_err().to_string(),
        "invalid digit found in string"
    );
    let future = cluster.submit(leave, 3)?;
    let id = future.id();
    let died = future.result();
    let Err(TaskError::WorkerDied(death)) = died else {
        panic!("{died:?}");
    };
    assert_eq!(death.exit(), WorkerExit::Code(3));
    assert_eq!(death.task(), Some(id));
    let text = death.to_string();
    assert!(
        text.ends_with(&format!("while it ran task {id} (cluster::leave)")),
        "{text}"
    );
    let limit = ClusterOptions::new().time_limit(Duration::from_millis(20));
    let slow = cluster.submit_with(limit, spin, ())?.result();
    let Err(TaskError::TimeLimit(slow)) = slow else {
        panic!("{slow:?}");
    };
    assert_eq!(slow.limit(), Duration::from_millis(20));
    assert!(slow.to_string().contains("(cluster::spin)"), "{slow}");
    // The host goes on.
    assert_eq!(cluster.submit(double, 4)?.result()?, 8);
    Ok(())
}

#[test]
fn payloads_of_all_lengths_come_and_go() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let limit = 256 * 1024;
    for length in [0, 1, limit - 1, limit, limit + 1, 1 << 20, 8_000_000] {
        let bytes: Vec<u8> = (0..length)
            .map(|n: usize| (n * 7).to_le_bytes()[0])
            .collect();
        let back = cluster.submit(
            |mut bytes: Vec<u8>| {
                bytes.reverse();
                bytes
            },
            bytes.clone(),
        )?;
        let mut back = back.result()?;
        back.reverse();
        assert!(back == bytes, "{length} bytes");
    }
    // Many of some size at once: none is lost by a limit of messages or memory.
    let sums = cluster.map_with(
        MapOptions::new().chunksize(1),
        |bytes: Vec<u8>| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
        (0..40_u8).map(|n| vec![n; 200_000]),
    )?;
    let sums: Result<Vec<u64>, _> = sums.collect();
    assert_eq!(sums?, (0..40).map(|n| n * 200_000).collect::<Vec<u64>>());
    wait_until("no part of a payload is left", || {
        matches!(server.parts(), Ok(0))
    });
    Ok(())
}

#[test]
fn callbacks_may_submit_and_wait() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = std::sync::Arc::new(server.executor().build()?);
    let (sender, receiver) = mpsc::channel();
    let first = cluster.submit(double, 1)?;
    let ours = std::sync::Arc::clone(&cluster);
    first.add_done_callback(move |result| {
        let next = ours.submit(double, *result.unwrap()).unwrap();
        sender.send(next.result().unwrap()).unwrap();
    });
    assert_eq!(receiver.recv_timeout(PATIENCE)?, 4);
    Ok(())
}

#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn a_host_of_another_program_runs_functions_by_their_names() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    // Tests are in a folder beside that of the examples.
    let tests = std::env::current_exe()?;
    let folder = tests.parent().and_then(Path::parent).ok_or("no folder")?;
    let program = folder.join("examples/named");
    if !program.is_file() {
        eprintln!(
            "skipped: cargo builds the example `named` with all tests, and not with some of them"
        );
        return Ok(());
    }
    let _host = server.host_of(&program, 1, &[("CONCURRENT_FUTURES_BY_NAME", "1")]);
    let cluster = server.executor().by_name().build()?;
    let area = cluster.submit_named::<(u32, u32), u32>("area", (6, 7))?;
    assert_eq!(area.result()?, 42);
    let greeting = cluster.submit_named::<String, String>("greet", "Ann".into())?;
    assert_eq!(greeting.result()?, "Hello, Ann!");
    let unknown = cluster.submit_named::<u32, u32>("volume", 1)?.result();
    let wrong = cluster.submit_named::<u64, u32>("area", 1)?.result();
    let nameless = cluster.submit(|n: u32| n, 1)?.result();
    for (result, name, text) in [
        (
            unknown,
            "(volume)",
            "no function is registered as volume; registered are: area, greet",
        ),
        (
            wrong,
            "(area)",
            "area is registered with the types (u32, u32) -> u32, and not u64 -> u32",
        ),
        (nameless, "::{{closure}})", "it has no name"),
    ] {
        let Err(TaskError::Failed(cause)) = result else {
            panic!("{result:?}");
        };
        assert!(cause.is::<NoFunction>(), "{cause}");
        let told = cause.to_string();
        assert!(told.contains(text), "{told}");
        let names = format!("{name}: the host has not the function");
        assert!(
            told.starts_with("task #") && told.contains(&names),
            "{told}"
        );
    }
    Ok(())
}

#[test]
fn errors_of_a_registered_function_have_its_name() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    concurrent_futures_cluster::register!("leave at once", leave);
    let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    let host = ClusterHost::builder().url(server.url()).lease(LEASE);
    let _host = host.by_name().pool(pool).start()?;
    let cluster = server.executor().by_name().build()?;
    let future = cluster.submit_named::<i32, ()>("leave at once", 3)?;
    let id = future.id();
    let error = future.result().unwrap_err();
    assert!(matches!(error, TaskError::WorkerDied(_)), "{error:?}");
    let name = format!("while it ran task {id} (leave at once)");
    assert!(error.to_string().ends_with(&name), "{error}");
    let error = cluster.submit_named::<(), ()>("leave at once", ())?;
    let error = error.result().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("(leave at once): the host has not"),
        "{error}"
    );
    Ok(())
}

/// Returns the depth, by a task that waits for others of the same cluster in each of the ways.
fn nest((url, depth): (String, u64)) -> u64 {
    if depth == 0 {
        return 0;
    }
    let cluster = ClusterExecutor::builder().url(&url).lease(LEASE);
    let cluster = cluster.build().unwrap();
    let below = || cluster.submit(nest, (url.clone(), depth - 1)).unwrap();
    let two = [below(), below()];
    // The end of the executor waits, too: for those of which the results are not taken.
    1 + match depth % 3 {
        0 => below().result().unwrap(),
        1 => {
            let done = as_completed(two).map(|future| future.result().unwrap());
            done.max().unwrap()
        }
        _ => {
            let waited = wait(two, None, ReturnWhen::AllCompleted);
            let done = waited.done.into_iter();
            done.map(|future| future.result().unwrap()).max().unwrap()
        }
    }
}

#[test]
fn a_task_that_waits_for_another_one_leaves_its_place_to_it() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    assert_eq!(cluster.submit(nest, (server.url(), 3))?.result()?, 3);
    Ok(())
}
