//! Tests of the `Executor` trait, and of the ways to shut an executor down.

#![cfg(feature = "process")]

mod common;

use common::{Counter, Gate, Hold, LONG, pool, within_limit};
use concurrent_futures::{Executor, Future, MapOptions, Shutdown, SubmitError, TaskError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::thread;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    url: String,
    length: usize,
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "what an executor calls takes its argument"
)]
fn parse(text: String) -> Result<u32, std::num::ParseIntError> {
    text.parse()
}

fn load(url: String) -> Page {
    let length = url.len();
    Page { url, length }
}

/// Uses all methods of the interface.
fn use_all(executor: &impl Executor) {
    let page = executor.submit(load, String::from("http://a/")).unwrap();
    assert_eq!(page.result().unwrap().length, 9);
    let number = executor.submit_fallible(parse, String::from("5")).unwrap();
    assert_eq!(number.result().unwrap(), 5);
    let error = executor.submit_fallible(parse, String::from("x")).unwrap();
    assert!(matches!(error.result(), Err(TaskError::Failed(_))));
    let squares = executor.map(|n: u32| n * n, [1, 2, 3]).unwrap();
    assert_eq!(squares.collect::<Result<Vec<_>, _>>().unwrap(), [1, 4, 9]);
    let options = MapOptions::new().chunksize(2).timeout(LONG);
    let chunks = executor.map_with(options, |n: u32| n + 1, 0..5).unwrap();
    assert_eq!(chunks.map(Result::unwrap).sum::<u32>(), 15);
    let endless = executor.map_buffered(3, |n: u64| n, 0..).unwrap();
    assert_eq!(endless.take(4).map(Result::unwrap).sum::<u64>(), 6);
    executor.shutdown(Shutdown::Wait);
    let refused = executor.submit(load, String::new());
    assert!(matches!(refused, Err(SubmitError::Shutdown)));
    let refused = executor.map(|n: u32| n, [1]);
    assert!(matches!(refused, Err(SubmitError::Shutdown)));
    let refused = executor.map_buffered(1, |n: u32| n, [1]);
    assert!(matches!(refused, Err(SubmitError::Shutdown)));
}

#[test]
fn generic_code_runs_on_threads() {
    use_all(&pool(2));
    use_all(&*Arc::new(pool(1)));
}

#[test]
fn dropping_waits_for_all_tasks() {
    let runs = Counter::new();
    {
        let pool = pool(2);
        for _ in 0..100 {
            let runs = runs.clone();
            drop(pool.spawn(move || {
                thread::yield_now();
                runs.add()
            }));
        }
    }
    assert_eq!(runs.get(), 100);
}

#[test]
fn dropping_a_pool_that_never_ran_anything_is_fine() {
    drop(pool(4));
}

#[test]
fn submitting_after_shutdown_is_an_error_value() {
    let pool = pool(1);
    pool.shutdown(Shutdown::Wait);
    let errors = [
        pool.spawn(|| 1).map(drop),
        pool.submit(|n: u8| n, 1).map(drop),
        pool.submit_fallible(str::parse::<u8>, "1").map(drop),
        pool.spawn_fallible(|| "1".parse::<u8>()).map(drop),
        pool.map(|n: u8| n, [1]).map(drop),
        pool.map_with(MapOptions::new().chunksize(2), |n: u8| n, [1])
            .map(drop),
        pool.map_buffered(1, |n: u8| n, [1]).map(drop),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert!(matches!(error, SubmitError::Shutdown));
        assert_eq!(
            error.to_string(),
            "cannot submit to an executor that was shut down"
        );
    }
    let rejected = pool.try_spawn(|| 5).unwrap_err();
    assert!(matches!(rejected.error(), SubmitError::Shutdown));
    assert_eq!(rejected.into_task()(), 5);
    // Nothing to map is nothing to refuse.
    assert_eq!(pool.map(|n: u8| n, []).unwrap().count(), 0);
}

#[test]
fn shutdown_without_waiting_returns_while_tasks_run_and_pending_ones_still_run() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let pending = pool.spawn(|| 5).unwrap();
    pool.shutdown(Shutdown::NoWait);
    assert!(hold.future().is_running());
    assert!(!pending.is_done());
    assert!(matches!(pool.spawn(|| 1), Err(SubmitError::Shutdown)));
    hold.release();
    assert_eq!(pending.result().unwrap(), 5);
}

#[test]
fn shutdown_with_cancellation_cancels_pending_tasks() {
    for wait in [false, true] {
        let pool = pool(1);
        let hold = Hold::worker_of(&pool);
        let runs = Counter::new();
        let pending: Vec<_> = (0..10)
            .map(|_| {
                let runs = runs.clone();
                pool.spawn(move || runs.add()).unwrap()
            })
            .collect();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.shutdown(common::shutdown(wait, true)));
            for future in &pending {
                assert!(matches!(future.exception(), Some(TaskError::Cancelled)));
            }
            assert!(hold.future().is_running());
            if wait {
                assert!(!shutdown.is_finished());
                hold.open();
            }
            shutdown.join().unwrap();
        });
        hold.release();
        pool.shutdown(Shutdown::Wait);
        assert_eq!(runs.get(), 0);
    }
}

#[test]
fn shutdown_with_waiting_returns_when_all_are_done_and_the_threads_have_ended() {
    let pool = pool(2);
    let futures: Vec<_> = (0..100)
        .map(|n| {
            pool.spawn(move || {
                thread::yield_now();
                n
            })
            .unwrap()
        })
        .collect();
    pool.shutdown(Shutdown::Wait);
    assert!(futures.iter().all(Future::is_done));
    assert_eq!(pool.workers(), 0);
}

#[test]
fn shutting_down_again_is_fine_and_can_wait_and_cancel_later() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let pending = pool.spawn(|| 1).unwrap();
    pool.shutdown(Shutdown::NoWait);
    pool.shutdown(Shutdown::NoWait);
    assert!(!pending.is_done());
    pool.shutdown(Shutdown::CancelPendingNoWait);
    assert!(pending.is_cancelled());
    hold.open();
    pool.shutdown(Shutdown::Wait);
    pool.shutdown(Shutdown::CancelPending);
    assert!(hold.future().is_done());
    assert_eq!(pool.workers(), 0);
}

#[test]
fn several_threads_may_shut_down_at_the_same_time() {
    for _ in 0..100 {
        let pool = pool(2);
        let futures: Vec<_> = (0..10).map(|n| pool.spawn(move || n).unwrap()).collect();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    pool.shutdown(Shutdown::Wait);
                    assert!(futures.iter().all(Future::is_done));
                });
            }
        });
    }
}

/// Submits from several threads until the pool, shut down meanwhile, refuses.
fn shutdown_during_submission(wait: bool, cancel_futures: bool) {
    for round in 0..150 {
        let pool = pool(1 + round % 3);
        let runs = Counter::new();
        let begun = Gate::new();
        let accepted: Vec<Vec<Future<usize>>> = thread::scope(|scope| {
            let submitters: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut accepted = Vec::new();
                        loop {
                            let runs = runs.clone();
                            match pool.spawn(move || runs.add()) {
                                Ok(future) => accepted.push(future),
                                Err(error) => {
                                    assert!(matches!(error, SubmitError::Shutdown));
                                    return accepted;
                                }
                            }
                            begun.open();
                        }
                    })
                })
                .collect();
            begun.wait();
            pool.shutdown(common::shutdown(wait, cancel_futures));
            let accepted = submitters.into_iter().map(|thread| thread.join().unwrap());
            accepted.collect()
        });
        let mut accepted: Vec<_> = accepted.into_iter().flatten().collect();
        for future in &mut accepted {
            let done = wait || future.exception_timeout(LONG).is_ok();
            assert!(
                done,
                "an accepted future is never done: {future:?}, round {round}"
            );
        }
        pool.shutdown(Shutdown::Wait);
        assert!(accepted.iter().all(Future::is_done));
        let cancelled = accepted
            .iter()
            .filter(|future| future.is_cancelled())
            .count();
        assert!(cancel_futures || cancelled == 0);
        assert_eq!(runs.get() + cancelled, accepted.len());
    }
}

#[test]
fn after_shutdown_with_waiting_all_accepted_futures_are_done() {
    within_limit(|| shutdown_during_submission(true, false));
}

#[test]
fn after_shutdown_without_waiting_all_accepted_futures_are_done_in_the_end() {
    shutdown_during_submission(false, false);
}

#[test]
fn after_shutdown_with_cancellation_all_accepted_futures_are_done_in_the_end() {
    shutdown_during_submission(false, true);
    within_limit(|| shutdown_during_submission(true, true));
}

/// Checks that a task is run that was accepted between the worker's look at the queue and its look at the
/// flag.
#[test]
fn a_task_accepted_in_the_moment_of_shutdown_is_done_without_further_calls() {
    for round in 0..5_000_usize {
        // Forgotten if it fails, since its drop would finish what the worker has left.
        let pool = pool(1);
        drop(pool.spawn(|| ()).unwrap().result());
        let go = std::sync::atomic::AtomicBool::new(false);
        let accepted = thread::scope(|scope| {
            let submitter = scope.spawn(|| {
                while !go.load(std::sync::atomic::Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                for _ in 0..round % 50 {
                    std::hint::spin_loop();
                }
                pool.spawn(|| 1)
            });
            go.store(true, std::sync::atomic::Ordering::Release);
            pool.shutdown(Shutdown::NoWait);
            submitter.join().unwrap()
        });
        if let Ok(mut future) = accepted {
            let result = future.result_timeout(LONG);
            assert!(result.is_ok(), "{result:?} in round {round}");
        }
    }
}
