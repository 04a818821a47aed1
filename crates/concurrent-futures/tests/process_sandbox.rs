//! Process pools where the system refuses what they use at its best: under seccomp filters, as those
//! of containers, and with limits.

#![cfg(target_os = "linux")]

mod common;

use common::process::{assert_gone, death, pids_of, pool, start_methods};
use concurrent_futures::{ProcessPoolExecutor, StartMethod, WorkerExit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::env;
use std::process::Command;

concurrent_futures::init_before_main!();

/// Makes these system calls fail with `errno` in this process and all that it starts from now on.
fn refuse(calls: &[libc::c_long], errno: i32) {
    // `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x20;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let line = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![line(LOAD, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        let to_end = u8::try_from(calls.len() - index).unwrap();
        program.push(line(IS, to_end, u32::try_from(*call).unwrap()));
    }
    program.push(line(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let refused = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    program.push(line(RETURN, 0, refused));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter is read before the calls return, and is a program that ends.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter),
            0
        );
    }
}

const MEMORY: &[libc::c_long] = &[libc::SYS_memfd_create];
const PROCESSES: &[libc::c_long] = &[
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
];
const SIGNALS: &[libc::c_long] = &[libc::SYS_pidfd_send_signal];
const ALL: &[libc::c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
];

/// Runs a test of this file again, in a process of its own, which `restrict` has changed. True in
/// that process.
fn is_alone(name: &str, restrict: impl FnOnce()) -> bool {
    const VARIABLE: &str = "CONCURRENT_FUTURES_ALONE";
    if env::var_os(VARIABLE).is_some_and(|alone| alone == name) {
        restrict();
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", name])
        .env(VARIABLE, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    false
}

fn exit(code: i32) {
    std::process::exit(code);
}

/// All that a pool does: tasks, long values, a death, the end.
fn assert_works() {
    for method in start_methods() {
        let workers = pool(2, method);
        let squares = workers.map(|n: u64| n * n, 0..100).unwrap();
        assert_eq!(squares.map(Result::unwrap).sum::<u64>(), 328_350);
        let long = vec![7_u8; 3_000_000];
        let back = workers
            .submit(|bytes: Vec<u8>| bytes, long.clone())
            .unwrap();
        assert!(back.result().unwrap() == long);
        let dead = death(workers.submit(exit, 7).unwrap());
        assert_eq!(dead.exit(), WorkerExit::Code(7));
        assert_eq!(workers.submit(|n: u32| n, 1).unwrap().result().unwrap(), 1);
        let pids = pids_of(&workers);
        workers.shutdown(true, false);
        assert_gone(&pids);
    }
}

#[test]
fn a_pool_works_without_files_in_memory() {
    let name = "a_pool_works_without_files_in_memory";
    if is_alone(name, || refuse(MEMORY, libc::ENOSYS)) {
        assert_works();
    }
}

#[test]
fn a_pool_works_without_pidfds() {
    if is_alone("a_pool_works_without_pidfds", || {
        refuse(PROCESSES, libc::ENOSYS);
    }) {
        assert_works();
    }
}

#[test]
fn a_pool_works_where_pidfds_take_no_signals() {
    let name = "a_pool_works_where_pidfds_take_no_signals";
    if is_alone(name, || refuse(SIGNALS, libc::EPERM)) {
        assert_works();
    }
}

#[test]
fn a_pool_works_where_a_sandbox_forbids_all_of_that() {
    let name = "a_pool_works_where_a_sandbox_forbids_all_of_that";
    if is_alone(name, || refuse(ALL, libc::EPERM)) {
        assert_works();
    }
}

#[test]
fn a_pool_works_in_a_process_that_may_write_no_files() {
    let none = || {
        let limit = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Fsize, limit).unwrap();
    };
    if is_alone("a_pool_works_in_a_process_that_may_write_no_files", none) {
        assert_works();
    }
}

#[test]
fn a_memory_limit_above_the_hard_limit_is_the_hard_limit() {
    const HARD: u64 = 1 << 33;
    let hard = || {
        let limit = Rlimit {
            current: Some(HARD),
            maximum: Some(HARD),
        };
        setrlimit(Resource::Data, limit).unwrap();
    };
    if is_alone(
        "a_memory_limit_above_the_hard_limit_is_the_hard_limit",
        hard,
    ) {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .start_method(StartMethod::Spawn)
            .memory_limit(HARD * 2)
            .build()
            .unwrap();
        let limit = pool.submit(|()| getrlimit(Resource::Data).current, ());
        assert_eq!(limit.unwrap().result().unwrap(), Some(HARD));
    }
}
