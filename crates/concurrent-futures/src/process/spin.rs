//! Waiting awake, for about as long as a sleep and a wake-up would cost.

#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// How often to look: some tens of microseconds.
const TURNS: u32 = 400;
/// After so many waits in vain it does not pay: the tasks are long, or others have the CPUs.
const VAIN: u32 = 8;
/// Then one wait in so many finds out whether that has changed.
const RETRY: u32 = 64;

/// One place where something is waited for, and whether it has paid to stay awake there.
///
/// The other side answers within microseconds as long as tasks are short, and not at all
/// when there are none. A few waits in vain are no sign: each sleep of one side makes the
/// other wait longer.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Waits in vain since the last that was not.
    failures: AtomicU32,
}

impl Spin {
    /// Looks until the condition holds, or it is time to sleep. Returns whether it held.
    pub(super) fn until(&self, mut condition: impl FnMut() -> bool) -> bool {
        // ORDERING: Relaxed: a guess.
        let failures = self.failures.load(Ordering::Relaxed);
        let turns = match failures {
            _ if has_one_cpu() => 1,
            0..VAIN => TURNS,
            _ if failures.is_multiple_of(RETRY) => TURNS,
            _ => 1,
        };
        for _ in 0..turns {
            if condition() {
                self.failures.store(0, Ordering::Relaxed);
                return true;
            }
            spin_loop();
        }
        let failures = failures.wrapping_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        false
    }
}

/// With one CPU, what is waited for cannot happen meanwhile.
fn has_one_cpu() -> bool {
    static ONE: OnceLock<bool> = OnceLock::new();
    *ONE.get_or_init(|| matches!(thread::available_parallelism(), Ok(cpus) if cpus.get() == 1))
}
