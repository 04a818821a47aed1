//! Tests of process pools: the calls that all executors have, values, errors, shutdown.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::process::{pids_of, pool, start_methods};
use common::{Gate, LONG, eventually, within_limit};
use concurrent_futures::{
    Executor, Future, MapOptions, ProcessPoolExecutor, RemoteError, Shutdown, StartMethod,
    SubmitError, TaskError, ThreadPoolExecutor, TransferStep, as_completed, wait,
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

concurrent_futures::init_before_main!();

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn a_function_runs_in_another_process() {
    for method in start_methods() {
        let pool = pool(2, method);
        let pid = pool
            .submit(|()| std::process::id(), ())
            .unwrap()
            .result()
            .unwrap();
        assert_ne!(pid, std::process::id());
        assert_eq!(pool.submit(square, 12).unwrap().result().unwrap(), 144);
    }
}

#[test]
fn generic_code_runs_on_threads_and_on_processes() {
    fn sum_of_squares(executor: &impl Executor) -> u64 {
        executor
            .map(square, 1..=10)
            .unwrap()
            .map(Result::unwrap)
            .sum()
    }
    assert_eq!(sum_of_squares(&pool(2, StartMethod::Spawn)), 385);
    assert_eq!(sum_of_squares(&ThreadPoolExecutor::new().unwrap()), 385);
}

#[test]
fn values_of_all_kinds_travel() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle { radius: f64 },
        Path(Vec<(i32, i32)>, Option<String>),
    }
    let pool = pool(1, StartMethod::Spawn);
    let shapes = vec![
        Shape::Point,
        Shape::Circle { radius: 0.5 },
        Shape::Path(vec![(1, -2)], Some("open".into())),
    ];
    let back = pool
        .submit(|shapes: Vec<Shape>| shapes, shapes.clone())
        .unwrap();
    assert_eq!(back.result().unwrap(), shapes);
    pool.submit(|()| (), ()).unwrap().result().unwrap();
    let text = pool.submit(|text: String| text + "!", "hé".into()).unwrap();
    assert_eq!(text.result().unwrap(), "hé!");
    let bytes = pool
        .submit(|bytes: Box<[u8]>| bytes, Box::from([1, 2]))
        .unwrap();
    assert_eq!(*bytes.result().unwrap(), [1, 2]);
}

#[test]
fn values_of_all_lengths_travel() {
    let pool = pool(2, StartMethod::Spawn);
    let near = |length: usize| [length.saturating_sub(1), length, length + 1, length + 7];
    let lengths = [
        0,
        8,
        1024,
        32 * 1024 - 32,
        32 * 1024,
        256 * 1024 - 32,
        256 * 1024,
        1 << 23,
    ];
    for length in lengths.into_iter().flat_map(near) {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let back = pool.submit(|bytes: Vec<u8>| bytes, bytes.clone()).unwrap();
        assert!(back.result().unwrap() == bytes, "{length} bytes");
    }
}

#[test]
fn long_values_go_both_ways_at_the_same_time() {
    let pool = pool(2, StartMethod::Spawn);
    let futures: Vec<_> = (0..24_u8)
        .map(|n| {
            pool.submit(|bytes: Vec<u8>| bytes, vec![n; 3_000_000])
                .unwrap()
        })
        .collect();
    for (n, future) in (0..).zip(futures) {
        assert!(future.result().unwrap() == vec![n; 3_000_000]);
    }
}

#[test]
fn map_yields_results_in_order_with_any_chunksize() {
    let pool = pool(2, StartMethod::Spawn);
    let expected: Vec<u64> = (0..1000).map(square).collect();
    for chunksize in [0, 1, 7, 1000, 5000] {
        let options = MapOptions::new().chunksize(chunksize);
        let results = pool.map_with(options, square, 0..1000).unwrap();
        assert_eq!(results.len(), 1000);
        assert_eq!(results.collect::<Result<Vec<_>, _>>().unwrap(), expected);
    }
}

#[test]
fn a_panicking_item_of_a_chunk_takes_no_other_along() {
    let pool = pool(2, StartMethod::Spawn);
    let f = |n: u32| {
        assert!(n != 3, "three");
        n
    };
    let results = pool
        .map_with(MapOptions::new().chunksize(4), f, 0..8)
        .unwrap();
    let failed: Vec<bool> = results.map(|result| result.is_err()).collect();
    assert_eq!(
        failed,
        [false, false, false, true, false, false, false, false]
    );
}

#[test]
fn futures_of_threads_and_processes_mix() {
    let processes = pool(2, StartMethod::Spawn);
    let threads = ThreadPoolExecutor::new().unwrap();
    let mut futures = Vec::new();
    for n in 0..50_u64 {
        futures.push(processes.submit(square, n).unwrap());
        futures.push(threads.submit(square, n).unwrap());
    }
    let done = wait(&futures, None, concurrent_futures::ReturnWhen::AllCompleted);
    assert_eq!(done.done.len(), 100);
    let sum: u64 = as_completed(futures)
        .map(|future| future.result().unwrap())
        .sum();
    assert_eq!(sum, 2 * (0..50).map(square).sum::<u64>());
}

#[test]
fn a_process_future_can_be_awaited() {
    let pool = pool(1, StartMethod::Spawn);
    let future = pool.submit(square, 9).unwrap();
    assert_eq!(futures_lite::future::block_on(future).unwrap(), 81);
}

#[test]
fn callbacks_run_in_this_process() {
    let pool = pool(1, StartMethod::Spawn);
    let (sender, receiver) = mpsc::channel();
    let future = pool.submit(square, 3).unwrap();
    future.add_done_callback(move |result| {
        let result = result.copied().map_err(Clone::clone);
        sender.send((std::process::id(), result.unwrap())).unwrap();
    });
    assert_eq!(
        receiver.recv_timeout(LONG).unwrap(),
        (std::process::id(), 9)
    );
}

#[test]
fn a_panicking_callback_stops_nothing() {
    let pool = pool(1, StartMethod::Spawn);
    let future = pool.submit(square, 3).unwrap();
    future.add_done_callback(|_| panic!("a callback panics"));
    assert_eq!(future.result().unwrap(), 9);
    assert_eq!(pool.submit(square, 4).unwrap().result().unwrap(), 16);
}

#[test]
fn a_panic_arrives_with_message_location_and_backtrace() {
    fn unlucky(n: u32) -> u32 {
        panic!("no luck with {n}")
    }
    let pool = pool(1, StartMethod::Spawn);
    let error = pool.submit(unlucky, 13).unwrap().result().unwrap_err();
    let TaskError::Panicked(panic) = error else {
        panic!("{error:?}")
    };
    assert_eq!(panic.message(), "no luck with 13");
    let location = panic.location().unwrap();
    assert!(location.file.ends_with("process_pool.rs"), "{location}");
    assert!(
        panic.backtrace().to_string().contains("unlucky"),
        "{}",
        panic.backtrace()
    );
    // The worker lives on.
    assert_eq!(pool.submit(square, 4).unwrap().result().unwrap(), 16);
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no port")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn an_error_arrives_with_its_sources() {
    let pool = pool(1, StartMethod::Spawn);
    let parse = |text: String| text.parse::<u16>().map_err(Outer);
    let port = pool.submit_fallible(parse, "80".into()).unwrap();
    assert_eq!(port.result().unwrap(), 80);
    let error = pool
        .submit_fallible(parse, "x".into())
        .unwrap()
        .result()
        .unwrap_err();
    let TaskError::Failed(cause) = error else {
        panic!("{error:?}")
    };
    assert!(cause.is::<RemoteError>());
    assert_eq!(cause.to_string(), "no port");
    let source = cause.source().unwrap();
    assert_eq!(source.to_string(), "invalid digit found in string");
    assert!(source.source().is_none());
}

/// A value that can be serialised in one direction only.
#[derive(Debug)]
struct OneWay(bool);

impl Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            return Err(serde::ser::Error::custom("stays here"));
        }
        serializer.serialize_bool(false)
    }
}

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer)?;
        Err(serde::de::Error::custom("does not arrive"))
    }
}

#[test]
fn a_value_that_cannot_be_sent_fails_one_future_and_names_the_type() {
    fn step<T: fmt::Debug>(result: Result<T, TaskError>) -> TransferStep {
        let error = result.unwrap_err();
        let TaskError::Transfer(error) = error else {
            panic!("{error:?}")
        };
        assert!(error.type_name().ends_with("OneWay"), "{error}");
        assert!(error.to_string().contains("OneWay"), "{error}");
        error.step()
    }
    let pool = pool(1, StartMethod::Spawn);
    let argument = |argument| pool.submit(|_: OneWay| (), argument).unwrap().result();
    assert_eq!(step(argument(OneWay(true))), TransferStep::SendArgument);
    assert_eq!(step(argument(OneWay(false))), TransferStep::ReceiveArgument);
    let result = |fails| pool.submit(OneWay, fails).unwrap().result();
    assert_eq!(step(result(true)), TransferStep::SendResult);
    assert_eq!(step(result(false)), TransferStep::ReceiveResult);
    assert_eq!(pool.submit(square, 4).unwrap().result().unwrap(), 16);
}

#[test]
fn a_value_that_panics_on_its_way_fails_one_future() {
    struct Bomb;
    impl Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("in serialize")
        }
    }
    impl<'de> Deserialize<'de> for Bomb {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("in deserialize")
        }
    }
    let pool = pool(1, StartMethod::Spawn);
    let sent = pool.submit(|_: Bomb| (), Bomb).unwrap().result();
    assert!(matches!(sent, Err(TaskError::Panicked(_))), "{sent:?}");
    let returned = pool.submit(|()| Bomb, ()).unwrap().result();
    assert!(matches!(returned, Err(TaskError::Panicked(_))));
    assert_eq!(pool.submit(square, 4).unwrap().result().unwrap(), 16);
}

#[test]
fn tasks_start_in_the_order_of_submission() {
    let pool = pool(1, StartMethod::Spawn);
    let futures: Vec<_> = (0..500)
        .map(|n: u32| {
            let count = |n: u32| {
                use std::sync::atomic::{AtomicU32, Ordering};
                static COUNT: AtomicU32 = AtomicU32::new(0);
                (n, COUNT.fetch_add(1, Ordering::SeqCst))
            };
            pool.submit(count, n).unwrap()
        })
        .collect();
    for future in futures {
        let (submitted, started) = future.result().unwrap();
        assert_eq!(submitted, started);
    }
}

#[test]
fn a_pending_task_can_be_cancelled_and_a_running_one_not() {
    let pool = pool(1, StartMethod::Spawn);
    let gate = common::process::Gate::new();
    let running = pool.submit(common::process::hold, gate.path()).unwrap();
    gate.wait_until_reached();
    let pending = pool.submit(square, 2).unwrap();
    assert!(!running.cancel());
    assert!(running.is_running());
    assert!(pending.cancel());
    assert!(matches!(pending.result(), Err(TaskError::Cancelled)));
    gate.open();
    running.result().unwrap();
}

#[test]
fn hundred_thousand_pending_tasks_are_no_problem() {
    let pool = pool(2, StartMethod::Spawn);
    let before = open_files();
    let futures: Vec<Future<u64>> = (0..100_000)
        .map(|n| pool.submit(square, n).unwrap())
        .collect();
    // Not one for each: workers may have started meanwhile.
    assert!(open_files() < before + 20);
    for (n, future) in (0..).zip(futures) {
        assert_eq!(future.result().unwrap(), square(n));
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn many_threads_submit_at_once() {
    let pool = pool(2, StartMethod::Spawn);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..2_000 {
                    assert_eq!(pool.submit(square, n).unwrap().result().unwrap(), square(n));
                }
            });
        }
    });
}

#[test]
fn shutdown_waits_for_all_tasks() {
    for method in start_methods() {
        let pool = pool(2, method);
        let futures: Vec<_> = (0..100).map(|n| pool.submit(square, n).unwrap()).collect();
        let pids = pids_of(&pool);
        pool.shutdown(Shutdown::Wait);
        assert!(futures.iter().all(Future::is_done));
        assert!(pool.worker_pids().is_empty());
        assert!(matches!(pool.submit(square, 1), Err(SubmitError::Shutdown)));
        common::process::assert_gone(&pids);
    }
}

#[test]
fn shutdown_can_cancel_tasks_that_no_worker_has_begun() {
    let pool = pool(1, StartMethod::Spawn);
    let gate = common::process::Gate::new();
    let running = pool.submit(common::process::hold, gate.path()).unwrap();
    gate.wait_until_reached();
    let pending: Vec<_> = (0..10).map(|n| pool.submit(square, n).unwrap()).collect();
    pool.shutdown(Shutdown::CancelPendingNoWait);
    for future in pending {
        assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    }
    gate.open();
    running.result().unwrap();
    drop(pool);
}

#[test]
fn tasks_dispatched_behind_a_long_one_are_recalled() {
    let pool = pool(2, StartMethod::Spawn);
    // So that tasks are known to be short, and are handed ahead.
    pool.map(square, 0..2000).unwrap().for_each(drop);
    let gate = common::process::Gate::new();
    let long = pool.submit(common::process::hold, gate.path()).unwrap();
    let short: Vec<_> = (0..500).map(|n| pool.submit(square, n).unwrap()).collect();
    for future in short {
        future.result().unwrap();
    }
    gate.wait_until_reached();
    assert!(!long.is_done());
    gate.open();
    long.result().unwrap();
}

#[test]
fn dropping_a_pool_waits_and_its_futures_live_on() {
    let future = {
        let pool = pool(1, StartMethod::Spawn);
        pool.submit(square, 5).unwrap()
    };
    assert!(future.is_done());
    assert_eq!(future.result().unwrap(), 25);
}

#[test]
fn a_callback_may_shut_its_own_pool_down() {
    within_limit(|| {
        let pool = std::sync::Arc::new(pool(1, StartMethod::Spawn));
        let called = Gate::new();
        let future = pool.submit(square, 5).unwrap();
        future.add_done_callback({
            let (pool, called) = (pool.clone(), called.clone());
            move |_| {
                pool.shutdown(Shutdown::Wait);
                called.open();
            }
        });
        called.wait();
        drop(future);
        pool.shutdown(Shutdown::Wait);
    });
}

#[test]
fn workers_are_started_when_they_are_needed() {
    let pool = pool(2, StartMethod::Spawn);
    assert!(pool.worker_pids().is_empty());
    pool.submit(square, 1).unwrap().result().unwrap();
    assert_eq!(pool.worker_pids().len(), 1);
    for _ in 0..10 {
        pool.submit(square, 1).unwrap().result().unwrap();
    }
    assert_eq!(pool.worker_pids().len(), 1);
}

#[test]
fn a_time_limit_of_result_loses_nothing() {
    let pool = pool(1, StartMethod::Spawn);
    let gate = common::process::Gate::new();
    let mut future = pool.submit(common::process::hold, gate.path()).unwrap();
    let early = future.result_timeout(common::SHORT);
    assert!(matches!(early, Err(TaskError::Timeout)));
    gate.open();
    future.result_timeout(LONG).unwrap();
}

#[test]
fn map_can_be_bounded_and_limited_in_time() {
    let pool = pool(2, StartMethod::Spawn);
    let firsts = pool.map_buffered(8, square, 0..).unwrap().take(100);
    let expected: Vec<u64> = (0..100).map(square).collect();
    assert_eq!(firsts.collect::<Result<Vec<_>, _>>().unwrap(), expected);
    let gate = common::process::Gate::new();
    let mut results = pool
        .map(common::process::hold, [gate.path()])
        .unwrap()
        .timeout(common::SHORT);
    assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    gate.open();
}

#[test]
fn two_pools_at_once_do_not_disturb_each_other() {
    let (one, other) = (
        pool(2, StartMethod::Spawn),
        pool(2, StartMethod::ForkServer),
    );
    let futures: Vec<_> = (0..1000)
        .map(|n| {
            (
                one.submit(square, n).unwrap(),
                other.submit(square, n + 1).unwrap(),
            )
        })
        .collect();
    for (n, (a, b)) in (0..).zip(futures) {
        assert_eq!(
            (a.result().unwrap(), b.result().unwrap()),
            (square(n), square(n + 1))
        );
    }
    let pids = |pool: &ProcessPoolExecutor| pool.worker_pids().into_iter().collect::<HashSet<_>>();
    assert!(pids(&one).is_disjoint(&pids(&other)));
}

#[test]
fn a_pool_works_on_when_the_thread_that_made_it_has_ended() {
    for method in start_methods() {
        let (pool, pid) = thread::spawn(move || {
            let pool = pool(1, method);
            let pid = pool
                .submit(|()| std::process::id(), ())
                .unwrap()
                .result()
                .unwrap();
            (pool, pid)
        })
        .join()
        .unwrap();
        for _ in 0..3 {
            let again = pool
                .submit(|()| std::process::id(), ())
                .unwrap()
                .result()
                .unwrap();
            assert_eq!(again, pid);
        }
    }
}

#[test]
fn tasks_may_have_pools_of_their_own() {
    fn fibonacci(n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .build()
            .unwrap();
        let (a, b) = (pool.submit(fibonacci, n - 1), pool.submit(fibonacci, n - 2));
        a.unwrap().result().unwrap() + b.unwrap().result().unwrap()
    }
    let pool = pool(1, StartMethod::Spawn);
    assert_eq!(pool.submit(fibonacci, 5).unwrap().result().unwrap(), 5);
}

#[test]
fn a_result_of_a_gigabyte_arrives() {
    let pool = pool(1, StartMethod::Spawn);
    let length = 1 << 30;
    let bytes = pool
        .submit(|length: usize| vec![7_u8; length], length)
        .unwrap();
    let bytes = bytes.result().unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[length - 1]), (length, 7, 7));
}

#[test]
fn an_idle_pool_makes_no_system_call() {
    let pool = pool(1, StartMethod::Spawn);
    let pid = pool
        .submit(|()| std::process::id(), ())
        .unwrap()
        .result()
        .unwrap();
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let lines = status
            .lines()
            .filter(|line| line.contains("voluntary_ctxt_switches"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // Soon nothing happens any more. A worker that looked for work now and then would not rest.
    eventually("the worker rests", || {
        let before = switches();
        thread::sleep(Duration::from_millis(200));
        switches() == before
    });
}
