//! The figures of executors, as numbers for `concurrent_futures._stats`.

#![forbid(unsafe_code)]

use concurrent_futures::ExecutorStats;

/// The figures of an executor: counts, then seconds, then the time in the queue.
pub(crate) type Figures = ([u64; 7], [f64; 2], (u64, [f64; 4]));

/// Returns the figures as numbers.
pub(crate) fn figures(stats: &ExecutorStats) -> Figures {
    let queued = &stats.queued;
    let times = [queued.p50, queued.p95, queued.p99, queued.longest];
    (
        [
            stats.pending,
            stats.running,
            stats.finished,
            stats.failed,
            stats.cancelled,
            stats.workers,
            stats.restarts,
        ],
        [stats.measured.as_secs_f64(), stats.busy.as_secs_f64()],
        (queued.count, times.map(|time| time.as_secs_f64())),
    )
}
