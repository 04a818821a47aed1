//! Recordings of thread pools: their rows, their files, and several at once.

#![cfg(feature = "recording")]
#![allow(clippy::float_cmp, reason = "numbers that were written are read")]

mod common;

use common::recording::{Document, trace};
use common::{Gate, Hold, pool};
use concurrent_futures::{
    Recording, RecordingOptions, Shutdown, TaskError, ThreadPoolExecutor, with_label,
};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Recordings have the tasks of all threads: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(n: u32) -> u32 {
    n + 1
}

fn fail(_: ()) -> Result<(), String> {
    Err("<b>no\nluck</b>".to_owned())
}

#[test]
fn each_task_is_a_row_with_name_worker_times_and_outcome() {
    let _alone = alone();
    let recording = Recording::start();
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .thread_name_prefix("rows")
        .build()
        .unwrap();
    assert_eq!(pool.submit(answer, 1).unwrap().result().unwrap(), 2);
    pool.submit_fallible(fail, ())
        .unwrap()
        .result()
        .unwrap_err();
    let labelled = with_label("page 1", || pool.submit(answer, 2)).unwrap();
    labelled.result().unwrap();
    recording.stop();
    pool.spawn(|| ()).unwrap().result().unwrap();
    let document = Document::of(&recording);
    assert_eq!(document.tasks.len(), 3);
    assert_eq!(document.all["dropped"], 0);
    assert_eq!(document.all["finished"], true);
    assert_eq!(document.all["pools"][0]["name"], "rows");
    let mut last = 0.0;
    for row in &document.tasks {
        let times = [last, row["submit"], row["start"], row["end"]];
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(document.worker(row)["name"], "rows_0");
        last = row["submit"];
    }
    assert!(last <= document.all["duration"].as_f64().unwrap());
    let [first, failed, labelled] = &document.tasks[..] else {
        panic!();
    };
    assert!(document.text(first, "name").ends_with("answer"));
    assert_eq!((first["outcome"], document.text(first, "error")), (2.0, ""));
    assert_eq!(failed["outcome"], 3.0);
    assert!(document.text(failed, "error").contains("<b>no\nluck</b>"));
    assert_eq!(document.text(labelled, "label"), "page 1");
    assert_eq!(document.text(first, "label"), "");
}

#[test]
fn a_recording_that_runs_shows_running_pending_and_cancelled_tasks() {
    let _alone = alone();
    let pool = pool(1);
    // One that began before the recording is shown once it ends.
    let recording = Recording::start();
    let held = Hold::worker_of(&pool);
    let pending = pool.submit(answer, 1).unwrap();
    let cancelled = pool.submit(answer, 2).unwrap();
    assert!(cancelled.cancel());
    let document = Document::of(&recording);
    let outcomes: Vec<f64> = document.tasks.iter().map(|row| row["outcome"]).collect();
    assert_eq!(outcomes, [1.0, 0.0, 4.0]);
    assert!(document.tasks[0]["end"].is_nan() && document.tasks[1]["start"].is_nan());
    assert_eq!(document.all["finished"], false);
    let phases: Vec<String> = trace(&recording)
        .iter()
        .map(|event| event["ph"].to_string())
        .collect();
    assert!(phases.contains(&"\"B\"".to_owned()) && phases.contains(&"\"i\"".to_owned()));
    held.release();
    pending.result().unwrap();
    let document = Document::of(&recording);
    let outcomes: Vec<f64> = document.tasks.iter().map(|row| row["outcome"]).collect();
    assert_eq!(outcomes, [2.0, 2.0, 4.0]);
}

#[test]
fn a_wait_of_a_task_names_waiter_and_awaited() {
    let _alone = alone();
    let pool = std::sync::Arc::new(pool(2));
    let gate = Gate::new();
    let recording = Recording::start();
    let (inner_pool, inner_gate) = (std::sync::Arc::clone(&pool), gate.clone());
    let outer = pool
        .spawn(move || {
            let inner = inner_pool.spawn(move || inner_gate.wait()).unwrap();
            inner.result()
        })
        .unwrap();
    common::eventually("the wait is shown", || {
        let document = Document::of(&recording);
        document.waits.len() == 1 && document.waits[0]["end"].is_nan()
    });
    gate.open();
    outer.result().unwrap().unwrap();
    recording.stop();
    let document = Document::of(&recording);
    let [wait] = &document.waits[..] else {
        panic!("{:?}", document.waits);
    };
    assert!(wait["start"] <= wait["end"]);
    let row = |number: f64| {
        document
            .tasks
            .iter()
            .find(|row| row["task"] == number)
            .unwrap()
    };
    let (waiter, awaited) = (row(wait["waiter"]), row(wait["awaited"]));
    assert_eq!(awaited["parent"], waiter["task"]);
    assert_eq!(waiter["parent"], 0.0);
    assert!(wait["start"] >= waiter["start"] && wait["end"] <= waiter["end"]);
    let arrows = trace(&recording);
    let arrows = arrows.iter().filter(|event| event["cat"] == "wait");
    assert_eq!(arrows.count(), 2);
    drop(pool);
}

#[test]
fn a_task_that_is_failed_without_being_started_says_so() {
    let _alone = alone();
    let recording = Recording::start();
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(|| Err::<(), _>("no"))
        .build()
        .unwrap();
    let task = pool.submit(answer, 1);
    if let Ok(task) = task {
        assert!(matches!(task.result(), Err(TaskError::Broken(_))));
        let document = Document::of(&recording);
        assert_eq!(document.tasks[0]["outcome"], 5.0);
        assert!(document.tasks[0]["start"].is_nan());
    }
}

#[test]
fn the_oldest_records_are_dropped_and_counted() {
    let _alone = alone();
    let recording = RecordingOptions::new().records_per_thread(1).start();
    let pool = pool(1);
    for n in 0..5000 {
        pool.submit(answer, n).unwrap().result().unwrap();
    }
    recording.stop();
    let document = Document::of(&recording);
    let dropped = document.all["dropped"].as_u64().unwrap();
    // Each task has a record of its submission and one of its run, in two threads.
    assert!((5000..10_000).contains(&dropped), "{dropped}");
    let last = document.tasks.iter().filter(|row| row["start"].is_finite());
    assert!(last.clone().count() >= 1000);
    assert!(
        last.clone()
            .all(|row| document.text(row, "name").ends_with("answer"))
    );
}

#[test]
fn recordings_at_once_have_the_tasks_of_their_time() {
    let _alone = alone();
    let (first_pool, second_pool) = (pool(1), pool(1));
    let outer = Recording::start();
    first_pool.spawn(|| ()).unwrap().result().unwrap();
    let inner = Recording::start();
    second_pool.spawn(|| ()).unwrap().result().unwrap();
    inner.stop();
    inner.stop();
    first_pool.spawn(|| ()).unwrap().result().unwrap();
    assert!(outer.is_running() && !inner.is_running());
    outer.stop();
    first_pool.spawn(|| ()).unwrap().result().unwrap();
    assert_eq!(Document::of(&inner).tasks.len(), 1);
    assert_eq!(Document::of(&outer).tasks.len(), 3);
    // Nothing is left of them for the next one.
    let next = Recording::start();
    assert_eq!(Document::of(&next).tasks.len(), 0);
}

#[test]
fn a_recording_of_named_pools_leaves_out_the_others() {
    let _alone = alone();
    let recording = RecordingOptions::new().only_named_pools().start();
    let named = ThreadPoolExecutor::builder()
        .max_workers(1)
        .recording(&recording)
        .build()
        .unwrap();
    let other = pool(1);
    other.spawn(|| ()).unwrap().result().unwrap();
    named.submit(answer, 1).unwrap().result().unwrap();
    let document = Document::of(&recording);
    assert_eq!(document.tasks.len(), 1);
    assert_eq!(document.named("answer").len(), 1);
    assert_eq!(document.all["pools"].as_array().unwrap().len(), 1);
}

#[test]
fn many_threads_are_recorded_completely() {
    let _alone = alone();
    let recording = Recording::start();
    let pool = pool(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..2000 {
                    pool.submit(answer, n).unwrap().result().unwrap();
                }
            });
        }
    });
    pool.shutdown(Shutdown::Wait);
    recording.stop();
    let document = Document::of(&recording);
    assert_eq!(document.tasks.len(), 8000);
    assert!(
        document
            .tasks
            .iter()
            .all(|row| row["outcome"] == 2.0 && row["submit"] <= row["start"])
    );
    let workers = document.all["workers"].as_array().unwrap();
    assert!(
        workers.iter().all(|worker| worker["end"].is_number()),
        "{workers:?}"
    );
    assert_eq!(
        trace(&recording)
            .iter()
            .filter(|event| event["ph"] == "X")
            .count(),
        8000
    );
}

#[test]
fn times_are_those_of_the_systems_clock() {
    let _alone = alone();
    let recording = Recording::start();
    let pool = pool(1);
    let outer = Instant::now();
    let task = pool.spawn(|| {
        let inner = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        inner.elapsed()
    });
    let inner = task.unwrap().result().unwrap();
    let outer = outer.elapsed();
    recording.stop();
    let document = Document::of(&recording);
    let row = &document.tasks[0];
    let (run, all) = (row["end"] - row["start"], row["end"] - row["submit"]);
    // Far less than a wrong rate would make of it.
    let slack = 1e6;
    assert!(run + slack >= inner.as_secs_f64() * 1e9, "{run} {inner:?}");
    assert!(all <= outer.as_secs_f64() * 1e9 + slack, "{all} {outer:?}");
}

#[test]
fn a_file_is_there_as_a_whole_or_as_it_was() {
    let _alone = alone();
    let folder = std::env::temp_dir().join(format!("cf-recording-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let recording = Recording::start();
    pool(1).spawn(|| ()).unwrap().result().unwrap();
    recording.stop();
    let path = folder.join("run.json");
    recording.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"displayTimeUnit\""));
    let columns = folder.join("run.columns.json");
    recording.save(&columns).unwrap();
    assert!(
        fs::read_to_string(&columns)
            .unwrap()
            .contains("\"tasks\":{\"count\":1")
    );
    let error = recording.save(folder.join("run.txt")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let error = recording.save(folder.join("none/run.json")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    fs::remove_dir_all(folder).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_the_writer() {
    let _alone = alone();
    let recording = Recording::start();
    pool(1).spawn(|| ()).unwrap().result().unwrap();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let error = recording.write_columns(&full).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let error = recording.write_trace(&full).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    // The recording goes on.
    pool(1).spawn(|| ()).unwrap().result().unwrap();
    assert_eq!(Document::of(&recording).tasks.len(), 2);
}
