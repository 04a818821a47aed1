//! Waits of Python's threads: detached, until a signal is to be handled.

use crate::interp::attach::{attached, come_back};
use crate::interp::deferred_drop::drop_released;
use crate::interp::fork::may_handle_signals;
use crate::interp::signals::raise_kept;
use crate::interp::turns::checkpoint;
use crate::interp::{interned, stdlib};
use concurrent_futures::SubmitError;
use concurrent_futures::engine::{Permit, Stop, WhenFull, glancing, spin_limit};
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use std::hint;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets other threads run, and handles signals, in every 256th call. For loops in native code, which Python
/// does not interrupt.
///
/// # Errors
/// The exception that a handler of a signal raised.
pub(crate) fn breathe(py: Python<'_>, calls: &mut u8) -> PyResult<()> {
    *calls = calls.wrapping_add(1);
    if *calls != 0 {
        return Ok(());
    }
    // Without a frame of ours above that of a handler.
    py.check_signals()?;
    checkpoint(py)
}

/// Counts a call, unless [`breathe`] is due, which counts the call itself. Returns whether it counted.
pub(crate) fn holds_breath(calls: &mut u8) -> bool {
    let next = calls.checked_add(1);
    *calls = next.unwrap_or(*calls);
    next.is_some()
}

/// Returns whether locks of `threading` are another library's, such as gevent's. Such a lock lets other tasks
/// of the same thread run, which our waits would block.
#[pyfunction]
pub(crate) fn is_threading_replaced(py: Python<'_>) -> PyResult<bool> {
    let names = stdlib::threading_names(py)?.cast::<PyDict>()?;
    match names.get_item(interned::allocate_lock(py))? {
        Some(allocate) => Ok(!allocate.is_instance_of::<PyCFunction>()),
        None => Err(PyAttributeError::new_err("threading has no _allocate_lock")),
    }
}

/// The number of threads that wait in [`detached`].
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Takes a permit by `admit`, and waits detached if there is no room. The error of `admit` is the inner one.
pub(crate) fn permit(
    py: Python<'_>,
    admit: impl Fn(WhenFull<'_>) -> Result<Option<Permit>, SubmitError> + Sync,
) -> PyResult<Result<Option<Permit>, SubmitError>> {
    match admit(WhenFull::Refuse) {
        Err(SubmitError::Full) => detached(py, |stop| admit(WhenFull::Wait(stop))),
        admitted => Ok(admitted),
    }
}

/// Calls `wait`, detached, which waits until its [`Stop`] returns true. Handles the signals that come
/// meanwhile.
///
/// # Errors
/// The exception that a handler of a signal raised: `KeyboardInterrupt`, mostly.
pub(crate) fn detached<R: Send>(
    py: Python<'_>,
    wait: impl FnOnce(Stop<'_>) -> R + Send,
) -> PyResult<R> {
    let (result, raised, on_the_way) = py.detach(|| {
        let raised = OnceLock::new();
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is not general enough in its lifetime"
        )]
        let stop = || match attached(|py| py.check_signals()) {
            Ok(()) => false,
            Err(error) => raised.set(error).is_ok(),
        };
        if !cfg!(Py_GIL_DISABLED) {
            WAITING.fetch_add(1, Ordering::Relaxed);
        }
        let result = if may_handle_signals() {
            // A signal that comes right before a sleep does not end that.
            glancing(|| wait(&stop))
        } else {
            wait(&stop)
        };
        if !cfg!(Py_GIL_DISABLED) {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            pause();
        }
        (result, raised.into_inner(), come_back())
    });
    drop(on_the_way);
    drop_released(py);
    raised.map_or(Ok(()), Err)?;
    raise_kept()?;
    Ok(result)
}

/// Pauses for the moment that a worker takes to detach after it has finished the awaited task. A thread that
/// attaches before that is put to sleep.
fn pause() {
    for _ in 0..spins(16) {
        hint::spin_loop();
    }
}

/// Waits a little, before a worker attaches, for some thread to wait for us. The submitter of a task often
/// asks for the result at once.
pub(crate) fn await_waiters() {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    for _ in 0..spins(100) {
        if WAITING.load(Ordering::Relaxed) > 0 {
            return;
        }
        hint::spin_loop();
    }
}

/// Returns a number of turns to spin; none if nothing can happen while we spin.
fn spins(turns: u32) -> u32 {
    if spin_limit() == 0 { 0 } else { turns }
}
