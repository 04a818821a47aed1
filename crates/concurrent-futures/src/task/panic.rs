//! Panics of tasks: catches them, with the location and backtrace that the panic hook has noted.

#![forbid(unsafe_code)]

use crate::error::{PanicLocation, TaskPanic};
use crate::id::FutureId;
use crate::task::{current, log};
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Arc, Once};

struct Captured {
    /// The task that was running; none in an initializer.
    task: Option<FutureId>,
    location: Option<PanicLocation>,
    backtrace: Backtrace,
}

thread_local! {
    static LAST: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

/// Puts a hook in front of the program's panic hook. The hook notes where a task panics, and then calls the
/// program's hook, as for any thread.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    if std::thread::panicking() {
        // The hook cannot be changed now; the next executor will.
        return;
    }
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            capture(info);
            previous(info);
        }));
    });
}

fn capture(info: &PanicHookInfo<'_>) {
    if !current::is_worker() {
        return;
    }
    let captured = Captured {
        task: current::task(),
        location: info.location().map(|location| PanicLocation {
            file: location.file().to_owned(),
            line: location.line(),
            column: location.column(),
        }),
        // Symbols are looked up when it is printed, so that this is cheap.
        backtrace: Backtrace::force_capture(),
    };
    // Without access (the thread ends), the panic is reported without a place.
    let _ = LAST.try_with(|last| last.replace(Some(captured)));
}

/// Calls `f`, and returns its panic as a value.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Arc<TaskPanic>> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Arc::new(into_task_panic(payload)))
}

#[cold]
fn into_task_panic(payload: Box<dyn Any + Send>) -> TaskPanic {
    // Without access (the thread ends), nothing was noted either.
    let captured = LAST.try_with(RefCell::take).ok().flatten();
    // One that is not of this task was caught by the task that it is of.
    let captured = captured.filter(|captured| captured.task == current::task());
    let (location, backtrace) = match captured {
        Some(captured) => (captured.location, captured.backtrace),
        None => (None, Backtrace::disabled()),
    };
    let panic = TaskPanic::new(&*payload, location, backtrace);
    drop_payload(payload);
    panic
}

/// Drops a value; logs a panic of its destructor, which goes no further.
pub(crate) fn drop_quietly(f: impl FnOnce()) {
    log_panic("a destructor panicked", f);
}

/// Calls `f`; logs a panic with `message`, which goes no further.
pub(crate) fn log_panic(message: &str, f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        let panic = TaskPanic::new(&*payload, None, Backtrace::disabled());
        log::panicked(message, panic.message());
        drop_payload(payload);
    }
}

/// Calls `f`, and discards a panic without logging it.
pub(crate) fn discard_panic(f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        drop_payload(payload);
    }
}

/// Ends the process if a panic unwinds through the scope of this value. For code in which no panic can occur,
/// and which would leave unsound memory behind if one did. Such code calls foreign code only under
/// `catch_unwind`.
#[derive(Debug)]
#[must_use]
pub(crate) struct AbortOnUnwind;

impl AbortOnUnwind {
    /// Ends the guarded code.
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        // The panic hook has reported the panic.
        std::process::abort();
    }
}

/// Drops the value of a panic, whose destructor may panic as well, and so on. No caller is left to receive
/// such a panic.
fn drop_payload(mut payload: Box<dyn Any + Send>) {
    for _ in 0..8 {
        match panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(again) => payload = again,
        }
    }
    std::mem::forget(payload);
}
