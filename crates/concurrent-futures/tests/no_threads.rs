//! Tests of pools on a system that refuses to start a thread. Linux only: the limits of other systems differ.

#![cfg(target_os = "linux")]

mod common;

use common::memory::{in_own_process, pool_with_large_stacks, without_another_stack};
use common::{Counter, Hold, LONG, eventually, within_limit};
use concurrent_futures::{MapOptions, Shutdown, SubmitError, TaskError, ThreadPoolExecutor};
use std::sync::{Arc, Barrier};
use std::thread;

/// Makes a pool whose threads cannot be started, as no system has so much address space.
fn pool_without_threads() -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder()
        .max_workers(2)
        .stack_size(1 << 46)
        .max_pending(5)
        .build()
        .unwrap()
}

#[test]
fn without_any_worker_submitting_is_an_error_with_the_cause() {
    let pool = pool_without_threads();
    // More often than tasks may be pending.
    for _ in 0..20 {
        let Err(SubmitError::NoWorker(cause)) = pool.spawn(|| 1) else {
            panic!("accepted")
        };
        assert!(cause.raw_os_error().is_some());
        let refused = pool.submit(|n: u8| n, 1);
        assert!(matches!(refused, Err(SubmitError::NoWorker(_))));
    }
    assert_eq!(pool.workers(), 0);
    let text = pool.spawn(|| 1).unwrap_err().to_string();
    assert!(text.starts_with("no worker could be started"), "{text}");
}

#[test]
fn without_any_worker_try_spawn_gives_the_closure_back() {
    let pool = pool_without_threads();
    let text = String::from("kept");
    let rejected = pool.try_spawn(move || text).unwrap_err();
    assert!(matches!(rejected.error(), SubmitError::NoWorker(_)));
    assert_eq!(rejected.into_task()(), "kept");
}

#[test]
fn without_any_worker_map_and_scope_are_errors() {
    let pool = pool_without_threads();
    assert!(matches!(
        pool.map(|n: u8| n, [1, 2]),
        Err(SubmitError::NoWorker(_))
    ));
    let chunks = pool.map_with(MapOptions::new().chunksize(2), |n: u8| n, [1, 2]);
    assert!(matches!(chunks, Err(SubmitError::NoWorker(_))));
    let buffered = pool.map_buffered(1, |n: u8| n, [1, 2]);
    assert!(matches!(buffered, Err(SubmitError::NoWorker(_))));
    let borrowed = 5;
    pool.scope(|scope| {
        let refused = scope.spawn(|| borrowed);
        assert!(matches!(refused, Err(SubmitError::NoWorker(_))));
    });
}

#[test]
fn without_any_worker_shutting_down_and_dropping_return() {
    within_limit(|| {
        let pool = pool_without_threads();
        assert!(pool.spawn(|| 1).is_err());
        pool.shutdown(Shutdown::Wait);
        assert!(matches!(pool.spawn(|| 1), Err(SubmitError::Shutdown)));
        drop(pool);
        drop(pool_without_threads());
    });
}

#[test]
fn without_any_worker_many_submitters_all_get_an_answer() {
    within_limit(|| {
        let pool = pool_without_threads();
        let runs = Counter::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let runs = runs.clone();
                        // Accepted in the hope for the thread of another submitter, a
                        // task fails when there is none.
                        let error = match pool.spawn(move || runs.add()) {
                            Ok(mut future) => match future.result_timeout(LONG) {
                                Err(TaskError::Rejected(error)) => error,
                                other => panic!("{other:?}"),
                            },
                            Err(error) => error,
                        };
                        assert!(matches!(error, SubmitError::NoWorker(_)));
                    }
                });
            }
        });
        assert_eq!(runs.get(), 0);
    });
}

/// Runs in a process of its own, as the limit is one of the whole process.
#[test]
fn when_a_further_worker_cannot_start_the_others_do_its_work() {
    if !in_own_process("when_a_further_worker_cannot_start_the_others_do_its_work") {
        return;
    }
    let pool = pool_with_large_stacks();
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    let futures: Vec<_> = without_another_stack(|| {
        let submit = |_| {
            let runs = runs.clone();
            pool.spawn(move || runs.add()).unwrap()
        };
        (0..100).map(submit).collect()
    });
    assert_eq!(pool.workers(), 1);
    assert!(futures.iter().all(|future| !future.is_done()));
    hold.release();
    for future in futures {
        future.result().unwrap();
    }
    assert_eq!(runs.get(), 100);

    // Where there is memory again, the second one starts.
    let barrier = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        let barrier = Arc::clone(&barrier);
        drop(pool.spawn(move || barrier.wait().is_leader()).unwrap());
    }
    eventually("the second worker", || pool.workers() == 2);
    pool.shutdown(Shutdown::Wait);
}
