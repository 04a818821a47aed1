//! What concerns the whole process: forks, and the end of the interpreter.

use crate::aside::aside;
use crate::{interrupts, life, released, stdlib, waiting};
use concurrent_futures::engine::{ForkGuard, Pool, guard_forks};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::{Cell, RefCell};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How many forks there are between this process and the first.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Counts forks, before anything else happens in the child.
pub(crate) fn count_forks() {
    extern "C" fn in_child() {
        // ORDERING: Relaxed: a fork has one thread.
        GENERATION.fetch_add(1, Ordering::Relaxed);
        interrupts::forked();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        guard_forks();
        // SAFETY: the function changes atomics and handlers of signals, which a child may do.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Refuses interpreters but the one that was first to load the module: objects of Python that are
/// kept here belong to one interpreter.
///
/// # Errors
/// `ImportError`, on which the package turns to the standard library.
pub(crate) fn only_in_first_interpreter(py: Python<'_>) -> PyResult<()> {
    static FIRST: AtomicI64 = AtomicI64::new(-1);
    // SAFETY: attached.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if this < 0 {
        return Err(PyErr::fetch(py));
    }
    match FIRST.compare_exchange(-1, this, Ordering::SeqCst, Ordering::SeqCst) {
        Err(first) if first != this => Err(PyImportError::new_err(
            "concurrent_futures._engine does not support subinterpreters",
        )),
        _ => Ok(()),
    }
}

/// Registers functions that the interpreter calls around forks and at its end. The package may call
/// this more than once, each time that it is imported.
///
/// # Errors
/// The exception of the interpreter's functions.
#[pyfunction]
pub(crate) fn register_hooks(py: Python<'_>) -> PyResult<()> {
    static ARE_REGISTERED: AtomicBool = AtomicBool::new(false);
    if ARE_REGISTERED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let end = Bound::new(py, End(AtomicBool::new(false)))?;
    py.import("atexit")?.call_method1("register", (end,))?;
    let Some(register) = py.import("os")?.getattr_opt("register_at_fork")? else {
        return Ok(());
    };
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, py)?)?;
    hooks.set_item(
        "after_in_parent",
        wrap_pyfunction!(after_fork_in_parent, py)?,
    )?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, py)?)?;
    register.call((), Some(&hooks)).map(drop)
}

/// Differs in a fork from what it is in its parent.
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether the calling thread is the one in which Python handles signals: the process's first, or
/// that which has forked it.
pub(crate) fn may_handle_signals() -> bool {
    thread_local! {
        /// Whether it is so, and in which fork that was found out.
        static KNOWN: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
    }
    let generation = generation();
    match KNOWN.get() {
        Some((known, is_first)) if known == generation => is_first,
        _ => {
            // SAFETY: the calls only tell numbers.
            let is_first = unsafe { libc::getpid() == libc::gettid() };
            KNOWN.set(Some((generation, is_first)));
            is_first
        }
    }
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
        if let Err(deadlock) = waiting::detached(py, |stop| pool.wait_for_threads(stop))? {
            return Err(stdlib::deadlock(py, &deadlock));
        }
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
fn before_fork(py: Python<'_>) {
    // Detached, as holders of the lock may be about to attach.
    py.detach(|| HELD.set(Some(ForkGuard::hold())));
}

#[pyfunction]
fn after_fork_in_parent() {
    drop(HELD.take());
}

#[pyfunction]
fn after_fork_in_child() {
    let held = HELD.take();
    life::forget();
    released::forget();
    EXITING.store(false, Ordering::Release);
    // The parent's: what they refer to must not even be dropped here.
    mem::forget(mem::take(&mut *pools()));
    if let Some(held) = held {
        held.forget_all();
    }
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

/// Registered with `atexit`, which drops its functions when all of them were called. Until then the
/// interpreter is whole, and those that were registered earlier may wait for threads.
#[pyclass(module = "concurrent_futures._engine", frozen)]
struct End(AtomicBool);

#[pymethods]
impl End {
    /// Notes that the interpreter is ending: a program may call or drop the functions before that.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let is_ending = py.import("threading")?.getattr_opt("_SHUTTING_DOWN")?;
        let is_ending = is_ending.is_none_or(|is_ending| is_ending.is_truthy().unwrap_or(true));
        self.0.store(is_ending, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if *self.0.get_mut() {
            aside(interpreter_ends);
        }
    }
}

/// The interpreter ends as soon as the calling thread goes on: waits until no other thread is
/// on the way into it.
fn interpreter_ends(py: Python<'_>) {
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
