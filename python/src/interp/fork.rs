//! A count of forks, which tells a forked process from its parent.

use crate::interp::os::is_first_thread;
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
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

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
