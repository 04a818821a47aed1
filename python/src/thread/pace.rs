//! The pace at which the results of `map` come, for a thread that takes them faster than they come.
//!
//! Such a thread waits for the next result again and again. To wake it takes longer than a short call: about 10 µs of the
//! workers' processors and of its own. So, after short calls, the thread *naps*: it first waits for a later result, as
//! many calls ahead as take [`NAP`].
//!
//! # Invariants
//! 1. A result that is there waits for at most [`PATIENCE`], also if long tasks follow short ones.
//! 2. No thread naps if calls are submitted as results are taken, as the workers would run out of calls meanwhile.

use std::time::{Duration, Instant};

/// The time for which a thread naps, if calls go on as before.
const NAP: Duration = Duration::from_micros(250);

/// The longest nap.
pub(super) const PATIENCE: Duration = Duration::from_micros(500);

/// The least number of results in one wait for calls that count as short.
const LEAST: usize = 8;

/// The last wait of an iterator.
#[derive(Default)]
pub(super) struct Pace {
    /// The number of results to come when the wait began.
    left: usize,
    /// The moment when the wait began; none before the first.
    since: Option<Instant>,
}

impl Pace {
    /// Begins a wait, with this number of results to come. Returns how many calls ahead the result is for which to nap;
    /// 0 for no nap.
    pub(super) fn ahead(&mut self, left: usize) -> usize {
        let now = Instant::now();
        let taken = self.left.saturating_sub(left);
        self.left = left;
        let Some(since) = self.since.replace(now).filter(|_| taken >= LEAST) else {
            return 0;
        };
        let passed = now.duration_since(since).as_nanos();
        let ahead = (NAP.as_nanos() * taken as u128)
            .checked_div(passed)
            .unwrap_or(0);
        usize::try_from(ahead)
            .unwrap_or(usize::MAX)
            .min(left.saturating_sub(1))
    }
}
