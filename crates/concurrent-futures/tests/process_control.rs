//! Tests of tasks on their way to workers: running and cancelled tasks, bounds, observers, callbacks.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::process::{Gate, hold, pool};
use common::{LONG, eventually, within_limit};
use concurrent_futures::{
    BuildError, FutureId, Observer, ProcessPoolExecutor, Shutdown, StartMethod, SubmitError,
    TaskError, TaskOptions,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

concurrent_futures::init_before_main!();

fn square(n: u64) -> u64 {
    n * n
}

fn exit(code: i32) {
    std::process::exit(code);
}

/// A worker that gets no CPU until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn worker_of(pool: &ProcessPoolExecutor) -> Self {
        let pid = pool.submit(|()| std::process::id(), ()).unwrap().result();
        let pid = i32::try_from(pid.unwrap()).unwrap();
        // SAFETY: it is a worker of ours, which is there as long as the pool is.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        eventually("the worker has stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.contains(") T ")
        });
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: the process is a worker of ours, which is there as long as the pool is.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

#[test]
fn a_dispatched_task_that_has_not_begun_is_not_running_and_can_be_cancelled() {
    let pool = pool(1, StartMethod::Spawn);
    // So that tasks are known to be short, and are handed ahead.
    pool.map(square, 0..100).unwrap().for_each(drop);
    for _ in 0..20 {
        let stopped = Stopped::worker_of(&pool);
        let futures: Vec<_> = (0..50).map(|n| pool.submit(square, n).unwrap()).collect();
        for future in futures.iter().step_by(2) {
            assert!(!future.is_running() && !future.is_done());
            assert!(future.cancel());
            assert!(future.is_cancelled() && future.is_done());
        }
        drop(stopped);
        for (n, future) in (0..).zip(futures) {
            match (n % 2, future.result()) {
                (0, Err(TaskError::Cancelled)) => {}
                (_, result) => assert_eq!(result.unwrap(), square(n)),
            }
        }
    }
}

#[test]
fn a_recalled_task_is_not_run() {
    let pool = pool(1, StartMethod::Spawn);
    pool.map(square, 0..100).unwrap().for_each(drop);
    let gate = Gate::new();
    let stopped = Stopped::worker_of(&pool);
    let first = pool.submit(hold, gate.path()).unwrap();
    let second = pool.submit(square, 3).unwrap();
    assert!(first.cancel());
    drop(stopped);
    assert_eq!(second.result().unwrap(), 9);
    assert!(!gate.path().join("reached").exists());
}

#[test]
fn a_stream_full_of_recalled_tasks_is_no_problem() {
    let pool = pool(1, StartMethod::Spawn);
    let length = |bytes: Vec<u8>| bytes.len();
    let short = |n: usize| vec![1; n];
    pool.map(length, (0..100).map(short))
        .unwrap()
        .for_each(drop);
    for _ in 0..5 {
        let stopped = Stopped::worker_of(&pool);
        // As many as fit in, and some that do not.
        let submit = |_| pool.submit(length, vec![1; 20_000]).unwrap();
        let futures: Vec<_> = (0..100).map(submit).collect();
        assert!(futures.iter().all(concurrent_futures::Future::cancel));
        let last = pool.submit(length, vec![1; 30_000]).unwrap();
        drop(stopped);
        assert_eq!(last.result().unwrap(), 30_000);
    }
}

#[test]
fn cancelling_races_with_beginning_and_one_of_them_wins() {
    let pool = pool(2, StartMethod::Spawn);
    let mut cancelled = 0;
    for round in 0..300 {
        let futures: Vec<_> = (0..20).map(|n| pool.submit(square, n).unwrap()).collect();
        for future in futures.iter().skip(round % 7) {
            if future.cancel() {
                assert!(future.is_cancelled());
            }
        }
        for (n, future) in (0..).zip(futures) {
            match future.result() {
                Ok(result) => assert_eq!(result, square(n)),
                Err(TaskError::Cancelled) => cancelled += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(cancelled > 0);
}

#[test]
fn a_slow_callback_delays_neither_deaths_nor_time_limits() {
    within_limit(|| {
        let pool = pool(2, StartMethod::Spawn);
        let (reached, is_reached) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let slow = pool.submit(square, 1).unwrap();
        slow.add_done_callback(move |_| {
            reached.send(()).unwrap();
            let _ = gate.recv();
        });
        is_reached.recv_timeout(LONG).unwrap();
        let dies = pool.submit(exit, 3).unwrap();
        assert!(matches!(dies.result(), Err(TaskError::WorkerDied(_))));
        let options = TaskOptions::new().time_limit(Duration::from_millis(20));
        let gate = Gate::new();
        let endless = pool.submit_with(options, hold, gate.path()).unwrap();
        assert!(matches!(endless.result(), Err(TaskError::TimeLimit(_))));
        assert_eq!(pool.submit(square, 5).unwrap().result().unwrap(), 25);
        assert!(!slow.is_done());
        drop(go);
        assert_eq!(slow.result().unwrap(), 1);
    });
}

#[test]
fn a_callback_may_wait_for_a_task_of_its_pool() {
    within_limit(|| {
        let pool = Arc::new(pool(1, StartMethod::Spawn));
        let (sender, receiver) = mpsc::channel();
        let again = Arc::clone(&pool);
        let future = pool.submit(square, 3).unwrap();
        future.add_done_callback(move |result| {
            let result = again.submit(square, *result.unwrap()).unwrap().result();
            sender.send(result.unwrap()).unwrap();
        });
        assert_eq!(receiver.recv_timeout(LONG).unwrap(), 81);
        drop(future);
    });
}

#[test]
fn shutdown_waits_for_callbacks() {
    let pool = pool(2, StartMethod::Spawn);
    let called = Arc::new(Mutex::new(Vec::new()));
    for n in 0..100 {
        let called = Arc::clone(&called);
        let future = pool.submit(square, n).unwrap();
        future.add_done_callback(move |_| called.lock().unwrap().push(n));
    }
    pool.shutdown(Shutdown::Wait);
    let mut called = called.lock().unwrap().clone();
    called.sort_unstable();
    assert_eq!(called, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_time_limit_of_result_passes_while_other_answers_come() {
    within_limit(|| {
        let pool = pool(2, StartMethod::Spawn);
        let gate = Gate::new();
        let mut held = pool.submit(hold, gate.path()).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let futures = [1, 2, 3].map(|n| pool.submit(square, n).unwrap());
                    for future in futures {
                        future.result().unwrap();
                    }
                }
            });
            let early = held.result_timeout(Duration::from_millis(30));
            over.store(true, Ordering::SeqCst);
            assert!(matches!(early, Err(TaskError::Timeout)));
        });
        gate.open();
        held.result().unwrap();
    });
}

#[test]
fn a_bound_on_pending_tasks_makes_submit_wait_for_room() {
    within_limit(|| {
        let builder = ProcessPoolExecutor::builder().max_workers(1);
        let pool = Arc::new(builder.max_pending(2).build().unwrap());
        let gate = Gate::new();
        let held = pool.submit(hold, gate.path()).unwrap();
        gate.wait_until_reached();
        let pending = [1, 2].map(|n| pool.submit(square, n).unwrap());
        let (sender, receiver) = mpsc::channel();
        let submitter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                let third = pool.submit(square, 3).unwrap();
                sender.send(third).unwrap();
                pool.submit(square, 4)
            }
        });
        // A cancelled task holds no permit any more.
        let early = receiver.recv_timeout(common::SHORT);
        assert!(early.is_err(), "it has waited");
        assert!(pending[1].cancel());
        let third = receiver.recv_timeout(LONG).unwrap();
        // A submitter that still waits is refused when nothing is accepted any more.
        pool.shutdown(Shutdown::NoWait);
        let refused = submitter.join().unwrap();
        assert!(matches!(refused, Err(SubmitError::Shutdown)), "{refused:?}");
        gate.open();
        held.result().unwrap();
        assert_eq!(third.result().unwrap(), 9);
    });
}

#[test]
fn a_bounded_pool_takes_many_tasks_from_many_threads() {
    let builder = ProcessPoolExecutor::builder().max_workers(2);
    let pool = builder.max_pending(5).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let results = pool.map(square, 0..500).unwrap();
                assert_eq!(results.map(Result::unwrap).sum::<u64>(), 41_541_750);
            });
        }
    });
}

#[test]
fn no_room_at_all_is_refused() {
    let error = ProcessPoolExecutor::builder().max_pending(0).build();
    assert!(matches!(error, Err(BuildError::ZeroPending)));
}

/// Keeps the events of each task.
#[derive(Default)]
struct Log(Mutex<HashMap<FutureId, Vec<&'static str>>>);

impl Log {
    fn add(&self, future: FutureId, event: &'static str) {
        self.0
            .lock()
            .unwrap()
            .entry(future)
            .or_default()
            .push(event);
    }
}

impl Observer for Log {
    fn submitted(&self, future: FutureId) {
        self.add(future, "submitted");
    }

    fn started(&self, future: FutureId) {
        self.add(future, "started");
    }

    fn finished(&self, future: FutureId) {
        self.add(future, "finished");
    }
}

#[test]
fn an_observer_is_told_of_each_task_in_order() {
    let log = Arc::new(Log::default());
    let builder = ProcessPoolExecutor::builder().max_workers(2);
    let pool = builder.observer(Arc::clone(&log)).build().unwrap();
    let mut run: Vec<FutureId> = Vec::new();
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let futures: Vec<_> =
                        (0..200).map(|n| pool.submit(square, n).unwrap()).collect();
                    let ids: Vec<_> = futures.iter().map(concurrent_futures::Future::id).collect();
                    for (n, future) in (0..).zip(futures) {
                        assert_eq!(future.result().unwrap(), square(n));
                    }
                    ids
                })
            })
            .collect();
        for submitter in submitters {
            run.extend(submitter.join().unwrap());
        }
    });
    let dies = pool.submit(exit, 1).unwrap();
    run.push(dies.id());
    assert!(dies.result().is_err());
    let gates = [Gate::new(), Gate::new()];
    let held = gates
        .each_ref()
        .map(|gate| pool.submit(hold, gate.path()).unwrap());
    for gate in &gates {
        gate.wait_until_reached();
    }
    run.extend(held.iter().map(concurrent_futures::Future::id));
    let cancelled = pool.submit(square, 1).unwrap();
    assert!(cancelled.cancel());
    let never_run = cancelled.id();
    gates.iter().for_each(Gate::open);
    pool.shutdown(Shutdown::Wait);
    drop((held, cancelled));
    let told = log.0.lock().unwrap();
    for future in run {
        assert_eq!(told[&future], ["submitted", "started", "finished"]);
    }
    assert_eq!(told[&never_run], ["submitted"]);
}

#[test]
fn a_panicking_observer_stops_nothing() {
    struct Angry;
    impl Observer for Angry {
        fn started(&self, _: FutureId) {
            panic!("an observer panics");
        }
    }
    let builder = ProcessPoolExecutor::builder().max_workers(1);
    let pool = builder.observer(Angry).build().unwrap();
    for n in 0..10 {
        assert_eq!(pool.submit(square, n).unwrap().result().unwrap(), square(n));
    }
}

#[test]
fn tasks_that_were_cancelled_let_go_of_their_arguments() {
    const LENGTH: usize = 8 << 20;
    const TASKS: usize = 24;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<usize>().unwrap() * 1024
    };
    let pool = pool(1, StartMethod::Spawn);
    let gate = Gate::new();
    let busy = pool.submit(hold, gate.path()).unwrap();
    gate.wait_until_reached();
    let submit = |_| pool.submit(|bytes: Vec<u8>| bytes.len(), vec![1; LENGTH]);
    let tasks: Vec<_> = (0..TASKS).map(submit).map(Result::unwrap).collect();
    let full = resident();
    assert!(tasks.iter().all(concurrent_futures::Future::cancel));
    // Other tests of this process may take some memory meanwhile.
    assert!(resident() + TASKS * LENGTH / 2 < full);
    drop(tasks);
    gate.open();
    busy.result().unwrap();
    assert_eq!(pool.submit(square, 3).unwrap().result().unwrap(), 9);
}

#[test]
fn workers_that_ignore_the_request_to_end_are_killed() {
    fn ignore(gate: std::path::PathBuf) {
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        hold(gate);
    }
    let pool = pool(1, StartMethod::Spawn);
    let gate = Gate::new();
    let deaf = pool.submit(ignore, gate.path()).unwrap();
    let worker = gate.wait_until_reached();
    pool.terminate_workers();
    assert!(matches!(deaf.result(), Err(TaskError::Terminated)));
    pool.shutdown(Shutdown::Wait);
    assert!(!common::process::exists(worker));
}
