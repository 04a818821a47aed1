//! The limits of a process.

#![forbid(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;

/// Returns the number of descriptors that this process may have; none if there is no limit.
pub(crate) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Returns the length that files of this process may have; none if there is no limit.
pub(crate) fn file_size() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Limits the data of this process. No process may have more than its hard limit, which is narrower then.
pub(crate) fn limit_data(bytes: u64) -> io::Result<()> {
    let most = getrlimit(Resource::Data).maximum;
    let bytes = most.map_or(bytes, |most| most.min(bytes));
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Returns the bytes of memory that the system can give without taking them from other programs.
pub(crate) fn available_memory() -> Option<usize> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
