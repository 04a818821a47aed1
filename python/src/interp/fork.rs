//! A count of forks, which tells a forked process from its parent.

use crate::interp::os::is_first_thread;
use pyo3::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of forks between this process and the first.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Counts a fork. Called in the child, before anything else happens there.
pub(crate) fn count() {
    // ORDERING: Relaxed: a fork has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Returns a number that differs in a fork from its value in the parent.
#[pyfunction(name = "process_generation")]
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

/// Keeps the lock of a `static` across forks: defines functions for [`around`](crate::lifecycle::count_forks). No other
/// thread holds the lock in the child then. The child changes the content by a function, which may do only what the
/// child of a fork may do.
#[cfg(unix)]
macro_rules! kept_across_forks {
    ($lock:expr, $content:ty, $in_child:expr) => {
        thread_local! {
            static HELD: std::cell::RefCell<Option<std::sync::MutexGuard<'static, $content>>> =
                const { std::cell::RefCell::new(None) };
        }

        /// Takes the lock before a fork.
        pub(crate) fn before_fork() {
            // Without access, the thread is ending, and so is its fork.
            let _ = HELD.try_with(|held| held.replace(Some($lock)));
        }

        /// Releases the lock after a fork, on both sides.
        pub(crate) fn after_fork(in_child: bool) {
            if let Ok(Some(mut content)) = HELD.try_with(std::cell::RefCell::take)
                && in_child
            {
                let change: fn(&mut $content) = $in_child;
                change(&mut content);
            }
        }
    };
}
#[cfg(unix)]
pub(crate) use kept_across_forks;

/// Returns whether the calling thread is the one in which Python handles signals: the process's first, or the
/// thread that has forked it.
pub(crate) fn may_handle_signals() -> bool {
    thread_local! {
        /// The known answer, and the generation of forks in which it was found out.
        static KNOWN: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }
    let generation = generation();
    match KNOWN.get() {
        Some((known, is_first)) if known == generation => is_first,
        _ => {
            let is_first = is_first_thread();
            KNOWN.set(Some((generation, is_first)));
            is_first
        }
    }
}
