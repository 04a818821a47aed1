//! The machine and the date of the figures.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use crate::process::{processor_seconds, processor_seconds_of_children};

/// Measures how busy other programs keep the machine.
pub(crate) struct Disturbance {
    since: Instant,
    /// Processor seconds of other programs at the beginning.
    others: f64,
}

impl Disturbance {
    pub(crate) fn watch() -> Self {
        Self {
            since: Instant::now(),
            others: seconds_of_others(),
        }
    }

    /// Returns the share of the processor time that other programs have had since the watch began.
    pub(crate) fn share(&self) -> f64 {
        let capacity = self.since.elapsed().as_secs_f64() * cores() as f64;
        // The kernel counts the machine's time in ticks, so that this may be a little below zero.
        ((seconds_of_others() - self.others) / capacity).max(0.0)
    }
}

/// Returns the seconds that the processors spent on other programs, or that the host gave to another machine.
fn seconds_of_others() -> f64 {
    // SAFETY: it takes no pointer.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let statistics = fs::read_to_string("/proc/stat").unwrap_or_default();
    // The first line: cpu, user, nice, system, idle, iowait, irq, softirq, steal, and guests (which are in user too).
    let ticks = statistics
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8);
    let busy: f64 = ticks
        .enumerate()
        .filter(|(place, _)| ![3, 4].contains(place))
        .filter_map(|(_, ticks)| ticks.parse::<f64>().ok())
        .sum();
    busy / ticks_a_second - processor_seconds() - processor_seconds_of_children()
}

/// The version of the compiler that built this program.
pub(crate) fn compiler() -> &'static str {
    env!("BENCHMARKS_RUSTC")
}

/// The model of the processor, and the number of cores that this process may use.
pub(crate) fn processor() -> String {
    let description = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = description
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    format!("{model}, {} cores", cores())
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The version of the kernel.
pub(crate) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Today's date (UTC), year first.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01. The function counts eras of 400 years, in years
/// that begin in March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(
            [0, 59, 11_016, 20_778].map(civil),
            [(1970, 1, 1), (1970, 3, 1), (2000, 2, 29), (2026, 11, 21)]
        );
    }
}
