//! The times of a session: the stamps of threads, and the nanoseconds that readers make of them.
//!
//! # Protocol
//! A stamp has the ticks of the processor's [counter](Counter), and a mark. A task takes three stamps, for which the
//! system's clock would take most of the time that a recording costs. Where there is no such counter, a stamp is the
//! time of the system's clock.
//!
//! An *anchor* is a moment by both clocks. A thread notes one when the last one that it knows of is about a second old.
//! A reader notes one as well, after the last record that it will read was written. Between two anchors, time passes
//! evenly. All stamps that were read have an anchor behind them, and anchors are added at the end only.
//!
//! # Invariants
//! 1. Later ticks become later times, or equal ones. So events of different threads keep their order.
//! 2. All readings turn a stamp into the same time, as long as there is room for all anchors.
//! 3. A counter that goes back, as after some kinds of sleep, is given up: later stamps are times of the system's clock.
//! 4. In other kinds of sleep, the system's clock stands still while the counter runs. The moments before keep their
//!    distances: time passes at the usual rate after an anchor, and then stands still.
//! 5. A thread that takes a stamp waits for no other thread.

#![forbid(unsafe_code)]

use crate::recording::record::{END, START, Words};
use crate::runtime::os::clock::now;
use crate::runtime::os::ticks::Counter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Marks a word that has ticks: no time of the system's clock is as large.
const MARK: u64 = 1 << 63;

/// The ticks after which a thread notes an anchor: about a second.
const PERIOD: u64 = 1 << 31;

/// The most anchors that are kept: those of an hour, if a reader comes twenty times a second. If there are more, every
/// second one is dropped.
const MOST: usize = 1 << 16;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    ticks: u64,
    /// Nanoseconds of the system's clock.
    time: u64,
}

impl Anchor {
    /// Returns this moment.
    fn take(counter: Counter) -> Self {
        // The system may stop the thread between the clocks: the quickest of some attempts counts.
        let attempts = (0..4).map(|_| {
            let before = counter.read_behind();
            let time = now();
            let length = counter.read_behind().saturating_sub(before);
            (length, before + length / 2, time)
        });
        let (_, ticks, time) = attempts.min().unwrap_or_default();
        Self { ticks, time }
    }

    /// Returns the time after some ticks, if so many nanoseconds pass in so many ticks.
    fn after(self, ticks: u64, (time, per): (u64, u64)) -> u64 {
        let passed = u128::from(ticks) * u128::from(time) / u128::from(per.max(1));
        self.time
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

/// Anchors in the order of their ticks, and of their times.
#[derive(Clone, Debug, Default)]
struct Anchors {
    all: Vec<Anchor>,
    /// The usual rate: so many nanoseconds pass in so many ticks.
    rate: Option<(u64, u64)>,
}

impl Anchors {
    /// Adds an anchor, unless the last one is younger than some ticks. Returns false if the counter has gone back.
    fn add(&mut self, new: Anchor, distance: u64) -> bool {
        let Some(last) = self.all.last().copied() else {
            self.all.push(new);
            return true;
        };
        let Some(ticks) = new.ticks.checked_sub(last.ticks) else {
            return false;
        };
        if ticks <= distance {
            return true;
        }
        let new = Anchor {
            time: new.time.max(last.time),
            ..new
        };
        let time = new.time - last.time;
        match self.rate {
            // By more than a sixty-fourth slower than usual: for the other ticks, the clock stood still.
            Some((usual, per))
                if ticks >= PERIOD / 2
                    && u128::from(time) * u128::from(per) * 64
                        < u128::from(usual) * u128::from(ticks) * 63 =>
            {
                let passed = u128::from(time) * u128::from(per) / u128::from(usual.max(1));
                let passed = u64::try_from(passed).unwrap_or(u64::MAX).min(ticks);
                self.all.push(Anchor {
                    ticks: last.ticks + passed,
                    time: new.time,
                });
            }
            _ if ticks >= PERIOD / 2 => self.rate = Some((time, ticks)),
            _ => {}
        }
        self.all.push(new);
        true
    }

    /// Drops every second anchor if there are too many, but neither the first one nor the last one.
    fn thin(&mut self) {
        let count = self.all.len();
        if count > MOST {
            let mut place = 0;
            self.all.retain(|_| {
                place += 1;
                place == 1 || (count - place).is_multiple_of(2)
            });
        }
    }

    /// Returns the time of some ticks.
    fn time(&self, ticks: u64) -> u64 {
        let place = self.all.partition_point(|anchor| anchor.ticks <= ticks);
        let from = place.checked_sub(1).and_then(|place| self.all.get(place));
        match (from, self.all.get(place)) {
            (Some(from), Some(to)) => {
                let rate = (to.time - from.time, to.ticks - from.ticks);
                from.after(ticks - from.ticks, rate)
            }
            // A counter that was given up has no later anchor.
            (Some(last), None) => match self.rate {
                Some(rate) => last.after(ticks - last.ticks, rate),
                None => last.time,
            },
            (None, first) => first.map_or(0, |first| first.time),
        }
    }
}

/// The clocks of a session.
#[derive(Debug)]
pub(crate) struct Times {
    counter: Option<Counter>,
    has_failed: AtomicBool,
    anchors: Mutex<Anchors>,
}

impl Times {
    /// Makes the clocks of a session that begins.
    pub(crate) fn new() -> Self {
        let counter = Counter::of_system();
        let mut anchors = Anchors::default();
        if let Some(counter) = counter {
            anchors.add(Anchor::take(counter), 0);
        }
        Self {
            counter,
            has_failed: AtomicBool::new(false),
            anchors: Mutex::new(anchors),
        }
    }

    /// Returns the counter, if there is one that was not given up.
    fn counter(&self) -> Option<Counter> {
        // ORDERING: Relaxed: a thread that sees it later gives the counter up later.
        self.counter
            .filter(|_| !self.has_failed.load(Ordering::Relaxed))
    }

    /// Notes an anchor, unless one was noted lately.
    fn note(&self) {
        let Some(counter) = self.counter() else {
            return;
        };
        let mut anchors = match self.anchors.try_lock() {
            Ok(anchors) => anchors,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // A reader is there for a moment, or another thread that notes an anchor.
            Err(TryLockError::WouldBlock) => return,
        };
        self.extend(&mut anchors, counter, PERIOD / 2);
    }

    /// Returns a scale for all stamps that were taken before.
    pub(crate) fn scale(&self) -> Scale {
        let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = self.counter() {
            self.extend(&mut anchors, counter, 0);
        }
        Scale(anchors.clone())
    }

    /// Adds an anchor, unless the last one is younger than some ticks. Gives up a counter that has gone back.
    fn extend(&self, anchors: &mut Anchors, counter: Counter, distance: u64) {
        // With the lock, so that anchors are added in their order.
        if anchors.add(Anchor::take(counter), distance) {
            anchors.thin();
        } else {
            // ORDERING: Relaxed: a thread that sees it later gives the counter up later.
            self.has_failed.store(true, Ordering::Relaxed);
        }
    }
}

/// The stamps of one thread.
#[derive(Debug)]
pub(crate) struct Clock {
    counter: Option<Counter>,
    /// The ticks when the thread noted an anchor.
    noted: u64,
}

impl Clock {
    pub(crate) fn new(times: &Times) -> Self {
        Self {
            counter: times.counter(),
            noted: 0,
        }
    }

    /// Returns the stamp of this moment, for the cause of what other threads do later.
    #[inline]
    pub(crate) fn stamp(&mut self, times: &Times) -> u64 {
        self.stamp_by(times, Counter::read)
    }

    /// Returns the stamp of this moment, for the effect of what other threads have done: it is not less than their
    /// stamps of before.
    #[inline]
    pub(crate) fn stamp_behind(&mut self, times: &Times) -> u64 {
        self.stamp_by(times, Counter::read_behind)
    }

    #[inline]
    fn stamp_by(&mut self, times: &Times, read: impl FnOnce(Counter) -> u64) -> u64 {
        let Some(counter) = self.counter else {
            return now();
        };
        let ticks = read(counter);
        if ticks.wrapping_sub(self.noted) < PERIOD {
            ticks | MARK
        } else {
            self.note(times)
        }
    }

    /// Notes an anchor, and returns the stamp of this moment.
    #[cold]
    fn note(&mut self, times: &Times) -> u64 {
        times.note();
        self.counter = times.counter();
        self.counter.map_or_else(now, |counter| {
            self.noted = counter.read_behind();
            self.noted | MARK
        })
    }
}

/// Returns the later one of two stamps of a thread, of which the second was taken later.
pub(crate) fn later(first: u64, second: u64) -> u64 {
    if (first ^ second) & MARK == 0 {
        first.max(second)
    } else {
        second
    }
}

/// The nanoseconds of stamps.
#[derive(Debug)]
pub(crate) struct Scale(Anchors);

impl Scale {
    /// Returns the words of a record with times instead of stamps.
    pub(crate) fn convert(&self, words: &Words) -> Words {
        let mut words = *words;
        for place in [START, END] {
            words[place] = self.time(words[place]);
        }
        words
    }

    /// Returns the time of a stamp. Another number, which has no mark, stays.
    fn time(&self, stamp: u64) -> u64 {
        if stamp & MARK == 0 {
            stamp
        } else {
            self.0.time(stamp & !MARK)
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn anchors(all: &[(u64, u64)]) -> Anchors {
        let mut anchors = Anchors::default();
        for (ticks, time) in all {
            assert!(anchors.add(
                Anchor {
                    ticks: *ticks,
                    time: *time
                },
                0
            ));
        }
        anchors
    }

    #[test]
    fn time_passes_evenly_between_anchors() {
        let anchors = anchors(&[(1000, 50), (3000, 1050), (3010, 1060)]);
        let times =
            [999, 1000, 1001, 1002, 2000, 2999, 3000, 3005].map(|ticks| anchors.time(ticks));
        assert_eq!(times, [50, 50, 50, 51, 550, 1049, 1050, 1055]);
    }

    #[test]
    fn a_clock_that_stood_still_does_not_stretch_the_time_before() {
        let mut all = anchors(&[(0, 0), (PERIOD, PERIOD / 2)]);
        // A tenth of a period at the usual rate, then sleep.
        let (ticks, time) = (PERIOD + 100 * PERIOD, PERIOD / 2 + PERIOD / 20);
        assert!(all.add(Anchor { ticks, time }, 0));
        assert_eq!(all.time(PERIOD + 1000), PERIOD / 2 + 500);
        assert_eq!(all.time(PERIOD + PERIOD / 2), time);
        assert_eq!(all.time(ticks), time);
        // The usual rate is the one of before.
        assert_eq!(all.time(ticks + 1000), time + 500);
        assert!(all.add(
            Anchor {
                ticks: ticks + PERIOD,
                time: time + PERIOD / 2
            },
            0
        ));
        assert_eq!(all.time(ticks + 1000), time + 500);
    }

    #[test]
    fn a_counter_that_goes_back_is_given_up() {
        let mut all = anchors(&[(10, 10), (PERIOD, PERIOD)]);
        let back = Anchor {
            ticks: 5,
            time: 2 * PERIOD,
        };
        assert!(!all.add(back, 0));
        // The stamps of before stay in order.
        assert_eq!(all.time(PERIOD + 7), PERIOD + 7);
        assert_eq!(all.time(3), 10);
        assert_eq!(Anchors::default().time(3), 0);
    }

    #[test]
    fn anchors_that_are_close_are_not_added_and_those_that_are_many_thinned() {
        let mut all = anchors(&[(10, 10)]);
        assert!(all.add(
            Anchor {
                ticks: 14,
                time: 14
            },
            5
        ));
        assert_eq!(all.all.len(), 1);
        for moment in 11..=10 + MOST as u64 {
            all.add(
                Anchor {
                    ticks: moment,
                    time: moment,
                },
                0,
            );
            all.thin();
        }
        assert_eq!(all.all.len(), MOST / 2 + 1);
        assert_eq!(all.time(1001), 1001);
    }

    #[test]
    fn stamps_are_times_of_the_systems_clock() {
        let times = Times::new();
        let mut clock = Clock::new(&times);
        let mut stamps = Vec::new();
        for _ in 0..1000 {
            stamps.push((now(), clock.stamp(&times), now()));
        }
        let scale = times.scale();
        let again = times.scale();
        let mut last = 0;
        for (before, stamp, after) in stamps {
            let time = scale.time(stamp);
            assert!(time >= last);
            assert_eq!(again.time(stamp), time);
            last = time;
            // An anchor is as inaccurate as the call of the system's clock is long, unless the system stops the thread.
            let slack = 1_000_000;
            assert!(time + slack >= before && time <= after + slack);
        }
    }

    #[test]
    fn a_stamp_of_a_counter_that_was_given_up_is_the_systems_time() {
        let times = Times::new();
        let mut clock = Clock::new(&times);
        clock.stamp(&times);
        times.has_failed.store(true, Ordering::Relaxed);
        // As after a second.
        clock.noted = 0;
        let before = now();
        let stamp = clock.stamp(&times);
        assert!((before..=now()).contains(&stamp));
        assert_eq!(times.scale().time(stamp), stamp);
        assert_eq!(later(5 | MARK, 4 | MARK), 5 | MARK);
        assert_eq!(later(5, 6), 6);
        assert_eq!(later(5 | MARK, 4), 4);
    }

    proptest! {
        #[test]
        fn later_ticks_are_later_times(
            steps in prop::collection::vec((0..3 * PERIOD, 0..3 * PERIOD), 0..8),
            mut ticks in prop::collection::vec(0..30 * PERIOD, 1..20),
        ) {
            let mut all = Anchors::default();
            let mut last = Anchor { ticks: 5, time: 5 };
            for (more_ticks, more_time) in steps {
                last = Anchor { ticks: last.ticks + more_ticks, time: last.time + more_time };
                prop_assert!(all.add(last, 0));
            }
            ticks.sort_unstable();
            let times: Vec<u64> = ticks.iter().map(|ticks| all.time(*ticks)).collect();
            prop_assert!(times.is_sorted(), "{times:?}");
        }
    }
}
