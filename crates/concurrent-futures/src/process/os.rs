//! What the system offers only by functions that are not safe to call: fork, and what
//! goes with it.

use crate::future::driver;
use rustix::process::Pid;
use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether this process is a fork of one that had called [`watch_forks`].
static IS_FORK: AtomicBool = AtomicBool::new(false);

/// Has a fork of this process know that it is one.
pub(super) fn watch_forks() {
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        IS_FORK.store(true, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    // A fork that becomes a worker is one of its own.
    IS_FORK.store(false, Ordering::Relaxed);
    ONCE.call_once(|| {
        // SAFETY: the function stores to an atomic, which a child may do.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// How often this process has forked, or was about to.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// How many forks there are between this process and the first.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How often this process has forked since [`guard_forks`], or was about to.
pub(super) fn forks() -> u64 {
    // ORDERING: SeqCst: a thread that sees the same number before and after something has not seen
    // a fork in between.
    FORKS.load(Ordering::SeqCst)
}

/// Differs in a fork from what it is in its parent.
pub(super) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Sees to it that a child of a fork has no locks of pools that another thread held, and none of
/// the pools themselves.
pub fn guard_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(guard_forks_once);
}

fn guard_forks_once() {
    extern "C" fn before() {
        FORKS.fetch_add(1, Ordering::SeqCst);
        driver::before_fork();
    }
    extern "C" fn in_parent() {
        driver::after_fork(false);
    }
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        GENERATION.fetch_add(1, Ordering::Relaxed);
        driver::after_fork(true);
    }
    // SAFETY: the functions take a lock whose holders wait for nothing, and give it back; the
    // child, which has one thread, may do that.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// Whether this process is a fork of the one that called [`watch_forks`].
pub(super) fn is_fork() -> bool {
    IS_FORK.load(Ordering::Relaxed)
}

/// Ends a process that is nobody's worker, without any of its parent's business.
pub(super) fn leave() -> ! {
    // SAFETY: it has no conditions.
    unsafe { libc::_exit(0) }
}

/// Has Ctrl-C in a terminal do nothing in this process; programs that it starts are not
/// affected. The process whose worker it is decides, and takes its workers along.
pub(super) fn leave_interrupts_to_parent() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeros are a valid `sigaction`; the handler does nothing, and is what the
    // field is for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
    }
}

/// Has writing to a closed pipe be an error, as the standard library does before `main`.
pub(super) fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Who a process is after a fork.
pub(super) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks a process that has one thread only.
///
/// # Errors
/// Why the system refuses.
pub(super) fn fork() -> io::Result<Forked> {
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
