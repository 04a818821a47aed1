//! Short tasks, which hosts hand to their pool ahead of a free worker.

use crate::common::{LEASE, Notes, Server, note_and_wait};
use crate::{Test, double};
use concurrent_futures_cluster::ClusterExecutor;

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
