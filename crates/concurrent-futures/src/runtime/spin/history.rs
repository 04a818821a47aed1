//! The experience of one thread with spinning.

#![forbid(unsafe_code)]

use crate::runtime::spin::{Waited, spin_limit};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// A thread's experience with spinning, which decides how long it spins.
///
/// Spinning pays if the awaited event happens soon, and on another CPU. If it did not pay lately, as the tasks are
/// long, the thread gives up sooner. Now and then it spins for the full time, to find out whether that has changed.
#[derive(Clone, Copy, Debug)]
struct SpinHistory {
    /// Failed spins since the last successful one; in a pause, the waits since its beginning.
    failures: u32,
    /// Successful spins since the machine was found crowded.
    successes: u32,
    /// The state of [`CROWDING`] that the thread knows.
    seen: u32,
}

/// The crowding that all threads have found: the number of findings, and in the low bits the level.
///
/// On a crowded machine, a spinning thread uses up its share of the CPU, and then waits milliseconds for the next one.
/// A parked thread gets a CPU at once, as the scheduler prefers threads that sleep. When a thread has lost its CPU in a
/// spin, all threads of the process stop spinning: for twice as many waits each time.
// ORDERING: Relaxed: guesses.
static CROWDING: AtomicU32 = AtomicU32::new(0);
const LEVEL: u32 = 0b111;
/// The highest level: 256 waits without spinning. They last about as long as the CPU was lost, so that a pause costs
/// little more than it saves, however wrong the finding was.
const MOST: u32 = 2;

/// Returns the state after another finding.
fn more_crowded(state: u32) -> u32 {
    let level = (state & LEVEL).saturating_add(1).min(MOST);
    (state & !LEVEL).wrapping_add(LEVEL + 1) | level
}

/// Returns the state at a lower level, which needs no attention of other threads.
fn less_crowded(state: u32) -> u32 {
    state - u32::from(state & LEVEL > 0)
}

impl SpinHistory {
    const NEW: Self = Self {
        failures: 0,
        successes: 0,
        seen: 0,
    };
    /// Waits from one spin for the full time to the next, after failures.
    const TRY_AGAIN: u32 = 64;
    /// Successful spins after which the machine counts as less crowded.
    const RELAX: u32 = 1024;

    /// Begins a pause if a thread has found the machine crowded.
    fn learn(&mut self, crowding: u32) {
        if crowding & !LEVEL != self.seen & !LEVEL {
            self.failures = 1;
            self.successes = 0;
        }
        self.seen = crowding;
    }

    /// Returns how many turns to spin, of at most `limit`.
    fn turns(self, limit: u32) -> u32 {
        let level = self.seen & LEVEL;
        if self.failures.is_multiple_of(Self::TRY_AGAIN << level) {
            limit
        } else if level > 0 {
            0
        } else {
            limit >> self.failures.min(31)
        }
    }

    /// Notes a wait that was no finding of a crowded machine. Returns whether the machine counts as less crowded.
    fn note(&mut self, has_spun: bool, held: bool) -> bool {
        let is_paused = self.seen & LEVEL > 0 && !has_spun;
        if !held || is_paused {
            self.failures = self.failures.wrapping_add(1);
            return false;
        }
        self.failures = 0;
        self.successes += 1;
        let relaxes = self.successes >= Self::RELAX;
        if relaxes {
            self.successes = 0;
        }
        relaxes && self.seen & LEVEL > 0
    }
}

thread_local! {
    static HISTORY: Cell<SpinHistory> = const { Cell::new(SpinHistory::NEW) };
}

/// Calls `look` with the number of turns that the calling thread is to spin, and notes the outcome. Returns whether
/// the condition held.
pub(super) fn with(look: impl FnOnce(u32) -> (bool, Waited)) -> bool {
    let mut history = HISTORY.get();
    history.learn(CROWDING.load(Ordering::Relaxed));
    let turns = history.turns(spin_limit());
    let (held, waited) = look(turns);
    if waited == Waited::Crowded {
        history.learn(more_crowded(history.seen));
        CROWDING.store(history.seen, Ordering::Relaxed);
    } else if history.note(turns > 0, held) {
        history.seen = less_crowded(history.seen);
        CROWDING.store(history.seen, Ordering::Relaxed);
    }
    HISTORY.set(history);
    held
}

/// Calls `look` with the number of looks, or with zero where spinning does not pay: with one CPU, and while the
/// machine is found crowded. Returns whether the condition held.
pub(super) fn with_looks(looks: u32, look: impl FnOnce(u32) -> (bool, Waited)) -> bool {
    let crowding = CROWDING.load(Ordering::Relaxed);
    let is_vain = spin_limit() == 0 || crowding & LEVEL > 0;
    let (held, waited) = look(if is_vain { 0 } else { looks });
    if waited == Waited::Crowded {
        CROWDING.store(more_crowded(crowding), Ordering::Relaxed);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_shorten_the_spins_until_one_succeeds() {
        let mut history = SpinHistory::NEW;
        assert_eq!(history.turns(1600), 1600);
        history.note(true, false);
        assert_eq!(history.turns(1600), 800);
        history.note(true, true);
        assert_eq!(history.turns(1600), 1600);
    }

    /// Counts the waits until the next spin.
    fn pause(history: &mut SpinHistory) -> u32 {
        let mut waits = 0;
        while history.turns(1600) == 0 {
            // The event may be there at once.
            history.note(false, waits % 2 == 0);
            waits += 1;
        }
        waits
    }

    #[test]
    fn a_crowded_machine_is_followed_by_longer_and_longer_pauses() {
        let mut history = SpinHistory::NEW;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            history.learn(more_crowded(history.seen));
            pauses.push(pause(&mut history));
        }
        assert!(pauses.is_sorted());
        assert_eq!(pauses.first(), Some(&127));
        assert_eq!(pauses.last(), Some(&255));
    }

    #[test]
    fn a_thread_learns_of_a_crowded_machine_from_another() {
        let (mut one, mut other) = (SpinHistory::NEW, SpinHistory::NEW);
        one.learn(more_crowded(one.seen));
        assert_eq!(other.turns(1600), 1600);
        other.learn(one.seen);
        assert_eq!(other.turns(1600), 0);
    }

    #[test]
    fn many_successful_spins_end_the_caution() {
        let mut history = SpinHistory::NEW;
        history.learn(more_crowded(more_crowded(history.seen)));
        assert_eq!(pause(&mut history), 255);
        for _ in 0..2 {
            let relaxes: Vec<_> = (0..SpinHistory::RELAX)
                .map(|_| history.note(true, true))
                .collect();
            assert_eq!(relaxes.iter().filter(|relaxes| **relaxes).count(), 1);
            history.learn(less_crowded(history.seen));
            assert_eq!(history.turns(1600), 1600);
        }
        assert_eq!(history.seen & LEVEL, 0);
    }
}
