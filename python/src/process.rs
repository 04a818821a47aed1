//! What concerns the whole process: forks, and the end of the interpreter.

use crate::{life, released, waiting};
use concurrent_futures::engine::{ForkGuard, Pool, guard_forks};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How many forks there are between this process and the first.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Counts forks, before anything else happens in the child.
pub(crate) fn count_forks() {
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    guard_forks();
    // SAFETY: the function changes an atomic, which a child may do. It is registered once, when
    // the module is loaded.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Differs in a fork from what it is in its parent.
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

static EXITING: AtomicBool = AtomicBool::new(false);

/// The pools whose workers may be there.
static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());

fn pools() -> MutexGuard<'static, Vec<Weak<Pool>>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a pool, to be ended with the interpreter.
pub(crate) fn note(pool: &Arc<Pool>) {
    let mut pools = pools();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(pool));
}

/// From now on, executors refuse tasks because the interpreter ends. Waits until all
/// workers have finished what is pending.
#[pyfunction]
pub(crate) fn interpreter_exits(py: Python<'_>) -> PyResult<()> {
    EXITING.store(true, Ordering::Release);
    let pools: Vec<_> = pools().iter().filter_map(Weak::upgrade).collect();
    for pool in &pools {
        pool.close();
    }
    for pool in &pools {
        waiting::detached(py, |stop| pool.wait_for_threads(stop))?;
    }
    Ok(())
}

/// Whether the interpreter is about to end.
pub(crate) fn is_exiting() -> bool {
    EXITING.load(Ordering::Acquire)
}

thread_local! {
    /// What the forking thread holds.
    static HELD: RefCell<Option<ForkGuard>> = const { RefCell::new(None) };
}

/// Sees to it that no thread holds a lock of the whole process while it forks.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    // Detached, as holders of the lock may be about to attach.
    py.detach(|| HELD.set(Some(ForkGuard::hold())));
}

/// Called after the fork, in parent and child.
#[pyfunction]
pub(crate) fn after_fork(in_child: bool) {
    let held = HELD.take();
    if in_child {
        life::forget();
        released::forget();
        EXITING.store(false, Ordering::Release);
        // The parent's: what they refer to must not even be dropped here.
        mem::forget(mem::take(&mut *pools()));
    }
    drop(held);
}

/// Threads that are about to attach, or run Python code in a call of ours.
static ON_THE_WAY: AtomicUsize = AtomicUsize::new(0);
/// The thread that ends the interpreter, once it does; 0 before.
static LAST_THREAD: AtomicU64 = AtomicU64::new(0);

/// What comes back to the interpreter; see [`come_back`].
pub(crate) struct OnTheWay(());

impl Drop for OnTheWay {
    fn drop(&mut self) {
        ON_THE_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}

/// To be called before a thread attaches, and kept until it has.
///
/// Up to CPython 3.13, a thread (a daemon, that is) which wants to attach to an interpreter that
/// ends is ended by an unwinding that Rust does not let through. So those that come too late
/// stop here, for good.
pub(crate) fn come_back() -> OnTheWay {
    set_out().unwrap_or_else(|| stop())
}

/// The same for an attached thread that is about to run Python code which may detach.
pub(crate) fn stay(py: Python<'_>) -> OnTheWay {
    set_out().unwrap_or_else(|| py.detach(|| stop()))
}

/// Counts the calling thread, unless it is too late.
fn set_out() -> Option<OnTheWay> {
    // ORDERING: SeqCst, here and below: either the last thread sees us on the way, or we see
    // that there is a last thread.
    ON_THE_WAY.fetch_add(1, Ordering::SeqCst);
    let on_the_way = OnTheWay(());
    let last = LAST_THREAD.load(Ordering::SeqCst);
    (last == 0 || last == this_thread()).then_some(on_the_way)
}

/// The interpreter ends as soon as the calling thread goes on: waits until no other thread is
/// on the way into it.
#[pyfunction]
pub(crate) fn interpreter_ends(py: Python<'_>) {
    LAST_THREAD.store(this_thread(), Ordering::SeqCst);
    py.detach(|| {
        let patience = Instant::now() + Duration::from_secs(1);
        while ON_THE_WAY.load(Ordering::SeqCst) > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_micros(100));
        }
    });
}

/// A number for the calling thread, never 0.
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

fn stop() -> ! {
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
