//! Tests of `ThreadPoolExecutor`: its workers and their tasks.

mod common;

use common::{Counter, Gate, Hold, LONG, pool, receive};
use concurrent_futures::{BuildError, Future, Shutdown, TaskError, ThreadPoolExecutor, promise};
use std::backtrace::BacktraceStatus;

use std::sync::{Arc, Barrier, mpsc};
use std::thread;

#[test]
fn the_default_number_of_workers_is_that_of_python() {
    let cpus = thread::available_parallelism().unwrap().get();
    let pool = ThreadPoolExecutor::new().unwrap();
    assert_eq!(pool.max_workers(), (cpus + 4).min(32));
    assert_eq!(pool.workers(), 0);
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let build = |max_workers| {
        ThreadPoolExecutor::builder()
            .max_workers(max_workers)
            .build()
    };
    let error = build(0).unwrap_err();
    assert!(matches!(error, BuildError::ZeroWorkers));
    assert_eq!(error.to_string(), "max_workers must be greater than 0");
    assert!(matches!(
        build(usize::MAX),
        Err(BuildError::TooManyWorkers(usize::MAX))
    ));

    let builder = ThreadPoolExecutor::builder();
    assert!(matches!(
        builder.max_pending(0).build(),
        Err(BuildError::ZeroPending)
    ));
    let builder = ThreadPoolExecutor::builder();
    let error = builder.thread_name_prefix("a\0b").build().unwrap_err();
    assert!(matches!(error, BuildError::InvalidThreadName(name) if name == "a\0b"));
}

#[test]
fn workers_are_named_and_numbered() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(3)
        .thread_name_prefix("load")
        .build()
        .unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let names: Vec<_> = (0..3)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            pool.spawn(move || {
                barrier.wait();
                thread::current().name().unwrap().to_owned()
            })
            .unwrap()
        })
        .collect();
    let mut names: Vec<_> = names
        .into_iter()
        .map(|name| name.result().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["load_0", "load_1", "load_2"]);
}

#[test]
fn pools_have_different_names_by_default() {
    let name = |pool: &ThreadPoolExecutor| {
        let name = pool.spawn(|| thread::current().name().unwrap().to_owned());
        name.unwrap().result().unwrap()
    };
    let (a, b) = (name(&pool(1)), name(&pool(1)));
    assert!(a.starts_with("ThreadPoolExecutor-"), "{a}");
    assert_ne!(a, b);
}

#[test]
fn the_stack_size_is_that_of_the_workers() {
    fn deep(levels: usize) -> usize {
        let block = std::hint::black_box([levels; 128]);
        if levels == 0 {
            block[0]
        } else {
            deep(levels - 1) + usize::from(block[1] > 0)
        }
    }
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .stack_size(256 << 20)
        .build()
        .unwrap();
    // At least 100 MiB.
    assert_eq!(
        pool.submit(deep, 100_000).unwrap().result().unwrap(),
        100_000
    );
}

#[test]
fn threads_start_on_demand_up_to_the_maximum() {
    let pool = pool(3);
    assert_eq!(pool.workers(), 0);
    let mut holds = Vec::new();
    for n in 1..=3 {
        holds.push(Hold::worker_of(&pool));
        assert_eq!(pool.workers(), n);
    }
    let more: Vec<_> = (0..10).map(|_| pool.spawn(|| ()).unwrap()).collect();
    assert_eq!(pool.workers(), 3);
    assert!(
        more.iter()
            .all(|future| !future.is_running() && !future.is_done())
    );
    holds.into_iter().for_each(Hold::release);
    for future in more {
        future.result().unwrap();
    }
    assert_eq!(pool.workers(), 3);
}

#[test]
fn idle_workers_are_reused_before_further_ones_start() {
    // A round trip may find the worker between two tasks, and start another worker. All workers in that state
    // at once are as good as impossible.
    let pool = pool(64);
    for _ in 0..500 {
        pool.spawn(|| ()).unwrap().result().unwrap();
    }
    assert!(pool.workers() < 64, "{}", pool.workers());
}

#[test]
fn all_workers_work_at_the_same_time() {
    let pool = pool(4);
    for _ in 0..50 {
        let barrier = Arc::new(Barrier::new(4));
        let futures: Vec<_> = (0..4)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                pool.spawn(move || barrier.wait().is_leader()).unwrap()
            })
            .collect();
        for mut future in futures {
            future.result_timeout(LONG).unwrap();
        }
    }
}

#[test]
fn no_more_than_max_workers_tasks_run_at_the_same_time() {
    let pool = pool(2);
    let running = Counter::new();
    let futures: Vec<_> = (0..500)
        .map(|_| {
            let running = running.clone();
            pool.spawn(move || {
                let now = running.add();
                thread::yield_now();
                running.subtract();
                now
            })
            .unwrap()
        })
        .collect();
    assert!(futures.into_iter().all(|now| now.result().unwrap() <= 2));
}

#[test]
fn one_worker_starts_tasks_in_the_order_they_were_submitted() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let (sender, started) = mpsc::channel();
    for n in 0..100 {
        let sender = sender.clone();
        drop(pool.spawn(move || sender.send(n).unwrap()).unwrap());
    }
    hold.release();
    drop(sender);
    assert_eq!(
        started.into_iter().collect::<Vec<_>>(),
        (0..100).collect::<Vec<_>>()
    );
}

#[test]
fn every_form_of_submission_calls_the_function_once() {
    let pool = pool(2);
    let text = String::from("captured");
    assert_eq!(pool.submit(|n: u8| n + 1, 1).unwrap().result().unwrap(), 2);
    assert_eq!(pool.spawn(move || text.len()).unwrap().result().unwrap(), 8);
    assert_eq!(pool.try_spawn(|| 3).unwrap().result().unwrap(), 3);
    assert_eq!(
        pool.submit_fallible(str::parse::<u8>, "4")
            .unwrap()
            .result()
            .unwrap(),
        4
    );
    let fallible = pool.spawn_fallible(|| "5".parse::<u8>()).unwrap();
    assert_eq!(fallible.result().unwrap(), 5);
}

#[test]
fn a_tasks_error_arrives_with_its_type() {
    let pool = pool(1);
    let parse = pool.submit_fallible(str::parse::<u8>, "x").unwrap();
    let error = parse.result().unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("invalid digit found in string"), "{text}");
    let TaskError::Failed(cause) = error else {
        panic!("{error:?}")
    };
    assert!(cause.is::<std::num::ParseIntError>());

    let boxed =
        pool.spawn_fallible(|| Err::<(), Box<dyn std::error::Error + Send + Sync>>("text".into()));
    let text = boxed.unwrap().result().unwrap_err().to_string();
    assert!(text.ends_with("text"), "{text}");
}

#[test]
fn a_panicking_task_tells_message_place_and_backtrace_and_its_worker_lives_on() {
    let pool = pool(1);
    let worker = pool
        .spawn(|| thread::current().id())
        .unwrap()
        .result()
        .unwrap();
    let line = line!() + 1;
    let future: Future<()> = pool.spawn(|| panic!("no {}", "luck")).unwrap();
    let Err(TaskError::Panicked(panic)) = future.result() else {
        panic!("not a panic")
    };
    assert_eq!(panic.message(), "no luck");
    let location = panic.location().unwrap();
    assert_eq!((location.file.as_str(), location.line), (file!(), line));
    assert_eq!(panic.backtrace().status(), BacktraceStatus::Captured);
    assert_eq!(
        panic.to_string(),
        format!("the task panicked: no luck, at {location}")
    );

    let later = pool
        .spawn(|| thread::current().id())
        .unwrap()
        .result()
        .unwrap();
    assert_eq!(later, worker);
}

#[test]
fn panics_with_other_values_are_caught_as_well() {
    let pool = pool(1);
    let message = |future: Future<()>| match future.result() {
        Err(TaskError::Panicked(panic)) => panic.message().to_owned(),
        other => panic!("{other:?}"),
    };
    let number = pool.spawn(|| std::panic::panic_any(5)).unwrap();
    assert_eq!(message(number), "a value that is not a string");
    let text = pool
        .spawn(|| std::panic::panic_any(String::from("own")))
        .unwrap();
    assert_eq!(message(text), "own");
    let resumed = pool
        .spawn(|| std::panic::resume_unwind(Box::new("again")))
        .unwrap();
    assert_eq!(message(resumed), "again");
    let checked = pool
        .submit(
            |n: usize| {
                let _ = [1, 2][n];
            },
            2,
        )
        .unwrap();
    assert!(message(checked).contains("out of bounds"));
}

#[test]
fn a_task_inside_another_keeps_its_own_panic() {
    let pool = Arc::new(pool(1));
    let weak = Arc::downgrade(&pool);
    let outer = pool.spawn(move || {
        let inner: Future<()> = weak.upgrade().unwrap().spawn(|| panic!("inner")).unwrap();
        let inner = inner.result().unwrap_err();
        panic!("outer after {inner}");
    });
    let outer: Future<()> = outer.unwrap();
    let Err(TaskError::Panicked(panic)) = outer.result() else {
        panic!("not a panic")
    };
    assert!(
        panic
            .message()
            .starts_with("outer after the task panicked: inner, at ")
    );
    assert!(panic.location().is_some());
}

#[test]
fn results_need_not_be_sync_nor_cloneable() {
    let pool = pool(1);
    let cell = pool.spawn(|| std::cell::Cell::new(1)).unwrap();
    assert_eq!(cell.result().unwrap().get(), 1);
    let (inner, future) = promise();
    let handle = pool.spawn(move || future).unwrap();
    inner.set_result(2).unwrap();
    assert_eq!(handle.result().unwrap().result().unwrap(), 2);
}

#[test]
fn results_of_every_size_and_alignment_arrive() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(256))]
    struct Aligned(u8);
    let pool = pool(2);
    for n in 0..50_u8 {
        let wide = pool.spawn(move || [n; 5_000]).unwrap();
        let aligned = pool.submit(|a| a, Aligned(n)).unwrap();
        let nothing = pool.spawn(|| ()).unwrap();
        assert_eq!(
            aligned
                .peek()
                .map_or(0, |a| std::ptr::from_ref(a.unwrap()).addr() % 256),
            0
        );
        assert_eq!(wide.result().unwrap(), [n; 5_000]);
        assert_eq!(aligned.result().unwrap(), Aligned(n));
        nothing.result().unwrap();
    }
}

#[test]
fn many_threads_can_submit_to_one_pool() {
    let pool = pool(3);
    let runs = Counter::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    let runs = runs.clone();
                    let future = pool.spawn(move || runs.add()).unwrap();
                    if n % 3 == 0 {
                        future.result().unwrap();
                    }
                }
            });
        }
    });
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 2_000);
}

#[test]
fn debug_shows_the_workers() {
    let pool = pool(2);
    let _hold = Hold::worker_of(&pool);
    assert_eq!(
        format!("{pool:?}"),
        "ThreadPoolExecutor { max_workers: 2, workers: 1, .. }"
    );
}

#[test]
fn a_tasks_thread_local_values_stay_with_the_worker() {
    thread_local!(static CALLS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    let pool = pool(1);
    let (sender, calls) = mpsc::channel();
    let gate = Gate::new();
    for _ in 0..3 {
        let (sender, gate) = (sender.clone(), gate.clone());
        drop(pool.spawn(move || {
            gate.wait();
            CALLS.set(CALLS.get() + 1);
            sender.send(CALLS.get()).unwrap();
        }));
    }
    gate.open();
    assert_eq!(
        [receive(&calls), receive(&calls), receive(&calls)],
        [1, 2, 3]
    );
}
