//! Tests of `wait`.

mod common;

use common::{Counter, Gate, Hold, LONG, SHORT, pool, within_limit};
use concurrent_futures::ReturnWhen::{AllCompleted, FirstCompleted, FirstException};
use concurrent_futures::{Future, ReturnWhen, Waitable, promise, wait};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const MODES: [ReturnWhen; 3] = [AllCompleted, FirstCompleted, FirstException];

#[test]
fn all_completed_waits_for_all() {
    let (pool_a, pool_b) = (pool(1), pool(2));
    let futures: Vec<_> = (0..100)
        .map(|n| {
            let pool = if n % 2 == 0 { &pool_a } else { &pool_b };
            pool.spawn(move || n).unwrap()
        })
        .collect();
    let divided = wait(futures, None, AllCompleted);
    assert!(divided.not_done.is_empty());
    let values: Vec<_> = divided
        .done
        .into_iter()
        .map(|f| f.result().unwrap())
        .collect();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
}

#[test]
fn first_completed_returns_when_one_is_done() {
    let (_never_set, never) = promise::<u8>();
    let (promise, soon) = promise();
    let setter = thread::spawn(move || promise.set_result(1).unwrap());
    let divided = wait([&never, &soon], None, FirstCompleted);
    assert_eq!(divided.done, [&soon]);
    assert_eq!(divided.not_done, [&never]);
    setter.join().unwrap();
}

#[test]
fn first_completed_returns_at_once_if_one_is_done() {
    let (_never_set, never) = promise::<u8>();
    let (promise, done) = promise();
    promise.set_result(1).unwrap();
    let divided = wait([&never, &done], None, FirstCompleted);
    assert_eq!(
        (divided.done, divided.not_done),
        (vec![&done], vec![&never])
    );
}

#[test]
fn a_cancelled_future_counts_as_completed() {
    for mode in MODES {
        let (_promise, future) = promise::<u8>();
        future.cancel();
        assert_eq!(wait([&future], None, mode).done, [&future]);
    }
}

#[test]
fn first_exception_goes_past_results_and_cancellations() {
    let (good, fine) = promise::<u8>();
    let (_cancelled, cancelled) = promise::<u8>();
    let (bad, failed) = promise::<u8>();
    let (_never, never) = promise::<u8>();
    let setter = thread::spawn(move || {
        good.set_result(1).unwrap();
        bad.set_exception("no").unwrap();
    });
    let to_cancel = &cancelled;
    let divided = thread::scope(|scope| {
        scope.spawn(|| to_cancel.cancel());
        wait([&never, &fine, &cancelled, &failed], None, FirstException)
    });
    assert!(divided.done.contains(&&failed));
    assert!(divided.not_done.contains(&&never));
    setter.join().unwrap();
}

#[test]
fn first_exception_without_one_waits_for_all() {
    let pool = pool(2);
    let futures: Vec<_> = (0..50).map(|n| pool.spawn(move || n).unwrap()).collect();
    let divided = wait(&futures, None, FirstException);
    assert_eq!(divided.done.len(), 50);
    assert!(futures.iter().all(Future::is_done));
}

#[test]
fn first_exception_finds_one_that_is_there_already() {
    let (bad, failed) = promise::<u8>();
    let (_never, never) = promise::<u8>();
    bad.set_exception("no").unwrap();
    let divided = wait([&never, &failed], None, FirstException);
    assert_eq!(
        (divided.done, divided.not_done),
        (vec![&failed], vec![&never])
    );
}

#[test]
fn a_panic_is_an_exception() {
    let pool = pool(1);
    let panics = pool.spawn(|| -> u8 { panic!("first exception") }).unwrap();
    let (_never, never) = promise::<u8>();
    assert_eq!(
        wait([&panics, &never], None, FirstException).done,
        [&panics]
    );
}

#[test]
fn a_time_limit_divides_the_futures_into_done_and_not_done() {
    for mode in MODES {
        let (_a, a) = promise::<u8>();
        let (_b, b) = promise::<u8>();
        for limit in [Duration::ZERO, SHORT] {
            let divided = wait([&a, &b], Some(limit), mode);
            assert!(divided.done.is_empty());
            assert_eq!(divided.not_done, [&a, &b]);
        }
    }
    let (done, a) = promise();
    let (_b, b) = promise::<u8>();
    done.set_result(1).unwrap();
    let divided = wait([&b, &a], Some(SHORT), AllCompleted);
    assert_eq!((divided.done, divided.not_done), (vec![&a], vec![&b]));
}

#[test]
fn a_huge_time_limit_is_none() {
    for mode in MODES {
        let (promise, future) = promise();
        let setter = thread::spawn(move || promise.set_result(1).unwrap());
        assert_eq!(wait([&future], Some(Duration::MAX), mode).done.len(), 1);
        setter.join().unwrap();
    }
}

#[test]
fn waiting_for_nothing_returns_nothing_at_once() {
    for mode in MODES {
        let divided = wait(Vec::<Future<u8>>::new(), None, mode);
        assert!(divided.done.is_empty() && divided.not_done.is_empty());
    }
}

#[test]
fn the_same_future_twice_comes_back_twice() {
    for mode in MODES {
        let (promise, future) = promise();
        let setter = thread::spawn(move || promise.set_result(1).unwrap());
        let divided = wait([&future, &future], None, mode);
        assert_eq!(divided.done, [&future, &future]);
        setter.join().unwrap();
        let divided = wait([&future, &future], None, mode);
        assert_eq!(divided.done.len(), 2);

        let (_promise, never) = unset();
        let divided = wait([&never, &never], Some(SHORT), mode);
        assert_eq!(divided.not_done.len(), 2);
    }
}

fn unset() -> (concurrent_futures::Promise<u8>, Future<u8>) {
    promise()
}

#[test]
fn pairs_come_back_with_their_keys() {
    let pool = pool(2);
    let by_value: Vec<_> = ["a", "bb"]
        .map(|url| (url, pool.spawn(move || url.len()).unwrap()))
        .into();
    let divided = wait(by_value, Some(LONG), AllCompleted);
    for (url, length) in divided.done {
        assert_eq!(length.result().unwrap(), url.len());
    }
    let future = pool.spawn(|| 1).unwrap();
    let divided = wait([(7, &future)], None, FirstCompleted);
    assert_eq!(divided.done, [(7, &future)]);
}

#[test]
fn futures_of_different_types_can_be_waited_for_together() {
    let pool = pool(2);
    let number = pool.spawn(|| 1).unwrap();
    let text = pool.spawn(|| "one").unwrap();
    let borrowed: [&dyn Waitable; 2] = [&number, &text];
    assert_eq!(wait(borrowed, None, AllCompleted).done.len(), 2);
    let boxed: Vec<Box<dyn Waitable>> = vec![Box::new(number), Box::new(("key", text))];
    assert_eq!(wait(boxed, None, FirstCompleted).done.len(), 2);
}

#[test]
fn futures_given_by_value_come_back_in_order() {
    let (set, mut futures): (Vec<_>, Vec<_>) = (0..6).map(|_| promise::<usize>()).unzip();
    for (n, promise) in set.iter().enumerate().step_by(2) {
        promise.set_result(n).unwrap();
    }
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    let divided = wait(futures.drain(..), Some(SHORT), AllCompleted);
    let of = |futures: &[Future<usize>]| futures.iter().map(Future::id).collect::<Vec<_>>();
    assert_eq!(of(&divided.done), [ids[0], ids[2], ids[4]]);
    assert_eq!(of(&divided.not_done), [ids[1], ids[3], ids[5]]);
}

#[test]
fn waiting_again_and_again_with_limits_leaves_nothing_behind() {
    let (promise, future) = promise();
    for mode in MODES {
        for _ in 0..200 {
            let divided = wait([&future, &future], Some(Duration::from_micros(10)), mode);
            assert_eq!(divided.not_done.len(), 2);
        }
    }
    promise.set_result(1).unwrap();
    assert_eq!(future.result().unwrap(), 1);
}

#[test]
fn waiting_while_all_finish_finds_the_mode_fulfilled() {
    let pool = pool(2);
    for round in 0..600 {
        let futures: Vec<_> = (0..8_u32)
            .map(|n| {
                let task = move || if n == 5 { Err("five") } else { Ok(n) };
                pool.spawn_fallible(task).unwrap()
            })
            .collect();
        let mode = MODES[round % 3];
        let done = wait(&futures, None, mode).done;
        match mode {
            AllCompleted => assert_eq!(done.len(), 8),
            FirstCompleted => assert!(!done.is_empty()),
            FirstException => assert!(done.len() == 8 || futures[5].is_done()),
        }
        assert!(done.iter().all(|future| future.is_done()));
    }
}

#[test]
fn several_threads_can_wait_for_the_same_futures() {
    let pool = pool(2);
    for _ in 0..50 {
        let gate = Gate::new();
        let futures: Vec<_> = (0..10)
            .map(|_| {
                let gate = gate.clone();
                pool.spawn(move || gate.wait()).unwrap()
            })
            .collect();
        thread::scope(|scope| {
            for mode in MODES {
                let futures = &futures;
                scope.spawn(move || assert!(!wait(futures, None, mode).done.is_empty()));
            }
            gate.open();
        });
        assert_eq!(wait(futures, None, AllCompleted).done.len(), 10);
    }
}

#[test]
fn callbacks_have_run_when_wait_returns() {
    let pool = pool(2);
    for mode in MODES {
        let calls = Counter::new();
        let hold = Hold::worker_of(&pool);
        let in_callback = calls.clone();
        hold.future().add_done_callback(move |_| {
            thread::yield_now();
            in_callback.add();
        });
        hold.open();
        assert_eq!(wait([hold.future()], None, mode).done.len(), 1);
        assert_eq!(calls.get(), 1);
    }
}

#[test]
fn wait_inside_a_task_of_a_pool_with_one_worker_finishes() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        for mode in MODES {
            let weak = Arc::downgrade(&pool);
            let done = pool.spawn(move || {
                let pool = weak.upgrade().unwrap();
                let futures: Vec<_> = (0..10).map(|n| pool.spawn(move || n).unwrap()).collect();
                wait(&futures, None, mode).done.len()
            });
            let done = done.unwrap().result().unwrap();
            assert_eq!(done == 10, mode != FirstCompleted, "{mode:?}: {done}");
            assert!(done >= 1);
        }
    });
}

#[test]
fn a_short_wait_inside_a_task_gets_no_other_worker() {
    let pool = Arc::new(pool(1));
    for mode in MODES {
        let weak = Arc::downgrade(&pool);
        let not_done = pool.spawn(move || {
            let future = weak.upgrade().unwrap().spawn(|| 1).unwrap();
            wait([future], Some(SHORT), mode).not_done.len()
        });
        assert_eq!(not_done.unwrap().result().unwrap(), 1);
    }
}
