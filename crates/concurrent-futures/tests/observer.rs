//! Tests of the events that an observer of a pool receives.

mod common;

use common::Hold;
use concurrent_futures::{Future, FutureId, Observer, Shutdown, ThreadPoolExecutor};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Log(Mutex<Vec<(&'static str, FutureId)>>);

impl Observer for Log {
    fn submitted(&self, future: FutureId) {
        self.0.lock().unwrap().push(("submitted", future));
    }
    fn started(&self, future: FutureId) {
        self.0.lock().unwrap().push(("started", future));
    }
    fn finished(&self, future: FutureId) {
        self.0.lock().unwrap().push(("finished", future));
    }
}

#[test]
fn an_observer_sees_each_task_submitted_started_and_finished() {
    let log = Arc::new(Log::default());
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let held = Hold::worker_of(&pool);
    let id = held.future().id();
    let task: Future<()> = pool.spawn(|| panic!("observed")).unwrap();
    let not_run = pool.spawn(|| ()).unwrap();
    assert!(not_run.cancel());
    held.release();
    pool.shutdown(Shutdown::Wait);
    let expected = [
        ("submitted", id),
        ("started", id),
        ("submitted", task.id()),
        ("submitted", not_run.id()),
        ("finished", id),
        ("started", task.id()),
        ("finished", task.id()),
    ];
    let log = log.0.lock().unwrap();
    assert_eq!(
        log.iter().collect::<HashSet<_>>(),
        expected.iter().collect()
    );
    let seen: Vec<_> = log
        .iter()
        .filter(|(_, id)| *id == task.id())
        .map(|(what, _)| *what)
        .collect();
    assert_eq!(seen, ["submitted", "started", "finished"]);
}

#[test]
fn a_panicking_observer_affects_no_task() {
    struct Panics;
    impl Observer for Panics {
        fn submitted(&self, _: FutureId) {
            panic!("submitted");
        }
        fn started(&self, _: FutureId) {
            panic!("started");
        }
        fn finished(&self, _: FutureId) {
            panic!("finished");
        }
    }
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .observer(Panics)
        .build()
        .unwrap();
    for n in 0..3 {
        assert_eq!(pool.spawn(move || n).unwrap().result().unwrap(), n);
    }
    assert_eq!(pool.workers(), 1);
}
