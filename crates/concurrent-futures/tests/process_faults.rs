//! Tests of worker processes that die, hang, and are killed by real signals.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::eventually;
use common::process::{
    Gate, assert_gone, breaking_death, death, hold, is_alive, pid, pids_of, pool, reach, send,
    start_methods,
};
use concurrent_futures::{
    OnWorkerDeath, ProcessPoolExecutor, StartMethod, SubmitError, TaskError, TaskOptions,
    WorkerExit,
};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

concurrent_futures::init_before_main!();

fn exit(code: i32) {
    std::process::exit(code)
}

fn abort((): ()) {
    std::process::abort()
}

fn overflow(n: u64) -> u64 {
    let big = std::hint::black_box([n; 1000]);
    if n == u64::MAX {
        big[7]
    } else {
        overflow(n + 1) + big[3]
    }
}

#[test]
fn every_way_to_die_fails_one_task_and_is_named() {
    for method in start_methods() {
        let pool = pool(1, method);
        let exit = death(pool.submit(exit, 3).unwrap());
        assert_eq!(exit.exit(), WorkerExit::Code(3));
        assert!(
            exit.to_string()
                .contains("exited with code 3 while it ran task"),
            "{exit}"
        );
        assert!(exit.to_string().contains(&exit.pid().to_string()), "{exit}");
        let abort = death(pool.submit(abort, ()).unwrap());
        assert_eq!(abort.exit(), WorkerExit::Signal(6));
        assert!(abort.to_string().contains("SIGABRT"), "{abort}");
        let die = |signal| {
            let me = rustix::process::getpid();
            kill_process(me, Signal::from_named_raw(signal).unwrap()).unwrap();
            thread::sleep(Duration::from_secs(60));
        };
        for signal in [9, 11, 15] {
            let future = pool.submit(die, signal).unwrap();
            let id = future.id();
            let death = death(future);
            assert_eq!(
                (death.exit(), death.task()),
                (WorkerExit::Signal(signal), Some(id))
            );
        }
        let overflow = death(pool.submit(overflow, 0).unwrap());
        assert!(
            matches!(overflow.exit(), WorkerExit::Signal(6 | 11)),
            "{overflow}"
        );
        // The pool has healed each time.
        assert!(is_alive(pid(&pool)));
    }
}

#[test]
fn five_of_two_hundred_tasks_die_and_the_others_have_results() {
    fn sometimes(n: u32) -> u32 {
        if n % 40 == 7 {
            std::process::abort();
        }
        n
    }
    for method in start_methods() {
        let pool = pool(2, method);
        let futures: Vec<_> = (0..200)
            .map(|n| pool.submit(sometimes, n).unwrap())
            .collect();
        let mut dead = Vec::new();
        for (n, future) in (0..).zip(futures) {
            match future.result() {
                Ok(result) => assert_eq!(result, n),
                Err(TaskError::WorkerDied(_)) => dead.push(n),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(dead, [7, 47, 87, 127, 167]);
    }
}

#[test]
fn a_worker_killed_while_idle_costs_no_task() {
    for method in start_methods() {
        let pool = pool(1, method);
        for _ in 0..5 {
            let old = pid(&pool);
            send(old, Signal::KILL);
            eventually("the worker is replaced", || !pids_of(&pool).contains(&old));
            assert_ne!(pid(&pool), old);
        }
    }
}

#[test]
fn a_worker_killed_at_any_moment_fails_at_most_the_task_it_runs() {
    let pool = pool(2, StartMethod::Spawn);
    for round in 0..30_u64 {
        let futures: Vec<_> = (0..300_u64)
            .map(|n| pool.submit(|n: u64| n + 1, n).unwrap())
            .collect();
        let victims = pids_of(&pool);
        thread::sleep(Duration::from_micros(40 * round));
        if let Some(victim) = Pid::from_raw(victims[0].cast_signed()) {
            let _ = kill_process(victim, Signal::KILL);
        }
        let mut dead = 0;
        for (n, future) in (0..).zip(futures) {
            match future.result() {
                Ok(result) => assert_eq!(result, n + 1),
                Err(TaskError::WorkerDied(death)) => {
                    assert_eq!(death.exit(), WorkerExit::Signal(9));
                    dead += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(dead <= 1, "{dead} tasks died with one worker");
    }
}

#[test]
fn all_workers_killed_at_once_fail_their_tasks_only() {
    for method in start_methods() {
        let pool = pool(2, method);
        let gates = [Gate::new(), Gate::new()];
        let running = gates
            .each_ref()
            .map(|gate| pool.submit(hold, gate.path()).unwrap());
        let pids = gates.each_ref().map(Gate::wait_until_reached);
        let pending: Vec<_> = (0..20)
            .map(|n| pool.submit(|n: u32| n, n).unwrap())
            .collect();
        for pid in pids {
            send(pid, Signal::KILL);
        }
        for (pid, future) in pids.into_iter().zip(running) {
            assert_eq!(death(future).pid(), pid);
        }
        for (n, future) in (0..).zip(pending) {
            assert_eq!(future.result().unwrap(), n);
        }
    }
}

#[test]
fn a_worker_killed_while_reading_a_long_argument_costs_no_task_it_has_not_begun() {
    let pool = pool(1, StartMethod::Spawn);
    let stopped = pid(&pool);
    send(stopped, Signal::STOP);
    let future = pool
        .submit(|bytes: Vec<u8>| bytes.len(), vec![1; 10_000_000])
        .unwrap();
    // The worker was idle, so that the argument is on its way, and fills the stream.
    assert!(!future.is_running() && !future.cancel());
    send(stopped, Signal::KILL);
    assert_eq!(future.result().unwrap(), 10_000_000);
}

#[test]
fn a_worker_killed_while_long_values_travel_leaves_the_pool_whole() {
    let pool = pool(1, StartMethod::Spawn);
    for round in 0..20_u64 {
        let victim = pid(&pool);
        let future = pool
            .submit(|bytes: Vec<u8>| bytes, vec![1; 20_000_000])
            .unwrap();
        thread::sleep(Duration::from_micros(700 * round));
        send(victim, Signal::KILL);
        match future.result() {
            Ok(bytes) => assert_eq!(bytes.len(), 20_000_000),
            Err(TaskError::WorkerDied(death)) => assert_eq!(death.pid(), victim),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(is_alive(pid(&pool)));
}

#[test]
fn a_time_limit_kills_the_worker_and_the_pool_heals() {
    for method in start_methods() {
        let pool = pool(1, method);
        let gate = Gate::new();
        let options = TaskOptions::new().time_limit(Duration::from_millis(30));
        let slow = pool.submit_with(options, hold, gate.path()).unwrap();
        let after = pool.submit_with(options, |n: u32| n, 1).unwrap();
        let error = slow.result().unwrap_err();
        let TaskError::TimeLimit(limit) = error else {
            panic!("{error:?}")
        };
        assert_eq!(limit.limit(), Duration::from_millis(30));
        assert!(limit.to_string().contains("30ms"), "{limit}");
        assert_eq!(after.result().unwrap(), 1);
        eventually("the worker is gone", || !is_alive(limit.pid()));
    }
}

#[test]
fn a_time_limit_is_kept_by_a_pool_that_was_at_rest() {
    let pool = pool(1, StartMethod::Spawn);
    for _ in 0..3 {
        let worker = pid(&pool);
        // The supervisor sleeps, and has no reason to wake. It does soon; should it not have
        // gone to sleep yet, this shows less, and passes.
        let stat = || std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        eventually("the worker sleeps", || stat().contains(") S "));
        thread::sleep(Duration::from_millis(20));
        let gate = Gate::new();
        let options = TaskOptions::new().time_limit(Duration::from_millis(30));
        let slow = pool.submit_with(options, hold, gate.path()).unwrap();
        assert!(matches!(slow.result(), Err(TaskError::TimeLimit(_))));
    }
}

#[test]
fn a_running_task_can_be_terminated_and_a_pending_one_too() {
    let pool = pool(1, StartMethod::Spawn);
    let gate = Gate::new();
    let running = pool.submit(hold, gate.path()).unwrap();
    let pid = gate.wait_until_reached();
    let pending = pool.submit(|n: u32| n, 1).unwrap();
    let next = pool.submit(|n: u32| n, 2).unwrap();
    assert!(pending.terminate());
    assert!(matches!(pending.result(), Err(TaskError::Cancelled)));
    assert!(running.terminate());
    assert!(matches!(running.result(), Err(TaskError::Terminated)));
    assert_eq!(next.result().unwrap(), 2);
    assert_gone(&[pid]);
}

#[test]
fn a_finished_task_cannot_be_terminated() {
    let pool = pool(1, StartMethod::Spawn);
    let pid = pid(&pool);
    let future = pool.submit(|n: u32| n, 1).unwrap();
    eventually("the task is done", || future.is_done());
    assert!(!future.terminate());
    assert!(is_alive(pid));
}

#[test]
fn a_task_with_retries_runs_again_after_its_worker_dies() {
    /// Ends its worker the first two times, and returns the third time.
    #[expect(clippy::needless_pass_by_value, reason = "a task has its argument")]
    fn third_time_lucky(folder: PathBuf) -> u32 {
        let times = std::fs::read_dir(&folder).unwrap().count();
        std::fs::write(folder.join(times.to_string()), "").unwrap();
        if times < 2 {
            std::process::abort();
        }
        u32::try_from(times).unwrap()
    }
    let pool = pool(2, StartMethod::Spawn);
    let gate = Gate::new();
    let options = TaskOptions::new().retries(2);
    let lucky = pool
        .submit_with(options, third_time_lucky, gate.path())
        .unwrap();
    assert_eq!(lucky.result().unwrap(), 2);
    let gate = Gate::new();
    let options = TaskOptions::new().retries(1);
    let unlucky = pool
        .submit_with(options, third_time_lucky, gate.path())
        .unwrap();
    assert_eq!(death(unlucky).exit(), WorkerExit::Signal(6));
}

#[test]
fn kill_workers_ends_everything_at_once() {
    for terminate in [false, true] {
        let pool = pool(1, StartMethod::Spawn);
        let gate = Gate::new();
        let running = pool.submit(hold, gate.path()).unwrap();
        let pid = gate.wait_until_reached();
        let pending = pool.submit(|n: u32| n, 1).unwrap();
        if terminate {
            pool.terminate_workers();
        } else {
            pool.kill_workers();
        }
        assert!(matches!(running.result(), Err(TaskError::Terminated)));
        assert!(matches!(pending.result(), Err(TaskError::Cancelled)));
        assert!(matches!(
            pool.submit(|n: u32| n, 1),
            Err(SubmitError::Shutdown)
        ));
        drop(pool);
        assert_gone(&[pid]);
    }
}

#[test]
fn a_strict_pool_breaks_when_a_worker_dies() {
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .on_worker_death(OnWorkerDeath::Break)
        .build()
        .unwrap();
    let gate = Gate::new();
    let running = pool.submit(hold, gate.path()).unwrap();
    let pid = gate.wait_until_reached();
    let pending = pool.submit(|n: u32| n, 1).unwrap();
    send(pid, Signal::KILL);
    for death in [breaking_death(running), breaking_death(pending)] {
        assert_eq!((death.pid(), death.exit()), (pid, WorkerExit::Signal(9)));
    }
    assert!(matches!(
        pool.submit(|n: u32| n, 1),
        Err(SubmitError::Broken(_))
    ));
}

#[test]
fn workers_are_replaced_after_max_tasks_per_child() {
    for method in start_methods() {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .start_method(method)
            .max_tasks_per_child(3)
            .build()
            .unwrap();
        let pids = pool.map(|_: u32| std::process::id(), 0..9).unwrap();
        let pids: Vec<u32> = pids.map(Result::unwrap).collect();
        for three in pids.chunks(3) {
            assert_eq!(three, [three[0]; 3], "{pids:?}");
        }
        assert!(pids[0] != pids[3] && pids[3] != pids[6], "{pids:?}");
    }
}

#[test]
fn a_memory_limit_costs_the_task_that_exceeds_it() {
    for method in start_methods() {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .start_method(method)
            .memory_limit(64 << 20)
            .build()
            .unwrap();
        let take = |bytes: usize| {
            vec![1_u8; bytes]
                .iter()
                .map(|byte| u64::from(*byte))
                .sum::<u64>()
        };
        assert_eq!(
            pool.submit(take, 1 << 20).unwrap().result().unwrap(),
            1 << 20
        );
        let death = death(pool.submit(take, 256 << 20).unwrap());
        assert!(
            death.to_string().contains("limited to 67108864 bytes"),
            "{death}"
        );
        assert_eq!(
            pool.submit(take, 1 << 20).unwrap().result().unwrap(),
            1 << 20
        );
    }
}

#[test]
fn standard_input_is_empty() {
    use std::io::Read;
    let pool = pool(1, StartMethod::Spawn);
    let read = |()| std::io::stdin().read(&mut [0; 10]).unwrap();
    assert_eq!(pool.submit(read, ()).unwrap().result().unwrap(), 0);
}

#[test]
fn a_task_may_change_its_folder_and_close_its_descriptors() {
    let pool = pool(1, StartMethod::Spawn);
    let change = |()| std::env::set_current_dir("/").unwrap();
    pool.submit(change, ()).unwrap().result().unwrap();
    let write = |()| {
        use std::io::Write;
        std::io::stdout().write_all(b"").unwrap();
    };
    pool.submit(write, ()).unwrap().result().unwrap();
    // Closes everything, the channel's socket too.
    let close = |n: u32| {
        // SAFETY: `close_range` touches no memory. The owners of the descriptors find them closed: that is
        // the test.
        unsafe { libc::close_range(0, u32::MAX, 0) };
        n
    };
    assert_eq!(pool.submit(close, 5).unwrap().result().unwrap(), 5);
    for n in 0..10 {
        assert_eq!(pool.submit(|n: u32| n, n).unwrap().result().unwrap(), n);
    }
}

#[test]
fn a_task_that_forks_answers_once() {
    let pool = pool(1, StartMethod::Spawn);
    let fork = |n: u32| {
        // SAFETY: a worker has one thread.
        unsafe { libc::fork() };
        n
    };
    for n in 0..20 {
        assert_eq!(pool.submit(fork, n).unwrap().result().unwrap(), n);
        assert_eq!(
            pool.submit(|n: u32| n + 1, n).unwrap().result().unwrap(),
            n + 1
        );
    }
}

#[test]
fn a_worker_that_scribbles_over_its_channel_fails_alone() {
    /// Fills the shared memory of the channel with a byte.
    fn scribble(byte: u8) -> u8 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps
            .lines()
            .find(|line| line.contains("memfd:concurrent-futures"))
            .unwrap();
        let (start, end) = line
            .split_whitespace()
            .next()
            .unwrap()
            .split_once('-')
            .unwrap();
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the mapping is there, and writable; that it is not ours to write to is
        // the test.
        unsafe { std::ptr::write_bytes(memory, byte, end - start) };
        byte
    }
    for byte in [0, 1, 0x7f, 0xff] {
        let pool = pool(2, StartMethod::Spawn);
        let future = pool.submit(scribble, byte).unwrap();
        let result = future.result();
        assert!(result.is_err() || byte == result.unwrap());
        for n in 0..10 {
            assert_eq!(pool.submit(|n: u32| n, n).unwrap().result().unwrap(), n);
        }
    }
}

#[test]
fn a_worker_cannot_cut_the_shared_memory_off() {
    fn cut(_: ()) -> bool {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let memory = fds.flatten().find(|fd| {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            target
                .to_string_lossy()
                .contains("memfd:concurrent-futures")
        });
        // It is not even open any more.
        memory.is_none()
    }
    let pool = pool(1, StartMethod::Spawn);
    assert!(pool.submit(cut, ()).unwrap().result().unwrap());
}

#[test]
fn a_task_that_has_reached_its_place_runs_on_when_others_die() {
    let pool = pool(2, StartMethod::Spawn);
    let gate = Gate::new();
    let held = pool.submit(hold, gate.path()).unwrap();
    gate.wait_until_reached();
    for _ in 0..5 {
        death(pool.submit(abort, ()).unwrap());
    }
    gate.open();
    held.result().unwrap();
    let again = Gate::new();
    let reached = pool
        .submit(|gate: PathBuf| reach(&gate), again.path())
        .unwrap();
    reached.result().unwrap();
}
