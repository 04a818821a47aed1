//! Recordings to files that grow.

#![cfg(feature = "recording")]
#![allow(clippy::float_cmp, reason = "numbers that were written are read")]

mod common;

use common::recording::{Document, trace};
use common::{Hold, pool};
use concurrent_futures::{Recording, RecordingOptions, ThreadPoolExecutor};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

/// Recordings have the tasks of all threads: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(n: u32) -> u32 {
    n + 1
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cf-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn text(recording: &Recording) -> String {
    let mut text = Vec::new();
    recording.write_columns(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_file_has_at_any_time_what_happened_before() {
    let _alone = alone();
    let folder = Folder::new("grows");
    let path = folder.0.join("run.recording");
    let recording = RecordingOptions::new().start_to_file(&path).unwrap();
    let pool = pool(1);
    pool.submit(answer, 1).unwrap().result().unwrap();
    let held = Hold::worker_of(&pool);
    let pending = pool.submit(answer, 2).unwrap();
    // Without a request of the program.
    common::eventually("the tasks are in the file", || {
        Document::of(&Recording::open(&path).unwrap()).tasks.len() == 3
    });
    let opened = Recording::open(&path).unwrap();
    let document = Document::of(&opened);
    let outcomes: Vec<f64> = document.tasks.iter().map(|row| row["outcome"]).collect();
    assert_eq!(outcomes, [2.0, 1.0, 0.0]);
    assert_eq!(document.all["finished"], false);
    assert!(!opened.is_running() && opened.error().is_none());
    held.release();
    pending.result().unwrap();
    // A recording that is written flushes its file first.
    assert_eq!(Document::of(&recording).tasks.len(), 3);
    drop(pool);
    recording.stop();
    recording.stop();
    assert!(!recording.is_running() && recording.error().is_none());
    let opened = Recording::open(&path).unwrap();
    assert_eq!(text(&opened), text(&recording));
    let document = Document::of(&opened);
    assert!(document.tasks.iter().all(|row| row["outcome"] == 2.0));
    assert_eq!(document.all["finished"], true);
    assert_eq!(document.all["pid"], std::process::id());
    assert!(
        document
            .text(&document.tasks[0], "name")
            .ends_with("answer")
    );
    assert!(document.all["workers"][0]["end"].is_number());
    trace(&opened);
}

#[test]
fn a_file_has_more_records_than_the_buffers_keep() {
    let _alone = alone();
    let folder = Folder::new("large");
    let path = folder.0.join("run.recording");
    let options = RecordingOptions::new().records_per_thread(1);
    let recording = options.start_to_file(&path).unwrap();
    let pool = pool(1);
    for n in 0..6000 {
        pool.submit(answer, n).unwrap().result().unwrap();
        if n % 300 == 0 {
            text(&recording);
        }
    }
    recording.stop();
    let document = Document::of(&recording);
    assert_eq!(document.all["dropped"], 0);
    assert_eq!(document.tasks.len(), 6000);
}

#[test]
fn a_dropped_recording_is_complete() {
    let _alone = alone();
    let folder = Folder::new("dropped");
    let path = folder.0.join("run.recording");
    let recording = RecordingOptions::new()
        .only_named_pools()
        .start_to_file(&path)
        .unwrap();
    let named = ThreadPoolExecutor::builder()
        .max_workers(1)
        .recording(&recording)
        .build()
        .unwrap();
    pool(1).spawn(|| ()).unwrap().result().unwrap();
    named.submit(answer, 1).unwrap().result().unwrap();
    drop(named);
    drop(recording);
    let document = Document::of(&Recording::open(&path).unwrap());
    assert_eq!(document.tasks.len(), 1);
    assert_eq!(document.named("answer").len(), 1);
    assert_eq!(document.all["pools"].as_array().unwrap().len(), 1);
    assert_eq!(document.all["finished"], true);
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_an_error() {
    let _alone = alone();
    let folder = Folder::new("errors");
    let options = RecordingOptions::new();
    let error = options
        .start_to_file(folder.0.join("none/run"))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    if cfg!(target_os = "linux") {
        let error = options.start_to_file("/dev/full").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = Recording::open("/dev/full").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
    let other = folder.0.join("other");
    fs::write(&other, "[1]\n").unwrap();
    let error = Recording::open(&other).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // Nothing of them is left: another recording begins alone.
    let recording = options.records_per_thread(1).start();
    assert_eq!(Document::of(&recording).tasks.len(), 0);
}
