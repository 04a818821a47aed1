//! How threads of Python wait: detached, until a signal is to be handled.

use crate::interrupts::raise_kept;
use crate::process::{attached, come_back, may_handle_signals};
use crate::released::drop_released;
use crate::stdlib;
use concurrent_futures::engine::{Stop, glancing, spin_limit};
use pyo3::prelude::*;
use std::hint;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets other threads run, and handles signals, in every 256th call: for loops in native
/// code, which Python does not interrupt.
///
/// # Errors
/// What a handler of a signal raised.
pub(crate) fn breathe(py: Python<'_>, calls: &mut u8) -> PyResult<()> {
    *calls = calls.wrapping_add(1);
    if *calls != 0 {
        return Ok(());
    }
    py.detach(|| {});
    py.check_signals()
}

/// Counts a call, unless [`breathe`] is to do so, and more.
pub(crate) fn holds_breath(calls: &mut u8) -> bool {
    let next = calls.checked_add(1);
    *calls = next.unwrap_or(*calls);
    next.is_some()
}

/// Whether somebody has replaced the locks of `threading`, so that a thread of the system that
/// waits would block what should run in it.
pub(crate) fn is_threading_replaced(py: Python<'_>) -> PyResult<bool> {
    stdlib::is_threading_replaced(py)?.call0()?.is_truthy()
}

/// The number of threads that wait in [`detached`].
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Calls `wait`, which waits as long as the [`Stop`] that it gets does not say otherwise,
/// detached. Signals that come meanwhile are handled.
///
/// # Errors
/// What a handler of a signal raised: `KeyboardInterrupt`, mostly.
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
        WAITING.fetch_add(1, Ordering::Relaxed);
        let result = if may_handle_signals() {
            // A signal that comes right before a sleep does not end that.
            glancing(|| wait(&stop))
        } else {
            wait(&stop)
        };
        WAITING.fetch_sub(1, Ordering::Relaxed);
        pause();
        (result, raised.into_inner(), come_back())
    });
    drop(on_the_way);
    drop_released(py);
    raised.map_or(Ok(()), Err)?;
    raise_kept()?;
    Ok(result)
}

/// Gives the worker that has just finished what the calling thread waited for the moment
/// that it takes to detach. To attach before that would mean to be put to sleep.
fn pause() {
    for _ in 0..spins(16) {
        hint::spin_loop();
    }
}

/// Waits a little for some thread to wait for us, before a worker attaches: the one that
/// has submitted a task will often ask for the result at once.
pub(crate) fn await_waiters() {
    for _ in 0..spins(100) {
        if WAITING.load(Ordering::Relaxed) > 0 {
            return;
        }
        hint::spin_loop();
    }
}

/// A number of turns, or none if nothing can happen while we spin.
fn spins(turns: u32) -> u32 {
    if spin_limit() == 0 { 0 } else { turns }
}
