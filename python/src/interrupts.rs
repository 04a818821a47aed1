//! Interrupts that are held back while a thread or a process is started.
//!
//! Python handles signals between any two steps of the Python code of one thread, and a handler may
//! raise an exception there: Ctrl-C does. Starting a thread or a process is much Python code of
//! `threading` and `multiprocessing`. A start that is broken off in its middle leaves a lock locked
//! or a process unknown, and then the program stands still at its end.
//!
//! # Protocol
//! 1. [`hold`] puts a handler of ours in the place of the handler of each signal that Python
//!    handles, as far as the operating system is concerned: Python's own table stays as it is. Our
//!    handler notes the signal, and nothing else. Only the thread that handles signals holds them.
//! 2. Signals that came before are handled by `hold` itself, as nothing is started yet. An
//!    exception that a handler raises then is *kept*.
//! 3. When the hold ends, the former handlers are put back, and then the signals that were noted
//!    are raised again.
//! 4. An exception that was kept is raised by [`raise_kept`], when all is in order again.
//! 5. A signal that is noted already comes through when the first was noted some seconds ago. So
//!    a start that never returns can still be interrupted.
//! 6. The child of a fork holds nothing that its parent held, and notes nothing. A worker process
//!    that is forked holds interrupts from the beginning, until it can be interrupted.
//!
//! No signal is ever blocked, as programs that a worker starts would inherit that.
//!
//! # Invariants
//! 1. The former handler of a signal is in `FORMER` from right after `note` has replaced it until
//!    after it was put back. `note` looks at it only some seconds after a first signal was noted.
//! 2. No signal is noted while none is held.

use crate::process::{generation, may_handle_signals};
use crate::stdlib;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

/// For how many seconds the first of several signals is held back.
const PATIENCE: i64 = 3;

/// The last signal that is held. The others are real-time signals,
/// whose handlers hardly ever raise anything, and looking at each costs time.
const LAST: c_int = 31;
const SIGNALS: usize = 32;

/// The place of a signal in the tables. No signal is 0.
fn at(signal: c_int) -> usize {
    usize::try_from(signal)
        .ok()
        .filter(|signal| *signal < SIGNALS)
        .unwrap_or(0)
}

/// Signals that cannot be held, or are raised by what the thread itself does.
const NEVER: [c_int; 9] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// The signals that are held, a bit each.
static HELD: AtomicU32 = AtomicU32::new(0);
/// When each of the signals that came meanwhile was noted, in seconds; 0 for those that did not.
static NOTED: [AtomicI64; SIGNALS] = [const { AtomicI64::new(0) }; SIGNALS];
/// The handlers that were replaced.
static FORMER: Former = Former([const { UnsafeCell::new(MaybeUninit::uninit()) }; SIGNALS]);

struct Former([UnsafeCell<MaybeUninit<libc::sigaction>>; SIGNALS]);

// SAFETY: written by one thread at a time, while nobody reads it (invariant 1).
unsafe impl Sync for Former {}

thread_local! {
    /// Whether the calling thread is starting a worker process.
    static STARTS_WORKER: Cell<bool> = const { Cell::new(false) };
    /// How many holds of the calling thread there are.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The exception that a handler raised in the middle of something that was not to be broken off.
    static KEPT: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// How many threads have kept something.
static KEEPERS: AtomicUsize = AtomicUsize::new(0);

/// The handler of a signal that is held. All that it calls may be called by a handler.
extern "C" fn note(signal: c_int) {
    let noted = &NOTED[at(signal)];
    let now = seconds();
    // ORDERING: Relaxed, here and below: a signal orders nothing.
    let first = noted.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_err_and(|first| now - first >= PATIENCE) {
        noted.store(0, Ordering::Relaxed);
        // SAFETY: the former handler is there (invariant 1). It is a function that takes the
        // signal, as no others are replaced.
        unsafe {
            let former = (*FORMER.0[at(signal)].get()).assume_init_ref().sa_sigaction;
            if former != libc::SIG_DFL && former != libc::SIG_IGN {
                mem::transmute::<usize, extern "C" fn(c_int)>(former)(signal);
            }
        }
    }
}

/// The time, never 0.
fn seconds() -> i64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the call writes the time; zero bytes are one, too.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr());
        now.assume_init().tv_sec.max(1)
    }
}

/// Our handler as an action.
fn noting() -> libc::sigaction {
    // SAFETY: zero bytes are an action, with an empty set of signals.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = note as *const () as usize;
    action.sa_flags = libc::SA_ONSTACK;
    action
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == note as *const () as usize
}

/// Sets the handler of a signal, and returns the one before.
fn exchange(signal: c_int, action: &libc::sigaction) -> Option<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the action is ours, or one that the system has given us; the system fills the other.
    unsafe {
        let failed = libc::sigaction(signal, action, before.as_mut_ptr()) != 0;
        (!failed).then(|| before.assume_init())
    }
}

/// Replaces the handler of a signal, if there is one that can be called later. Returns whether it
/// did.
fn replace(signal: c_int) -> bool {
    let Some(former) = exchange(signal, &noting()) else {
        return false;
    };
    if is_ours(&former)
        || former.sa_sigaction == libc::SIG_IGN
        || former.sa_flags & libc::SA_SIGINFO != 0
    {
        exchange(signal, &former);
        // One that came just now is for the former handler.
        raise_noted(signal);
        return false;
    }
    // SAFETY: `note` looks at it some seconds after a first signal, of which none was noted before
    // (invariant 1).
    unsafe { (*FORMER.0[at(signal)].get()).write(former) };
    true
}

/// Puts the former handler of a signal back, unless somebody has set another one meanwhile.
fn put_back(signal: c_int) {
    // SAFETY: the signal was replaced.
    let former = unsafe { (*FORMER.0[at(signal)].get()).assume_init_ref() };
    if let Some(current) = exchange(signal, former)
        && !is_ours(&current)
    {
        exchange(signal, &current);
    }
}

/// Raises a signal, if it was noted, in the calling thread. Its handler is the former one again.
fn raise_noted(signal: c_int) {
    if NOTED[at(signal)].swap(0, Ordering::Relaxed) != 0 {
        // SAFETY: the call has no conditions.
        unsafe { libc::raise(signal) };
    }
}

const fn never() -> u32 {
    let (mut all, mut place) = (0, 0);
    while place < NEVER.len() {
        all |= 1 << NEVER[place];
        place += 1;
    }
    all
}

fn each(signals: u32) -> impl Iterator<Item = c_int> {
    (1..=LAST).filter(move |signal| signals & (1 << signal) != 0)
}

/// Signals that are held until this is gone.
#[must_use]
pub(crate) struct Held {
    generation: usize,
    starts_worker: bool,
}

/// Holds the signals that Python handles, if the calling thread is the one that does. Handles those
/// that came before.
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
    HELD.store(replaced, Ordering::Relaxed);
    if let Err(error) = py.check_signals() {
        keep(error);
    }
    held
}

/// Calls `f`, which drops objects, with signals held. When objects are dropped that have weak
/// references, Python calls functions of `weakref`, and an exception is lost there. A `Drop` can
/// raise nothing: an interrupt that came before is raised as soon as the calling thread is in
/// Python code again.
pub(crate) fn hold_in_drop(py: Python<'_>, f: impl FnOnce()) {
    let held = hold(py);
    let earlier = raise_kept();
    f();
    drop(held);
    if let Err(error) = earlier {
        raise_soon(py, error);
    }
}

fn raise_soon(py: Python<'_>, error: PyErr) {
    if !error.get_type(py).is(py.get_type::<PyKeyboardInterrupt>()) {
        return keep(error);
    }
    // SAFETY: attached; the number of the calling thread is that by which Python knows the thread.
    unsafe {
        let thread = libc::pthread_self().cast_signed();
        ffi::PyThreadState_SetAsyncExc(thread, error.get_type(py).as_ptr());
    }
}

/// The same around the start of a worker process.
pub(crate) fn hold_for_worker(py: Python<'_>) -> Held {
    let held = hold(py);
    STARTS_WORKER.set(true);
    held
}

/// Whether Python has a handler for a signal.
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
            let signals = HELD.swap(0, Ordering::Relaxed);
            each(signals).for_each(put_back);
            each(signals).for_each(raise_noted);
        }
    }
}

/// Called right after a fork, in the child.
pub(crate) fn forked() {
    each(HELD.swap(0, Ordering::Relaxed)).for_each(put_back);
    for noted in &NOTED {
        noted.store(0, Ordering::Relaxed);
    }
    DEPTH.set(0);
    if STARTS_WORKER.replace(false) {
        hold_interrupts();
    }
}

/// Holds interrupts (SIGINT) until [`allow_interrupts`].
pub(crate) fn hold_interrupts() {
    if replace(libc::SIGINT) {
        HELD.fetch_or(1 << libc::SIGINT, Ordering::Relaxed);
    }
}

/// Lets interrupts through to this process. Those that came meanwhile are forgotten: they were for
/// processes that do something.
#[pyfunction]
pub(crate) fn allow_interrupts() {
    if HELD.fetch_and(!(1 << libc::SIGINT), Ordering::Relaxed) & 1 << libc::SIGINT != 0 {
        put_back(libc::SIGINT);
        NOTED[at(libc::SIGINT)].store(0, Ordering::Relaxed);
    }
}

/// Keeps an exception that a handler raised, until [`raise_kept`].
pub(crate) fn keep(error: PyErr) {
    if KEPT.replace(Some(error)).is_none() {
        KEEPERS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Raises what a handler of a signal raised in the calling thread while it was not to be broken
/// off.
pub(crate) fn raise_kept() -> PyResult<()> {
    if KEEPERS.load(Ordering::Relaxed) == 0 {
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

/// An exception of which nobody can be told. One that stands for more than a failure is kept, if it
/// may come from the handler of a signal; the others are reported.
pub(crate) fn cannot_be_told(error: PyErr, py: Python<'_>, about: Option<&Bound<'_, PyAny>>) {
    if may_handle_signals() && !error.is_instance_of::<PyException>(py) {
        keep(error);
    } else {
        error.write_unraisable(py, about);
    }
}
