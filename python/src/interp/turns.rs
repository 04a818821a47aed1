//! Turns: a worker that runs one call after the other lets other threads run now and then.

use crate::interp::stdlib;
use concurrent_futures::engine::deadline_after;
use pyo3::prelude::*;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    /// The moment when the turn of the calling worker ends; none if native code has not begun it.
    static END_OF_TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets a turn of the calling worker begin with its next native code. After its turn, the worker
/// lets other threads run. Python code needs no turn, and to begin one takes a while.
pub(crate) fn begin_turn() {
    END_OF_TURN.set(None);
}

/// Returns the time after which to give up the interpreter lock. A thread that wants to run asks for the lock
/// after the switch interval, and only then does giving it up hand it over. After twice that time, a waiting
/// thread has asked.
fn turn(py: Python<'_>) -> Duration {
    if cfg!(Py_GIL_DISABLED) {
        // No thread waits for a lock, but a thread that stops all others (to collect garbage) waits for each.
        return Duration::from_millis(1);
    }
    stdlib::switch_interval(py)
        .and_then(|interval| interval.call0()?.extract::<f64>())
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok())
        .unwrap_or(Duration::from_millis(10))
}

/// Lets other threads run if the turn of the calling worker is over. The interpreter interrupts Python code
/// when other threads wait, but not native code, and between tasks there is no Python code.
pub(crate) fn let_others_run(py: Python<'_>) {
    match END_OF_TURN.get() {
        None => END_OF_TURN.set(deadline_after(turn(py))),
        Some(end) if Instant::now() >= end => {
            py.detach(|| {});
            END_OF_TURN.set(deadline_after(turn(py)));
        }
        Some(_) => {}
    }
}
