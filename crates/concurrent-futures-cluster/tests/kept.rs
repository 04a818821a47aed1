//! Sessions whose tasks outlive their client: with real servers, hosts and clients, which end, are killed and are cut off.

#![cfg(unix)]

mod common;

use common::proxy::Proxy;
use common::{Host, LEASE, Notes, Server, note, note_and_wait, wait_until};
use concurrent_futures::{Future, Shutdown, TaskError};
use concurrent_futures_cluster::{
    ClusterError, ClusterExecutor, ClusterExecutorBuilder, ClusterOptions, HostLost, OnHostLoss,
    PoisonTask, SessionLost,
};
use futures_util::TryStreamExt;
use rustix::process::Signal;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(60);

fn double(n: u64) -> u64 {
    2 * n
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// Kills the host of this worker, which is its parent, and this worker with it.
fn note_and_kill(note_of: (String, String)) -> u32 {
    note(note_of);
    let parent = rustix::process::getppid().unwrap();
    rustix::process::kill_process(parent, Signal::KILL).unwrap();
    loop {
        thread::yield_now();
    }
}

/// Attaches to a session as soon as it has no other client.
fn attach(builder: &ClusterExecutorBuilder, name: &str) -> Result<ClusterExecutor, ClusterError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match builder.clone().attach(name) {
            Err(ClusterError::SessionInUse { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            attached => return attached,
        }
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

/// Returns the number of outcomes in the store, without the marks of runs.
fn outcomes(server: &Server) -> usize {
    let stored = server.ask(async |context| {
        let stream = context.get_stream("cf-outcomes-default+kept").await?;
        let subjects = stream.info_with_subjects("cf.o.default+kept.*.*").await?;
        let subjects: Vec<(String, usize)> = subjects.try_collect().await?;
        Ok(subjects.len())
    });
    stored.unwrap_or(0)
}

fn error_of<T>(future: &Future<T>) -> TaskError {
    future.exception().unwrap()
}

/// The program of a test: a client that leaves tasks behind. It runs only in that test's child.
#[test]
fn leaving_client() -> Test {
    let Ok(folder) = std::env::var("CLUSTER_TEST_FOLDER") else {
        return Ok(());
    };
    let url = std::env::var("CLUSTER_TEST_URL")?;
    let builder = ClusterExecutor::builder().url(url).lease(LEASE);
    let cluster = builder.session("left").build()?;
    drop(cluster.submit(note_and_wait, (folder.clone(), "run".into()))?);
    for n in 0..20 {
        drop(cluster.submit(note, (folder.clone(), format!("short-{n:02}")))?);
    }
    drop(cluster.submit(echo, vec![7_u8; 1 << 20])?);
    assert!(cluster.flush(PATIENCE));
    std::fs::write(std::path::Path::new(&folder).join("flushed"), "")?;
    loop {
        thread::park();
    }
}

#[test]
fn the_tasks_of_a_killed_client_end_and_a_later_client_finds_all_outcomes() -> Test {
    let Some(mut server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let mut client = server.program("leaving_client", &notes.path());
    notes.wait_for("flushed");
    client.kill();
    let _host = server.host(1);
    notes.wait_for_prefix("run");
    server.crash();
    server.run();
    notes.write("go");
    wait_until("all outcomes are stored", || outcomes(&server) == 22);
    let cluster = attach(&server.executor(), "left")?;
    let Err(ClusterError::ResultType { recorded, .. }) = cluster.futures::<u32>() else {
        panic!("one of the results is none of this type");
    };
    assert_eq!(recorded, std::any::type_name::<Vec<u8>>());
    let pids = cluster.futures_of::<u32>();
    let bytes = cluster.futures::<Vec<u8>>()?;
    assert_eq!((pids.len(), bytes.len()), (21, 1));
    for (n, future) in pids.into_iter().enumerate() {
        let pid = future.result()?;
        let name = if n == 0 {
            String::from("run")
        } else {
            format!("short-{:02}", n - 1)
        };
        // In the order of their submission, and each has run once.
        let runs = notes.named(&name);
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert!(runs[0].starts_with(&format!("{name}.{pid}")), "{runs:?}");
    }
    for future in bytes {
        assert!(future.result()? == vec![7_u8; 1 << 20]);
    }
    wait_until("no task is left", || stored(&server, "tasks") == 0);
    cluster.discard()?;
    for store in ["records", "outcomes", "payloads"] {
        assert_eq!(stored(&server, store), 0, "{store}");
    }
    Ok(())
}

#[test]
fn a_client_that_ends_in_order_leaves_its_session_to_the_next_one() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let notes = Notes::new();
    let cluster = server.executor().session("s").build()?;
    assert_eq!(cluster.session(), Some("s"));
    let early = cluster.submit(double, 1)?;
    assert_eq!(early.result()?, 2);
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    let late = cluster.submit(double, 2)?;
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    assert!(matches!(error_of(&running), TaskError::Abandoned));
    assert!(matches!(error_of(&late), TaskError::Abandoned));
    // At once: the session was given free.
    let cluster = server.executor().attach("s")?;
    let doubles = cluster.futures_of::<u64>();
    let running = cluster.futures::<u32>()?;
    assert!(cluster.futures::<u32>()?.is_empty());
    assert_eq!((doubles.len(), running.len()), (2, 1));
    let third = cluster.submit(double, 3)?;
    wait_until("it is known to run", || running[0].is_running());
    assert!(!running[0].cancel());
    notes.write("go");
    for future in running {
        future.result()?;
    }
    let values: Result<Vec<u64>, _> = doubles.into_iter().map(Future::result).collect();
    assert_eq!(values?, [2, 4]);
    assert_eq!(third.result()?, 6);
    assert_eq!(notes.named("run").len(), 1);
    drop(cluster);
    let cluster = ClusterExecutor::builder().url(server.url()).lease(LEASE);
    let cluster = cluster.attach("s")?;
    let values: Result<Vec<u64>, _> = cluster
        .futures_of::<u64>()
        .into_iter()
        .map(Future::result)
        .collect();
    assert_eq!(values?, [2, 4, 6]);
    assert!(notes.named("run").len() == 1 && outcomes(&server) == 4);
    Ok(())
}

#[test]
fn of_two_clients_at_once_one_has_the_session() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let builder = server.executor().session("s");
    let built: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let builder = builder.clone();
                scope.spawn(move || builder.build())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (winners, losers): (Vec<_>, Vec<_>) = built.into_iter().partition(Result::is_ok);
    assert_eq!((winners.len(), losers.len()), (1, 1));
    for lost in losers {
        let Err(ClusterError::SessionInUse { session, pid, .. }) = lost else {
            panic!("{lost:?}");
        };
        assert_eq!((&*session, pid), ("s", std::process::id()));
    }
    // It is renewed for longer than a lease.
    let end = Instant::now() + LEASE + LEASE / 4;
    while Instant::now() < end {
        let attached = server.executor().attach("s");
        assert!(
            matches!(attached, Err(ClusterError::SessionInUse { .. })),
            "{attached:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
    drop(winners);
    builder.build()?;
    Ok(())
}

/// Cuts a client off for some time, while another one attaches.
fn cut_off_for(time: Duration) -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let proxy = Proxy::start(server.port());
    let _host = server.host(1);
    let notes = Notes::new();
    let builder = ClusterExecutor::builder().url(proxy.url()).lease(LEASE);
    let first = builder.session("s").build()?;
    let running = first.submit(note_and_wait, (notes.path(), "run".into()))?;
    let waiting = first.submit(double, 21)?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && running.is_running()
    });
    assert!(first.flush(PATIENCE));
    let cut = Instant::now();
    let partition = proxy.partition();
    let unrecorded = first.submit(double, 1)?;
    assert!(!first.flush(Duration::from_millis(10)));
    let second = attach(&server.executor(), "s")?;
    thread::sleep(time.saturating_sub(cut.elapsed()));
    drop(partition);
    for error in [
        error_of(&running),
        error_of(&waiting),
        error_of(&unrecorded),
    ] {
        let TaskError::Failed(cause) = &error else {
            panic!("{error}");
        };
        let lost = cause.downcast_ref::<SessionLost>();
        assert_eq!(lost.map(SessionLost::session), Some("s"), "{error}");
        assert!(error.to_string().contains(&std::process::id().to_string()));
    }
    let refused = first.submit(double, 1)?;
    let error = refused.result().unwrap_err();
    assert!(matches!(&error, TaskError::Failed(cause) if cause.is::<SessionLost>()));
    assert!(!first.flush(PATIENCE));
    drop(first);
    notes.write("go");
    let running = second.futures_of::<u32>();
    let waiting = second.futures::<u64>()?;
    // A task without a record is not there.
    assert_eq!((running.len(), waiting.len()), (1, 1));
    for future in running {
        future.result()?;
    }
    for future in waiting {
        assert_eq!(future.result()?, 42);
    }
    assert_eq!(notes.named("run").len(), 1);
    Ok(())
}

#[test]
fn a_client_that_is_cut_off_loses_its_session_to_another_one() -> Test {
    cut_off_for(LEASE)
}

#[test]
#[ignore = "takes more than a minute: make cluster-faults"]
fn a_client_that_is_cut_off_for_a_minute_loses_its_session_to_another_one() -> Test {
    cut_off_for(Duration::from_secs(60))
}

#[test]
fn a_session_that_cannot_be_opened_is_an_error_that_says_why() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let error = server.executor().attach("nothing").unwrap_err();
    assert!(matches!(error, ClusterError::UnknownSession { .. }));
    assert!(error.to_string().contains("\"nothing\""), "{error}");
    let error = server.executor().session("").build().unwrap_err();
    assert!(matches!(error, ClusterError::SessionName), "{error}");
    let embedded = ClusterExecutor::builder().url("embedded").session("s");
    let error = embedded.build().unwrap_err();
    assert!(matches!(error, ClusterError::SessionEmbedded), "{error}");
    let elsewhere = server.executor().queue("other").session("s").replicas(3);
    let error = elsewhere.build().unwrap_err();
    assert!(matches!(error, ClusterError::Replicas { replicas: 3, .. }));
    assert!(error.to_string().contains("3 copies"), "{error}");
    // No host is there, and so no task is done.
    let keyed = server.executor().key("secret");
    let cluster = keyed.clone().session("s").build()?;
    drop(cluster.submit(double, 21)?);
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    let error = server.executor().key("other").attach("s").unwrap_err();
    assert!(matches!(error, ClusterError::SessionKey(_)), "{error}");
    let error = keyed.clone().tag("other").attach("s").unwrap_err();
    assert!(matches!(error, ClusterError::SessionEnvironment { .. }));
    // None of them has taken the session.
    let cluster = keyed.attach("s")?;
    let error = server.executor().key("other").attach("s").unwrap_err();
    assert!(matches!(error, ClusterError::SessionKey(_)), "{error}");
    let _host = server.host_with(1, &[("CONCURRENT_FUTURES_KEY", "secret")]);
    for future in cluster.futures::<u64>()? {
        assert_eq!(future.result()?, 42);
    }
    Ok(())
}

#[test]
fn lost_hosts_are_counted_without_a_client() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let cluster = server.executor().session("s").most_deliveries(1).build()?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    drop(cluster.submit_with(once, note_and_kill, (notes.path(), "once".into()))?);
    drop(cluster.submit(note_and_kill, (notes.path(), "again".into()))?);
    drop(cluster.submit(double, 21)?);
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    let mut host = server.host(1);
    wait_until("all have outcomes", || {
        if host.has_ended() {
            host = server.host(1);
        }
        outcomes(&server) == 3
    });
    let cluster = attach(&server.executor(), "s")?;
    let killers = cluster.futures_of::<u32>();
    let innocent = cluster.futures::<u64>()?;
    let [once, again] = &killers[..] else {
        panic!("{killers:?}");
    };
    let error = error_of(once);
    assert!(
        matches!(&error, TaskError::Failed(cause) if cause.is::<HostLost>()),
        "{error:?}"
    );
    let error = error_of(again);
    assert!(
        matches!(&error, TaskError::Failed(cause) if cause.is::<PoisonTask>()),
        "{error:?}"
    );
    for future in innocent {
        assert_eq!(future.result()?, 42);
    }
    assert_eq!(notes.named("once").len(), 1);
    assert_eq!(notes.named("again").len(), 1);
    Ok(())
}

#[test]
fn a_host_that_drains_does_not_count_as_lost() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let cluster = server.executor().session("s").most_deliveries(1).build()?;
    drop(cluster.submit(note_and_wait, (notes.path(), "run".into()))?);
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    for runs in 1..=2 {
        let host = server.host_with(1, &[("CONCURRENT_FUTURES_DRAIN", "0")]);
        wait_until("it runs", || notes.named("run").len() == runs);
        host.signal(Signal::TERM);
        assert!(host.wait().success());
    }
    let _host = server.host(1);
    wait_until("it runs", || notes.named("run").len() == 3);
    notes.write("go");
    let cluster = attach(&server.executor(), "s")?;
    for future in cluster.futures::<u32>()? {
        future.result()?;
    }
    Ok(())
}

#[test]
fn stores_that_are_deleted_cost_time_and_no_task() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().session("s").build()?;
    let futures: Vec<_> = (0..20)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    assert!(cluster.flush(PATIENCE));
    wait_until("they are published", || stored(&server, "tasks") == 20);
    server.ask(async |context| {
        for store in ["tasks", "records", "outcomes"] {
            context
                .delete_stream(format!("cf-{store}-default+kept"))
                .await?;
        }
        Ok(())
    })?;
    let _host = server.host(2);
    for (n, future) in futures.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    drop(cluster);
    // The tasks that were submitted again are recorded again.
    let cluster = server.executor().attach("s")?;
    let values: Result<Vec<u64>, _> = cluster
        .futures::<u64>()?
        .into_iter()
        .map(Future::result)
        .collect();
    assert_eq!(values?, (0..20).map(double).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_task_that_the_server_has_lost_is_submitted_again_by_the_next_client() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().session("s").priority(2).build()?;
    for n in 0..10 {
        drop(cluster.submit(double, n)?);
    }
    drop(cluster.submit(|bytes: Vec<u8>| bytes.len() as u64, vec![1_u8; 1 << 20])?);
    assert!(cluster.flush(PATIENCE));
    wait_until("they are published", || stored(&server, "tasks") == 11);
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    server.ask(async |context| {
        context.delete_stream("cf-tasks-default+kept").await?;
        Ok(())
    })?;
    let _host = server.host(1);
    let cluster = server.executor().attach("s")?;
    let values: Result<Vec<u64>, _> = cluster
        .futures::<u64>()?
        .into_iter()
        .map(Future::result)
        .collect();
    let mut expected: Vec<u64> = (0..10).map(double).collect();
    expected.push(1 << 20);
    assert_eq!(values?, expected);
    Ok(())
}

#[test]
fn a_session_goes_by_its_age() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let builder = server.executor().keep(Duration::from_secs(2));
    let cluster = builder.build()?;
    let name = cluster.session().unwrap_or_default().to_owned();
    assert_eq!(name.len(), 16, "{name}");
    assert_eq!(cluster.submit(double, 21)?.result()?, 42);
    drop(cluster.submit(|bytes: Vec<u8>| bytes.len() as u64, vec![1_u8; 1 << 20])?);
    drop(cluster);
    wait_until("records and outcomes are gone", || {
        stored(&server, "records") == 0 && stored(&server, "outcomes") == 0
    });
    let attached = server.executor().attach(&name);
    assert!(matches!(attached, Err(ClusterError::UnknownSession { .. })));
    Ok(())
}

#[test]
fn a_cancelled_task_is_not_found_later() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let cluster = server.executor().session("s").build()?;
    let folder = notes.path();
    let futures: Vec<_> = ["gone", "stays"]
        .into_iter()
        .map(|name| cluster.submit(note, (folder.clone(), name.into())))
        .collect::<Result<_, _>>()?;
    wait_until("they are published", || stored(&server, "tasks") == 2);
    assert!(futures[0].cancel());
    assert_eq!(stored(&server, "records"), 1);
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    let cluster = server.executor().attach("s")?;
    let _host = server.host(1);
    let left = cluster.futures::<u32>()?;
    assert_eq!(left.len(), 1);
    for future in left {
        future.result()?;
    }
    assert!(notes.named("gone").is_empty());
    // One that runs is ended by the client that has attached.
    let endless = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    assert!(matches!(error_of(&endless), TaskError::Abandoned));
    let cluster = server.executor().attach("s")?;
    let mut tasks = cluster.futures::<u32>()?;
    let endless = tasks.pop().ok_or("no task")?;
    wait_until("it is known to run", || endless.is_running());
    assert!(endless.terminate());
    assert!(matches!(endless.result(), Err(TaskError::Terminated)));
    Ok(())
}

#[test]
fn priorities_hold_between_the_tasks_of_sessions_and_others() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let notes = Notes::new();
    let low = server.executor().priority(0).build()?;
    let kept = server.executor().priority(1).session("s").build()?;
    let high = server.executor().priority(2).build()?;
    let running = low.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    let mut futures = Vec::new();
    for n in 0..3 {
        for (cluster, name) in [(&low, "low"), (&kept, "kept"), (&high, "high")] {
            futures.push(cluster.submit(note, (notes.path(), format!("{name}-{n}")))?);
        }
    }
    wait_until("all are on the server", || {
        // The host gives back those that came while its worker was busy. Meanwhile they are with the client.
        let (waiting, with_hosts) = (server.messages(), server.delivered());
        let is_plain = waiting.is_ok_and(|count| count == 7) && with_hosts.is_ok_and(|n| n == 1);
        is_plain && stored(&server, "tasks") == 3
    });
    notes.write("go");
    running.result()?;
    for future in futures {
        future.result()?;
    }
    let mut begun = Vec::new();
    for name in ["low", "kept", "high"] {
        for file in notes.named(name) {
            let nanos: u128 = file.rsplit('.').next().ok_or("no time")?.parse()?;
            begun.push((nanos, name));
        }
    }
    begun.sort_unstable();
    let order: Vec<&str> = begun.into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        order,
        [
            "high", "high", "high", "kept", "kept", "kept", "low", "low", "low"
        ]
    );
    Ok(())
}

fn nap(millis: u64) -> u64 {
    thread::sleep(Duration::from_millis(millis));
    millis
}

#[test]
fn a_session_with_many_tasks_keeps_no_other_one_waiting() -> Test {
    const MANY: usize = 1500;
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let many = server.executor().session("many").build()?;
    for _ in 0..MANY {
        drop(many.submit(nap, 5)?);
    }
    // From now on, they are on the server, and their client has gone.
    many.shutdown(Shutdown::NoWait);
    drop(many);
    let few = server.executor().session("few").build()?;
    let mut futures = Vec::new();
    for _ in 0..20 {
        futures.push(few.submit(nap, 5)?);
    }
    assert!(few.flush(PATIENCE));
    let _host = server.host(1);
    for future in futures {
        future.result()?;
    }
    // It has waited for the first tasks of the other one, and shared the host with the rest.
    let done = outcomes(&server);
    assert!(done < MANY / 2, "{done} tasks were done before");
    let many = server.executor().attach("many")?;
    let later = many.submit(nap, 5)?;
    // It has the rank of many, which is served as well.
    wait_until("one more of them is done", || outcomes(&server) > done);
    many.discard()?;
    assert!(matches!(error_of(&later), TaskError::Abandoned));
    Ok(())
}

#[test]
fn the_items_of_a_map_are_tasks_that_a_later_client_finds() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host: Host = server.host(2);
    let cluster = server.executor().session("s").build()?;
    let doubles: Result<Vec<u64>, _> = cluster.map(double, 0..300)?.collect();
    assert_eq!(doubles?, (0..300).map(double).collect::<Vec<_>>());
    drop(cluster);
    let cluster = server.executor().attach("s")?;
    let values: Result<Vec<u64>, _> = cluster
        .futures::<u64>()?
        .into_iter()
        .map(Future::result)
        .collect();
    assert_eq!(values?, (0..300).map(double).collect::<Vec<_>>());
    Ok(())
}
