//! The events that the crate logs, by `tracing`: troubles that no caller can be told of.
//!
//! A subscriber is foreign code, and may panic. A panic ends here.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn without_unwinding(emit: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(emit)) {
        // Its destructor may panic as well.
        std::mem::forget(payload);
    }
}

/// Logs that a call of the server failed, and that the caller tries again or goes another way.
pub(crate) fn trouble(what: &str, error: &dyn Display) {
    without_unwinding(|| tracing::warn!(%error, "{what}"));
}

/// Logs that a message was refused.
pub(crate) fn refused(what: &str, why: &dyn Display) {
    without_unwinding(|| tracing::warn!(%why, "{what} was refused"));
}

/// Logs that a task came again after its end.
pub(crate) fn replayed(task: &dyn Display) {
    without_unwinding(|| tracing::warn!(%task, "a replayed task was refused"));
}

/// Logs a panic, which is a defect.
pub(crate) fn panicked(what: &dyn Display) {
    without_unwinding(|| tracing::error!("{what}"));
}

/// Returns the message of a panic.
pub(crate) fn text_of_panic(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    // Its destructor may panic as well.
    std::mem::forget(payload);
    text.unwrap_or_else(|| String::from("no message"))
}
