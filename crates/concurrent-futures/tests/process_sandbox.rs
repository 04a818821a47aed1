//! Process pools where the system refuses what they use at its best: under seccomp filters, as those
//! of containers, and with limits.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::eventually;
use common::process::{assert_gone, death, pids_of, pool, start_methods};
use concurrent_futures::{
    BuildError, ProcessPoolExecutor, Shutdown, StartMethod, TaskError, WorkerExit,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

concurrent_futures::init_before_main!();

/// Refuses calls in a worker from its very beginning, before [`concurrent_futures::init`].
const _: () = {
    extern "C" fn first() {
        if let (Ok(names), Ok(_)) = (env::var(IN_WORKERS), env::var("CONCURRENT_FUTURES_WORKER")) {
            let refused = names.split(',').map(|name| {
                let mut known = ALL.iter().flat_map(|rules| rules.iter());
                *known.find(|rule| rule.name == name).unwrap()
            });
            refuse(&refused.collect::<Vec<_>>(), libc::EPERM);
        }
    }
    #[used]
    #[unsafe(link_section = ".init_array.00001")]
    static FIRST: extern "C" fn() = first;
};

/// The variable with the names of calls that workers refuse from their beginning.
const IN_WORKERS: &str = "CONCURRENT_FUTURES_REFUSE_IN_WORKERS";

/// A system call, with a condition for an argument: place, mask and value.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    call: libc::c_long,
    argument: Option<(u32, u32, u32)>,
}

const fn call(name: &'static str, call: libc::c_long) -> Rule {
    Rule {
        name,
        call,
        argument: None,
    }
}

const fn call_with(
    name: &'static str,
    call: libc::c_long,
    place: u32,
    mask: u32,
    value: u32,
) -> Rule {
    Rule {
        name,
        call,
        argument: Some((place, mask, value)),
    }
}

const MEMORY: &[Rule] = &[call("memfd_create", libc::SYS_memfd_create)];
const SEALS: &[Rule] = &[call_with("F_ADD_SEALS", libc::SYS_fcntl, 1, !0, 1033)];
const PAGES: &[Rule] = &[call("fallocate", libc::SYS_fallocate)];
const PROCESSES: &[Rule] = &[
    call("pidfd_open", libc::SYS_pidfd_open),
    call("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    call("pidfd_getfd", libc::SYS_pidfd_getfd),
];
const SIGNALS: &[Rule] = &[call("pidfd_send_signal", libc::SYS_pidfd_send_signal)];
const REAPING: &[Rule] = &[call_with("P_PIDFD", libc::SYS_waitid, 0, !0, 3)];
const BELLS: &[Rule] = &[call("eventfd2", libc::SYS_eventfd2)];
const PARENTS: &[Rule] = &[call_with("PR_SET_PDEATHSIG", libc::SYS_prctl, 0, !0, 1)];
/// The calls for words that processes share, and no others: the C library has its own.
const NAPS: &[Rule] = &[
    call_with("FUTEX_WAIT", libc::SYS_futex, 1, !0, 0),
    call_with("FUTEX_WAKE", libc::SYS_futex, 1, !0, 1),
];
const SOCKETS: &[Rule] = &[call_with("SOCK_SEQPACKET", libc::SYS_socketpair, 1, 0xf, 5)];
const ALL: &[&[Rule]] = &[
    MEMORY, SEALS, PAGES, PROCESSES, REAPING, BELLS, PARENTS, NAPS, SOCKETS,
];

fn all() -> Vec<Rule> {
    ALL.concat()
}

/// Makes these system calls fail with `errno` in all threads of this process, and in all that it starts from now on.
fn refuse(rules: &[Rule], errno: i32) {
    // `BPF_LD | BPF_W | BPF_ABS`, `BPF_ALU | BPF_AND | BPF_K`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x20;
    const AND: u16 = 0x54;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let line = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    let mut program = Vec::new();
    for rule in rules {
        let end = if rule.argument.is_some() { 4 } else { 1 };
        program.push(line(LOAD, 0, 0));
        program.push(line(IS, end, u32::try_from(rule.call).unwrap()));
        if let Some((place, mask, value)) = rule.argument {
            // The low half of the argument.
            program.push(line(LOAD, 0, 16 + 8 * place));
            program.push(line(AND, 0, mask));
            program.push(line(IS, 1, value));
        }
        program.push(line(RETURN, 0, refused));
    }
    program.push(line(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter is read before the calls return, and is a program that ends.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (mode, flags) = (
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
        );
        let set = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter);
        assert_eq!(set, 0);
    }
}

/// Runs a test of this file again, in a process of its own, which `restrict` has changed. True in
/// that process.
fn is_alone(name: &str, restrict: impl FnOnce()) -> bool {
    is_alone_with(name, &[], restrict)
}

/// As [`is_alone`], with these variables of the environment.
fn is_alone_with(name: &str, variables: &[(&str, &str)], restrict: impl FnOnce()) -> bool {
    is_alone_by(
        Command::new(env::current_exe().unwrap()),
        name,
        variables,
        restrict,
    )
}

/// As [`is_alone_with`]; `command` starts this file's tests.
fn is_alone_by(
    mut command: Command,
    name: &str,
    variables: &[(&str, &str)],
    restrict: impl FnOnce(),
) -> bool {
    const VARIABLE: &str = "CONCURRENT_FUTURES_ALONE";
    if env::var_os(VARIABLE).is_some_and(|alone| alone == name) {
        restrict();
        return true;
    }
    let output = command
        .args(["--exact", "--nocapture", name])
        .env(VARIABLE, name)
        .env(BACKEND, "auto")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    false
}

/// The program's log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes the place of the process's log.
    fn begin() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .init();
        log
    }

    /// The lines that tell a slower way.
    fn slower(&self) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let is_slower = |line: &&str| WAYS.iter().any(|way| line.contains(way));
        log.lines().filter(is_slower).map(str::to_owned).collect()
    }
}

/// The beginnings of all lines about slower ways.
const WAYS: [&str; 8] = [
    "process pools use the portable backend",
    "supervisors are woken through a pipe",
    "channels have sockets of bytes, and workers use portable calls",
    "channels have shared memory that is not sealed",
    "pools look for dead workers every 50 ms",
    "workers are signalled by process id",
    "waits for other processes end by a socket only",
    "a thread of each worker watches the parent",
];

/// A build for portable calls has no others, and says so in its only line.
fn is_portable_only(slower: &[String]) -> bool {
    cfg!(portable_backend) && slower.len() == 1 && slower[0].contains(WAYS[0])
}

fn exit(code: i32) {
    std::process::exit(code);
}

/// A task that does not end by itself.
fn stay(pause: Duration) {
    loop {
        std::thread::sleep(pause);
    }
}

/// Checks tasks, long values, a death and the end of a pool.
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
        let stuck = workers.submit(stay, Duration::from_secs(1)).unwrap();
        eventually("the task runs", || stuck.is_running());
        assert!(stuck.terminate());
        assert!(matches!(stuck.result(), Err(TaskError::Terminated)));
        assert_eq!(workers.submit(|n: u32| n, 1).unwrap().result().unwrap(), 1);
        let pids = pids_of(&workers);
        workers.shutdown(Shutdown::Wait);
        assert_gone(&pids);
    }
}

/// Defines a test: a pool works where these calls are refused, and the log says so by this line. No line, if no way is
/// slower.
macro_rules! refused {
    ($($name:ident: $rules:expr, $errno:expr, $way:expr;)*) => {$(
        #[test]
        fn $name() {
            if is_alone(stringify!($name), || refuse(&$rules, $errno)) {
                let log = Log::begin();
                assert_works();
                let (slower, way): (_, Option<&str>) = (log.slower(), $way);
                match way {
                    _ if is_portable_only(&slower) => {}
                    Some(way) => assert!(
                        slower.iter().any(|line| line.contains(way)) && slower.len() == 1,
                        "{slower:?}"
                    ),
                    None => assert!(slower.is_empty(), "{slower:?}"),
                }
            }
        }
    )*};
}

// Each line stands for all of the calls; see `environment`.
refused! {
    a_pool_works_without_files_in_memory: MEMORY, libc::ENOSYS, Some(WAYS[3]);
    a_pool_works_without_seals: SEALS, libc::EINVAL, Some(WAYS[3]);
    a_pool_works_without_pages_in_advance: PAGES, libc::EPERM, None;
    a_pool_works_without_pidfds: PROCESSES, libc::ENOSYS, Some(WAYS[4]);
    a_pool_works_where_pidfds_take_no_signals: SIGNALS, libc::EPERM, Some(WAYS[5]);
    a_pool_works_where_pidfds_are_not_reaped: REAPING, libc::EINVAL, None;
    a_pool_works_without_eventfds: BELLS, libc::EPERM, Some(WAYS[1]);
    a_pool_works_without_signals_at_the_parents_death: PARENTS, libc::EPERM, Some(WAYS[7]);
    a_pool_works_without_futexes_between_processes: NAPS, libc::ENOSYS, Some(WAYS[6]);
    a_pool_works_without_sockets_of_packets: SOCKETS, libc::EPROTONOSUPPORT, Some(WAYS[2]);
}

#[test]
fn a_pool_works_in_a_sandbox_that_refuses_all_and_says_so_line_by_line() {
    let name = "a_pool_works_in_a_sandbox_that_refuses_all_and_says_so_line_by_line";
    if is_alone(name, || refuse(&all(), libc::EPERM)) {
        let log = Log::begin();
        assert_works();
        let slower = log.slower();
        if is_portable_only(&slower) {
            return;
        }
        for way in [WAYS[1], WAYS[2], WAYS[3], WAYS[4]] {
            let lines = slower.iter().filter(|line| line.contains(way)).count();
            assert_eq!(lines, 1, "{way}: {slower:?}");
        }
    }
}

#[test]
fn a_pool_works_on_when_all_is_refused_after_its_start() {
    let name = "a_pool_works_on_when_all_is_refused_after_its_start";
    if is_alone(name, || {}) {
        for method in start_methods() {
            let workers = pool(2, method);
            assert_eq!(workers.submit(|n: u32| n, 1).unwrap().result().unwrap(), 1);
            if method == StartMethod::Spawn {
                refuse(&all(), libc::EPERM);
            }
            let long = vec![7_u8; 3_000_000];
            let back = workers.submit(|bytes: Vec<u8>| bytes, long.clone());
            assert!(back.unwrap().result().unwrap() == long);
            let dead = death(workers.submit(exit, 7).unwrap());
            assert_eq!(dead.exit(), WorkerExit::Code(7));
            // By a worker that was started since, or the other.
            let squares = workers.map(|n: u64| n * n, 0..100).unwrap();
            assert_eq!(squares.map(Result::unwrap).sum::<u64>(), 328_350);
            let pids = pids_of(&workers);
            workers.shutdown(Shutdown::Wait);
            assert_gone(&pids);
        }
    }
}

#[test]
fn a_pool_works_where_workers_alone_are_refused_all() {
    let name = "a_pool_works_where_workers_alone_are_refused_all";
    let names: Vec<&str> = all().iter().map(|rule| rule.name).collect();
    if is_alone_with(name, &[(IN_WORKERS, &names.join(","))], || {}) {
        let log = Log::begin();
        assert_works();
        eventually("the workers' lines are in the log", || {
            let slower = log.slower();
            slower.iter().any(|line| line.contains(WAYS[7])) || is_portable_only(&slower)
        });
    }
}

#[test]
fn a_worker_that_is_refused_all_later_goes_on() {
    let name = "a_worker_that_is_refused_all_later_goes_on";
    if is_alone(name, || {}) {
        let workers = pool(1, StartMethod::Spawn);
        let refused = workers.submit(|()| refuse(&all(), libc::EPERM), ());
        refused.unwrap().result().unwrap();
        let squares = workers.map(|n: u64| n * n, 0..100).unwrap();
        assert_eq!(squares.map(Result::unwrap).sum::<u64>(), 328_350);
        let long = vec![7_u8; 3_000_000];
        let back = workers.submit(|bytes: Vec<u8>| bytes, long.clone());
        assert!(back.unwrap().result().unwrap() == long);
        let dead = death(workers.submit(exit, 7).unwrap());
        assert_eq!(dead.exit(), WorkerExit::Code(7));
    }
}

/// The variable that chooses the calls.
const BACKEND: &str = "CONCURRENT_FUTURES_BACKEND";

#[test]
fn a_pool_works_by_portable_calls_alone_and_says_so_in_one_line() {
    let name = "a_pool_works_by_portable_calls_alone_and_says_so_in_one_line";
    if is_alone_with(name, &[(BACKEND, "portable")], || {
        refuse(&all(), libc::ENOSYS);
    }) {
        let log = Log::begin();
        assert_works();
        let slower = log.slower();
        let is_whole = slower.len() == 1 && slower[0].contains(WAYS[0]);
        assert!(is_whole && slower[0].contains(BACKEND), "{slower:?}");
    }
}

#[test]
fn an_unknown_backend_is_refused_with_the_known_ones() {
    let name = "an_unknown_backend_is_refused_with_the_known_ones";
    if is_alone_with(name, &[(BACKEND, "fast")], || {}) {
        let refused = ProcessPoolExecutor::new().unwrap_err();
        assert!(matches!(&refused, BuildError::System(error)
            if error.kind() == std::io::ErrorKind::InvalidInput));
        let text = refused.to_string();
        for word in [BACKEND, "\"fast\"", "\"portable\"", "\"auto\""] {
            assert!(text.contains(word), "{text}");
        }
    }
}

#[test]
fn an_empty_backend_and_auto_are_the_default() {
    for value in ["", "auto"] {
        let name = "an_empty_backend_and_auto_are_the_default";
        if is_alone_with(name, &[(BACKEND, value)], || {}) {
            let log = Log::begin();
            assert_works();
            let slower = log.slower();
            assert!(slower.is_empty() || is_portable_only(&slower), "{slower:?}");
            return;
        }
    }
}

/// Gives this process file systems of its own, in which these folders are full. False if it may not.
fn fill(folders: &[&str]) -> bool {
    // SAFETY: system calls with texts that end.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return false;
        }
        let none = c"none".as_ptr();
        let mut flags = libc::MS_REC | libc::MS_PRIVATE;
        let root = c"/".as_ptr();
        assert_eq!(
            libc::mount(none, root, std::ptr::null(), flags, std::ptr::null()),
            0
        );
        flags = 0;
        for folder in folders {
            let folder = std::ffi::CString::new(*folder).unwrap();
            let size = c"size=4k".as_ptr().cast();
            let mounted = libc::mount(none, folder.as_ptr(), c"tmpfs".as_ptr(), flags, size);
            assert_eq!(mounted, 0);
        }
    }
    for folder in folders {
        // The folder itself takes room, which may be all.
        let _ = std::fs::write(format!("{folder}/full"), [7; 4096]);
    }
    true
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn a_full_disk_leaves_memory_without_a_file_or_an_error_that_says_so() {
    let name = "a_full_disk_leaves_memory_without_a_file_or_an_error_that_says_so";
    let portable = [(BACKEND, "portable"), ("TMPDIR", "/tmp")];
    if is_alone_with(name, &portable, || {}) {
        if !fill(&["/dev/shm", "/tmp", "/var/tmp"]) {
            println!("skipped: this process may not mount");
            return;
        }
        let log = Log::begin();
        assert_works();
        let slower = log.slower();
        let is_told = |line: &String| line.contains(WAYS[3]) && line.contains("No space left");
        assert!(slower.iter().any(is_told), "{slower:?}");
        // Nor is there memory without a file.
        refuse(&[call("shmget", libc::SYS_shmget)], libc::ENOSYS);
        let workers = pool(1, StartMethod::Spawn);
        match workers.submit(|n: u32| n, 1).unwrap().result() {
            Err(TaskError::Broken(broken)) => {
                let cause = broken.cause().to_string();
                assert!(cause.contains("there is no shared memory"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Limits a resource of this process and all that it starts.
fn limit(resource: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).unwrap();
}

#[test]
fn pools_work_with_64_descriptors() {
    for backend in ["auto", "portable"] {
        let name = "pools_work_with_64_descriptors";
        if is_alone_with(name, &[(BACKEND, backend)], || limit(Resource::Nofile, 64)) {
            assert_works();
            return;
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn a_pool_whose_user_may_have_no_more_processes_is_refused() {
    for backend in ["auto", "portable"] {
        let name = "a_pool_whose_user_may_have_no_more_processes_is_refused";
        if is_alone_with(name, &[(BACKEND, backend)], || {}) {
            let started = Command::new("true").status();
            assert!(started.unwrap().success());
            // SAFETY: a system call that takes a number. The super-user has no such limit.
            if unsafe { libc::setuid(65_534) } != 0 {
                println!("skipped: this process may not become another user");
                return;
            }
            limit(Resource::Nproc, 0);
            let refused = ProcessPoolExecutor::new().map(drop).unwrap_err();
            let BuildError::System(error) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            return;
        }
    }
}

/// Returns the start of a program for which `/proc` is empty.
fn without_proc(program: impl AsRef<OsStr>) -> Command {
    let hidden = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", hidden]);
    command.arg(program);
    command
}

#[test]
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn a_pool_works_without_proc() {
    let is_hidden = !Path::new("/proc/self").exists();
    if !is_hidden && !without_proc("true").status().is_ok_and(|s| s.success()) {
        println!("skipped: this system refuses namespaces, in which /proc can be hidden");
        return;
    }
    // The test is started by a path there, as programs are.
    let program = env::args_os().next().unwrap();
    if is_alone_by(
        without_proc(program),
        "a_pool_works_without_proc",
        &[],
        || (),
    ) {
        assert!(is_hidden);
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
