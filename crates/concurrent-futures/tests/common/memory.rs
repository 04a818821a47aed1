//! Helpers of tests that take memory away from a process. Linux only: the limits of other systems differ.

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

/// Calls `f` while the process has no address space for another `bytes`.
pub(crate) fn with_little_memory<R>(bytes: u64, f: impl FnOnce() -> R) -> R {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let page_size = u64::try_from(rustix::param::page_size()).unwrap();
    let before = getrlimit(Resource::As);
    let current = Some(pages * page_size + bytes);
    let limit = Rlimit { current, ..before };
    setrlimit(Resource::As, limit).unwrap();
    let result = f();
    setrlimit(Resource::As, before).unwrap();
    result
}
