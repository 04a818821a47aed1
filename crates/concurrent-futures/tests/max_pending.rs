//! Tests of the bound on pending tasks.

#![cfg(feature = "process")]

mod common;

use common::{Counter, Gate, Hold, LONG, receive, within_limit};
use concurrent_futures::{Executor, Future, Shutdown, SubmitError, TaskError, ThreadPoolExecutor};
use std::sync::{Arc, mpsc};
use std::thread;

fn bounded(max_workers: usize, max_pending: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder()
        .max_workers(max_workers)
        .max_pending(max_pending)
        .build()
        .unwrap()
}

fn is_full(pool: &ThreadPoolExecutor) -> bool {
    match pool.try_spawn(|| ()) {
        Ok(future) => {
            future.cancel();
            false
        }
        Err(rejected) => {
            assert!(matches!(rejected.error(), SubmitError::Full));
            true
        }
    }
}

#[test]
fn running_tasks_hold_no_permit_and_pending_tasks_do() {
    let pool = bounded(1, 2);
    let _hold = Hold::worker_of(&pool);
    assert!(!is_full(&pool));
    let first = pool.spawn(|| 1).unwrap();
    assert!(!is_full(&pool));
    let _second = pool.spawn(|| 2).unwrap();
    assert!(is_full(&pool));
    assert!(first.cancel());
    assert!(!is_full(&pool));
}

#[test]
fn try_spawn_gives_the_closure_back() {
    let pool = bounded(1, 1);
    let hold = Hold::worker_of(&pool);
    let pending = pool.spawn(|| 1).unwrap();
    let text = String::from("moved in");
    let rejected = pool.try_spawn(move || text).unwrap_err();
    assert_eq!(
        rejected.to_string(),
        "the executor has as many pending tasks as `max_pending` allows; submit again when one has started"
    );
    assert!(format!("{rejected:?}").contains("Full"));
    let task = rejected.into_task();
    hold.release();
    assert_eq!(pending.result().unwrap(), 1);
    assert_eq!(pool.spawn(task).unwrap().result().unwrap(), "moved in");
}

/// Submits in a thread, and reports when the submission is over.
fn submit_in_thread(
    pool: &Arc<ThreadPoolExecutor>,
) -> (
    mpsc::Receiver<Result<Future<u8>, SubmitError>>,
    thread::JoinHandle<()>,
) {
    let (sender, submitted) = mpsc::channel();
    let pool = Arc::clone(pool);
    let thread = thread::spawn(move || sender.send(pool.submit(|n| n, 7)).unwrap());
    (submitted, thread)
}

#[test]
fn submit_waits_until_a_worker_takes_a_pending_task() {
    let pool = Arc::new(bounded(1, 1));
    let hold = Hold::worker_of(&pool);
    let gate = Gate::new();
    let pending = pool
        .spawn({
            let gate = gate.clone();
            move || gate.wait()
        })
        .unwrap();
    let (submitted, thread) = submit_in_thread(&pool);
    // It may not even have begun; but it cannot be through.
    assert!(submitted.recv_timeout(common::SHORT).is_err());
    hold.release();
    let future = receive(&submitted).unwrap();
    gate.open();
    assert_eq!(future.result().unwrap(), 7);
    pending.result().unwrap();
    thread.join().unwrap();
}

#[test]
fn cancelling_a_pending_task_makes_room() {
    let pool = Arc::new(bounded(1, 1));
    let hold = Hold::worker_of(&pool);
    let pending = pool.spawn(|| ()).unwrap();
    let (submitted, thread) = submit_in_thread(&pool);
    assert!(submitted.recv_timeout(common::SHORT).is_err());
    assert!(pending.cancel());
    let future = receive(&submitted).unwrap();
    thread.join().unwrap();
    assert!(!future.is_done());
    hold.release();
    assert_eq!(future.result().unwrap(), 7);
}

#[test]
fn a_cancelled_task_has_made_room_when_its_cancellation_returns() {
    let pool = bounded(2, 1);
    for n in 0..20_000 {
        // The worker takes the task meanwhile, or finds that it was cancelled.
        let future = pool.try_spawn(move || n).unwrap();
        if !future.cancel() {
            assert_eq!(future.result().unwrap(), n);
        }
    }
}

#[test]
fn shutdown_refuses_submitters_that_wait_for_room() {
    let pool = Arc::new(bounded(1, 1));
    let hold = Hold::worker_of(&pool);
    let pending = pool.spawn(|| 5).unwrap();
    let (submitted, thread) = submit_in_thread(&pool);
    assert!(submitted.recv_timeout(common::SHORT).is_err());
    pool.shutdown(Shutdown::NoWait);
    assert!(matches!(receive(&submitted), Err(SubmitError::Shutdown)));
    thread.join().unwrap();
    hold.release();
    assert_eq!(pending.result().unwrap(), 5);
}

#[test]
fn the_pools_own_tasks_may_exceed_the_bound() {
    within_limit(|| {
        let pool = Arc::new(bounded(1, 1));
        let weak = Arc::downgrade(&pool);
        let sum = pool.spawn(move || {
            let pool = weak.upgrade().unwrap();
            let futures: Vec<_> = (0..20).map(|n| pool.spawn(move || n).unwrap()).collect();
            assert_eq!(pool.try_spawn(|| 100).unwrap().result().unwrap(), 100);
            futures
                .into_iter()
                .map(|n| n.result().unwrap())
                .sum::<i32>()
        });
        assert_eq!(sum.unwrap().result().unwrap(), 190);
        assert!(!is_full(&pool));
    });
}

#[test]
fn a_bounded_pool_loses_nothing_with_many_submitters() {
    let pool = bounded(2, 3);
    let runs = Counter::new();
    let cancelled = Counter::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..300 {
                    let runs = runs.clone();
                    let future = pool.spawn(move || runs.add()).unwrap();
                    if n % 5 == 0 && future.cancel() {
                        cancelled.add();
                    }
                }
            });
        }
    });
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get() + cancelled.get(), 1_200);
}

#[test]
fn all_places_are_free_again_in_the_end() {
    let pool = bounded(1, 2);
    for round in 0..100 {
        let hold = Hold::worker_of(&pool);
        let first = pool.spawn_fallible(|| Err::<(), _>("no")).unwrap();
        let second: Future<()> = pool.spawn(|| panic!("no")).unwrap();
        assert!(is_full(&pool));
        if round % 2 == 0 {
            assert!(second.cancel());
        }
        hold.release();
        assert!(first.result().is_err());
        assert!(second.result().is_err());
    }
    let _hold = Hold::worker_of(&pool);
    let _pending = pool.spawn(|| 1).unwrap();
    assert!(!is_full(&pool));
}

#[test]
fn map_and_the_generic_interface_wait_for_room_as_well() {
    fn doubled(executor: &impl Executor) -> Vec<u32> {
        let results = executor.map(|n: u32| n * 2, 0..50).unwrap();
        results.map(Result::unwrap).collect()
    }
    let pool = bounded(1, 1);
    assert_eq!(doubled(&pool), (0..50).map(|n| n * 2).collect::<Vec<_>>());
    let buffered = pool.map_buffered(5, |n: u32| n, 0..50).unwrap();
    assert_eq!(buffered.map(Result::unwrap).sum::<u32>(), 1_225);
}

#[test]
fn a_callback_in_the_worker_may_submit_to_a_full_pool() {
    within_limit(|| {
        let pool = Arc::new(bounded(1, 1));
        let hold = Hold::worker_of(&pool);
        let (sender, receiver) = mpsc::channel();
        let weak = Arc::downgrade(&pool);
        let pending = pool.spawn(|| 1).unwrap();
        hold.future().add_done_callback(move |_| {
            // The pending task takes the only place.
            sender
                .send(weak.upgrade().unwrap().spawn(|| 2).unwrap())
                .unwrap();
        });
        hold.release();
        assert_eq!(receive(&receiver).result().unwrap(), 2);
        assert_eq!(pending.result().unwrap(), 1);
    });
}

#[test]
fn a_callback_on_cancellation_may_submit_in_the_place_that_became_free() {
    within_limit(|| {
        let pool = Arc::new(bounded(1, 1));
        let hold = Hold::worker_of(&pool);
        let pending = pool.spawn(|| 1).unwrap();
        let weak = Arc::downgrade(&pool);
        let (sender, receiver) = mpsc::channel();
        pending.add_done_callback(move |result| {
            assert!(matches!(result, Err(TaskError::Cancelled)));
            sender
                .send(weak.upgrade().unwrap().spawn(|| 2).unwrap())
                .unwrap();
        });
        assert!(pending.cancel());
        hold.release();
        let mut future = receive(&receiver);
        assert_eq!(future.result_timeout(LONG).unwrap(), 2);
    });
}
