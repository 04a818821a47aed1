//! A clock that costs next to nothing to look at, and is as coarse.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Tells when the system's clock has ticked, which it does every few milliseconds.
///
/// It takes a tenth of the time that a look at the exact clock takes.
#[derive(Default)]
pub(crate) struct Ticks(Option<Timespec>);

impl Ticks {
    /// Whether it has ticked since the last call.
    pub(crate) fn has_ticked(&mut self) -> bool {
        let now = Some(clock_gettime(ClockId::MonotonicCoarse));
        let has_ticked = self.0 != now;
        self.0 = now;
        has_ticked
    }
}
