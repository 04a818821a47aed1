//! Helpers of tests that take memory away from a process. Linux only: the limits of other systems differ.

use concurrent_futures::ThreadPoolExecutor;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use std::{env, fs};

/// Returns whether this is a process for this test alone. If not, runs the test in one, and checks that it
/// passes there.
pub(crate) fn in_own_process(test: &str) -> bool {
    const CHILD: &str = "CONCURRENT_FUTURES_TEST_CHILD";
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    false
}

/// The size of a stack of [`pool_with_large_stacks`].
const STACK: u64 = 256 << 20;

/// Makes a pool of two threads with large stacks.
pub(crate) fn pool_with_large_stacks() -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder()
        .max_workers(2)
        .stack_size(usize::try_from(STACK).unwrap())
        .build()
        .unwrap()
}

/// Calls `f` while the process has no address space for another large stack.
pub(crate) fn without_another_stack<R>(f: impl FnOnce() -> R) -> R {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let page_size = u64::try_from(rustix::param::page_size()).unwrap();
    let before = getrlimit(Resource::As);
    let current = Some(pages * page_size + STACK / 2);
    let limit = Rlimit { current, ..before };
    setrlimit(Resource::As, limit).unwrap();
    let result = f();
    setrlimit(Resource::As, before).unwrap();
    result
}
