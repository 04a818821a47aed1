//! Threads on their way to the interpreter, and the end of the interpreter.

use crate::interp::fork::generation;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

static EXITING: AtomicBool = AtomicBool::new(false);

/// Notes whether the interpreter is about to end.
pub(crate) fn set_exiting(is_exiting: bool) {
    EXITING.store(is_exiting, Ordering::Release);
}

/// Returns whether the interpreter is about to end.
pub(crate) fn is_exiting() -> bool {
    EXITING.load(Ordering::Acquire)
}

/// Threads that are about to attach, or run Python code in a call of ours.
static ON_THE_WAY: AtomicUsize = AtomicUsize::new(0);
/// The thread that ends the interpreter, once it does; 0 before.
static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

/// Counts a thread that is about to attach, until it is dropped; see [`come_back`]. It has the generation of forks in
/// which the thread was counted.
pub(crate) struct OnTheWay(usize);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        // A child of a fork has counted anew.
        if self.0 == generation() {
            ON_THE_WAY.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Forgets the counted threads in the child of a fork, which has none of them, and the parent's end.
#[cfg(unix)]
pub(crate) fn forked() {
    ON_THE_WAY.store(0, Ordering::SeqCst);
    LAST_THREAD.store(0, Ordering::SeqCst);
    set_exiting(false);
}

/// Counts the calling thread as on its way to the interpreter. To be called before a thread attaches, and
/// kept until it has.
///
/// Up to CPython 3.13, a daemon thread may want to attach to an interpreter that ends. Such a thread is ended
/// by an unwinding that Rust does not let through. So those that come too late stop here, for good.
pub(crate) fn come_back() -> OnTheWay {
    set_out().unwrap_or_else(|| stop())
}

/// Counts an attached thread that is about to run Python code which may detach.
pub(crate) fn stay(py: Python<'_>) -> OnTheWay {
    set_out().unwrap_or_else(|| py.detach(|| stop()))
}

/// Counts the calling thread as on its way, unless the interpreter has ended.
fn set_out() -> Option<OnTheWay> {
    // ORDERING: SeqCst, here and below: either the last thread sees us on the way, or we see
    // that there is a last thread.
    ON_THE_WAY.fetch_add(1, Ordering::SeqCst);
    let on_the_way = OnTheWay(generation());
    let last = LAST_THREAD.load(Ordering::SeqCst);
    (last == 0 || last == this_thread()).then_some(on_the_way)
}

/// Waits until no other thread is on its way to the interpreter, which ends as soon as the calling thread
/// goes on.
pub(crate) fn interpreter_ends(py: Python<'_>) {
    LAST_THREAD.store(this_thread(), Ordering::SeqCst);
    py.detach(|| {
        let patience = Instant::now() + Duration::from_secs(1);
        while ON_THE_WAY.load(Ordering::SeqCst) > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Returns a number for the calling thread, which is never 0.
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// Lets the calling thread sleep for good.
pub(crate) fn stop() -> ! {
    loop {
        thread::sleep(Duration::MAX);
    }
}

/// Runs `f` attached to the interpreter.
///
/// Worker threads end before the interpreter does. If one is left over nevertheless, it
/// stops here for good.
pub(crate) fn attached<R>(f: impl for<'py> FnOnce(Python<'py>) -> R) -> R {
    Python::try_attach(f).unwrap_or_else(|| stop())
}
