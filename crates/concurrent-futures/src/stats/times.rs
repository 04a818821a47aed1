//! The time that tasks spend in the queue.
//!
//! The queue is first in, first out. So task *n* of those that are taken is task *n* of those that were submitted.
//! (Threads that submit at the same moment may be a few places apart.) The number of submitted tasks is noted together with the
//! time now and then, in *marks*. A worker that takes task *n* reads the time of its submission off the marks. No task
//! needs memory for its time.
//!
//! While the queue is short, each submission is a mark. If there are many marks, every second one is dropped, and
//! later marks are further apart. So a time is exact to a few hundredths of the time that the queue spans.

#![forbid(unsafe_code)]

use crate::stats::QueueTimes;
use std::collections::VecDeque;
use std::time::Duration;

/// The largest number of marks.
const MARKS: usize = 1024;
/// The number of buckets for each doubling of the time.
const PARTS: u32 = 8;
/// Times below this have a bucket each, in nanoseconds.
const FINE: u64 = PARTS as u64;
const BUCKETS: usize = (64 - PARTS.ilog2() as usize + 1) * PARTS as usize;

/// Counts of times, in buckets whose width is an eighth of their time at most.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            count: 0,
            longest: 0,
        }
    }
}

fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < FINE {
        return usize::try_from(nanoseconds).unwrap_or(0);
    }
    let shift = nanoseconds.ilog2() - PARTS.ilog2();
    // The top bits of the time, of which the highest is set.
    let top = nanoseconds >> shift;
    (shift as usize) * PARTS as usize + usize::try_from(top).unwrap_or(0)
}

/// Returns the largest time of a bucket.
fn end_of(bucket: usize) -> u64 {
    let parts = PARTS as usize;
    if bucket < 2 * parts {
        return bucket as u64;
    }
    let shift = bucket / parts - 1;
    let top = (bucket % parts + parts) as u128;
    u64::try_from(((top + 1) << shift) - 1).unwrap_or(u64::MAX)
}

impl Histogram {
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanoseconds);
    }

    /// Returns the time that so many of a hundred do not exceed.
    fn percentile(&self, percent: u64) -> Duration {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank && seen > 0 {
                return Duration::from_nanos(end_of(bucket).min(self.longest));
            }
        }
        Duration::ZERO
    }

    pub(crate) fn times(&self) -> QueueTimes {
        QueueTimes {
            count: self.count,
            p50: self.percentile(50),
            p95: self.percentile(95),
            p99: self.percentile(99),
            longest: Duration::from_nanos(self.longest),
        }
    }
}

/// The number of tasks that were submitted up to a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    submitted: u64,
    moment: u64,
}

/// The marks of a pool, and the times that were read off them.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    kept: VecDeque<Mark>,
    /// The shortest time between two marks.
    apart: u64,
    /// The number of the first task whose time is measured.
    first: u64,
    pub(crate) histogram: Histogram,
}

impl Marks {
    /// Begins to measure the times of tasks, after so many were submitted.
    pub(crate) fn begin(&mut self, submitted: u64) {
        self.first = submitted + 1;
    }

    /// Notes that a task was submitted, as the number `submitted`, counted from 1.
    pub(crate) fn submitted(&mut self, submitted: u64, moment: u64) {
        if let Some(last) = self.kept.back()
            // Threads that submit at the same moment may come in any order.
            && (moment < last.moment.saturating_add(self.apart) || submitted <= last.submitted)
        {
            return;
        }
        if self.kept.len() >= MARKS {
            let span = moment.saturating_sub(self.kept[0].moment);
            let mut keeps = false;
            self.kept.retain(|_| {
                keeps = !keeps;
                keeps
            });
            self.apart = span / (MARKS as u64 / 2);
        }
        self.kept.push_back(Mark { submitted, moment });
    }

    /// Notes that a worker has taken task number `taken` from the queue at `moment`, and starts the task.
    pub(crate) fn taken(&mut self, taken: u64, moment: u64) {
        // The last mark before the task is kept for the tasks up to the next mark.
        while self.kept.len() > 1 && self.kept[1].submitted <= taken {
            self.kept.pop_front();
        }
        if self.kept.len() < MARKS / 8 {
            self.apart = 0;
        }
        let Some(before) = self.kept.front().copied() else {
            return;
        };
        if taken < self.first {
            return;
        }
        // Another worker, which took a later task, may have noted that first. Then the mark of this task is gone,
        // and the next one is near.
        let submitted = match self.kept.get(1) {
            Some(after) if taken > before.submitted => {
                let part = u128::from(taken - before.submitted)
                    * u128::from(after.moment.saturating_sub(before.moment))
                    / u128::from(after.submitted - before.submitted);
                before.moment + u64::try_from(part).unwrap_or(0)
            }
            _ => before.moment,
        };
        self.histogram.add(moment.saturating_sub(submitted));
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_ends_within_an_eighth_above_its_times(nanoseconds: u64) {
            let end = end_of(bucket(nanoseconds));
            prop_assert!(end >= nanoseconds);
            prop_assert!(end - nanoseconds <= nanoseconds / u64::from(PARTS));
            prop_assert!(bucket(nanoseconds) < BUCKETS);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_times(times in prop::collection::vec(0_u64..1 << 50, 1..200)) {
            let mut histogram = Histogram::default();
            for time in &times {
                histogram.add(*time);
            }
            let mut sorted = times;
            sorted.sort_unstable();
            let figures = histogram.times();
            for (percent, figure) in [(50, figures.p50), (95, figures.p95), (99, figures.p99)] {
                let rank = (sorted.len() * percent).div_ceil(100).max(1);
                let exact = u128::from(sorted[rank - 1]);
                prop_assert!(figure.as_nanos() >= exact);
                prop_assert!(figure.as_nanos() <= exact + exact / 8);
            }
            prop_assert_eq!(figures.longest.as_nanos(), u128::from(sorted[sorted.len() - 1]));
        }
    }

    #[test]
    fn no_times_have_no_percentiles() {
        assert_eq!(Histogram::default().times(), QueueTimes::default());
    }

    #[test]
    fn a_short_queue_is_measured_exactly() {
        let mut marks = Marks::default();
        marks.submitted(1, 1_000);
        marks.submitted(2, 1_007);
        marks.taken(1, 1_003);
        marks.taken(2, 1_008);
        let times = marks.histogram.times();
        assert_eq!((times.count, times.longest.as_nanos()), (2, 3));
        assert_eq!(times.p50.as_nanos(), 1);
    }

    #[test]
    fn a_task_that_is_noted_after_a_later_one_is_measured() {
        let mut marks = Marks::default();
        for task in 1..=3 {
            marks.submitted(task, 1_000 + task);
        }
        marks.taken(3, 1_010);
        marks.taken(1, 1_011);
        let times = marks.histogram.times();
        assert_eq!((times.count, times.longest.as_nanos()), (2, 8));
    }

    #[test]
    fn tasks_that_were_submitted_before_are_not_measured() {
        let mut marks = Marks::default();
        marks.begin(10);
        marks.submitted(11, 1_000);
        marks.taken(10, 2_000);
        assert_eq!(marks.histogram.times().count, 0);
        marks.taken(11, 2_000);
        assert_eq!(marks.histogram.times().count, 1);
    }

    #[test]
    fn a_million_pending_tasks_need_few_marks_and_are_measured_well() {
        const TASKS: u64 = 1_000_000;
        let mut marks = Marks::default();
        // One each nanosecond; then a worker takes one each 10 nanoseconds.
        for task in 1..=TASKS {
            marks.submitted(task, task);
            assert!(marks.kept.len() <= MARKS);
        }
        for task in 1..=TASKS {
            marks.taken(task, TASKS + 10 * task);
        }
        // Task n waits TASKS + 9 n.
        let times = marks.histogram.times();
        assert_eq!(times.count, TASKS);
        for (figure, percent) in [(times.p50, 50), (times.p95, 95), (times.p99, 99)] {
            let exact = u128::from(TASKS + 9 * TASKS * percent / 100);
            assert!(figure.as_nanos().abs_diff(exact) <= exact / 7);
        }
    }
}
