//! Recordings of process pools: stamps of workers, bytes, deaths, time limits and retries.

#![cfg(all(feature = "process", feature = "recording", target_os = "linux"))]
#![allow(clippy::float_cmp, reason = "numbers that were written are read")]

mod common;

use common::process::pool;
use common::recording::{Document, trace};
use concurrent_futures::{
    ProcessPoolExecutor, Recording, RecordingOptions, Shutdown, StartMethod, TaskOptions,
};
use std::time::Duration;

concurrent_futures::init_before_main!();

/// Returns the nanoseconds of the clock at the begin of the call.
fn stamp(bytes: Vec<u8>) -> (u64, Vec<u8>) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now =
        u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap();
    (now, bytes)
}

fn exit(code: i32) {
    std::process::exit(code);
}

fn fail(text: String) -> Result<(), String> {
    Err(text)
}

fn spin(on: bool) {
    while std::hint::black_box(on) {}
}

fn named(recording: &Recording) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder()
        .max_workers(1)
        .recording(recording)
        .build()
        .unwrap()
}

fn recording() -> Recording {
    RecordingOptions::new().only_named_pools().start()
}

#[test]
fn workers_stamp_the_begin_of_their_calls_on_the_same_clock() {
    let recording = recording();
    let pool = named(&recording);
    let mut moments = Vec::new();
    for length in [0, 10, 100_000, 3_000_000] {
        let (moment, bytes) = pool
            .submit(stamp, vec![7; length])
            .unwrap()
            .result()
            .unwrap();
        assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == 7));
        moments.push(moment);
    }
    pool.submit_fallible(fail, "oh".to_owned())
        .unwrap()
        .result()
        .unwrap_err();
    pool.shutdown(Shutdown::Wait);
    recording.stop();
    let document = Document::of(&recording);
    let rows = document.named("stamp");
    assert_eq!(rows.len(), 4);
    let first = |row: &std::collections::HashMap<String, f64>, moment: u64| {
        #[allow(clippy::cast_precision_loss)]
        let moment = moment as f64;
        (row["start"] - moment, row["end"] - moment)
    };
    // Times count from the begin of the recording: the differences are what tells.
    let offsets: Vec<(f64, f64)> = rows
        .iter()
        .zip(&moments)
        .map(|(row, moment)| first(row, *moment))
        .collect();
    for (start, end) in &offsets {
        // No call began after it looked at the clock, by any of the other calls.
        assert!(
            offsets.iter().all(|(_, other)| start <= other),
            "{offsets:?}"
        );
        assert!(start <= end);
    }
    let bytes = |column: &str| rows.iter().map(|row| row[column]).collect::<Vec<_>>();
    assert!(bytes("sent")[3] >= 3_000_000.0 && bytes("received")[3] >= 3_000_000.0);
    assert!(bytes("sent")[0] < 100.0 && bytes("received")[0] < 100.0);
    let failed = document.named("fail");
    assert_eq!(failed[0]["outcome"], 3.0);
    assert!(document.text(failed[0], "error").contains("oh"));
    let worker = document.worker(rows[0]);
    assert_eq!(worker["exit"]["code"], 0);
    assert_ne!(worker["pid"], std::process::id());
    assert_eq!(document.all["pools"][0]["kind"], "processes");
    trace(&recording);
}

#[test]
fn a_worker_that_dies_leaves_a_row_by_the_clock_of_the_parent() {
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let recording = Recording::start();
        let executor = pool(1, method);
        let options = TaskOptions::new().retries(2).label("thrice");
        executor
            .submit_with(options, exit, 3)
            .unwrap()
            .result()
            .unwrap_err();
        executor.shutdown(Shutdown::Wait);
        recording.stop();
        let document = Document::of(&recording);
        let rows = document.named("exit");
        let rows: Vec<_> = rows
            .iter()
            .filter(|row| document.text(row, "label") == "thrice")
            .collect();
        let outcomes: Vec<_> = rows
            .iter()
            .map(|row| (row["attempt"], row["outcome"]))
            .collect();
        assert_eq!(outcomes, [(0.0, 6.0), (1.0, 6.0), (2.0, 6.0)]);
        for row in rows {
            assert!(row["submit"] <= row["start"] && row["start"] <= row["end"]);
            assert_eq!(document.worker(row)["exit"]["code"], 3);
        }
    }
}

#[test]
fn time_limits_terminations_and_cancellations_are_told_apart() {
    let recording = recording();
    let pool = named(&recording);
    let limit = TaskOptions::new().time_limit(Duration::from_millis(20));
    pool.submit_with(limit, spin, true)
        .unwrap()
        .result()
        .unwrap_err();
    let endless = pool.submit(spin, true).unwrap();
    common::eventually("it runs", || endless.is_running());
    let cancelled = pool.submit(spin, false).unwrap();
    assert!(cancelled.cancel());
    assert!(endless.terminate());
    endless.result().unwrap_err();
    pool.shutdown(Shutdown::Wait);
    recording.stop();
    let document = Document::of(&recording);
    let mut outcomes: Vec<_> = document
        .named("spin")
        .iter()
        .map(|row| row["outcome"])
        .collect();
    outcomes.sort_by(f64::total_cmp);
    assert_eq!(outcomes, [4.0, 7.0, 8.0]);
    let killed = document.all["workers"].as_array().unwrap().iter();
    assert_eq!(
        killed
            .filter(|worker| worker["exit"]["signal"] == 9)
            .count(),
        2
    );
}
