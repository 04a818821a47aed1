//! The clock of recordings: nanoseconds that all processes of a machine share.

#![forbid(unsafe_code)]

/// Returns the nanoseconds of the monotonic clock, which never goes back.
#[allow(unreachable_pub, reason = "other frontends use it")]
pub fn now() -> u64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
    }
    #[cfg(not(unix))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let begin = BEGIN.get_or_init(Instant::now);
        u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
