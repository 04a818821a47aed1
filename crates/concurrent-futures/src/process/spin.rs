//! Waiting awake, for a little longer than a sleep and a wake-up would take.
//!
//! # When it pays
//! It pays if what is waited for happens soon and on another CPU. Then a round trip costs
//! what two caches need to talk. It does not pay if tasks are long, or if others want the
//! CPUs: who waits awake uses up its share of the CPU time, and is made to wait behind the
//! others when it has something to do. On a crowded machine that is a thousand times worse
//! than to sleep, as who sleeps much is woken at once.
//!
//! # What is learnt
//! Some waits in vain, or a gap between two looks (the system has given the CPU to somebody
//! else), and the next waits are asleep from the start. Then one wait awake finds out
//! whether that has changed. If not, there are twice as many before the next.
//!
//! A wait awake lasts longer than it takes to wake the other side. If it were shorter, both
//! sides would find each other asleep for ever, once one of them was.
//!
//! # Two on one CPU
//! The system may well put both sides on the same CPU, though another is idle: on a virtual
//! machine, an idle CPU looks to it like one that was taken away. Then who waits awake keeps
//! the other from what is waited for; who sleeps is put on the same CPU again. So who waits
//! *beside* the other side yields, which costs a tenth of a sleep and a wake-up. As both
//! are always ready to run, the system soon notices, and moves one of them.
//!
//! Where others want the CPU as well, a yield gives it to them, and it may take
//! milliseconds to get it back. Then there is none for the next thousands of waits.

#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait awake.
const LONGEST: Duration = Duration::from_micros(60);
/// Looks between two looks at the clock: some microseconds.
const LOOKS: u32 = 32;
/// More than this between two looks at the clock, and the CPU was somebody else's.
const GAP: Duration = Duration::from_micros(150);
/// So many waits in vain, and it does not pay: some are no sign.
const VAIN: u32 = 4;
/// Waits that are asleep from the start, at first and at most.
const PAUSES: RangeInclusive<u32> = 16..=128;
/// Waits without yielding, after a yield that took long.
const PAUSES_OF_YIELDS: RangeInclusive<u32> = 512..=65_536;
/// A yield that takes longer has given the CPU to somebody who has nothing to do with it.
const TURN: Duration = Duration::from_millis(1);

/// For how many waits something is not tried that did not pay.
#[derive(Debug, Default)]
struct Pause {
    left: AtomicU32,
    /// How many those were at first.
    length: AtomicU32,
}

// ORDERING: Relaxed in all of them: guesses.
impl Pause {
    /// Whether it is not to be tried this time.
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

    /// It did not pay: the pause is twice as long as the last one.
    fn begin(&self, lengths: &RangeInclusive<u32>) {
        let length = (self.length() * 2).clamp(*lengths.start(), *lengths.end());
        self.set_length(length);
        self.left.store(length, Ordering::Relaxed);
    }
}

/// One place where something is waited for, and whether it has paid to stay awake there.
///
/// Threads that wait at the same place share what they learn; what they overwrite of each
/// other is a guess anyway.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Waits in vain since the last that was not.
    failures: AtomicU32,
    /// Waits that are to be asleep from the start.
    asleep: Pause,
    /// Waits that are not to yield.
    unyielding: Pause,
}

/// What came of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Held,
    InVain,
    /// Others want the CPU.
    Crowded,
}

impl Spin {
    /// Looks until the condition holds, or it is time to sleep. Returns whether it held.
    ///
    /// `is_beside` tells whether the side that is waited for was last on the CPU of the calling
    /// thread.
    pub(super) fn until(
        &self,
        condition: impl FnMut() -> bool,
        is_beside: impl Fn() -> bool,
    ) -> bool {
        let may_yield = || is_beside().then(thread::yield_now).is_some();
        self.until_or_yield(condition, may_yield)
    }

    /// The same; `may_yield` yields if that is of use, and returns whether it did.
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

    /// Learns how long a yield took. Returns whether it was too long.
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

/// With one CPU, what is waited for cannot happen meanwhile.
fn has_one_cpu() -> bool {
    crate::sync::spin_limit() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// How many of so many waits in vain were awake.
    fn awake(spin: &Spin, waits: u32) -> u32 {
        let mut awake = 0;
        for _ in 0..waits {
            let mut looks = 0;
            spin.until(
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
    fn waiting_in_vain_is_given_up_more_and_more() {
        let spin = Spin::default();
        assert!(awake(&spin, 1000) <= VAIN + 12);
        assert!(awake(&spin, 1000) <= 1000 / PAUSES.end() + 1);
    }

    #[test]
    fn it_is_tried_again_and_goes_on_when_it_pays() {
        if has_one_cpu() {
            return;
        }
        let spin = Spin::default();
        awake(&spin, 1000);
        let held = (0..2 * *PAUSES.end() + 10).filter(|_| {
            let mut looks = 0;
            spin.until(
                || {
                    looks += 1;
                    looks > 2
                },
                || false,
            )
        });
        assert!(held.count() > 9);
        assert_eq!(spin.asleep.length(), 0);
    }

    #[test]
    fn who_waits_beside_the_other_side_lets_it_run() {
        if has_one_cpu() {
            return;
        }
        let has_run = Cell::new(false);
        let other_side_runs = || {
            has_run.set(true);
            true
        };
        let mut held = false;
        // Where others want the CPU, a wait may end before it comes to that.
        while !has_run.get() {
            held = Spin::default().until_or_yield(|| has_run.get(), other_side_runs);
        }
        assert!(held);
    }

    #[test]
    fn when_yields_take_long_there_are_none_for_some_time() {
        if has_one_cpu() {
            return;
        }
        let spin = Spin::default();
        let yields = Cell::new(0);
        let wait = |duration| {
            // It holds after a first round of looks, whatever was learnt of waits in vain.
            spin.asleep.left.store(0, Ordering::Relaxed);
            let mut looks = 0;
            spin.until_or_yield(
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
    fn what_holds_at_once_is_not_waited_for() {
        assert!(Spin::default().until(|| true, || false));
    }
}
