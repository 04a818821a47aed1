//! The primitives that the protocols are built on: the standard library's, or
//! loom's when the models are checked (`--cfg loom_models`).

#![forbid(unsafe_code)]

#[cfg(loom_models)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Mutex, MutexGuard, atomic},
    thread, thread_local,
};
#[cfg(not(loom_models))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Mutex, MutexGuard, atomic},
    thread, thread_local,
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

/// How many times a thread looks again, at most, before it goes to sleep: for longer than it
/// takes to wake a thread on an idle CPU (tens of microseconds). If it were shorter, two
/// threads that hand tasks to and fro would both be asleep again by the time the other has
/// woken up, every time.
pub fn spin_limit() -> u32 {
    #[cfg(loom_models)]
    return 1;
    #[cfg(not(loom_models))]
    {
        use std::sync::atomic::{AtomicU32, Ordering};
        const UNKNOWN: u32 = u32::MAX;
        // No `OnceLock`: should the process fork while some thread finds out, the child
        // would wait for that thread forever.
        static LIMIT: AtomicU32 = AtomicU32::new(UNKNOWN);
        match LIMIT.load(Ordering::Relaxed) {
            UNKNOWN => {
                // With one CPU, what is waited for cannot happen while we spin.
                let limit = match thread::available_parallelism() {
                    Ok(cpus) if cpus.get() == 1 => 0,
                    _ => 1600,
                };
                LIMIT.store(limit, Ordering::Relaxed);
                limit
            }
            limit => limit,
        }
    }
}

/// What a thread has learnt about spinning.
///
/// It pays if what is waited for happens soon, and on another CPU. If it did not pay the
/// last times (the tasks are long; all CPUs are taken by others), the thread gives up
/// sooner; now and then it tries in full whether that has changed.
#[derive(Clone, Copy, Debug)]
#[cfg(not(loom_models))]
struct SpinHistory {
    failures: u32,
}

#[cfg(not(loom_models))]
impl SpinHistory {
    const NEW: Self = Self { failures: 0 };
    const TRY_AGAIN: u32 = 64;

    /// How many turns to spin, of at most `limit`.
    fn turns(self, limit: u32) -> u32 {
        if self.failures.is_multiple_of(Self::TRY_AGAIN) {
            limit
        } else {
            limit >> self.failures.min(31)
        }
    }

    fn note(&mut self, success: bool) {
        self.failures = if success {
            0
        } else {
            self.failures.wrapping_add(1)
        };
    }
}

/// Spins until `condition` holds, or for about as long as a sleep would cost, or less if
/// that did not help the thread lately. Returns whether it held.
pub(crate) fn spin_until(condition: impl Fn() -> bool) -> bool {
    #[cfg(not(loom_models))]
    {
        thread_local! {
            static HISTORY: std::cell::Cell<SpinHistory> =
                const { std::cell::Cell::new(SpinHistory::NEW) };
        }
        let mut history = HISTORY.get();
        let held = spin(history.turns(spin_limit()), condition);
        history.note(held);
        HISTORY.set(history);
        held
    }
    #[cfg(loom_models)]
    spin(spin_limit(), condition)
}

/// Spins until `condition`, which takes a while itself, holds, but only so many times.
/// Returns whether it held.
pub(crate) fn spin_turns(turns: usize, condition: impl Fn() -> bool) -> bool {
    if cfg!(loom_models) || spin_limit() == 0 {
        return condition();
    }
    for _ in 0..turns {
        if condition() {
            return true;
        }
        // Whom we wait for may be waiting for our CPU.
        thread::yield_now();
    }
    false
}

fn spin(turns: u32, condition: impl Fn() -> bool) -> bool {
    for turn in 1..=turns {
        if condition() {
            return true;
        }
        if turn.is_multiple_of(64) {
            // Whom we wait for may be waiting for our CPU.
            thread::yield_now();
        } else {
            spin_loop();
        }
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

/// What is left until `deadline`; `None` once it has passed.
pub(crate) fn time_left(deadline: Instant) -> Option<std::time::Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

/// The moment `timeout` from now; `None` when that is beyond what the clock can
/// tell, which no one lives to see.
pub fn deadline_after(timeout: std::time::Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
