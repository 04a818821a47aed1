//! Recordings of tasks that hosts run.

use crate::Test;
use crate::common::{Notes, Server, note_and_wait, wait_until};
use crate::document::Document;
use concurrent_futures::{Future, Recording, TaskError};
use concurrent_futures_cluster::{ClusterOptions, HostLost, OnHostLoss};
use rustix::process::Signal;
use std::collections::{BTreeSet, HashMap};
use std::process;
use std::time::Instant;

// The functions of one test: a recording has the tasks of all tests at the time.
fn recorded_wait((folder, name): (String, String)) -> u32 {
    note_and_wait((folder, name))
}

fn recorded_loss(note_of: (String, String)) -> u32 {
    note_and_wait(note_of)
}

fn recorded_drain(note_of: (String, String)) -> u32 {
    note_and_wait(note_of)
}

fn recorded_double(n: u64) -> u64 {
    2 * n
}

fn recorded_exit(code: i32) {
    process::exit(code)
}

fn recorded_error(n: u32) -> Result<u8, std::num::TryFromIntError> {
    u8::try_from(n)
}

#[test]
fn a_recording_has_a_lane_for_each_place_of_a_host() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let hosts = [server.host(1), server.host(2)];
    let cluster = server.executor().build()?;
    let notes = Notes::new();
    let recording = Recording::start();
    let began = Instant::now();
    // As many as there are places: each place has one.
    let names = ["a", "b", "c"];
    let mut waiting = Vec::new();
    for name in names {
        waiting.push(cluster.submit(recorded_wait, (notes.path(), name.into()))?);
    }
    for name in names {
        notes.wait_for_prefix(name);
    }
    let go = began.elapsed();
    notes.write("go");
    for future in waiting {
        future.result()?;
    }
    let doubles: Result<Vec<u64>, _> = cluster.map(recorded_double, 0..1000)?.collect();
    assert_eq!(doubles?.len(), 1000);
    assert!(cluster.submit(recorded_exit, 3)?.result().is_err());
    let error = cluster.submit_fallible(recorded_error, 256)?;
    assert!(error.result().is_err());
    recording.stop();
    cluster.submit(recorded_double, 1)?.result()?;

    let document = Document::of(&recording);
    let waits = document.named("recorded_wait");
    let [doubles, exit, error] =
        ["recorded_double", "recorded_exit", "recorded_error"].map(|name| document.named(name));
    for row in [&waits, &doubles, &exit, &error].into_iter().flatten() {
        let times = [row["submit"], row["start"], row["end"]];
        assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
        let worker = document.worker(row);
        let host = hosts.iter().find(|host| worker["pid"] == host.pid());
        let (Some(host), Some(machine)) = (host, worker["machine"].as_str()) else {
            panic!("{worker}");
        };
        let name = worker["name"].as_str().unwrap_or_default();
        let of_host = format!("{machine} · {}", host.pid());
        assert!(
            name == of_host || name == format!("{of_host} · 2"),
            "{name}"
        );
    }
    let lanes: BTreeSet<String> = waits
        .iter()
        .map(|row| document.worker(row)["name"].to_string())
        .collect();
    assert_eq!((waits.len(), lanes.len()), (3, 3), "{lanes:?}");
    // Times of hosts may be late, and not early.
    assert!(waits.iter().all(|row| row["end"] >= go.as_secs_f64() * 1e9));
    let items: f64 = doubles.iter().map(|row| row["items"]).sum();
    assert!((items - 1000.0).abs() < 0.5, "{items}");
    let outcomes = |rows: &[_]| -> Vec<(String, String)> {
        let rows = rows.iter();
        rows.map(|row: &&HashMap<String, f64>| {
            (
                row["outcome"].to_string(),
                document.text(row, "error").to_owned(),
            )
        })
        .collect()
    };
    assert!(outcomes(&waits).iter().all(|(outcome, _)| outcome == "2"));
    let [(died, why)] = &outcomes(&exit)[..] else {
        panic!("{} rows", exit.len());
    };
    assert!(died == "6" && why.contains("exited with code 3"), "{why}");
    let [(failed, why)] = &outcomes(&error)[..] else {
        panic!("{} rows", error.len());
    };
    assert!(failed == "3" && why.contains("out of range"), "{why}");
    Ok(())
}

#[test]
fn a_run_that_gave_no_outcome_has_a_row_with_its_end() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let mut lost = server.host(3);
    let cluster = server.executor().build()?;
    let notes = Notes::new();
    let recording = Recording::start();
    let options = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    let once = cluster.submit_with(options, recorded_loss, (notes.path(), "once".into()))?;
    let again = ["a", "b"].map(|name| cluster.submit(recorded_loss, (notes.path(), name.into())));
    let [a, b] = again;
    let again = [a?, b?];
    wait_until("all run", || {
        let begun = ["once", "a", "b"].map(|name| notes.named(name).len());
        begun == [1, 1, 1] && once.is_running() && again.iter().all(Future::is_running)
    });
    let lost_pid = lost.pid();
    lost.kill();
    let host = server.host(2);
    wait_until("both run again", || {
        ["a", "b"].iter().all(|name| notes.named(name).len() == 2)
    });
    notes.write("go");
    for future in again {
        future.result()?;
    }
    let error = once.result().unwrap_err();
    assert!(matches!(&error, TaskError::Failed(cause) if cause.is::<HostLost>()));
    // A host that ends, and ends its task before.
    let drained = server.host_with(1, &[("CONCURRENT_FUTURES_DRAIN", "0")]);
    let host_pid = host.pid();
    host.signal(Signal::TERM);
    assert!(host.wait().success());
    let slow = Notes::new();
    let moved = cluster.submit(recorded_drain, (slow.path(), "run".into()))?;
    slow.wait_for_prefix("run");
    let drained_pid = drained.pid();
    drained.signal(Signal::TERM);
    assert!(drained.wait().success());
    let finisher = server.host(1);
    slow.write("go");
    moved.result()?;
    recording.stop();

    let document = Document::of(&recording);
    let rows = document.named("recorded_loss");
    let outcomes = |outcome: f64| {
        let rows = rows.iter();
        rows.filter(move |row| (row["outcome"] - outcome).abs() < 0.5)
    };
    assert_eq!(
        (rows.len(), outcomes(6.0).count(), outcomes(2.0).count()),
        (5, 3, 2)
    );
    let mut lanes = BTreeSet::new();
    for row in outcomes(6.0) {
        let worker = document.worker(row);
        assert_eq!(worker["pid"], lost_pid, "{worker}");
        lanes.insert(worker["name"].to_string());
        assert!(row["submit"] < row["start"] && row["start"] < row["end"]);
        assert!(row["attempt"] < 0.5);
        assert_eq!(document.text(row, "error"), "the host was lost");
    }
    // They overlap.
    assert_eq!(lanes.len(), 3, "{lanes:?}");
    for row in outcomes(2.0) {
        assert_eq!(document.worker(row)["pid"], host_pid);
        assert!((row["attempt"] - 1.0).abs() < 0.5);
    }
    let mut rows = document.named("recorded_drain");
    rows.sort_by(|one, other| one["start"].total_cmp(&other["start"]));
    let [ended, ran] = &rows[..] else {
        panic!("{} rows", rows.len());
    };
    assert_eq!(document.worker(ended)["pid"], drained_pid);
    assert!((ended["outcome"] - 8.0).abs() < 0.5);
    assert!(document.text(ended, "error").contains("ended the run"));
    assert_eq!(document.worker(ran)["pid"], finisher.pid());
    assert!((ran["outcome"] - 2.0).abs() < 0.5 && (ran["attempt"] - 1.0).abs() < 0.5);
    Ok(())
}
