//! The primitives that the protocols are built on: the standard library's, or
//! loom's when the models are checked (`--cfg loom_models`).

#![forbid(unsafe_code)]

#[cfg(loom_models)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread::{self, Thread},
};
#[cfg(not(loom_models))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread::{self, Thread},
};

/// The counts of an `Arc` are no part of the protocols.
pub(crate) use std::sync::Arc;
use std::time::Instant;

/// Locks a mutex, whatever happened to the thread that held it last.
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

    /// Gives `f` a pointer to read through.
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        #[cfg(loom_models)]
        return self.0.with(f);
        #[cfg(not(loom_models))]
        return f(self.0.get());
    }

    /// Gives `f` a pointer to write through.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(loom_models)]
        return self.0.with_mut(f);
        #[cfg(not(loom_models))]
        return f(self.0.get());
    }
}

/// How many times a thread looks again before it goes to sleep; some tens of
/// microseconds, which is what a sleep and a wake-up cost.
pub(crate) fn spin_limit() -> u32 {
    #[cfg(loom_models)]
    return 1;
    #[cfg(not(loom_models))]
    {
        use std::sync::OnceLock;
        static LIMIT: OnceLock<u32> = OnceLock::new();
        // With one CPU, what is waited for cannot happen while we spin.
        *LIMIT.get_or_init(|| match thread::available_parallelism() {
            Ok(cpus) if cpus.get() == 1 => 0,
            _ => 400,
        })
    }
}

/// Spins until `condition` holds, or for about as long as a sleep would cost.
/// Returns whether it held.
pub(crate) fn spin_until(condition: impl Fn() -> bool) -> bool {
    for _ in 0..spin_limit() {
        if condition() {
            return true;
        }
        spin_loop();
    }
    condition()
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

/// A wake-up for one thread: `wait` returns after `notify`, whichever came
/// first.
#[derive(Debug)]
pub(crate) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self {
            set: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn notify(&self) {
        *lock(&self.set) = true;
        self.changed.notify_one();
    }

    /// Waits for `notify` or the deadline, and takes the notification.
    /// Returns false when the deadline passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut set = lock(&self.set);
        while !*set {
            set = match deadline {
                None => self
                    .changed
                    .wait(set)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let Some(left) = time_left(deadline) else {
                        return false;
                    };
                    self.changed
                        .wait_timeout(set, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0
                }
            };
        }
        *set = false;
        true
    }
}

/// What is left until `deadline`; `None` once it has passed.
pub(crate) fn time_left(deadline: Instant) -> Option<std::time::Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

/// The moment `timeout` from now; `None` when that is beyond what the clock can
/// tell, which no one lives to see.
pub(crate) fn deadline_after(timeout: std::time::Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Parks the calling thread until it is unparked or the deadline passes; may
/// return for no reason. Returns false when the deadline has passed.
pub(crate) fn park(deadline: Option<Instant>) -> bool {
    let Some(deadline) = deadline else {
        thread::park();
        return true;
    };
    let Some(left) = time_left(deadline) else {
        return false;
    };
    #[cfg(loom_models)]
    {
        // Loom has no clock: in the models every deadline has passed.
        let _ = left;
        false
    }
    #[cfg(not(loom_models))]
    {
        thread::park_timeout(left);
        true
    }
}
