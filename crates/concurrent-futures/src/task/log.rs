//! The events that the engine logs, by `tracing`.
//!
//! A subscriber is foreign code: it may panic, block, or call the engine again. So
//! - every event is logged by a function of this file, out of which nothing unwinds;
//! - no lock of the engine is held at that moment;
//! - an event that a subscriber causes while it handles one of ours, in the same thread, is left out.
//!   `tracing` does the same for subscribers of one thread, and endless recursion would be the alternative.
//!
//! `clippy.toml` refuses `tracing`'s macros in all other files.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "this is the place for them")]

use crate::task::panic::discard_panic;
use std::cell::Cell;
use std::fmt::Display;

/// Logs that foreign code has panicked; `message` says which code.
pub(crate) fn panicked(message: &str, panic: &str) {
    without_unwinding(|| tracing::error!(panic, "{message}"));
}

/// Logs that a pool has fewer threads than it asked for.
pub(crate) fn thread_not_started(error: &impl Display) {
    without_unwinding(|| tracing::warn!(%error, "a worker thread could not be started"));
}

/// Logs that the end of a pool was not waited for.
pub(crate) fn end_not_awaited(why: &impl Display) {
    without_unwinding(|| tracing::warn!(%why, "the end of a pool was not waited for"));
}

#[cfg(all(feature = "process", unix))]
pub(crate) use processes::*;

#[cfg(all(feature = "process", unix))]
mod processes {
    use super::{Display, without_unwinding};

    /// Logs that a pool has fewer processes than it asked for.
    pub(crate) fn process_not_started(error: &impl Display) {
        without_unwinding(|| tracing::warn!(%error, "a worker process could not be started"));
    }

    /// Logs that a worker process has ended before it was told to, or because it could not go on.
    pub(crate) fn process_died(death: &impl Display) {
        without_unwinding(|| tracing::warn!(%death, "a worker process died"));
    }

    /// Logs that a worker process goes on although it is to end.
    pub(crate) fn process_not_signalled(pid: u32, error: &impl Display) {
        without_unwinding(
            || tracing::warn!(pid, %error, "a worker process could not be signalled"),
        );
    }

    /// Logs that process pools go a slower way.
    pub(crate) fn slower(way: &str) {
        without_unwinding(|| tracing::warn!("{way}"));
    }

    /// Logs that the thread which received replies makes their values itself.
    pub(crate) fn no_thread_for_values(error: &impl Display) {
        without_unwinding(
            || tracing::warn!(%error, "no thread to make values: they delay their pool"),
        );
    }

    /// Logs that the supervisor calls callbacks itself.
    pub(crate) fn no_thread_for_callbacks(error: &impl Display) {
        without_unwinding(
            || tracing::warn!(%error, "no thread for callbacks: they delay their pool"),
        );
    }
}

/// Calls `emit`, unless the thread is in such a call already. A panic of `emit` ends here and is not logged:
/// the panic hook has reported it, and the log itself has failed.
fn without_unwinding(emit: impl FnOnce()) {
    thread_local! {
        static LOGGING: Cell<bool> = const { Cell::new(false) };
    }
    // The thread-local needs no destructor, and so it is there as long as the thread is.
    if LOGGING.replace(true) {
        return;
    }
    discard_panic(emit);
    LOGGING.set(false);
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_where_the_event_is_logged() {
        struct Again(u32);
        impl Drop for Again {
            fn drop(&mut self) {
                if self.0 > 0 {
                    std::panic::panic_any(Again(self.0 - 1));
                }
            }
        }
        // With values whose destructors panic, one after the other and without end.
        for depth in [0, 1, 5, 100] {
            without_unwinding(|| std::panic::panic_any(Again(depth)));
        }
        let mut called = false;
        without_unwinding(|| called = true);
        assert!(called);
    }

    #[test]
    fn an_event_inside_an_event_is_left_out() {
        let mut inner = false;
        without_unwinding(|| without_unwinding(|| inner = true));
        assert!(!inner);
    }
}
