//! The pace of a pool's tasks: how many tasks a busy worker may have, and how many items of a span.

#![forbid(unsafe_code)]

use std::time::Duration;

/// The time that a worker shall be busy with items of a span, in nanoseconds.
const SPAN: u64 = 400_000;
/// The number of consecutive parts of spans that took as long as expected, after which parts are twice as
/// long.
const STEADY: u32 = 4;
/// The time that a worker shall be busy with its dispatched tasks, in nanoseconds.
const AHEAD: u64 = 200_000;
/// The time of tasks above which tasks are dispatched to idle workers only, in nanoseconds.
const LONG: u64 = 2_000_000;
/// The largest number of tasks that a worker has.
const MOST: u64 = 512;
/// The number of consecutive short tasks after which tasks are dispatched to busy workers.
pub(crate) const TRUST: u32 = 16;
/// The running time of a task after which nothing stays queued behind it.
pub(crate) const STALL: Duration = Duration::from_millis(1);
/// The running time above which tasks are worth moving to an idle worker, in nanoseconds.
const WORTH_MOVING: u64 = 20_000;

/// The usual running times of tasks, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The usual running time of tasks, in nanoseconds; 0 while unknown.
    typical: u64,
    /// The usual running time of an item of a span, in nanoseconds; 0 while unknown.
    typical_item: u64,
    /// The number of consecutive parts of spans that took as long as expected.
    steady: u32,
    /// The number of consecutive short tasks.
    trust: u32,
}

impl Pace {
    /// Returns how many tasks a worker may have.
    pub(crate) fn credit(&self) -> usize {
        if self.trust < TRUST {
            return 1;
        }
        match self.typical {
            0 | LONG.. => 1,
            nanoseconds => usize::try_from((AHEAD / nanoseconds).clamp(2, MOST)).unwrap_or(1),
        }
    }

    /// Notes how long a task took, and for how many items of a span.
    pub(crate) fn note_duration(&mut self, nanoseconds: u64, items: Option<u32>) {
        let nanoseconds = nanoseconds.clamp(1, 1 << 40);
        self.trust = if nanoseconds < LONG {
            self.trust.saturating_add(items.unwrap_or(1))
        } else {
            0
        };
        if let Some(items) = items {
            let item = (nanoseconds / u64::from(items.max(1))).max(1);
            self.typical_item = match self.typical_item {
                0 => item,
                typical => typical.midpoint(item),
            };
            // Trust grows slowly, and is lost at once: short items must not wait behind long ones.
            self.steady = if nanoseconds > 4 * SPAN {
                0
            } else {
                self.steady + 1
            };
        }
        self.typical = match self.typical {
            0 => nanoseconds,
            // One that lost its CPU in the middle says nothing about the others.
            typical => (typical * 7 + nanoseconds.min(typical.saturating_mul(64))) / 8,
        }
        .max(1);
    }

    /// Returns the running time after which a task counts as long.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_nanos((2 * self.typical).max(AHEAD)).min(STALL)
    }

    /// Returns how many items of a span a worker is to have at a time.
    pub(crate) fn worthwhile_items(&self) -> u32 {
        let items = match self.typical_item {
            0 => 1,
            nanoseconds => u32::try_from(SPAN / nanoseconds).unwrap_or(u32::MAX).max(1),
        };
        items.min(1 << (self.steady / STEADY).min(20))
    }

    /// Dispatches to idle workers only, until tasks have proved short again.
    pub(crate) fn lose_trust(&mut self) {
        self.trust = 0;
    }

    /// Returns whether tasks run long enough to be worth moving to an idle worker.
    pub(crate) fn is_worth_moving(&self) -> bool {
        self.typical >= WORTH_MOVING
    }
}
