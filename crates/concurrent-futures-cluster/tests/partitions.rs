//! Networks between parties and their server that delay, lose, stall and end; see `common/proxy.rs`. Each test checks
//! that every future is done once, with the right value, and that nothing is left on the server.

#![cfg(unix)]

mod common;

use common::load::Load;
use common::proxy::Proxy;
use common::{
    Host, LEASE, Notes, PATIENCE, Server, note_and_wait, wait_until, wait_until_empty,
    wait_until_no_task_is_left,
};
use concurrent_futures::TaskError;
use concurrent_futures_cluster::ClusterExecutor;
use std::error::Error;
use std::thread;
use std::time::Duration;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

fn executor_by(proxy: &Proxy) -> Result<ClusterExecutor, Box<dyn Error + Send + Sync>> {
    let builder = ClusterExecutor::builder().url(proxy.url()).lease(LEASE);
    Ok(builder.build()?)
}

#[test]
fn the_task_of_a_host_that_is_cut_off_runs_elsewhere_and_ends_once() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let proxy = Proxy::start(server.port());
    let notes = Notes::new();
    let first = Host::start(&proxy.url(), 1, &[]);
    let cluster = server.executor().build()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && running.is_running()
    });
    let partition = proxy.partition();
    let second = server.host(1);
    wait_until("it runs again", || notes.named("run").len() == 2);
    notes.write("go");
    running.result()?;
    // The first host has an outcome as well, and cannot report it. It goes on when the network does.
    let mut load = Load::new();
    for _ in 0..20 {
        load.add(&cluster, 1, 10)?;
    }
    let hosts = load.check()?;
    assert!(hosts.iter().all(|host| *host == second.pid()), "{hosts:?}");
    drop(partition);
    wait_until("the first host is there again", || {
        cluster.hosts().is_ok_and(|hosts| hosts.len() == 2)
    });
    drop(second);
    let mut load = Load::new();
    load.add(&cluster, 1, 10)?;
    assert_eq!(load.check()?, [first.pid()]);
    // While the client is there: a host may have stored an outcome whose receipt came late.
    wait_until_empty(&server);
    Ok(())
}

#[test]
fn a_client_that_is_cut_off_for_longer_than_the_lease_gets_all_outcomes_later() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let proxy = Proxy::start(server.port());
    let notes = Notes::new();
    let _hosts = [server.host(1), server.host(1)];
    let cluster = executor_by(&proxy)?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        notes.named("run").len() == 1 && running.is_running()
    });
    let mut load = Load::new();
    for n in 0..40 {
        load.add(&cluster, 5, if n % 20 == 0 { 300_000 } else { 10 })?;
    }
    let partition = proxy.partition();
    for _ in 0..40 {
        load.add(&cluster, 5, 10)?;
    }
    notes.write("go");
    thread::sleep(2 * LEASE);
    assert!(!running.is_done());
    drop(partition);
    load.check()?;
    running.result()?;
    assert_eq!(notes.named("run").len(), 1);
    // While the client is there: a host may have stored an outcome whose receipt came late.
    wait_until_empty(&server);
    Ok(())
}

#[test]
fn an_executor_that_is_dropped_gives_its_tasks_up_when_it_is_cut_off() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let proxy = Proxy::start(server.port());
    let notes = Notes::new();
    let _host = server.host(1);
    let builder = ClusterExecutor::builder().url(proxy.url()).lease(LEASE);
    let cluster = builder
        .wait_for_workers(Duration::from_millis(500))
        .build()?;
    assert!(cluster.wait_for_host(PATIENCE)?);
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    let partition = proxy.partition();
    let waiting = cluster.submit(note_and_wait, (notes.path(), "wait".into()))?;
    let dropping = thread::spawn(move || drop(cluster));
    wait_until("the executor is gone", || dropping.is_finished());
    assert!(matches!(running.result(), Err(TaskError::Abandoned)));
    assert!(matches!(waiting.result(), Err(TaskError::Abandoned)));
    notes.write("go");
    drop(partition);
    Ok(())
}

#[test]
fn connections_that_end_again_and_again_lose_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let (ours, theirs) = (Proxy::start(server.port()), Proxy::start(server.port()));
    let _hosts = [Host::start(&theirs.url(), 2, &[]), server.host(1)];
    let cluster = executor_by(&ours)?;
    let mut load = Load::new();
    for n in 0..300 {
        load.add(&cluster, n % 10, if n % 50 == 7 { 300_000 } else { 10 })?;
        match n % 60 {
            20 => ours.cut(),
            40 => theirs.cut(),
            59 => {
                ours.cut();
                theirs.cut();
            }
            _ => thread::sleep(Duration::from_millis(2)),
        }
    }
    load.check()?;
    // While the client is there: a host may have stored an outcome whose receipt came late.
    wait_until_no_task_is_left(&server);
    Ok(())
}

#[test]
fn delay_and_loss_cost_time_only() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let (ours, theirs) = (Proxy::start(server.port()), Proxy::start(server.port()));
    for proxy in [&ours, &theirs] {
        proxy.delay(Duration::from_millis(25));
        proxy.lose(20);
    }
    let _host = Host::start(&theirs.url(), 4, &[]);
    let cluster = executor_by(&ours)?;
    let mut load = Load::new();
    for n in 0..200 {
        load.add(&cluster, n % 10, if n % 50 == 7 { 300_000 } else { 10 })?;
    }
    load.check()?;
    assert!(ours.carried() > 0 && theirs.carried() > 0);
    // While the client is there: a host may have stored an outcome whose receipt came late.
    wait_until_empty(&server);
    Ok(())
}
