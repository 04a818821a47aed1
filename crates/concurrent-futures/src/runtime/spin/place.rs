//! Spinning where the peer is another process, for a little longer than a sleep and a wake-up would take.
//!
//! # When spinning pays
//! Spinning pays if the awaited event happens soon and on another CPU. Then a round trip costs as much as two
//! caches need to exchange a line. Spinning does not pay if tasks are long, or if other programs want the
//! CPUs. A spinning thread uses up its share of CPU time. The scheduler then runs it behind the others when
//! it has something to do. On a crowded machine that is a thousand times worse than sleeping, as the
//! scheduler prefers threads that sleep much.
//!
//! # Adaptation
//! After some failed spins in a row, the next waits sleep at once. They also do so after a gap between two
//! looks, in which the scheduler has given the CPU to another thread. Then one wait spins, to find out
//! whether that has changed. If it fails, twice as many waits sleep before the next spin.
//!
//! A spin lasts longer than waking the peer takes. If it were shorter, each side would find the other asleep
//! for ever, once one of them was.
//!
//! # Two threads on one CPU
//! The scheduler may put both sides on the same CPU, though another is idle. On a virtual machine, an idle
//! CPU looks like one that was taken away. Then a spinning thread keeps its peer from producing the awaited
//! event, and a sleeping thread is put on the same CPU again. So a spinning thread yields if its peer last
//! ran on the same CPU, which costs a tenth of a sleep and a wake-up. As both threads are always ready to
//! run, the scheduler soon notices, and moves one of them.
//!
//! If other programs want the CPU as well, a yield gives the CPU to them, and getting it back may take
//! milliseconds. Then the next thousands of waits do not yield.

#![forbid(unsafe_code)]

use crate::runtime::spin::{TURN, Waited};
use std::hint::spin_loop;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time to spin.
const LONGEST: Duration = Duration::from_micros(60);
/// The number of looks between two looks at the clock: some microseconds.
const LOOKS: u32 = 32;
/// The longest time between two looks at the clock in which the thread has kept the CPU.
const GAP: Duration = Duration::from_micros(150);
/// Failed spins in a row before backing off. Fewer failures are no sign that spinning does not pay.
const VAIN: u32 = 4;
/// The number of waits without spinning after spinning did not pay: at first, and at most.
const PAUSES: RangeInclusive<u32> = 16..=128;
/// The number of waits without yielding after a yield that took long: at first, and at most.
const PAUSES_OF_YIELDS: RangeInclusive<u32> = 512..=65_536;

/// Counts the waits in which threads do not spin, or do not yield, as that did not pay.
#[derive(Debug, Default)]
struct Pause {
    left: AtomicU32,
    /// The length of the last pause.
    length: AtomicU32,
}

// ORDERING: Relaxed in all of them: guesses.
impl Pause {
    /// Returns whether this wait is in the pause.
    fn holds(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    fn length(&self) -> u32 {
        self.length.load(Ordering::Relaxed)
    }

    fn set_length(&self, length: u32) {
        self.length.store(length, Ordering::Relaxed);
    }

    /// Begins a pause, twice as long as the last one.
    fn begin(&self, lengths: &RangeInclusive<u32>) {
        let length = (self.length() * 2).clamp(*lengths.start(), *lengths.end());
        self.set_length(length);
        self.left.store(length, Ordering::Relaxed);
    }
}

/// One place where threads wait, and whether spinning has paid there.
///
/// Threads that wait at the same place share what they learn; what they overwrite of each
/// other is a guess anyway.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Failed spins since the last successful one.
    failures: AtomicU32,
    /// The pause of spinning.
    asleep: Pause,
    /// The pause of yielding.
    unyielding: Pause,
}

impl Place {
    /// Spins until the condition holds, or it is time to sleep. Returns whether the condition held.
    ///
    /// `is_beside` tells whether the side that is waited for was last on the CPU of the calling
    /// thread.
    pub(crate) fn until(
        &self,
        condition: impl FnMut() -> bool,
        is_beside: impl Fn() -> bool,
    ) -> bool {
        let may_yield = || is_beside().then(thread::yield_now).is_some();
        self.until_or_yield(condition, may_yield)
    }

    /// Spins as [`until`](Self::until) does; `may_yield` yields if that is of use, and returns whether it
    /// did.
    fn until_or_yield(
        &self,
        mut condition: impl FnMut() -> bool,
        may_yield: impl FnMut() -> bool,
    ) -> bool {
        if condition() {
            return true;
        }
        if self.asleep.holds() || has_one_cpu() {
            return false;
        }
        let waited = self.look_until(condition, may_yield);
        self.learn(waited);
        waited == Waited::Held
    }

    fn look_until(
        &self,
        mut condition: impl FnMut() -> bool,
        mut may_yield: impl FnMut() -> bool,
    ) -> Waited {
        let start = Instant::now();
        let mut now = start;
        let mut is_unyielding = self.unyielding.holds();
        loop {
            // First, as the other side cannot have done anything meanwhile.
            if !is_unyielding && may_yield() {
                let after = Instant::now();
                is_unyielding = self.note_yield(after - now);
                now = after;
            }
            let before = now;
            for _ in 0..LOOKS {
                if condition() {
                    return Waited::Held;
                }
                spin_loop();
            }
            now = Instant::now();
            if now - before > GAP {
                return Waited::Crowded;
            }
            if now - start > LONGEST {
                return Waited::InVain;
            }
        }
    }

    /// Notes how long a yield took. Returns whether that was too long.
    fn note_yield(&self, duration: Duration) -> bool {
        let length = self.unyielding.length();
        if duration > TURN {
            self.unyielding.begin(&PAUSES_OF_YIELDS);
            return true;
        }
        if length > 0 {
            self.unyielding.set_length(length - 1);
        }
        false
    }

    fn learn(&self, waited: Waited) {
        let failures = self.failures.load(Ordering::Relaxed);
        let pause = self.asleep.length();
        match waited {
            Waited::Held if failures > 0 => self.failures.store(0, Ordering::Relaxed),
            // Twice in a row: it pays again.
            Waited::Held if pause > 0 => self.asleep.set_length(0),
            Waited::Held => {}
            Waited::InVain if failures + 1 < VAIN && pause == 0 => {
                self.failures.store(failures + 1, Ordering::Relaxed);
            }
            Waited::InVain | Waited::Crowded => {
                self.failures.store(VAIN, Ordering::Relaxed);
                self.asleep.begin(&PAUSES);
            }
        }
    }
}

/// Returns whether there is one CPU only, so that the awaited event cannot happen meanwhile.
fn has_one_cpu() -> bool {
    crate::runtime::spin::spin_limit() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Counts the waits that spin, among some waits in vain.
    fn awake(place: &Place, waits: u32) -> u32 {
        let mut awake = 0;
        for _ in 0..waits {
            let mut looks = 0;
            place.until(
                || {
                    looks += 1;
                    false
                },
                || false,
            );
            awake += u32::from(looks > 1);
        }
        awake
    }

    #[test]
    fn failed_spins_lengthen_the_pauses() {
        let place = Place::default();
        assert!(awake(&place, 1000) <= VAIN + 12);
        assert!(awake(&place, 1000) <= 1000 / PAUSES.end() + 1);
    }

    #[test]
    fn spinning_is_tried_again_and_resumes_when_it_pays() {
        if has_one_cpu() {
            return;
        }
        let place = Place::default();
        awake(&place, 1000);
        let held = (0..2 * *PAUSES.end() + 10).filter(|_| {
            let mut looks = 0;
            place.until(
                || {
                    looks += 1;
                    looks > 2
                },
                || false,
            )
        });
        assert!(held.count() > 9);
        assert_eq!(place.asleep.length(), 0);
    }

    #[test]
    fn a_spinning_thread_yields_to_its_peer_on_the_same_cpu() {
        if has_one_cpu() {
            return;
        }
        let has_run = Cell::new(false);
        let other_side_runs = || {
            has_run.set(true);
            true
        };
        let mut held = false;
        // Where other programs want the CPU, a wait may end before it comes to that.
        while !has_run.get() {
            held = Place::default().until_or_yield(|| has_run.get(), other_side_runs);
        }
        assert!(held);
    }

    #[test]
    fn slow_yields_are_followed_by_a_pause() {
        if has_one_cpu() {
            return;
        }
        let place = Place::default();
        let yields = Cell::new(0);
        let wait = |duration| {
            // It holds after a first round of looks, whatever was learnt of waits in vain.
            place.asleep.left.store(0, Ordering::Relaxed);
            let mut looks = 0;
            place.until_or_yield(
                || {
                    looks += 1;
                    looks > LOOKS + 1
                },
                || {
                    yields.set(yields.get() + 1);
                    thread::sleep(duration);
                    true
                },
            );
        };
        while yields.get() == 0 {
            wait(2 * TURN);
        }
        let first = yields.get();
        for _ in 0..*PAUSES_OF_YIELDS.start() {
            wait(Duration::ZERO);
        }
        assert_eq!(yields.get(), first);
        while yields.get() == first {
            wait(Duration::ZERO);
        }
    }

    #[test]
    fn a_condition_that_holds_at_once_is_not_waited_for() {
        assert!(Place::default().until(|| true, || false));
    }
}
