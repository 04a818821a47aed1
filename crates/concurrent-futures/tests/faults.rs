//! Tests of bad input and faults: each has a defined outcome and loses no task.

mod common;

use common::{Counter, Gate, Hold, LONG, owned, pool, receive, within_limit};
use concurrent_futures::{Future, Shutdown, SubmitError, TaskError, ThreadPoolExecutor, promise};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// A value that panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        // A second panic at the same time would end the process.
        assert!(thread::panicking(), "a destructor panics");
    }
}

fn still_works(pool: &ThreadPoolExecutor) {
    assert_eq!(pool.spawn(|| 1).unwrap().result_timeout(LONG).unwrap(), 1);
    assert_eq!(pool.workers(), 1);
}

#[test]
fn a_result_whose_drop_panics_is_dropped_by_the_worker_without_harm() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    drop(pool.spawn(|| PanicsOnDrop).unwrap());
    hold.release();
    still_works(&pool);
}

#[test]
fn a_result_whose_drop_panics_is_dropped_with_the_handle_without_harm() {
    let pool = pool(1);
    let future = pool.spawn(|| PanicsOnDrop).unwrap();
    assert!(future.exception().is_none());
    drop(future);
    let taken = pool.spawn(|| PanicsOnDrop).unwrap().result().unwrap();
    std::mem::forget(taken);
    let (promise, future) = promise();
    drop(future);
    promise.set_result(PanicsOnDrop).unwrap();
    still_works(&pool);
}

#[test]
fn a_closure_whose_drop_panics_can_be_cancelled() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let captured = PanicsOnDrop;
    let future = pool.spawn(move || std::mem::forget(captured)).unwrap();
    assert!(future.cancel());
    assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    hold.release();
    still_works(&pool);
}

#[test]
fn a_closure_whose_drop_panics_after_the_call_fails_its_task() {
    let pool = pool(1);
    let captured = PanicsOnDrop;
    let future = pool.spawn(move || drop(captured)).unwrap();
    assert!(matches!(future.result(), Err(TaskError::Panicked(_))));
    still_works(&pool);
}

#[test]
fn a_panic_whose_value_panics_when_dropped_is_caught() {
    let pool = pool(1);
    let future: Future<()> = pool.spawn(|| std::panic::panic_any(PanicsOnDrop)).unwrap();
    assert!(matches!(future.result(), Err(TaskError::Panicked(_))));
    still_works(&pool);
}

#[test]
fn a_callback_whose_panic_value_panics_when_dropped_is_caught() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    hold.future()
        .add_done_callback(|_| std::panic::panic_any(PanicsOnDrop));
    let captured = PanicsOnDrop;
    hold.future().add_done_callback(move |_| drop(captured));
    hold.release();
    still_works(&pool);
}

#[test]
fn a_task_may_submit_to_its_own_pool_and_to_others() {
    let (a, b) = (Arc::new(pool(1)), Arc::new(pool(1)));
    let (in_a, in_b) = (Arc::downgrade(&a), Arc::downgrade(&b));
    let (sender, futures) = mpsc::channel();
    let submit = move || {
        for pool in [in_a, in_b] {
            sender
                .send(pool.upgrade().unwrap().spawn(|| 5).unwrap())
                .unwrap();
        }
    };
    a.spawn(submit).unwrap().result().unwrap();
    assert_eq!(receive(&futures).result().unwrap(), 5);
    assert_eq!(receive(&futures).result().unwrap(), 5);
}

#[test]
fn a_task_that_submits_after_shutdown_is_refused() {
    let pool = Arc::new(pool(1));
    let (go, weak) = (Gate::new(), Arc::downgrade(&pool));
    let in_task = go.clone();
    let refused = pool
        .spawn(move || {
            in_task.wait();
            weak.upgrade().unwrap().spawn(|| 1).map(drop)
        })
        .unwrap();
    pool.shutdown(Shutdown::NoWait);
    go.open();
    assert!(matches!(
        refused.result().unwrap(),
        Err(SubmitError::Shutdown)
    ));
}

#[test]
fn a_callback_may_submit_after_shutdown_and_is_refused() {
    let pool = Arc::new(pool(1));
    let hold = Hold::worker_of(&pool);
    let (sender, refused) = mpsc::channel();
    let weak = Arc::downgrade(&pool);
    hold.future().add_done_callback(move |_| {
        sender
            .send(weak.upgrade().unwrap().spawn(|| 1).map(drop))
            .unwrap();
    });
    pool.shutdown(Shutdown::NoWait);
    hold.release();
    assert!(matches!(receive(&refused), Err(SubmitError::Shutdown)));
}

#[test]
fn a_pool_may_be_dropped_by_its_own_task_and_pending_tasks_still_run() {
    within_limit(|| {
        for workers in 1..=3 {
            let pool = pool(workers);
            let runs = Counter::new();
            let (sender, receiver) = mpsc::channel::<ThreadPoolExecutor>();
            let dropping = pool.spawn(move || drop(receiver.recv().unwrap())).unwrap();
            let pending: Vec<_> = (0..20)
                .map(|_| {
                    let runs = runs.clone();
                    pool.spawn(move || runs.add()).unwrap()
                })
                .collect();
            sender.send(pool).unwrap();
            dropping.result().unwrap();
            for future in pending {
                future.result().unwrap();
            }
            assert_eq!(runs.get(), 20);
        }
    });
}

#[test]
fn a_pool_may_be_dropped_by_a_callback_in_its_worker() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let hold = Hold::worker_of(&pool);
        let pending = pool.spawn(|| 5).unwrap();
        let dropped = Gate::new();
        let in_callback = dropped.clone();
        let in_worker = Arc::clone(&pool);
        let ours = Arc::new(Mutex::new(Some(pool)));
        let theirs = Arc::clone(&ours);
        hold.future().add_done_callback(move |_| {
            theirs.lock().unwrap().take();
            drop(in_worker);
            in_callback.open();
        });
        hold.release();
        dropped.wait();
        assert!(ours.lock().unwrap().is_none());
        assert_eq!(pending.result().unwrap(), 5);
    });
}

#[test]
fn a_task_that_shuts_its_own_pool_down_does_not_wait_for_itself() {
    within_limit(|| {
        for cancel in [false, true] {
            let pool = Arc::new(pool(1));
            let weak = Arc::downgrade(&pool);
            let go = Gate::new();
            let in_task = go.clone();
            let shutting = pool.spawn(move || {
                in_task.wait();
                weak.upgrade()
                    .unwrap()
                    .shutdown(common::shutdown(true, cancel));
            });
            let pending = pool.spawn(|| 1).unwrap();
            go.open();
            shutting.unwrap().result().unwrap();
            assert_eq!(pending.result().is_err(), cancel);
            pool.shutdown(Shutdown::Wait);
            assert_eq!(pool.workers(), 0);
        }
    });
}

#[test]
fn a_task_may_drop_its_own_handle_and_cancel_others() {
    let pool = pool(1);
    let (sender, receiver) = mpsc::channel::<Future<u8>>();
    let own = pool.spawn(move || {
        let own = receiver.recv().unwrap();
        assert!(own.is_running() && !own.cancel());
        drop(own);
        let other = receiver.recv().unwrap();
        assert!(other.cancel());
        1
    });
    let other = pool.spawn(|| 2).unwrap();
    let (seen, outcome) = mpsc::channel();
    let own = own.unwrap();
    own.add_done_callback(move |result| seen.send(owned(result)).unwrap());
    sender.send(own).unwrap();
    sender.send(other).unwrap();
    assert_eq!(receive(&outcome).unwrap(), 1);
    still_works(&pool);
}

#[test]
fn a_pool_can_be_made_and_dropped_while_a_thread_panics() {
    struct UsesPool(mpsc::Sender<u8>);
    impl Drop for UsesPool {
        fn drop(&mut self) {
            self.0
                .send(pool(1).spawn(|| 5).unwrap().result().unwrap())
                .unwrap();
        }
    }
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _uses_pool = UsesPool(sender);
        panic!("with a pool in a destructor");
    });
    assert!(thread.join().is_err());
    assert_eq!(receive(&receiver), 5);
}

#[test]
fn a_destructor_of_a_thread_local_value_of_a_worker_may_use_the_pool() {
    within_limit(|| {
        struct Submits(Arc<ThreadPoolExecutor>, mpsc::Sender<bool>);
        impl Drop for Submits {
            fn drop(&mut self) {
                let refused = matches!(self.0.spawn(|| 1), Err(SubmitError::Shutdown));
                let _ = self.1.send(refused);
            }
        }
        thread_local! {
            static LOCAL: std::cell::RefCell<Option<Submits>> =
                const { std::cell::RefCell::new(None) };
        }
        let pool = Arc::new(pool(1));
        let (sender, refused) = mpsc::channel();
        let in_task = Arc::clone(&pool);
        let task = pool.spawn(move || LOCAL.set(Some(Submits(in_task, sender))));
        task.unwrap().result().unwrap();
        pool.shutdown(Shutdown::Wait);
        assert!(receive(&refused));
    });
}
