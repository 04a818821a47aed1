//! Tests under a subscriber of `tracing` that panics at each event, also in worker processes.

mod common;

#[cfg(target_os = "linux")]
use common::memory::{in_own_process, pool_with_large_stacks, without_another_stack};
use common::{Counter, Hold, LONG};
use concurrent_futures::{Observer, Shutdown, ThreadPoolExecutor, promise};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use tracing::span;

/// The number of events that have made the subscriber panic.
static EVENTS: AtomicUsize = AtomicUsize::new(0);

/// A panic whose value panics when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("the value of a panic panics");
    }
}

struct Full;

impl tracing::Subscriber for Full {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        let is_odd = EVENTS.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        assert!(is_odd, "the log is full");
        panic_any(Payload);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing::subscriber::set_global_default(Full).unwrap();
    });
}

/// Calls `f`, which makes the subscriber panic, and lets nothing unwind.
fn logging<R>(f: impl FnOnce() -> R) -> R {
    install();
    let before = EVENTS.load(Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(f)).expect("nothing unwinds");
    assert!(EVENTS.load(Ordering::Relaxed) > before);
    result
}

#[test]
fn a_promise_is_done_and_its_other_callbacks_run() {
    let runs = Counter::new();
    let future = logging(|| {
        let (promise, future) = promise();
        for _ in 0..3 {
            let runs = runs.clone();
            future.add_done_callback(move |_| {
                runs.add();
                panic!("a callback panics");
            });
        }
        promise.set_result(5).unwrap();
        future
    });
    assert_eq!(runs.get(), 3);
    assert_eq!(future.result().unwrap(), 5);
}

#[test]
fn a_task_that_waits_for_another_goes_on() {
    logging(|| {
        let pool = Arc::new(
            ThreadPoolExecutor::builder()
                .max_workers(1)
                .build()
                .unwrap(),
        );
        let ours = Arc::clone(&pool);
        let (keep, never) = promise::<()>();
        let (started, has_started) = promise::<()>();
        let mut outer = pool
            .spawn(move || {
                let inner = ours.spawn(|| 1).unwrap();
                inner.add_done_callback(|_| panic!("a callback panics"));
                let value = catch_unwind(AssertUnwindSafe(|| inner.result()));
                started.set_result(()).unwrap();
                // A wait of the same worker, for something else.
                let _ = never.exception();
                value.expect("nothing unwinds").unwrap()
            })
            .unwrap();
        has_started.result().unwrap();
        drop(keep);
        assert_eq!(outer.result_timeout(LONG).unwrap(), 1);
    });
}

#[test]
fn observers_and_destructors_that_panic_stop_no_task() {
    struct Broken;
    impl Observer for Broken {
        fn submitted(&self, _: concurrent_futures::FutureId) {
            panic!("an observer panics");
        }
        fn started(&self, _: concurrent_futures::FutureId) {
            panic_any(Payload);
        }
        fn finished(&self, _: concurrent_futures::FutureId) {
            panic!("an observer panics");
        }
    }
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor panics");
        }
    }
    logging(|| {
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .observer(Broken)
            .build()
            .unwrap();
        let hold = Hold::worker_of(&pool);
        let bomb = Bomb;
        let cancelled = pool.spawn(move || drop(bomb)).unwrap();
        assert!(cancelled.cancel());
        // No code takes its outcome.
        drop(pool.spawn(|| Bomb).unwrap());
        let value = pool.spawn(|| 3).unwrap();
        hold.release();
        assert_eq!(value.result().unwrap(), 3);
        pool.shutdown(Shutdown::Wait);
    });
}

/// Runs in a process of its own, as the limit is one of the whole process.
#[cfg(target_os = "linux")]
#[test]
fn a_scope_waits_for_a_task_whose_worker_could_not_start() {
    if !in_own_process("a_scope_waits_for_a_task_whose_worker_could_not_start") {
        return;
    }
    let pool = pool_with_large_stacks();
    let mut hold = Some(Hold::worker_of(&pool));
    let text = String::from("borrowed");
    let length = logging(|| {
        pool.scope(|scope| {
            let spawn = || scope.spawn(|| text.len());
            let future = without_another_stack(spawn).unwrap();
            assert_eq!((pool.workers(), future.is_done()), (1, false));
            hold.take().unwrap().release();
            future.result().unwrap()
        })
    });
    assert_eq!(length, text.len());
    pool.shutdown(Shutdown::Wait);
}

#[cfg(all(feature = "process", target_os = "linux"))]
mod processes {
    use super::common::eventually;
    use super::common::process::{death, pid, pool, start_methods};
    use super::logging;

    concurrent_futures::init_before_main!();

    fn exit(code: i32) {
        std::process::exit(code)
    }

    #[test]
    fn a_pool_of_processes_outlives_the_death_of_its_workers() {
        for method in start_methods() {
            logging(|| {
                let pool = pool(2, method);
                for _ in 0..3 {
                    death(pool.submit(exit, 3).unwrap());
                }
                let first = pid(&pool);
                eventually("the workers are replaced", || pid(&pool) > 0);
                assert!(first > 0);
                pool.shutdown(concurrent_futures::Shutdown::Wait);
                assert!(pool.worker_pids().is_empty());
            });
        }
    }
}
