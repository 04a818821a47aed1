//! Tasks that go to their host directly, without a place on the server.

use crate::common::{LEASE, Notes, Server, note_and_wait, wait_until, wait_until_empty};
use crate::{Test, double};
use concurrent_futures::TaskError;
use concurrent_futures_cluster::ClusterExecutor;
use rustix::process::Signal;
use std::time::Instant;

/// Returns the number of messages with tasks that the server has got so far.
fn stored(server: &Server) -> u64 {
    let last = server.ask(async |context| {
        let stream = context.get_stream("cf-tasks-default").await?;
        Ok(stream.cached_info().state.last_sequence)
    });
    last.unwrap()
}

/// Waits until tasks of the executor go to a host directly: one has brought an outcome, and knows the server's time.
fn wait_until_direct(server: &Server, cluster: &ClusterExecutor) {
    wait_until("a task goes directly", || {
        let before = stored(server);
        assert_eq!(cluster.submit(double, 4).unwrap().result().unwrap(), 8);
        stored(server) == before
    });
}

#[test]
fn tasks_that_wait_for_each_other_take_no_place_on_the_server() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    wait_until_direct(&server, &cluster);
    let before = stored(&server);
    for n in 0..100 {
        assert_eq!(cluster.submit(double, n)?.result()?, 2 * n);
    }
    assert_eq!(stored(&server), before);
    // Those of a burst do, as any host may take them.
    let burst: Vec<_> = cluster.map(double, 0..100)?.collect::<Result<_, _>>()?;
    assert_eq!(burst, (0..100).map(double).collect::<Vec<_>>());
    assert!(stored(&server) > before);
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

#[test]
fn a_busy_host_refuses_a_task_which_another_one_runs() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let first = server.host(1);
    let cluster = server.executor().build()?;
    wait_until_direct(&server, &cluster);
    let other = server.executor().build()?;
    let long = other.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || notes.named("run").len() == 1);
    let second = server.host(1);
    let before = stored(&server);
    assert_eq!(cluster.submit(double, 4)?.result()?, 8);
    assert!(stored(&server) > before);
    assert!(!long.is_done());
    notes.write("go");
    long.result()?;
    drop((first, second));
    Ok(())
}

#[test]
fn a_running_task_that_went_directly_is_terminated_and_not_cancelled() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    wait_until_direct(&server, &cluster);
    let before = stored(&server);
    let task = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || notes.named("run").len() == 1);
    assert_eq!(stored(&server), before);
    assert!(!task.cancel());
    assert!(task.terminate());
    assert!(matches!(task.result(), Err(TaskError::Terminated)));
    assert_eq!(cluster.submit(double, 4)?.result()?, 8);
    Ok(())
}

#[test]
fn the_direct_task_of_a_killed_host_runs_elsewhere_after_the_lease() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let mut first = server.host(1);
    let cluster = server.executor().build()?;
    wait_until_direct(&server, &cluster);
    let before = stored(&server);
    let task = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || notes.named("run").len() == 1);
    assert_eq!(stored(&server), before);
    let _second = server.host(1);
    wait_until("the second host is there", || {
        cluster.hosts().unwrap().len() == 2
    });
    let killed = Instant::now();
    first.kill();
    wait_until("it runs again", || notes.named("run").len() == 2);
    let took = killed.elapsed();
    notes.write("go");
    task.result()?;
    // The bound has room for a busy machine.
    assert!(took < LEASE * 20, "{took:?}");
    // The next tasks do not wait for the lost host.
    assert_eq!(cluster.submit(double, 4)?.result()?, 8);
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

/// The last receipt of a client is sent before the client ends: its host need not store the outcome for it.
#[test]
fn a_client_that_ends_after_its_last_task_leaves_its_host_nothing_to_do() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let host = server.host(1);
    for _ in 0..30 {
        let cluster = server.executor().build()?;
        wait_until_direct(&server, &cluster);
        drop(cluster);
    }
    host.signal(Signal::TERM);
    assert!(host.wait().success());
    assert_eq!(server.outcomes().unwrap(), 0);
    Ok(())
}
