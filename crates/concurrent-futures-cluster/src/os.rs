//! The operating system: the name of the machine, and children that end with this process.

pub(crate) use std::os::unix::net::UnixStream;
use std::process::Command;

/// Returns the name of the machine.
pub(crate) fn machine() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
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
