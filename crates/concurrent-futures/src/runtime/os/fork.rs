//! Forks of this process.

use rustix::process::Pid;
use std::io;

/// Runs functions around each fork from now on: before it, after it in the parent, and after it in the child. The
/// functions must do only what the child of a fork may do, and wait for nothing.
pub fn around(
    before: Option<extern "C" fn()>,
    in_parent: Option<extern "C" fn()>,
    in_child: Option<extern "C" fn()>,
) {
    let hook = |hook: Option<extern "C" fn()>| hook.map(|hook| hook as unsafe extern "C" fn());
    // SAFETY: `pthread_atfork` keeps the functions, which are there as long as the program.
    unsafe { libc::pthread_atfork(hook(before), hook(in_parent), hook(in_child)) };
}

/// Ends a process that is not a worker, without any of its parent's exit functions.
pub(crate) fn leave() -> ! {
    // SAFETY: it has no conditions.
    unsafe { libc::_exit(0) }
}

/// The side of a fork on which the caller is.
pub(crate) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks a process that has one thread only.
///
/// # Errors
/// Why the system refuses.
pub(crate) fn fork() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the fork server has {threads} threads: concurrent_futures::init() must be called \
             before any is started"
        )));
    }
    // SAFETY: there is no other thread, which could hold a lock for ever in the child.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid => match Pid::from_raw(pid).filter(|_| pid > 0) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => Err(io::Error::last_os_error()),
        },
    }
}
