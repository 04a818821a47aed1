//! The primitives below everything else: locks, atomics, wake-ups of threads, and the operating system.

pub(crate) mod crew;
pub(crate) mod departures;
#[cfg(loom_models)]
pub(crate) mod explored;
pub(crate) mod os;
pub(crate) mod spin;
pub(crate) mod sync;
