//! The CPU on which a thread runs.

#![forbid(unsafe_code)]

/// Returns the number of the CPU on which the calling thread runs; none if unknown.
pub(crate) fn of_this_thread() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return u32::try_from(rustix::thread::sched_getcpu()).ok();
    #[cfg(not(target_os = "linux"))]
    None
}
