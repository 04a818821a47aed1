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

#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
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
const PAUSES: std::ops::RangeInclusive<u32> = 16..=128;

/// One place where something is waited for, and whether it has paid to stay awake there.
///
/// Threads that wait at the same place share what they learn; what they overwrite of each
/// other is a guess anyway.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Waits in vain since the last that was not.
    failures: AtomicU32,
    /// Waits that are to be asleep from the start.
    pause: AtomicU32,
    /// How many those were the last time.
    last_pause: AtomicU32,
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
    pub(super) fn until(&self, mut condition: impl FnMut() -> bool) -> bool {
        if condition() {
            return true;
        }
        // ORDERING: Relaxed: a guess, as all of these are.
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.pause.store(pause - 1, Ordering::Relaxed);
            return false;
        }
        if has_one_cpu() {
            return false;
        }
        let waited = look_until(condition);
        self.learn(waited);
        waited == Waited::Held
    }

    fn learn(&self, waited: Waited) {
        let failures = self.failures.load(Ordering::Relaxed);
        let last = self.last_pause.load(Ordering::Relaxed);
        match waited {
            Waited::Held if failures > 0 => self.failures.store(0, Ordering::Relaxed),
            // Twice in a row: it pays again.
            Waited::Held if last > 0 => self.last_pause.store(0, Ordering::Relaxed),
            Waited::Held => {}
            Waited::InVain if failures + 1 < VAIN && last == 0 => {
                self.failures.store(failures + 1, Ordering::Relaxed);
            }
            Waited::InVain | Waited::Crowded => {
                let pause = (last * 2).clamp(*PAUSES.start(), *PAUSES.end());
                self.failures.store(VAIN, Ordering::Relaxed);
                self.last_pause.store(pause, Ordering::Relaxed);
                self.pause.store(pause, Ordering::Relaxed);
            }
        }
    }
}

fn look_until(mut condition: impl FnMut() -> bool) -> Waited {
    let start = Instant::now();
    let mut before = start;
    loop {
        for _ in 0..LOOKS {
            if condition() {
                return Waited::Held;
            }
            spin_loop();
        }
        let now = Instant::now();
        if now - before > GAP {
            return Waited::Crowded;
        }
        if now - start > LONGEST {
            return Waited::InVain;
        }
        before = now;
    }
}

/// With one CPU, what is waited for cannot happen meanwhile.
fn has_one_cpu() -> bool {
    crate::sync::spin_limit() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many waits in vain were awake.
    fn awake(spin: &Spin, waits: u32) -> u32 {
        let mut awake = 0;
        for _ in 0..waits {
            let mut looks = 0;
            spin.until(|| {
                looks += 1;
                false
            });
            awake += u32::from(looks > 1);
        }
        awake
    }

    #[test]
    fn waiting_in_vain_is_given_up_more_and_more() {
        let spin = Spin::default();
        assert!(awake(&spin, 1000) <= VAIN + 7);
        assert!(awake(&spin, 1000) <= 2);
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
            spin.until(|| {
                looks += 1;
                looks > 2
            })
        });
        assert!(held.count() > 9);
        assert_eq!(spin.pause.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_holds_at_once_is_not_waited_for() {
        assert!(Spin::default().until(|| true));
    }
}
