//! Tests of the handle of one task: asking, waiting, cancelling, looking.

mod common;

use common::{Counter, Gate, Hold, LONG, SHORT, eventually, pool};
use concurrent_futures::{Future, Shutdown, TaskError, promise};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[test]
fn a_submitted_task_is_pending_then_running_then_finished() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let (started, go) = (Gate::new(), Gate::new());
    let future = pool
        .spawn({
            let (started, go) = (started.clone(), go.clone());
            move || {
                started.open();
                go.wait();
                7
            }
        })
        .unwrap();
    let states =
        |future: &Future<i32>| (future.is_running(), future.is_done(), future.is_cancelled());
    assert_eq!(states(&future), (false, false, false));
    assert!(future.peek().is_none());

    hold.release();
    started.wait();
    assert_eq!(states(&future), (true, false, false));
    assert!(future.peek().is_none());

    go.open();
    assert!(future.exception().is_none());
    assert_eq!(states(&future), (false, true, false));
    assert_eq!(future.result().unwrap(), 7);
}

#[test]
fn a_cancelled_future_never_runs() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    let futures: Vec<_> = (0..10)
        .map(|_| {
            let runs = runs.clone();
            pool.spawn(move || runs.add()).unwrap()
        })
        .collect();
    for future in futures.iter().step_by(2) {
        assert!(future.cancel());
        assert!(future.is_cancelled());
        assert!(future.is_done());
        assert!(!future.is_running());
    }
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 5);
    for (index, future) in futures.into_iter().enumerate() {
        let result = future.result();
        assert_eq!(index % 2 == 0, matches!(result, Err(TaskError::Cancelled)));
    }
}

#[test]
fn cancel_is_refused_while_the_task_runs_and_when_it_has_finished() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    assert!(!hold.future().cancel());
    assert!(!hold.future().is_cancelled());
    hold.open();
    assert!(hold.future().exception().is_none());
    assert!(!hold.future().cancel());
    assert!(!hold.future().is_cancelled());
}

#[test]
fn cancelling_again_is_true_again() {
    let (_promise, future) = promise::<()>();
    assert!(future.cancel());
    assert!(future.cancel());
}

#[test]
fn a_cancelled_future_says_so_in_every_way() {
    let (_promise, mut future) = promise::<u8>();
    assert!(future.cancel());
    assert!(matches!(future.peek(), Some(Err(TaskError::Cancelled))));
    assert!(matches!(future.exception(), Some(TaskError::Cancelled)));
    let exception = future.exception_timeout(Duration::ZERO);
    assert!(matches!(exception, Ok(Some(TaskError::Cancelled))));
    for _ in 0..2 {
        let result = future.result_timeout(Duration::ZERO);
        assert!(matches!(result, Err(TaskError::Cancelled)));
    }
    assert!(matches!(future.result(), Err(TaskError::Cancelled)));
}

#[test]
fn cancelling_wakes_the_waiting_thread() {
    let (_promise, future) = promise::<()>();
    let future = Arc::new(future);
    let waiting = thread::spawn({
        let future = Arc::clone(&future);
        move || future.exception()
    });
    assert!(future.cancel());
    let exception = waiting.join().unwrap();
    assert!(matches!(exception, Some(TaskError::Cancelled)));
}

#[test]
fn of_a_start_and_a_cancellation_at_the_same_time_exactly_one_wins() {
    let pool = pool(2);
    for _ in 0..2_000 {
        let runs = Counter::new();
        let future = pool
            .spawn({
                let runs = runs.clone();
                move || runs.add()
            })
            .unwrap();
        let cancelled = future.cancel();
        let result = future.result();
        assert_eq!(cancelled, matches!(result, Err(TaskError::Cancelled)));
        assert_eq!(runs.get(), usize::from(!cancelled));
    }
}

#[test]
fn of_many_cancellations_at_the_same_time_all_agree() {
    let pool = pool(1);
    for _ in 0..200 {
        let future = pool.spawn(|| 1).unwrap();
        let answers: Vec<bool> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| future.cancel())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let cancelled = future.result().is_err();
        assert!(
            answers.iter().all(|&answer| answer == cancelled),
            "{answers:?}"
        );
    }
}

#[test]
fn result_waits_for_the_task() {
    let (promise, future) = promise();
    let waiting = thread::spawn(|| future.result());
    promise.set_result(5).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), 5);
}

#[test]
fn a_time_limit_that_passes_loses_nothing() {
    let (promise, mut future) = promise();
    for limit in [Duration::ZERO, SHORT, SHORT] {
        assert!(matches!(
            future.result_timeout(limit),
            Err(TaskError::Timeout)
        ));
        assert!(!future.is_done());
    }
    promise.set_result(String::from("late")).unwrap();
    assert_eq!(future.result_timeout(Duration::ZERO).unwrap(), "late");
}

#[test]
fn a_time_limit_races_with_the_end_of_the_task() {
    let pool = pool(2);
    for round in 0..1_000_u64 {
        let mut future = pool.spawn(move || round).unwrap();
        let limit = Duration::from_micros(round % 30);
        let value = loop {
            match future.result_timeout(limit) {
                Err(TaskError::Timeout) => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(value, round);
    }
}

#[test]
fn huge_time_limits_are_none() {
    let limits = [Duration::MAX, Duration::from_secs(u64::MAX / 4)];
    for limit in limits {
        let pool = pool(1);
        let hold = Hold::worker_of(&pool);
        let mut future = pool.spawn(|| 3).unwrap();
        let waiting = thread::spawn(move || {
            assert!(future.exception_timeout(limit).unwrap().is_none());
            future.result_timeout(limit)
        });
        hold.release();
        assert_eq!(waiting.join().unwrap().unwrap(), 3);
    }
}

#[test]
fn a_result_is_given_once() {
    let (promise, mut future) = promise();
    promise.set_result(Box::new(1)).unwrap();
    assert_eq!(*future.result_timeout(LONG).unwrap(), 1);
    assert!(matches!(future.result_timeout(LONG), Err(TaskError::Taken)));
    assert!(matches!(future.peek(), Some(Err(TaskError::Taken))));
    assert!(matches!(future.exception(), Some(TaskError::Taken)));
    assert!(future.is_done());
    assert!(matches!(future.result(), Err(TaskError::Taken)));
}

#[test]
fn exception_tells_the_error_and_takes_nothing() {
    let pool = pool(1);
    let fine = pool.spawn(|| 1).unwrap();
    assert!(fine.exception().is_none());
    assert!(fine.exception_timeout(LONG).unwrap().is_none());
    assert_eq!(fine.result().unwrap(), 1);

    let failed = pool.submit_fallible(str::parse::<u8>, "x").unwrap();
    assert!(matches!(failed.exception(), Some(TaskError::Failed(_))));
    let exception = failed.exception_timeout(LONG).unwrap();
    assert!(matches!(exception, Some(TaskError::Failed(_))));
    assert!(matches!(failed.result(), Err(TaskError::Failed(_))));
}

#[test]
fn exception_with_a_time_limit_that_passes_is_a_timeout() {
    let (promise, future) = promise();
    for limit in [Duration::ZERO, SHORT] {
        let error = future.exception_timeout(limit).unwrap_err();
        assert_eq!((error.unfinished(), error.total()), (1, 1));
    }
    promise.set_result(1).unwrap();
    assert!(future.exception_timeout(Duration::ZERO).unwrap().is_none());
}

#[test]
fn peek_looks_without_taking() {
    let pool = pool(1);
    let future = pool.spawn(|| vec![1, 2]).unwrap();
    eventually("done", || future.is_done());
    assert_eq!(*future.peek().unwrap().unwrap(), [1, 2]);
    assert_eq!(*future.peek().unwrap().unwrap(), [1, 2]);
    assert_eq!(future.result().unwrap(), [1, 2]);
}

#[test]
fn many_threads_can_wait_for_one_future() {
    let (promise, future) = promise();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|n| {
                let future = &future;
                scope.spawn(move || match n % 2 {
                    0 => future.exception().is_none(),
                    _ => future.exception_timeout(LONG).unwrap().is_none(),
                })
            })
            .collect();
        promise.set_result(1).unwrap();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    });
}

#[test]
fn waiting_with_limits_and_cancelling_at_the_same_time_is_safe() {
    for _ in 0..200 {
        let (promise, future) = promise();
        thread::scope(|scope| {
            for n in 0..3 {
                let future = &future;
                scope.spawn(move || {
                    while future
                        .exception_timeout(Duration::from_micros(n * 7))
                        .is_err()
                    {}
                });
            }
            scope.spawn(|| {
                let _ = promise.set_result(1);
            });
            future.cancel();
        });
        assert!(future.is_done());
    }
}

#[test]
fn dropping_the_handle_does_not_cancel() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    drop(pool.spawn({
        let runs = runs.clone();
        move || runs.add()
    }));
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 1);
}

#[test]
fn ids_are_unique_across_threads() {
    let ids: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..5_000)
                        .map(|_| promise::<()>().1.id())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 20_000);
    assert!(ids[0].to_string().starts_with('#'));
    assert!(ids[0] < ids[1]);
}

#[test]
#[allow(clippy::mutable_key_type, reason = "the hash is that of the id")]
fn futures_are_equal_and_hash_by_id() {
    let (_a, a) = promise::<u8>();
    let (_b, b) = promise::<u8>();
    assert_eq!(a, a);
    assert_ne!(a, b);
    let set = HashSet::from([&a, &b, &a]);
    assert_eq!(set.len(), 2);
    assert!(set.contains(&a));
}

#[test]
fn debug_names_the_future_and_its_state() {
    let (promise_of_value, future) = promise::<u8>();
    let id = future.id();
    assert_eq!(
        format!("{future:?}"),
        format!("<Future {id} state=pending>")
    );
    assert!(promise_of_value.set_running_or_notify_cancel());
    assert_eq!(
        format!("{future:?}"),
        format!("<Future {id} state=running>")
    );
    promise_of_value.set_result(1).unwrap();
    assert_eq!(
        format!("{future:?}"),
        format!("<Future {id} state=finished>")
    );
    assert_eq!(format!("{promise_of_value:?}"), format!("<Promise {id}>"));

    let (_promise, future) = promise::<u8>();
    future.cancel();
    let id = future.id();
    assert_eq!(
        format!("{future:?}"),
        format!("<Future {id} state=cancelled>")
    );

    let (promise, mut future) = promise::<u8>();
    promise.set_exception("no").unwrap();
    let id = future.id();
    let expected = format!("<Future {id} state=finished with an error>");
    assert_eq!(format!("{future:?}"), expected);
    future.result_timeout(LONG).unwrap_err();
    let expected = format!("<Future {id} state=finished, result taken>");
    assert_eq!(format!("{future:?}"), expected);
}

#[test]
fn a_future_can_be_sent_if_its_value_can_and_shared_if_its_value_can() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Future<Cell<u8>>>();
    is_sync::<Future<u8>>();
}
