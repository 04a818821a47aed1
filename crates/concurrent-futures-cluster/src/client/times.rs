//! The times of hosts, by the clock of this process.
//!
//! A report has the time of the host's clock at which it was made. The client notes the time of its own clock when the
//! report comes. The difference of both is that of the clocks, and the time for which the report travelled. The least
//! difference of late counts, as that report has travelled fast. So times of hosts are late by the travel of the fastest
//! report of late, and by no more.
//!
//! Clocks drift, and that of a machine that sleeps stands still. So a difference counts for a minute at most.

#![forbid(unsafe_code)]

/// The nanoseconds for which differences are compared, before a new comparison begins. The one before counts as well.
const PERIOD: u64 = 30_000_000_000;

/// The clock of a host, as its reports tell it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostClock {
    /// When the comparison began, and the least difference since.
    now: Option<(u64, i64)>,
    /// The least difference of the comparison before.
    before: Option<i64>,
}

impl HostClock {
    /// Notes a report that was made at a time of the host's clock, and came at a time of this process's.
    pub(super) fn note(&mut self, made: u64, came: u64) {
        let difference = came.wrapping_sub(made).cast_signed();
        match &mut self.now {
            Some((since, least)) if came.saturating_sub(*since) < PERIOD => {
                *least = difference.min(*least);
            }
            former => {
                let fresh = former.filter(|(since, _)| came.saturating_sub(*since) < 2 * PERIOD);
                self.before = fresh.map(|(_, least)| least);
                self.now = Some((came, difference));
            }
        }
    }

    /// Returns the time of this process's clock at a time of the host's.
    pub(super) fn here(&self, time: u64) -> u64 {
        let now = self.now.map(|(_, least)| least);
        let difference = now.into_iter().chain(self.before).min();
        // One that is less than no time is wrong, and as wrong as 0.
        time.checked_add_signed(difference.unwrap_or(0))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_report_of_late_counts() {
        let second = 1_000_000_000;
        let mut clock = HostClock::default();
        // This clock is behind that of the host, by 5 s. Reports travel for 2, 1 and 300 ns.
        clock.note(10 * second, 5 * second + 2);
        assert_eq!(clock.here(10 * second), 5 * second + 2);
        clock.note(11 * second, 6 * second + 1);
        clock.note(12 * second, 7 * second + 300);
        assert_eq!(clock.here(12 * second), 7 * second + 1);
        // The next comparison; the one before counts, and then no more.
        clock.note(50 * second, 45 * second + 9);
        assert_eq!(clock.here(50 * second), 45 * second + 1);
        clock.note(90 * second, 85 * second + 20);
        assert_eq!(clock.here(90 * second), 85 * second + 9);
        // The host has slept for an hour, by this clock.
        clock.note(95 * second, 3600 * second);
        clock.note(96 * second, 3601 * second);
        assert_eq!(clock.here(96 * second), 3601 * second);
        assert_eq!(HostClock::default().here(7), 7);
        clock.note(u64::MAX, 0);
        clock.here(0);
    }
}
