//! Tests of the figures of executors.

mod common;

use common::{Hold, counts, eventually, pool, within_limit};
use concurrent_futures::ThreadPoolExecutor;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn each_task_is_counted_in_its_phase() {
    within_limit(|| {
        let pool = pool(1);
        assert_eq!(pool.stats().workers, 0);
        let held = Hold::worker_of(&pool);
        let pending: Vec<_> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        let failing = pool.spawn_fallible(|| "x".parse::<u8>()).unwrap();
        let panicking = pool.spawn(|| panic!("as the test wants")).unwrap();
        assert_eq!(counts(&pool.stats()), [7, 1, 0, 0, 0]);
        assert!(pending[1].cancel());
        assert!(pending[3].cancel());
        // A second time counts nothing.
        assert!(pending[3].cancel());
        // Before a worker has taken the tasks from the queue.
        assert_eq!(counts(&pool.stats()), [5, 1, 0, 0, 2]);
        drop(held);
        assert!(failing.result().is_err());
        assert!(panicking.result().is_err());
        assert_eq!(counts(&pool.stats()), [0, 0, 4, 2, 2]);
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn a_result_that_a_thread_has_is_counted() {
    within_limit(|| {
        let pool = pool(4);
        for done in 1..2_000 {
            pool.spawn(|| ()).unwrap().result().unwrap();
            assert_eq!(counts(&pool.stats()), [0, 0, done, 0, 0]);
        }
    });
}

#[test]
fn submissions_of_many_threads_are_all_counted() {
    within_limit(|| {
        const THREADS: u64 = 40;
        const TASKS: u64 = 500;
        let pool = pool(1);
        let held = Hold::worker_of(&pool);
        for _ in 0..3 {
            let before = pool.stats().pending;
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| (0..TASKS).for_each(|_| drop(pool.spawn(|| ()))));
                }
            });
            assert_eq!(pool.stats().pending, before + THREADS * TASKS);
        }
        drop(held);
        pool.spawn(|| ()).unwrap().result().unwrap();
        assert_eq!(counts(&pool.stats()), [0, 0, 3 * THREADS * TASKS + 2, 0, 0]);
    });
}

#[test]
fn a_task_that_a_spare_worker_has_begun_is_not_pending() {
    within_limit(|| {
        let pool = std::sync::Arc::new(pool(1));
        let (begin, has_begun) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let outer = pool.spawn({
            let pool = std::sync::Arc::downgrade(&pool);
            move || {
                let pool = pool.upgrade().unwrap();
                let first = pool.spawn(|| 1).unwrap();
                let inner = pool.spawn(move || {
                    begin.send(()).unwrap();
                    let _ = ends.recv();
                });
                drop(pool);
                inner.unwrap().result().unwrap();
                first.result().unwrap()
            }
        });
        has_begun.recv().unwrap();
        let stats = pool.stats();
        assert_eq!((stats.pending, stats.running), (1, 2));
        end.send(()).unwrap();
        assert_eq!(outer.unwrap().result().unwrap(), 1);
        // The worker has passed the task over that the spare worker ran.
        pool.spawn(|| ()).unwrap().result().unwrap();
        assert_eq!(counts(&pool.stats()), [0, 0, 4, 0, 0]);
    });
}

#[test]
fn tasks_of_a_broken_pool_have_failed() {
    within_limit(|| {
        let (broken, breaks) = mpsc::channel::<()>();
        let breaks = std::sync::Mutex::new(breaks);
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .initializer(move || -> Result<(), std::io::Error> {
                let _ = breaks.lock().unwrap().recv();
                Err(std::io::Error::other("as the test wants"))
            })
            .build()
            .unwrap();
        let futures: Vec<_> = (0..3).map(|n| pool.spawn(move || n).unwrap()).collect();
        assert_eq!(counts(&pool.stats()), [3, 0, 0, 0, 0]);
        drop(broken);
        for future in futures {
            assert!(future.result().is_err());
        }
        assert_eq!(counts(&pool.stats()), [0, 0, 0, 3, 0]);
        assert!(pool.spawn(|| ()).is_err());
        assert_eq!(counts(&pool.stats()), [0, 0, 0, 3, 0]);
    });
}

#[test]
fn a_refused_submission_is_not_counted() {
    let pool = pool(1);
    pool.shutdown(concurrent_futures::Shutdown::Wait);
    for _ in 0..3 {
        assert!(pool.spawn(|| ()).is_err());
    }
    assert_eq!(counts(&pool.stats()), [0; 5]);
}

#[test]
fn tasks_that_a_shutdown_cancels_are_counted() {
    within_limit(|| {
        let pool = pool(1);
        let held = Hold::worker_of(&pool);
        let futures: Vec<_> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        assert!(futures[2].cancel());
        pool.shutdown(concurrent_futures::Shutdown::CancelPendingNoWait);
        assert_eq!(counts(&pool.stats()), [0, 1, 0, 0, 5]);
        drop(held);
        drop(futures);
    });
}

#[test]
fn a_worker_in_the_place_of_an_idle_one_that_ended_is_a_restart() {
    within_limit(|| {
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .keep_alive(Duration::from_millis(1))
            .build()
            .unwrap();
        for restarts in 0..5 {
            pool.spawn(|| ()).unwrap().result().unwrap();
            assert_eq!(pool.stats().restarts, restarts);
            eventually("the worker has ended", || pool.stats().workers == 0);
        }
    });
}

#[test]
fn times_are_measured_from_the_first_call_on() {
    within_limit(|| {
        let pool = pool(1);
        for _ in 0..10 {
            pool.spawn(|| ()).unwrap().result().unwrap();
        }
        assert_eq!(pool.stats().queued.count, 0);
        let begin = Instant::now();
        let held = Hold::worker_of(&pool);
        let first = Instant::now();
        let mut futures = vec![pool.spawn(|| ()).unwrap()];
        let second = Instant::now();
        futures.extend((0..99).map(|_| pool.spawn(|| ()).unwrap()));
        while second.elapsed() < Duration::from_millis(2) {
            thread::yield_now();
        }
        let busy = pool.stats();
        assert!(busy.busy >= Duration::from_millis(2), "{busy:?}");
        let waited = second.elapsed();
        drop(held);
        for future in futures {
            future.result().unwrap();
        }
        let stats = pool.stats();
        let most = first.elapsed();
        // 100, and the one that held the worker.
        assert_eq!(stats.queued.count, 101);
        assert!(stats.queued.longest >= waited, "{stats:?}");
        assert!(
            stats.queued.longest <= begin.elapsed(),
            "{stats:?} {most:?}"
        );
        assert!(stats.queued.p50 <= stats.queued.p95 && stats.queued.p95 <= stats.queued.p99);
        assert!(stats.queued.p99 <= stats.queued.longest);
        assert!(
            stats.busy >= waited && stats.busy <= stats.measured,
            "{stats:?}"
        );
    });
}

#[test]
fn the_figures_of_many_pending_tasks_are_exact() {
    within_limit(|| {
        const TASKS: u64 = 200_000;
        let pool = pool(1);
        pool.stats();
        let held = Hold::worker_of(&pool);
        for _ in 0..TASKS {
            drop(pool.spawn(|| ()));
        }
        assert_eq!(pool.stats().pending, TASKS);
        drop(held);
        pool.spawn(|| ()).unwrap().result().unwrap();
        let stats = pool.stats();
        assert_eq!((stats.finished, stats.queued.count), (TASKS + 2, TASKS + 2));
    });
}
