//! A word in shared memory that says how a side sleeps, and on which the side can sleep.

#![forbid(unsafe_code)]

use crate::futex::{Futex, Scope};
use crate::sync::atomic::Ordering;
use rustix::thread::Timespec;

/// The word. Zero is how it begins.
#[derive(Debug)]
#[cfg_attr(not(loom_models), repr(transparent))]
pub(super) struct Flag(Futex);

// ORDERING: Relaxed in all of them: the flag publishes nothing, and its order to the
// positions is that of the fences in `ring.rs`.
impl Flag {
    #[cfg(loom_models)]
    pub(super) fn new() -> Self {
        Self(Futex::new(0))
    }

    pub(super) fn get(&self) -> u32 {
        self.0.word().load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u32) {
        self.0.word().store(value, Ordering::Relaxed);
    }

    pub(super) fn swap(&self, value: u32) -> u32 {
        self.0.word().swap(value, Ordering::Relaxed)
    }

    /// Sleeps until it is woken, if the flag has this value, until the time is over, or
    /// for no reason: all of these are for the caller to tell apart.
    pub(super) fn sleep(&self, value: u32, limit: &Timespec) {
        let _ = self.0.sleep(value, Some(limit), Scope::Memory);
    }

    /// Wakes who sleeps on the flag.
    pub(super) fn wake(&self) {
        self.0.wake(Scope::Memory);
    }
}
