//! Random schedules of faults with the server in memory: clients and hosts are the real ones, and workers are timers.
//!
//! `CONCURRENT_FUTURES_SEED=7` begins at another seed, `CONCURRENT_FUTURES_SCHEDULES=100000` runs that many.

mod chosen;
mod clients;
mod parties;
mod sessions;

use std::env;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(3);
/// The number of tasks of a schedule, or half of it.
const TASKS: u64 = 40;
/// The virtual time after which a schedule is stuck.
const STUCK: Duration = Duration::from_secs(600);
/// A time that does not pass.
const NEVER: Duration = Duration::from_secs(100_000);

/// Runs so many schedules in virtual time, unless the variables say otherwise.
fn each_seed<F: Future<Output = ()>>(schedules: u64, run: impl Fn(u64) -> F) {
    let number = |name, default| {
        let given = env::var(name).ok();
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let first: u64 = number("CONCURRENT_FUTURES_SEED", 1);
    for seed in first..first + number("CONCURRENT_FUTURES_SCHEDULES", schedules) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}
