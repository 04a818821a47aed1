//! Cancelled and terminated tasks, with a real server and real hosts.

use crate::common::{Notes, Server, note, note_and_wait, wait_until};
use crate::{Test, double};
use concurrent_futures::{Shutdown, TaskError};
use std::collections::BTreeSet;
use std::sync::mpsc;

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
