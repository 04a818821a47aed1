//! Tests of the figures of pools of processes.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::process::{Gate, hold, pool, start_methods};
use common::{counts, eventually, within_limit};
use concurrent_futures::{Executor, ProcessPoolExecutor, StartMethod, ThreadPoolExecutor};

concurrent_futures::init_before_main!();

fn exit(code: i32) {
    std::process::exit(code);
}

fn square(n: u64) -> u64 {
    n * n
}

#[allow(clippy::needless_pass_by_value, reason = "a task has its argument")]
fn parse(text: String) -> Result<u8, std::num::ParseIntError> {
    text.parse()
}

#[test]
fn each_task_is_counted_in_its_phase() {
    within_limit(|| {
        for method in start_methods() {
            let pool = pool(1, method);
            assert_eq!(counts(&pool.stats()), [0; 5]);
            let gate = Gate::new();
            let held = pool.submit(hold, gate.path()).unwrap();
            gate.wait_until_reached();
            let pending: Vec<_> = (0..5).map(|n| pool.submit(square, n).unwrap()).collect();
            let failing = pool.submit_fallible(parse, "x".to_owned()).unwrap();
            assert_eq!(counts(&pool.stats()), [6, 1, 0, 0, 0]);
            assert!(pending[1].cancel());
            assert!(pending[3].cancel());
            assert_eq!(counts(&pool.stats()), [4, 1, 0, 0, 2]);
            gate.open();
            held.result().unwrap();
            assert!(failing.result().is_err());
            let stats = pool.stats();
            assert_eq!(counts(&stats), [0, 0, 4, 1, 2]);
            assert_eq!((stats.workers, stats.restarts), (1, 0));
            assert!(stats.busy <= stats.measured && !stats.busy.is_zero());
            // Those that were submitted after the first call.
            assert_eq!(stats.queued.count, 5);
        }
    });
}

#[test]
fn a_task_whose_worker_died_has_failed_and_the_new_worker_is_a_restart() {
    within_limit(|| {
        let pool = pool(1, StartMethod::Spawn);
        for deaths in 0..3 {
            assert_eq!(pool.submit(square, 3).unwrap().result().unwrap(), 9);
            let stats = pool.stats();
            assert_eq!((stats.failed, stats.restarts), (deaths, deaths));
            assert_eq!(stats.finished, deaths + 1);
            let dies = pool.submit(exit, 3).unwrap();
            assert!(dies.result().is_err());
        }
    });
}

#[test]
fn a_worker_that_has_had_its_tasks_is_restarted() {
    within_limit(|| {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .max_tasks_per_child(1)
            .build()
            .unwrap();
        for restarts in 0..3 {
            pool.submit(square, 3).unwrap().result().unwrap();
            // The next worker may be there already.
            let counted = pool.stats().restarts;
            assert!((restarts..=restarts + 1).contains(&counted), "{counted}");
        }
    });
}

#[test]
fn the_calls_of_a_map_are_counted_when_they_have_run() {
    within_limit(|| {
        let pool = pool(2, StartMethod::Spawn);
        let sum: u64 = pool.map(square, 0..1_000).unwrap().flatten().sum();
        assert_eq!(sum, 332_833_500);
        assert_eq!(pool.stats().finished, 1_000);
    });
}

#[test]
fn cancelled_tasks_are_not_pending_until_they_leave_the_queue() {
    within_limit(|| {
        let pool = pool(1, StartMethod::Spawn);
        let gate = Gate::new();
        let held = pool.submit(hold, gate.path()).unwrap();
        gate.wait_until_reached();
        let futures: Vec<_> = (0..500).map(|n| pool.submit(square, n).unwrap()).collect();
        for (cancelled, future) in futures.iter().step_by(2).enumerate() {
            assert!(future.cancel());
            let cancelled = cancelled as u64 + 1;
            assert_eq!(counts(&pool.stats()), [500 - cancelled, 1, 0, 0, cancelled]);
        }
        gate.open();
        held.result().unwrap();
        for future in futures.into_iter().skip(1).step_by(2) {
            future.result().unwrap();
        }
        eventually("the cancelled tasks have left the queue", || {
            counts(&pool.stats()) == [0, 0, 251, 0, 250]
        });
    });
}

#[test]
fn the_trait_gives_the_same_figures() {
    fn finished(executor: &impl Executor) -> u64 {
        executor.submit(square, 3).unwrap().result().unwrap();
        executor.stats().finished
    }
    within_limit(|| {
        assert_eq!(finished(&pool(1, StartMethod::Spawn)), 1);
        assert_eq!(finished(&ThreadPoolExecutor::new().unwrap()), 1);
    });
}
