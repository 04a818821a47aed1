//! Turns: native code that runs for long lets other threads run now and then.
//!
//! The interpreter interrupts Python code when another thread has waited for the switch interval. It does not
//! interrupt native code, and between tasks of native code there is no Python code. So native code calls a
//! Python function that does nothing, at which the interpreter does all that it does between Python code.
//!
//! Detaching for a moment is not enough. A thread that waits asks for the interpreter lock after an interval in
//! which the lock was not given up. A thread that detaches more often can keep the lock from it forever, as
//! waking up takes longer than coming back.

use crate::interp::os::Ticks;
use crate::interp::stdlib;
use pyo3::prelude::*;
use std::cell::Cell;

thread_local! {
    static TICKS: Cell<Ticks> = const { Cell::new(Ticks::NONE) };
}

/// Lets other threads run if one of them has waited for the switch interval. Handles signals, too.
///
/// # Errors
/// An exception that another thread sent to this one, or that the handler of a signal raised.
pub(crate) fn checkpoint(py: Python<'_>) -> PyResult<()> {
    stdlib::checkpoint(py)?.call0().map(drop)
}

/// Calls [`checkpoint`] if the clock has ticked since the last call by this thread. The clock ticks every few
/// milliseconds, and reading the clock takes a few nanoseconds.
///
/// # Errors
/// See [`checkpoint`].
pub(crate) fn checkpoint_at_ticks(py: Python<'_>) -> PyResult<()> {
    let mut ticks = TICKS.get();
    let has_ticked = ticks.has_ticked();
    TICKS.set(ticks);
    if has_ticked { checkpoint(py) } else { Ok(()) }
}
