//! References of the engine to Python objects that were given up by a thread which is not
//! attached, or holds a lock: they are dropped later, by one that may run Python code.
//!
//! The engine's pools of processes move bytes without the interpreter, and so give up their
//! references to futures without it. Whoever comes by attached drops them: who submits,
//! who has waited, and, when nobody does for some time, the supervisor.

use crate::process::{attached, generation};
use concurrent_futures::engine::Header;
use pyo3::Python;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long references may lie here while nobody comes by.
const PATIENCE: Duration = Duration::from_millis(20);

/// A future, of which one reference is to be dropped.
struct Released(NonNull<Header>);

// SAFETY: the reference is counted, and belongs to whoever has this.
unsafe impl Send for Released {}

struct Pile {
    futures: Vec<Released>,
    /// Since when there are some.
    since: Option<Instant>,
}

static PILE: Mutex<Pile> = Mutex::new(Pile {
    futures: Vec::new(),
    since: None,
});
/// Whether there are some, so that others need not look.
static ANY: AtomicBool = AtomicBool::new(false);

fn pile() -> MutexGuard<'static, Pile> {
    PILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fork in which the pile is of use. In a child, another thread may have held the lock when the
/// process forked; so there, until [`forget`], nothing is put there.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Gives up a reference to a future.
pub(crate) fn release(future: NonNull<Header>) {
    if GENERATION.load(Ordering::Relaxed) != generation() {
        // The parent's, which need not be dropped here.
        return;
    }
    let mut pile = pile();
    pile.futures.push(Released(future));
    pile.since.get_or_insert_with(Instant::now);
    // ORDERING: Relaxed: a hint. Who misses it comes by again.
    ANY.store(true, Ordering::Relaxed);
}

/// Drops the references that were given up. Python code may run.
pub(crate) fn drop_released(py: Python<'_>) {
    if !ANY.load(Ordering::Relaxed) || GENERATION.load(Ordering::Relaxed) != generation() {
        return;
    }
    let futures = {
        let mut pile = pile();
        ANY.store(false, Ordering::Relaxed);
        pile.since = None;
        mem::take(&mut pile.futures)
    };
    for Released(future) in futures {
        // SAFETY: the reference is ours, by `release`.
        unsafe { crate::task::drop_reference(py, future) };
    }
}

/// Drops them if they have been lying around for some time. Returns when to come again.
pub(crate) fn drop_old() -> Option<Duration> {
    if !ANY.load(Ordering::Relaxed) || GENERATION.load(Ordering::Relaxed) != generation() {
        return None;
    }
    let due = pile().since? + PATIENCE;
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        return Some(left);
    }
    attached(drop_released);
    None
}

/// In the child of a fork: they are the parent's to drop.
pub(crate) fn forget() {
    // Another thread may have held the lock when the process forked.
    if let Ok(mut pile) = PILE.try_lock() {
        mem::forget(mem::take(&mut pile.futures));
        ANY.store(false, Ordering::Relaxed);
        GENERATION.store(generation(), Ordering::Relaxed);
    }
}
