//! The number of forks of this process, and what a fork must not take over.

#![forbid(unsafe_code)]

#[cfg(not(loom_models))]
use crate::deadlock;
use crate::future::driver;
use crate::runtime::os::fork;
use crate::stats::directory;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether this process is a fork of one that had called [`watch_forks`].
static IS_FORK: AtomicBool = AtomicBool::new(false);

/// Lets a fork of this process know that it is a fork.
pub(crate) fn watch_forks() {
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        IS_FORK.store(true, Ordering::Relaxed);
    }
    static ONCE: Once = Once::new();
    // A fork that becomes a worker is one of its own.
    IS_FORK.store(false, Ordering::Relaxed);
    ONCE.call_once(|| {
        fork::around(None, None, Some(in_child));
    });
}

/// The number of times that this process has forked, or was about to.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// The number of forks between this process and the first.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Returns how often this process has forked since [`guard_forks`], or was about to.
pub(crate) fn forks() -> u64 {
    // ORDERING: SeqCst: a thread that sees the same number before and after something has not seen
    // a fork in between.
    FORKS.load(Ordering::SeqCst)
}

/// Returns a number that differs in a fork from its value in the parent.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Keeps locks of pools that another thread held, and the pools themselves, out of a fork's child.
pub fn guard_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(guard_forks_once);
}

fn guard_forks_once() {
    extern "C" fn before() {
        FORKS.fetch_add(1, Ordering::SeqCst);
        // First, as its holders may take the others.
        #[cfg(not(loom_models))]
        deadlock::before_fork();
        driver::before_fork();
        directory::before_fork();
    }
    extern "C" fn in_parent() {
        directory::after_fork(false);
        driver::after_fork(false);
        #[cfg(not(loom_models))]
        deadlock::after_fork(false);
    }
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        GENERATION.fetch_add(1, Ordering::Relaxed);
        directory::after_fork(true);
        driver::after_fork(true);
        #[cfg(not(loom_models))]
        deadlock::after_fork(true);
    }
    // They take locks whose holders wait for nothing else, and give them back.
    fork::around(Some(before), Some(in_parent), Some(in_child));
}

/// Returns whether this process is a fork of the one that called [`watch_forks`].
pub(crate) fn is_fork() -> bool {
    IS_FORK.load(Ordering::Relaxed)
}
