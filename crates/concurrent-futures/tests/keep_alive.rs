//! Tests of threads that end when they have nothing to do.

mod common;

use common::{Counter, Hold, LONG, eventually, pool};
use concurrent_futures::{Shutdown, ThreadPoolExecutor};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn idle_threads_end_after_keep_alive_and_the_pool_works_on() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(3)
        .keep_alive(Duration::from_millis(1))
        .build()
        .unwrap();
    for round in 0..3 {
        Hold::all_workers_of(&pool)
            .into_iter()
            .for_each(Hold::release);
        eventually("the threads end", || pool.workers() == 0);
        assert_eq!(pool.spawn(move || round).unwrap().result().unwrap(), round);
    }
}

#[test]
fn with_keep_alive_zero_no_task_is_lost() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(2)
        .keep_alive(Duration::ZERO)
        .build()
        .unwrap();
    for n in 0..500 {
        let mut future = pool.spawn(move || n).unwrap();
        assert_eq!(future.result_timeout(LONG).unwrap(), n);
    }
    eventually("the threads end", || pool.workers() == 0);
}

#[test]
fn threads_that_end_and_return_do_not_exceed_the_maximum() {
    let one_pool = || {
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .keep_alive(Duration::from_micros(1))
            .build()
            .unwrap();
        let running = Counter::new();
        for round in 0..3_000_u32 {
            // Comes while the worker searches, sleeps or ends.
            for _ in 0..round % 64 * 64 {
                std::hint::spin_loop();
            }
            // Long enough for a second thread to start meanwhile.
            let futures = [(); 6].map(|()| {
                let running = running.clone();
                let task = move || {
                    let now = running.add();
                    let end = Instant::now() + Duration::from_micros(20);
                    while Instant::now() < end {
                        thread::yield_now();
                    }
                    running.subtract();
                    now
                };
                pool.spawn(task).unwrap()
            });
            for mut future in futures {
                let now = future.result_timeout(LONG).unwrap();
                assert_eq!(now, 1, "two tasks at the same time, round {round}");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(one_pool);
        }
    });
}

#[test]
fn without_keep_alive_threads_stay() {
    let pool = pool(2);
    Hold::all_workers_of(&pool)
        .into_iter()
        .for_each(Hold::release);
    assert_eq!(pool.workers(), 2);
    pool.shutdown(Shutdown::Wait);
    assert_eq!(pool.workers(), 0);
}
