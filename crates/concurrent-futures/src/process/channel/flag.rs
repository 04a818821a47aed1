//! A word in shared memory that says how a side sleeps, and on which the side can sleep.

#![forbid(unsafe_code)]

use crate::runtime::os::futex::{Futex, Scope, is_shared};
use crate::runtime::sync::atomic::Ordering;
use std::time::Duration;

/// The word. Its initial value is zero.
#[derive(Debug)]
#[cfg_attr(not(loom_models), repr(transparent))]
pub(crate) struct Flag(Futex);

// ORDERING: Relaxed in all of them: the flag publishes nothing, and its order to the
// positions is that of the fences in `ring.rs`.
impl Flag {
    #[cfg(loom_models)]
    pub(crate) fn new() -> Self {
        Self(Futex::new(0))
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.word().load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.word().store(value, Ordering::Relaxed);
    }

    pub(crate) fn swap(&self, value: u32) -> u32 {
        self.0.word().swap(value, Ordering::Relaxed)
    }

    /// Returns whether a side can sleep on the flag.
    pub(crate) fn takes_naps() -> bool {
        is_shared()
    }

    /// Sleeps while the flag has this value, until a wake-up or the end of the time; may wake spuriously. The
    /// caller must distinguish these.
    pub(crate) fn sleep(&self, value: u32, limit: Duration) {
        let _ = self.0.sleep(value, Some(limit), Scope::Memory);
    }

    /// Wakes the side that sleeps on the flag.
    pub(crate) fn wake(&self) {
        self.0.wake(Scope::Memory);
    }
}
