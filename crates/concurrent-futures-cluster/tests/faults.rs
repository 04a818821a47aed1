//! Hosts and servers that are killed, stopped and drained. Each test checks that every future is done once, with the
//! right value, and that nothing is left on the server.

#![cfg(unix)]

mod common;

use common::{LEASE, Notes, PATIENCE, Server, note, note_and_wait, wait_until, wait_until_empty};
use concurrent_futures::{Future, ReturnWhen, TaskError, wait};
use concurrent_futures_cluster::{
    ClusterExecutor, ClusterOptions, HostLost, NoWorkersError, OnHostLoss, PoisonTask,
};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

fn double(n: u64) -> u64 {
    2 * n
}

/// Kills the host of this worker, which is its parent, and this worker with it.
fn kill_the_host((): ()) -> u32 {
    let parent = rustix::process::getppid().unwrap();
    rustix::process::kill_process(parent, Signal::KILL).unwrap();
    loop {
        thread::yield_now();
    }
}

fn note_and_kill(note_of: (String, String)) -> u32 {
    note(note_of);
    kill_the_host(())
}

fn parent((): ()) -> i32 {
    rustix::process::getppid().unwrap().as_raw_nonzero().get()
}

#[test]
fn the_task_of_a_killed_host_runs_elsewhere_within_the_lease() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let mut first = server.host(1);
    let cluster = server.executor().build()?;
    let task = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && task.is_running()
    });
    let second = server.host(1);
    wait_until("the second host is there", || {
        cluster.hosts().unwrap().len() == 2
    });
    let killed = Instant::now();
    first.kill();
    wait_until("it runs again", || notes.named("run").len() == 2);
    let took = killed.elapsed();
    notes.write("go");
    task.result()?;
    assert_eq!(
        cluster.submit(parent, ())?.result()?,
        i32::try_from(second.pid())?
    );
    // Not at once, as the host might have lived; the bound has room for a busy machine.
    assert!(took < LEASE * 20, "{took:?}");
    drop(cluster);
    wait_until("all tasks are acknowledged", || {
        server.messages().unwrap() == 0
    });
    Ok(())
}

#[test]
fn a_task_that_is_not_to_run_again_fails_with_its_host() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let mut first = server.host(1);
    let notes = Notes::new();
    let cluster = server.executor().build()?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    let task = cluster.submit_with(once, note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && task.is_running()
    });
    first.kill();
    let _second = server.host(1);
    let id = task.id();
    let error = task.result().unwrap_err();
    assert!(
        matches!(&error, TaskError::Failed(cause) if cause.is::<HostLost>()),
        "{error:?}"
    );
    let name = format!("task {id} (faults::common::note_and_wait): the host");
    assert!(error.to_string().starts_with(&name), "{error}");
    assert_eq!(notes.named("run").len(), 1);
    Ok(())
}

#[test]
fn a_task_that_is_not_to_run_again_is_known_to_have_started_however_soon_its_host_ends() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let mut first = server.host(1);
    let notes = Notes::new();
    let cluster = server.executor().build()?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    let task = cluster.submit_with(once, note_and_kill, (notes.path(), "run".into()))?;
    wait_until("the host is dead", || first.has_ended());
    let _second = server.host(1);
    let error = task.result().unwrap_err();
    assert!(
        matches!(&error, TaskError::Failed(cause) if cause.is::<HostLost>()),
        "{error:?}"
    );
    assert_eq!(notes.named("run").len(), 1);
    Ok(())
}

#[test]
fn a_payload_that_the_server_has_lost_is_sent_again() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().build()?;
    let task = cluster.submit(
        |bytes: Vec<u8>| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
        vec![1_u8; 1 << 20],
    )?;
    wait_until("it is on the server", || matches!(server.messages(), Ok(1)));
    assert!(server.parts()? > 0);
    server.ask(async |context| {
        context.delete_stream("cf-payloads-default").await?;
        Ok(())
    })?;
    let _host = server.host(1);
    assert_eq!(task.result()?, 1 << 20);
    wait_until("the payload is removed", || matches!(server.parts(), Ok(0)));
    Ok(())
}

#[test]
fn a_task_that_kills_each_host_is_given_up() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().most_deliveries(2).build()?;
    let poison = cluster.submit(kill_the_host, ())?;
    let innocent: Vec<Future<u64>> = (0..20)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    let mut killed = 0;
    let mut host = server.host(1);
    wait_until("the poison is given up", || {
        if host.has_ended() {
            killed += 1;
            host = server.host(1);
        }
        poison.is_done()
    });
    let id = poison.id();
    let error = poison.result().unwrap_err();
    let TaskError::Failed(cause) = &error else {
        panic!("{error:?}");
    };
    assert!(cause.is::<PoisonTask>(), "{error:?}");
    let name = format!("task {id} (faults::kill_the_host): the task was given up");
    assert!(cause.to_string().starts_with(&name), "{cause}");
    // The first one may take the report of the start along. From then on, a start is confirmed before the task runs.
    assert!((2..=3).contains(&killed), "{killed} hosts were killed");
    for (n, future) in innocent.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    Ok(())
}

#[test]
fn an_executor_ends_without_its_only_host() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let mut host = server.host(1);
    let cluster = server.executor().wait_for_workers(LEASE).build()?;
    assert!(cluster.wait_for_host(PATIENCE)?);
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    notes.wait_for_prefix("run");
    let waiting = cluster.submit(double, 1)?;
    let waiting_once = cluster.submit_with(once, double, 1)?;
    host.kill();
    drop(cluster);
    for error in [
        running.result().unwrap_err(),
        waiting.result().unwrap_err(),
        waiting_once.result().unwrap_err(),
    ] {
        let TaskError::Failed(cause) = &error else {
            panic!("{error}");
        };
        assert!(cause.is::<NoWorkersError>(), "{error}");
        assert!(error.to_string().contains("): no host came"), "{error}");
    }
    Ok(())
}

#[test]
fn a_stopped_host_that_goes_on_after_its_lease_changes_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let first = server.host(1);
    let cluster = server.executor().build()?;
    let task = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && task.is_running()
    });
    let stopped = first.stop();
    let _second = server.host(1);
    wait_until("it runs again", || notes.named("run").len() == 2);
    notes.write("go");
    let pid = task.result()?;
    drop(stopped);
    // The first host's outcome is the second one, or the other way round. Both hosts go on.
    let names: BTreeSet<String> = notes.named("run").into_iter().collect();
    assert!(names.contains(&format!("run.{pid}")), "{names:?}, {pid}");
    let more: Vec<Future<u64>> = (0..50)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    for (n, future) in more.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    drop(cluster);
    wait_until("the second outcome is acknowledged", || {
        server.messages().unwrap() == 0
    });
    Ok(())
}

#[test]
fn a_drained_host_finishes_what_runs_and_gives_the_rest_back() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let first = server.host(1);
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && running.is_running()
    });
    let behind: Vec<Future<u32>> = (0..10)
        .map(|n| cluster.submit(note, (notes.path(), format!("behind{n}"))))
        .collect::<Result<_, _>>()?;
    first.signal(Signal::TERM);
    let _second = server.host(1);
    for future in behind {
        future.result()?;
    }
    // Each of them ran once: it was given back, and not lost.
    assert_eq!(notes.named("behind").len(), 10);
    notes.write("go");
    running.result()?;
    assert_eq!(notes.named("run").len(), 1);
    assert!(first.wait().success());
    assert_eq!(cluster.hosts()?.len(), 1);
    Ok(())
}

#[test]
fn a_drained_host_ends_long_tasks_which_run_elsewhere_unless_they_must_not() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let first = server.host_with(2, &[("CONCURRENT_FUTURES_DRAIN", "0")]);
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    let once = cluster.submit_with(once, note_and_wait, (notes.path(), "once".into()))?;
    wait_until("both run", || {
        notes.named("run").len() == 1 && running.is_running() && notes.named("once").len() == 1
    });
    first.signal(Signal::TERM);
    assert!(first.wait().success());
    let _second = server.host(2);
    wait_until("it runs again", || notes.named("run").len() == 2);
    notes.write("go");
    running.result()?;
    let error = once.result().unwrap_err();
    assert!(
        matches!(&error, TaskError::Failed(cause) if cause.is::<HostLost>()),
        "{error:?}"
    );
    assert_eq!(notes.named("once").len(), 1);
    Ok(())
}

#[test]
fn a_server_that_begins_anew_loses_nothing() -> Test {
    let Some(mut server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let _host = server.host(2);
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        !notes.named("run").is_empty() && running.is_running()
    });
    let mut waiting = Vec::new();
    for n in 0..50 {
        waiting.push(cluster.submit(note_and_wait, (notes.path(), format!("waits{n}")))?);
    }
    wait_until("the other worker is busy, too", || {
        !notes.named("waits").is_empty()
    });
    server.kill();
    let late = cluster.submit(double, 7)?;
    server.run();
    notes.write("go");
    running.result()?;
    let done = wait(&waiting, Some(PATIENCE), ReturnWhen::AllCompleted);
    assert!(done.not_done.is_empty(), "{} are lost", done.not_done.len());
    for future in waiting {
        future.result()?;
    }
    assert_eq!(late.result()?, 14);
    Ok(())
}

#[test]
fn an_executor_that_is_dropped_gives_its_tasks_up_when_its_server_stays_away() -> Test {
    let Some(mut server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor();
    let cluster = cluster
        .wait_for_workers(Duration::from_millis(500))
        .build()?;
    let _host = server.host(1);
    assert!(cluster.wait_for_host(PATIENCE)?);
    let notes = Notes::new();
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    server.kill();
    let waiting = cluster.submit(double, 7)?;
    let dropping = thread::spawn(move || drop(cluster));
    wait_until("the executor is gone", || dropping.is_finished());
    assert!(matches!(running.result(), Err(TaskError::Abandoned)));
    assert!(matches!(waiting.result(), Err(TaskError::Abandoned)));
    notes.write("go");
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes ten seconds: make cluster-faults"]
fn an_executor_that_is_dropped_gives_its_tasks_up_when_its_own_server_stands_still() -> Test {
    let Some(program) = common::program_or_skip() else {
        return Ok(());
    };
    let cluster = ClusterExecutor::builder()
        .url("embedded")
        .server_program(program)
        .workers(1)
        .lease(LEASE)
        .wait_for_workers(Duration::from_millis(500))
        .build()?;
    let notes = Notes::new();
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    let (url, _) = cluster.embedded_server().ok_or("no server")?;
    let port = url.rsplit(':').next().ok_or("no port")?.parse()?;
    let server = common::listener(port).ok_or("no process listens")?;
    rustix::process::kill_process(server, Signal::STOP)?;
    let waiting = cluster.submit(double, 7)?;
    let dropping = thread::spawn(move || drop(cluster));
    wait_until("the executor is gone", || dropping.is_finished());
    assert!(matches!(running.result(), Err(TaskError::Abandoned)));
    assert!(matches!(waiting.result(), Err(TaskError::Abandoned)));
    notes.write("go");
    Ok(())
}

#[test]
fn an_executor_that_is_dropped_waits_for_a_server_that_comes_back() -> Test {
    let Some(mut server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().build()?;
    let _host = server.host(1);
    assert!(cluster.wait_for_host(PATIENCE)?);
    let notes = Notes::new();
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    server.kill();
    let waiting = cluster.submit(double, 7)?;
    let dropping = thread::spawn(move || drop(cluster));
    server.run();
    notes.write("go");
    running.result()?;
    assert_eq!(waiting.result()?, 14);
    dropping.join().map_err(|_| "the drop has panicked")?;
    Ok(())
}

#[test]
fn a_server_that_is_stopped_for_longer_than_the_lease_loses_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let _hosts = [server.host(1), server.host(1)];
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        !notes.named("run").is_empty() && running.is_running()
    });
    let before: Vec<Future<u64>> = (0..50)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    let stopped = server.stop();
    let meanwhile: Vec<Future<u64>> = (0..50)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    // The task ends while no party hears of it, and its lease passes.
    notes.write("go");
    thread::sleep(2 * LEASE);
    assert!(!running.is_done() && meanwhile.iter().all(|future| !future.is_done()));
    drop(stopped);
    for futures in [before, meanwhile] {
        for (n, mut future) in futures.into_iter().enumerate() {
            assert_eq!(future.result_timeout(PATIENCE)?, 2 * n as u64);
        }
    }
    running.result()?;
    // Hosts that did not reach the client have stored outcomes, and the client removes them when it hears of that. Those of
    // a client that has ended go by their age.
    wait_until_empty(&server);
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

#[test]
fn tasks_of_a_deleted_stream_are_submitted_again() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().build()?;
    let futures: Vec<Future<u64>> = (0..100)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    wait_until("all are on the server", || {
        matches!(server.messages(), Ok(100))
    });
    server.delete_tasks()?;
    let _host = server.host(1);
    for (n, future) in futures.into_iter().enumerate() {
        assert_eq!(future.result()?, 2 * n as u64);
    }
    Ok(())
}

#[test]
fn a_killed_client_leaves_its_hosts_free() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let _host = server.host(1);
    let mut client = server.program("killed_client", &notes.path());
    notes.wait_for_prefix("of-the-client");
    client.kill();
    notes.write("go");
    let cluster = server.executor().build()?;
    assert_eq!(cluster.submit(double, 7)?.result()?, 14);
    drop(cluster);
    // The outcome is kept for the client, and its task is acknowledged.
    wait_until("the task is acknowledged", || {
        server.messages().unwrap() == 0
    });
    Ok(())
}

/// The program of a test: what a client does until it is killed. It runs only in that test's child.
#[test]
fn killed_client() -> Test {
    let Ok(folder) = std::env::var("CLUSTER_TEST_FOLDER") else {
        return Ok(());
    };
    let url = std::env::var("CLUSTER_TEST_URL")?;
    let cluster = ClusterExecutor::builder().url(url).lease(LEASE).build()?;
    cluster
        .submit(note_and_wait, (folder, "of-the-client".into()))?
        .result()?;
    Ok(())
}
