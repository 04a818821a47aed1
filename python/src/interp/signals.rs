//! Holds signals back while a thread or a process is started.
//!
//! Python handles signals between any two steps of the Python code of one thread, and a handler may
//! raise an exception there: Ctrl-C does. Starting a thread or a process is much Python code of
//! `threading` and `multiprocessing`. A start that is broken off leaves a lock locked or a process unknown.
//! Then the program stands still at its end.
//!
//! # Protocol
//! 1. For the operating system, [`hold`] puts a handler of ours in the place of the handler of each signal
//!    that Python handles. Python's own table stays as it is. Our handler notes the signal, and nothing else.
//!    Only the thread that handles signals holds them.
//! 2. Signals that came before are handled by `hold` itself, as nothing is started yet. An
//!    exception that a handler raises then is *kept*.
//! 3. When the hold ends, the former handlers are put back, and then the signals that were noted
//!    are raised again.
//! 4. An exception that was kept is raised by [`raise_kept`], when all is in order again, or else by the
//!    interpreter in the next Python code. A thread that still holds signals raises nothing.
//! 5. A signal that is noted already comes through when the first was noted some seconds ago. So
//!    a start that never returns can still be interrupted.
//! 6. The child of a fork holds nothing that its parent held, notes nothing, and raises nothing that was kept. A worker process
//!    that is forked holds interrupts from the beginning, until it can be interrupted.
//! 7. So a worker that cannot be interrupted yet may hold signals to start a thread. The end of that hold puts back
//!    the handlers that the hold itself has replaced. The worker still holds its interrupts.
//!
//! No signal is ever blocked, as programs that a worker starts would inherit that.
//!
//! # Invariants
//! 1. The former handler of a signal is in `FORMER` from right after `note` has replaced it until
//!    after it was put back. `note` looks at it only some seconds after a first signal was noted.
//! 2. No signal is noted while none is held.

use crate::interp::fork::{generation, may_handle_signals};
use crate::interp::os::{self, Action, INTERRUPT, NEVER_HELD};
use crate::interp::stdlib;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

/// The number of seconds for which the first of several signals is held back.
const PATIENCE: i64 = 3;

/// The last signal that is held. The following ones are real-time signals, whose handlers hardly ever raise
/// anything, and looking at each costs time.
const LAST: c_int = 31;
const SIGNALS: usize = 32;

/// Returns the place of a signal in the tables. No signal is 0.
fn at(signal: c_int) -> usize {
    usize::try_from(signal)
        .ok()
        .filter(|signal| *signal < SIGNALS)
        .unwrap_or(0)
}

/// The signals that are held, one bit for each.
static HELD: AtomicU32 = AtomicU32::new(0);
/// The second when each held signal was noted; 0 for signals that did not come.
static NOTED: [AtomicI64; SIGNALS] = [const { AtomicI64::new(0) }; SIGNALS];
/// The handlers that were replaced.
static FORMER: Former = Former([const { UnsafeCell::new(MaybeUninit::uninit()) }; SIGNALS]);

struct Former([UnsafeCell<MaybeUninit<Action>>; SIGNALS]);

// SAFETY: written by one thread at a time, while no thread reads it (invariant 1).
unsafe impl Sync for Former {}

thread_local! {
    /// Whether the calling thread is starting a worker process.
    static STARTS_WORKER: Cell<bool> = const { Cell::new(false) };
    /// The number of holds of the calling thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The signals that the holds of the calling thread have replaced.
    static OWN: Cell<u32> = const { Cell::new(0) };
    /// The exception that a handler raised while the thread must not be interrupted.
    static KEPT: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// The number of threads that have kept an exception.
static KEEPERS: AtomicUsize = AtomicUsize::new(0);

/// Notes a signal that is held. This is the handler; all functions that it calls may be called by a handler.
extern "C" fn note(signal: c_int) {
    let noted = &NOTED[at(signal)];
    let now = seconds();
    // ORDERING: Relaxed, here and below: a signal orders nothing.
    let first = noted.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_err_and(|first| now - first >= PATIENCE) {
        noted.store(0, Ordering::Relaxed);
        // SAFETY: the former handler is there (invariant 1).
        let former = unsafe { (*FORMER.0[at(signal)].get()).assume_init_ref() };
        if let Some(former) = former.handler() {
            former(signal);
        }
    }
}

/// Returns the time in seconds, never 0.
fn seconds() -> i64 {
    os::seconds().max(1)
}

/// Replaces the handler of a signal, if the former can be called later. Returns whether it was replaced.
fn replace(signal: c_int) -> bool {
    let Some(former) = Action::calling(note).exchange(signal) else {
        return false;
    };
    if former.calls(note) || former.is_not_plain() {
        former.exchange(signal);
        // One that came just now is for the former handler.
        raise_noted(signal);
        return false;
    }
    // SAFETY: `note` looks at it some seconds after a first signal, of which none was noted before
    // (invariant 1).
    unsafe { (*FORMER.0[at(signal)].get()).write(former) };
    true
}

/// Restores the former handler of a signal, unless another one was set meanwhile.
fn put_back(signal: c_int) {
    // SAFETY: the signal was replaced.
    let former = unsafe { (*FORMER.0[at(signal)].get()).assume_init_ref() };
    if let Some(current) = former.exchange(signal)
        && !current.calls(note)
    {
        current.exchange(signal);
    }
}

/// Raises a signal in the calling thread, if it was noted. Its handler is the former one again.
fn raise_noted(signal: c_int) {
    if NOTED[at(signal)].swap(0, Ordering::Relaxed) != 0 {
        os::raise(signal);
    }
}

const fn never() -> u32 {
    let (mut all, mut place) = (0, 0);
    while place < NEVER_HELD.len() {
        all |= 1 << NEVER_HELD[place];
        place += 1;
    }
    all
}

fn each(signals: u32) -> impl Iterator<Item = c_int> {
    (1..=LAST).filter(move |signal| signals & (1 << signal) != 0)
}

/// Holds signals as long as this value lives.
#[must_use]
pub(crate) struct Held {
    generation: usize,
    starts_worker: bool,
}

/// Holds the signals that Python handles, if the calling thread is the one that handles them. Handles the
/// signals that came before.
pub(crate) fn hold(py: Python<'_>) -> Held {
    let held = Held {
        generation: generation(),
        starts_worker: STARTS_WORKER.get(),
    };
    DEPTH.set(DEPTH.get() + 1);
    if DEPTH.get() > 1 || !may_handle_signals() {
        return held;
    }
    let handled = each(!never()).filter(|signal| is_handled(py, *signal));
    let replaced = handled.filter(|signal| replace(*signal));
    let replaced = replaced.fold(0, |all, signal| all | 1 << signal);
    OWN.set(replaced);
    HELD.fetch_or(replaced, Ordering::Relaxed);
    if let Err(error) = py.check_signals() {
        keep(error);
    }
    held
}

/// Calls `f`, which drops objects, with signals held. When an object with weak references is dropped, Python
/// calls functions of `weakref`, and an exception is lost there. A `Drop` can raise nothing: an interrupt
/// that came before is raised as soon as the calling thread is in Python code again.
pub(crate) fn hold_in_drop(py: Python<'_>, f: impl FnOnce()) {
    let held = hold(py);
    f();
    drop(held);
}

/// Calls a function with signals held, and returns its result. The functions of `weakref` run when an object
/// with weak references is dropped, and an exception is lost there. So objects that may have some are dropped
/// in such a call.
///
/// # Errors
/// The exception of the function, or that of a signal which came before.
#[pyfunction]
#[pyo3(signature = (function, *arguments))]
pub(crate) fn with_signals_held<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let held = hold(function.py());
    let result = function.call1(arguments);
    drop(held);
    raise_kept()?;
    result
}

/// Lets the interpreter raise the kept exception in the next Python code of the calling thread, if nothing
/// raises it before.
///
/// `PyThreadState_SetAsyncExc` would hit other threads: up to CPython 3.11, the state of a new thread has the
/// number of the thread that starts it.
fn raise_soon() {
    // SAFETY: the function may be called at any time, and ignores its argument. If there is no room for the
    // call, the exception stays kept.
    unsafe {
        ffi::Py_AddPendingCall(Some(raise_kept_now), ptr::null_mut());
    }
}

/// Raises the kept exception. The interpreter calls this function between two steps of Python code.
extern "C" fn raise_kept_now(_: *mut c_void) -> c_int {
    // SAFETY: the interpreter calls pending functions attached.
    let py = unsafe { Python::assume_attached() };
    match raise_kept() {
        Ok(()) => 0,
        Err(error) => {
            error.restore(py);
            -1
        }
    }
}

/// Holds the signals that Python handles around the start of a worker process.
pub(crate) fn hold_for_worker(py: Python<'_>) -> Held {
    let held = hold(py);
    STARTS_WORKER.set(true);
    held
}

/// Returns whether Python has a handler for a signal.
fn is_handled(py: Python<'_>, signal: c_int) -> bool {
    let handler = stdlib::getsignal(py).and_then(|getsignal| getsignal.call1((signal,)));
    // The others are numbers or nothing.
    handler.is_ok_and(|handler| handler.is_callable())
}

impl Drop for Held {
    fn drop(&mut self) {
        STARTS_WORKER.set(self.starts_worker);
        if self.generation != generation() {
            // In the child of a fork, where nothing is held.
            return;
        }
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 && may_handle_signals() {
            let signals = OWN.take();
            HELD.fetch_and(!signals, Ordering::Relaxed);
            each(signals).for_each(put_back);
            each(signals).for_each(raise_noted);
            // The owner of the hold may not be able to raise an exception.
            let kept = KEPT.take();
            if kept.is_some() {
                KEPT.set(kept);
                raise_soon();
            }
        }
    }
}

/// Resets the state in the child of a fork, right after the fork.
pub(crate) fn forked() {
    each(HELD.swap(0, Ordering::Relaxed)).for_each(put_back);
    for noted in &NOTED {
        noted.store(0, Ordering::Relaxed);
    }
    DEPTH.set(0);
    OWN.set(0);
    // The parent raises it.
    mem::forget(KEPT.take());
    KEEPERS.store(0, Ordering::Relaxed);
    if STARTS_WORKER.replace(false) {
        hold_interrupts();
    }
}

/// Holds interrupts (SIGINT) until [`allow_interrupts`].
pub(crate) fn hold_interrupts() {
    if replace(INTERRUPT) {
        HELD.fetch_or(1 << INTERRUPT, Ordering::Relaxed);
    }
}

/// Lets interrupts through to this process. Interrupts that came meanwhile are forgotten: they were for
/// processes that run a task.
#[pyfunction]
pub(crate) fn allow_interrupts() {
    if HELD.fetch_and(!(1 << INTERRUPT), Ordering::Relaxed) & 1 << INTERRUPT != 0 {
        put_back(INTERRUPT);
        NOTED[at(INTERRUPT)].store(0, Ordering::Relaxed);
    }
}

/// Keeps an exception that a handler raised, until [`raise_kept`] or the next Python code after all holds.
pub(crate) fn keep(error: PyErr) {
    if KEPT.replace(Some(error)).is_none() {
        KEEPERS.fetch_add(1, Ordering::Relaxed);
    }
    if DEPTH.get() == 0 {
        raise_soon();
    }
}

/// Raises the exception that a signal handler raised in the calling thread while it must not be interrupted.
/// Raises nothing while the thread still holds signals.
pub(crate) fn raise_kept() -> PyResult<()> {
    if KEEPERS.load(Ordering::Relaxed) == 0 || DEPTH.get() > 0 {
        return Ok(());
    }
    match KEPT.take() {
        Some(error) => {
            KEEPERS.fetch_sub(1, Ordering::Relaxed);
            Err(error)
        }
        None => Ok(()),
    }
}

/// Handles an exception that no caller can receive. Keeps it if it stands for more than a failure and may
/// come from a signal handler; otherwise reports it.
pub(crate) fn cannot_be_told(error: PyErr, py: Python<'_>, about: Option<&Bound<'_, PyAny>>) {
    if may_handle_signals() && !error.is_instance_of::<PyException>(py) {
        keep(error);
    } else {
        error.write_unraisable(py, about);
    }
}
