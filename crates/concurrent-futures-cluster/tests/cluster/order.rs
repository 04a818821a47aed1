//! The order of tasks, and submissions that wait for room.

use crate::common::{Lane, Notes, PATIENCE, Server, note_and_wait, wait_until};
use crate::{Test, double};
use concurrent_futures::{Shutdown, SubmitError, TaskError};
use concurrent_futures_cluster::{ClusterError, ClusterExecutor};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

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
fn a_cancelled_task_has_made_room_when_its_cancellation_returns() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let cluster = server.executor().max_pending(1).build()?;
    for n in 0..500 {
        // The thread of the cluster publishes the task meanwhile, or finds that it was cancelled.
        assert!(cluster.try_submit(double, n)?.cancel());
    }
    Ok(())
}

#[test]
fn a_task_that_is_done_has_made_room() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().max_pending(1).build()?;
    for n in 0..500 {
        assert_eq!(cluster.try_submit(double, n)?.result()?, 2 * n);
    }
    Ok(())
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

/// Adds the name of the task to those that have begun.
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
