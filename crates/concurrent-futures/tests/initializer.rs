//! Tests of the initializer of a thread pool's workers.

mod common;

use common::{Counter, Gate, Hold, LONG, within_limit};
use concurrent_futures::{
    BrokenExecutor, Shutdown, SubmitError, TaskError, TaskPanic, ThreadPoolExecutor,
};
use std::cell::Cell;
use std::io;
use std::sync::{Arc, Barrier};

thread_local! {
    static INITIALIZED: Cell<u32> = const { Cell::new(0) };
}

fn initialize() {
    INITIALIZED.set(INITIALIZED.get() + 1);
}

/// Makes a pool whose initializer fails once a gate is open.
fn broken_pool<E>(max_workers: usize, error: fn() -> E) -> (ThreadPoolExecutor, Gate)
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let gate = Gate::new();
    let may_fail = gate.clone();
    let pool = ThreadPoolExecutor::builder()
        .max_workers(max_workers)
        .initializer(move || {
            may_fail.wait();
            Err::<(), E>(error())
        })
        .build()
        .unwrap();
    (pool, gate)
}

fn broken(error: TaskError) -> BrokenExecutor {
    match error {
        TaskError::Broken(broken) => broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_worker_calls_it_once_before_its_first_task() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(3)
        .initializer(initialize)
        .build()
        .unwrap();
    let barrier = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let counts: Vec<_> = (0..3)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                pool.spawn(move || {
                    barrier.wait();
                    INITIALIZED.get()
                })
                .unwrap()
            })
            .collect();
        for count in counts {
            assert_eq!(count.result().unwrap(), 1);
        }
    }
}

#[test]
fn it_may_return_a_result_that_is_ok() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(|| {
            initialize();
            Ok::<(), io::Error>(())
        })
        .build()
        .unwrap();
    assert_eq!(
        pool.spawn(|| INITIALIZED.get()).unwrap().result().unwrap(),
        1
    );
}

#[test]
fn it_does_not_run_before_there_is_a_task() {
    let calls = Counter::new();
    let in_worker = calls.clone();
    let pool = ThreadPoolExecutor::builder()
        .initializer(move || {
            in_worker.add();
        })
        .build()
        .unwrap();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(calls.get(), 0);
}

#[test]
fn an_error_fails_all_pending_futures_with_that_cause_and_none_of_them_runs() {
    let (pool, may_fail) = broken_pool(1, || io::Error::other("no database"));
    let runs = Counter::new();
    let futures: Vec<_> = (0..20)
        .map(|_| {
            let runs = runs.clone();
            pool.spawn(move || runs.add()).unwrap()
        })
        .collect();
    let cancelled = pool.spawn(|| 1).unwrap();
    assert!(cancelled.cancel());
    may_fail.open();
    for future in futures {
        let error = future.result().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("the executor is broken"), "{text}");
        let broken = broken(error);
        assert!(broken.cause().is::<io::Error>());
        assert_eq!(broken.cause().to_string(), "no database");
    }
    assert!(matches!(cancelled.result(), Err(TaskError::Cancelled)));
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 0);
}

#[test]
fn submitting_to_a_broken_pool_is_an_error_with_the_cause() {
    let (pool, may_fail) = broken_pool(2, || "no licence");
    may_fail.open();
    let first = pool.spawn(|| 1).unwrap();
    broken(first.result().unwrap_err());
    let Err(SubmitError::Broken(cause)) = pool.spawn(|| 2) else {
        panic!("accepted")
    };
    assert_eq!(cause.cause().to_string(), "no licence");
    assert!(matches!(
        pool.submit(|n: u8| n, 1),
        Err(SubmitError::Broken(_))
    ));
    assert!(matches!(
        pool.map(|n: u8| n, [1]),
        Err(SubmitError::Broken(_))
    ));
    let rejected = pool.try_spawn(|| 3).unwrap_err();
    assert!(matches!(rejected.error(), SubmitError::Broken(_)));
    assert_eq!(rejected.into_task()(), 3);
    pool.shutdown(Shutdown::CancelPending);
    assert!(matches!(pool.spawn(|| 2), Err(SubmitError::Broken(_))));
}

#[test]
fn a_panic_breaks_the_pool_as_well() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(|| -> () { panic!("no graphics card") })
        .build()
        .unwrap();
    let error = pool.spawn(|| ()).unwrap().result().unwrap_err();
    let cause = broken(error).cause().to_string();
    assert!(cause.contains("no graphics card"), "{cause}");
    assert!(matches!(pool.spawn(|| 2), Err(SubmitError::Broken(_))));
}

#[test]
fn the_cause_of_a_panic_is_its_task_panic_with_its_place() {
    let line = line!() + 3;
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(|| -> () { panic!("no graphics card") })
        .build()
        .unwrap();
    let broken = broken(pool.spawn(|| ()).unwrap().result().unwrap_err());
    // "What the initializer returned, or its `TaskPanic`".
    let panic = broken
        .cause()
        .downcast_ref::<TaskPanic>()
        .expect("a TaskPanic");
    assert_eq!(panic.message(), "no graphics card");
    let location = panic.location().expect("a place");
    assert_eq!((location.file.as_str(), location.line), (file!(), line));
}

#[test]
fn one_worker_that_fails_breaks_the_pool_though_others_work() {
    let calls = Counter::new();
    let (pool, second) = {
        let second = Gate::new();
        let (calls, gate) = (calls.clone(), second.clone());
        let pool = ThreadPoolExecutor::builder()
            .max_workers(2)
            .initializer(move || {
                if calls.add() == 1 {
                    return Ok(());
                }
                gate.wait();
                Err("only one may")
            })
            .build()
            .unwrap();
        (pool, second)
    };
    let hold = Hold::worker_of(&pool);
    // Starts the second worker.
    let futures: Vec<_> = (0..10).map(|n| pool.spawn(move || n).unwrap()).collect();
    second.open();
    for future in futures {
        broken(future.result().unwrap_err());
    }
    assert!(!hold.future().is_done());
    // A task that ran when the pool broke goes on to its end.
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(pool.workers(), 0);
}

#[test]
fn callbacks_of_futures_that_a_broken_pool_fails_are_called() {
    let (pool, may_fail) = broken_pool(1, || "no");
    let calls = Counter::new();
    let future = pool.spawn(|| ()).unwrap();
    let in_callback = calls.clone();
    future.add_done_callback(move |result| {
        assert!(matches!(result, Err(TaskError::Broken(_))));
        in_callback.add();
    });
    may_fail.open();
    future.result().unwrap_err();
    assert_eq!(calls.get(), 1);
}

#[test]
fn submitting_while_the_pool_breaks_is_refused_or_fails_but_never_hangs() {
    within_limit(|| {
        for round in 0..200 {
            let (pool, may_fail) = broken_pool(1 + round % 3, || "no");
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for _ in 0..10 {
                            match pool.spawn(|| ()) {
                                Ok(mut future) => {
                                    broken(future.result_timeout(LONG).unwrap_err());
                                }
                                Err(error) => assert!(matches!(error, SubmitError::Broken(_))),
                            }
                        }
                    });
                }
                scope.spawn(|| may_fail.open());
            });
        }
    });
}

#[test]
fn a_submitter_that_waits_for_room_is_refused_when_the_pool_breaks() {
    within_limit(|| {
        let gate = Gate::new();
        let may_fail = gate.clone();
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .max_pending(1)
            .initializer(move || {
                may_fail.wait();
                Err::<(), _>("no")
            })
            .build()
            .unwrap();
        let first = pool.spawn(|| ()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.spawn(|| ()));
            gate.open();
            // Refused, or accepted in the moment in which the first made room.
            match waiting.join().unwrap() {
                Ok(future) => drop(broken(future.result().unwrap_err())),
                Err(error) => assert!(matches!(error, SubmitError::Broken(_))),
            }
        });
        broken(first.result().unwrap_err());
    });
}
