//! The primitives that the protocols are built on: the standard library's, or loom's in models.
//!
//! Models are checked with `--cfg loom_models`.

#![forbid(unsafe_code)]

#[cfg(loom_models)]
pub(crate) use crate::runtime::explored as atomic;
#[cfg(loom_models)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Mutex, MutexGuard},
    thread, thread_local,
};
#[cfg(not(loom_models))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Mutex, MutexGuard, atomic},
    thread, thread_local,
};

/// An `Arc` whose counts are not part of the protocols.
pub(crate) use std::sync::Arc;
use std::time::Instant;

/// Locks a mutex, even if a thread has panicked while it held the mutex.
///
/// No lock of this crate is held while foreign code runs, so a poisoned one
/// guards data that is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An `UnsafeCell` with the closure interface that loom's tracking needs.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(
    #[cfg(loom_models)] loom::cell::UnsafeCell<T>,
    #[cfg(not(loom_models))] std::cell::UnsafeCell<T>,
);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        #[cfg(loom_models)]
        return Self(loom::cell::UnsafeCell::new(value));
        #[cfg(not(loom_models))]
        return Self(std::cell::UnsafeCell::new(value));
    }

    /// Calls `f` with a pointer to read through.
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        #[cfg(loom_models)]
        return self.0.with(f);
        #[cfg(not(loom_models))]
        return f(self.0.get());
    }

    /// Calls `f` with a pointer to write through.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(loom_models)]
        return self.0.with_mut(f);
        #[cfg(not(loom_models))]
        return f(self.0.get());
    }
}

/// Waits out a critical section of a few instructions in another thread.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn snooze(&mut self) {
        if cfg!(not(loom_models)) && self.0 < 32 {
            self.0 += 1;
            spin_loop();
        } else {
            // The other thread may have lost its CPU to us.
            thread::yield_now();
        }
    }
}

/// Returns the time that is left until `deadline`; `None` once the deadline has passed.
pub(crate) fn time_left(deadline: Instant) -> Option<std::time::Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

/// Returns the moment `timeout` from now; `None` if that is beyond the range of the clock.
pub fn deadline_after(timeout: std::time::Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
