//! Results of `map` that come while a later call of their task runs on.

use crate::Test;
use crate::common::{Notes, Server, note, wait_until};
use concurrent_futures::{MapOptions, TaskError};
use std::path::Path;
use std::process;
use std::thread;
use std::time::Duration;

/// A task that leaves a note, and then waits for the note `go` if its number is not 0. Returns the number and the process.
fn wait_unless_first((folder, n): (String, u64)) -> (u64, u32) {
    let pid = note((folder.clone(), format!("ran{n}")));
    while n > 0 && !Path::new(&folder).join("go").exists() {
        thread::sleep(Duration::from_millis(2));
    }
    (n, pid)
}

#[test]
fn results_of_map_come_while_a_later_call_of_their_task_runs_on() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let notes = Notes::new();
    let items = (0..4).map(|n| (notes.path(), n));
    let mut results = cluster.map_with(MapOptions::new().chunksize(4), wait_unless_first, items)?;
    let mut next = || results.next().unwrap();
    // The program needs the first one before it lets the second one go on.
    let (first, worker) = next()?;
    assert_eq!(first, 0);
    notes.write("go");
    for n in 1..4 {
        assert_eq!(next()?, (n, worker));
    }
    assert!(results.next().is_none());
    // A call that fails, and one whose worker dies behind a result that has come.
    let notes = Notes::new();
    let items = (0..4).map(|n| (notes.path(), n));
    let options = MapOptions::new().chunksize(4);
    let fall = |(folder, n): (String, u64)| {
        assert_ne!(n, 1, "no luck");
        wait_unless_first((folder, u64::from(n == 2)));
        if n == 2 {
            process::exit(3);
        }
        n
    };
    let mut results = cluster.map_with(options, fall, items)?;
    assert_eq!(results.next().unwrap()?, 0);
    assert!(matches!(results.next(), Some(Err(TaskError::Panicked(_)))));
    assert_eq!(results.len(), 2);
    notes.write("go");
    let rest: Vec<_> = results.collect();
    let is_death =
        |result: &Result<u64, TaskError>| matches!(result, Err(TaskError::WorkerDied(_)));
    assert!(rest.len() == 2 && rest.iter().all(is_death), "{rest:?}");
    Ok(())
}

#[test]
fn a_result_of_map_that_has_come_stays_when_its_host_is_lost() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let mut host = server.host(1);
    let cluster = server.executor().build()?;
    let notes = Notes::new();
    let items = (0..3).map(|n| (notes.path(), n));
    let mut results = cluster.map_with(MapOptions::new().chunksize(3), wait_unless_first, items)?;
    let (first, worker) = results.next().unwrap()?;
    assert_eq!(first, 0);
    host.kill();
    let _other = server.host(1);
    wait_until("the task runs again", || notes.named("ran1").len() == 2);
    assert_eq!(notes.named("ran0").len(), 2);
    notes.write("go");
    let rest: Result<Vec<(u64, u32)>, _> = results.collect();
    let rest = rest?;
    assert_eq!(rest.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2]);
    assert!(rest.iter().all(|(_, pid)| *pid != worker));
    Ok(())
}
