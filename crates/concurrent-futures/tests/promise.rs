//! Tests of promises, for code that implements executors.

mod common;

use common::{Counted, Counter, LONG, within_limit};
use concurrent_futures::{Promise, TaskError, promise};
use std::sync::mpsc;
use std::thread;

#[test]
fn a_promise_goes_through_the_states() {
    let (promise, future) = promise();
    assert!(!future.is_running());
    assert!(promise.set_running_or_notify_cancel());
    assert!(future.is_running());
    assert!(!future.cancel());
    promise.set_result(1).unwrap();
    assert!(future.is_done());
    assert_eq!(future.result().unwrap(), 1);
}

#[test]
fn an_outcome_can_be_set_without_having_been_running() {
    let (promise, future) = promise();
    promise.set_result(1).unwrap();
    assert_eq!(future.result().unwrap(), 1);
}

#[test]
fn an_exception_keeps_its_cause() {
    let (promise, future) = promise::<()>();
    promise
        .set_exception(std::io::Error::other("disk"))
        .unwrap();
    match future.result() {
        Err(TaskError::Failed(cause)) => {
            assert_eq!(
                cause.downcast_ref::<std::io::Error>().unwrap().to_string(),
                "disk"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_outcome_is_refused_and_dropped() {
    let alive = Counter::new();
    let (promise, future) = promise();
    promise.set_result(Counted::new(&alive)).unwrap();
    let error = promise.set_result(Counted::new(&alive)).unwrap_err();
    assert_eq!(error.to_string(), "the future is finished already");
    assert_eq!(alive.get(), 1);
    assert!(promise.set_exception("late").is_err());
    assert!(!promise.set_running_or_notify_cancel());
    assert!(future.result().is_ok());
    assert_eq!(alive.get(), 0);
}

#[test]
fn a_cancelled_future_accepts_no_outcome() {
    let (promise, future) = promise();
    assert!(future.cancel());
    assert!(!promise.set_running_or_notify_cancel());
    let error = promise.set_result(1).unwrap_err();
    assert_eq!(error.to_string(), "the future is cancelled already");
    assert!(promise.set_exception("late").is_err());
    assert!(matches!(future.result(), Err(TaskError::Cancelled)));
}

#[test]
fn an_abandoned_promise_fails_its_future() {
    let (first, future) = promise::<()>();
    drop(first);
    assert!(matches!(future.result(), Err(TaskError::Abandoned)));

    let (second, future) = promise::<()>();
    assert!(second.set_running_or_notify_cancel());
    let waiting = thread::spawn(|| future.result());
    drop(second);
    assert!(matches!(waiting.join().unwrap(), Err(TaskError::Abandoned)));
}

#[test]
fn a_promise_that_a_panic_drops_wakes_the_waiting_thread() {
    let (promise, future) = promise::<()>();
    let thread = thread::spawn(move || {
        let _promise = promise;
        panic!("an executor panics");
    });
    assert!(matches!(future.result(), Err(TaskError::Abandoned)));
    assert!(thread.join().is_err());
}

#[test]
fn dropping_the_promise_of_a_finished_or_cancelled_future_changes_nothing() {
    let (first, mut future) = promise();
    first.set_result(1).unwrap();
    drop(first);
    assert_eq!(future.result_timeout(LONG).unwrap(), 1);

    let (second, future) = promise::<()>();
    future.cancel();
    drop(second);
    assert!(matches!(future.result(), Err(TaskError::Cancelled)));
}

#[test]
fn of_many_setters_one_wins() {
    for _ in 0..300 {
        let (promise, future) = promise();
        let wins: Vec<usize> = thread::scope(|scope| {
            let setters: Vec<_> = (0..4)
                .map(|n| {
                    let promise = &promise;
                    scope.spawn(move || promise.set_result(n).is_ok())
                })
                .collect();
            let won = setters.into_iter().map(|setter| setter.join().unwrap());
            won.enumerate()
                .filter(|(_, won)| *won)
                .map(|(n, _)| n)
                .collect()
        });
        assert_eq!(wins, [future.result().unwrap()]);
    }
}

#[test]
fn a_setter_and_a_cancellation_at_the_same_time_agree() {
    for n in 0..500 {
        let (promise, future) = promise();
        let (set, cancelled) = thread::scope(|scope| {
            let setter = scope.spawn(move || promise.set_result(n).is_ok());
            let cancelled = future.cancel();
            (setter.join().unwrap(), cancelled)
        });
        assert_ne!(set, cancelled);
        assert_eq!(future.result().is_ok(), set);
    }
}

#[test]
fn a_value_that_nobody_takes_is_dropped_by_the_last_side() {
    let alive = Counter::new();
    let (first, future) = promise();
    first.set_result(Counted::new(&alive)).unwrap();
    assert_eq!(alive.get(), 1);
    drop(future);
    assert_eq!(alive.get(), 0);

    let (second, future) = promise();
    drop(future);
    second.set_result(Counted::new(&alive)).unwrap();
    assert_eq!(alive.get(), 0);
}

#[test]
fn dropping_the_handle_during_completion_drops_the_value_once() {
    let alive = Counter::new();
    for _ in 0..1_000 {
        let (promise, future) = promise();
        let value = Counted::new(&alive);
        thread::scope(|scope| {
            scope.spawn(move || promise.set_result(value).unwrap());
            drop(future);
        });
        assert_eq!(alive.get(), 0);
    }
}

#[test]
fn an_executor_of_ones_own_works_with_promises() {
    type Job = Box<dyn FnOnce() + Send>;
    within_limit(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let worker = thread::spawn(move || queue.into_iter().for_each(|job| job()));
        let mut futures = Vec::new();
        for n in 0..100 {
            let (promise, future): (Promise<u64>, _) = promise();
            let job = move || {
                if promise.set_running_or_notify_cancel() {
                    promise.set_result(n * n).unwrap();
                }
            };
            jobs.send(Box::new(job)).unwrap();
            futures.push(future);
        }
        drop(jobs);
        for (n, future) in (0..).zip(futures) {
            assert_eq!(future.result().unwrap(), n * n);
        }
        worker.join().unwrap();
    });
}
