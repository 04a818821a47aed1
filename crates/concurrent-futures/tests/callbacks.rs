//! Tests of `add_done_callback`.

mod common;

use common::{Counter, Gate, Hold, owned, pool, receive, within_limit};
use concurrent_futures::{TaskError, promise};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

#[test]
fn callbacks_run_in_the_order_they_were_added() {
    let (promise, future) = promise();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..20 {
        let order = Arc::clone(&order);
        future.add_done_callback(move |_| order.lock().unwrap().push(n));
    }
    promise.set_result(()).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[test]
fn callbacks_get_the_value_or_the_error() {
    let (values, seen) = mpsc::channel();
    let (promise, future) = promise::<u8>();
    let sender = values.clone();
    future.add_done_callback(move |result| sender.send(result.unwrap().to_string()).unwrap());
    promise.set_result(5).unwrap();
    assert_eq!(receive(&seen), "5");
    assert_eq!(future.result().unwrap(), 5);

    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let future = pool.spawn_fallible(|| Err::<(), _>("broken pipe")).unwrap();
    future.add_done_callback(move |result| values.send(result.unwrap_err().to_string()).unwrap());
    hold.release();
    assert!(receive(&seen).ends_with("broken pipe"));
}

#[test]
fn a_panicking_callback_does_not_stop_the_next() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let future = pool.spawn(|| 1).unwrap();
    let calls = Counter::new();
    for n in 0..6 {
        let calls = calls.clone();
        future.add_done_callback(move |_| {
            calls.add();
            assert!(n % 2 == 0, "a callback panics");
        });
    }
    hold.release();
    assert_eq!(future.result().unwrap(), 1);
    assert_eq!(calls.get(), 6);
    assert_eq!(pool.spawn(|| 2).unwrap().result().unwrap(), 2);
    assert_eq!(pool.workers(), 1);
}

#[test]
fn a_callback_that_is_added_to_a_done_future_runs_at_once_in_the_caller() {
    let pool = pool(1);
    let future = pool.spawn(|| 4).unwrap();
    assert!(future.exception().is_none());
    let (sender, seen) = mpsc::channel();
    let thread_of = sender.clone();
    future.add_done_callback(move |n| {
        thread_of
            .send((thread::current().id(), *n.unwrap()))
            .unwrap();
    });
    assert_eq!(seen.try_recv().unwrap(), (thread::current().id(), 4));

    future.add_done_callback(|_| panic!("a callback panics in the caller"));
    future.add_done_callback(move |_| sender.send((thread::current().id(), 5)).unwrap());
    assert_eq!(seen.try_recv().unwrap().1, 5);
    assert_eq!(future.result().unwrap(), 4);
}

#[test]
fn a_callback_that_is_added_after_the_result_was_taken_is_told_so() {
    let (promise, mut future) = promise();
    promise.set_result(1).unwrap();
    future.result_timeout(common::LONG).unwrap();
    let (sender, seen) = mpsc::channel();
    future.add_done_callback(move |result| sender.send(owned(result)).unwrap());
    assert!(matches!(seen.try_recv().unwrap(), Err(TaskError::Taken)));
}

#[test]
fn callbacks_run_in_the_worker_before_a_waiter_goes_on() {
    let pool = pool(1);
    for _ in 0..200 {
        let hold = Hold::worker_of(&pool);
        let future = pool.spawn(|| thread::current().id()).unwrap();
        let called_by = Arc::new(Mutex::new(None));
        let in_callback = Arc::clone(&called_by);
        future.add_done_callback(move |_| {
            thread::yield_now();
            *in_callback.lock().unwrap() = Some(thread::current().id());
        });
        hold.open();
        let worker = future.result().unwrap();
        assert_eq!(*called_by.lock().unwrap(), Some(worker));
    }
}

#[test]
fn a_future_is_not_done_while_its_callbacks_run() {
    let (promise, future) = promise();
    let (inside, go) = (Gate::new(), Gate::new());
    future.add_done_callback({
        let (inside, go) = (inside.clone(), go.clone());
        move |_| {
            inside.open();
            go.wait();
        }
    });
    let setter = thread::spawn(move || promise.set_result(1));
    inside.wait();
    assert!(!future.is_done());
    assert!(future.is_running());
    assert!(future.peek().is_none());
    assert!(!future.cancel());
    go.open();
    assert_eq!(future.result().unwrap(), 1);
    setter.join().unwrap().unwrap();
}

#[test]
fn on_cancel_callbacks_get_cancelled_in_the_cancelling_thread() {
    let pool = pool(1);
    let _hold = Hold::worker_of(&pool);
    let future = pool.spawn(|| 1).unwrap();
    let (sender, seen) = mpsc::channel();
    for n in 0..3 {
        let sender = sender.clone();
        future.add_done_callback(move |result| {
            sender
                .send((n, owned(result), thread::current().id()))
                .unwrap();
        });
    }
    assert!(future.cancel());
    for n in 0..3 {
        let (number, result, thread) = seen.try_recv().unwrap();
        assert_eq!(number, n);
        assert!(matches!(result, Err(TaskError::Cancelled)));
        assert_eq!(thread, thread::current().id());
    }
    assert!(future.cancel());
    assert!(seen.try_recv().is_err(), "called twice");
    future.add_done_callback(move |result| {
        assert!(matches!(result, Err(TaskError::Cancelled)));
        sender
            .send((9, Err(TaskError::Cancelled), thread::current().id()))
            .unwrap();
    });
    assert_eq!(seen.try_recv().unwrap().0, 9);
}

#[test]
fn callbacks_run_when_the_handle_is_gone() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let (sender, seen) = mpsc::channel();
    let future = pool.spawn(|| String::from("kept")).unwrap();
    future.add_done_callback(move |text| sender.send(text.unwrap().clone()).unwrap());
    drop(future);
    hold.release();
    assert_eq!(receive(&seen), "kept");
}

#[test]
fn a_callback_can_submit_and_add_callbacks() {
    let pool = Arc::new(pool(1));
    let hold = Hold::worker_of(&pool);
    let (sender, seen) = mpsc::channel();
    let future = pool.spawn(|| 1).unwrap();
    let executor = Arc::downgrade(&pool);
    future.add_done_callback(move |n| {
        let n = *n.unwrap();
        let next = executor.upgrade().unwrap().spawn(move || n + 1).unwrap();
        next.add_done_callback(move |n| sender.send(*n.unwrap()).unwrap());
    });
    hold.release();
    assert_eq!(receive(&seen), 2);
}

#[test]
fn a_callback_on_a_worker_can_wait_for_another_task_of_the_pool() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let hold = Hold::worker_of(&pool);
        let (sender, seen) = mpsc::channel();
        let future = pool.spawn(|| 1).unwrap();
        let executor = Arc::downgrade(&pool);
        future.add_done_callback(move |_| {
            let pool = executor.upgrade().unwrap();
            sender
                .send(pool.spawn(|| 2).unwrap().result().unwrap())
                .unwrap();
        });
        hold.release();
        assert_eq!(receive(&seen), 2);
        drop(future);
    });
}

#[test]
fn callbacks_added_while_the_task_finishes_are_each_called_once() {
    let pool = pool(2);
    for _ in 0..500 {
        let calls = Counter::new();
        let future = pool.spawn(|| ()).unwrap();
        for _ in 0..10 {
            let calls = calls.clone();
            future.add_done_callback(move |_| {
                calls.add();
            });
        }
        future.result().unwrap();
        // One that ran at once did so before `add_done_callback` returned.
        assert_eq!(calls.get(), 10);
    }
}

#[test]
fn a_callback_that_is_never_called_is_dropped_with_a_promise_that_is_abandoned() {
    let alive = Counter::new();
    let (promise, future) = promise::<()>();
    let counted = common::Counted::new(&alive);
    future.add_done_callback(move |_| drop(counted));
    drop(future);
    assert_eq!(alive.get(), 1);
    drop(promise);
    assert_eq!(alive.get(), 0);
}

/// Shows that a callback needs no `Sync`: no two threads look at the value at once.
#[test]
fn a_callback_that_is_added_while_others_run_does_not_overtake_them() {
    let (promise, future) = promise::<std::cell::Cell<u32>>();
    let (inside, go) = (Gate::new(), Gate::new());
    let (sender, order) = mpsc::channel();
    let second = sender.clone();
    future.add_done_callback({
        let (inside, go) = (inside.clone(), go.clone());
        move |_| {
            inside.open();
            go.wait();
            sender.send("first").unwrap();
        }
    });
    let setter = thread::spawn(move || promise.set_result(std::cell::Cell::new(1)));
    inside.wait();
    future.add_done_callback(move |_| second.send("second").unwrap());
    go.open();
    setter.join().unwrap().unwrap();
    assert_eq!([receive(&order), receive(&order)], ["first", "second"]);
}
