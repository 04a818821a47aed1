//! The operating system: the name of the machine, its memory, and children that end with this process.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
pub(crate) use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// Returns the name of the machine.
pub(crate) fn machine() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Returns whether a file is one of this process's user.
pub(crate) fn is_of_this_user(file: &Metadata) -> bool {
    file.uid() == rustix::process::geteuid().as_raw()
}

/// Lets a child be killed when the thread that starts it ends, and so when this process ends, whatever its end.
#[cfg(target_os = "linux")]
pub(crate) fn end_with_this_thread(command: &mut Command) {
    use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
    use std::io;
    use std::os::unix::process::CommandExt;

    let parent: Pid = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    };
    // SAFETY: between fork and exec, the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// On other systems, a child of a killed process stays.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_this_thread(_: &mut Command) {}

/// Returns the bytes of memory that the machine has; none if they are not known.
#[cfg(target_os = "linux")]
#[allow(
    clippy::useless_conversion,
    reason = "systems of 32 bits have shorter numbers"
)]
pub(crate) fn memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    u64::from(info.totalram).checked_mul(u64::from(info.mem_unit))
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory() -> Option<u64> {
    None
}

/// Returns the least limit of the control groups that this process is in, in bytes of memory; none if there is no limit.
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(group);
    let groups = group
        .ancestors()
        .take_while(|group| group.starts_with(root));
    // A group without a limit has a word there.
    let limits = groups.filter_map(|group| {
        let limit = fs::read_to_string(group.join("memory.max")).ok()?;
        limit.trim().parse().ok()
    });
    limits.min()
}

/// Returns the path by which this process can read its own executable.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_wraps, reason = "other systems may not know it")]
pub(crate) fn executable() -> std::io::Result<std::path::PathBuf> {
    Ok(std::path::PathBuf::from("/proc/self/exe"))
}

/// Returns the path by which this process can read its own executable.
#[cfg(not(target_os = "linux"))]
pub(crate) fn executable() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}
