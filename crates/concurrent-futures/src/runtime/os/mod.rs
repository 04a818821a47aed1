//! The operating system: every system call of the engine, and every difference between systems.
//!
//! A port of the engine is a port of this folder. Each job has one interface, which is all that the rest of the engine
//! knows:
//!
//! | job | interface | first choice, on Linux | portable |
//! |---|---|---|---|
//! | choose, and log the choice | `backend.rs`, `fallback.rs` | | |
//! | wake a thread | `signal.rs` | a futex | a lock and a condition |
//! | wait with signals of the system | `signal.rs` | the sleep in a futex ends early | the thread that handles signals looks every 50 ms |
//! | nap in shared memory | `futex.rs` | a futex | no naps: the side sleeps on its socket |
//! | wake the supervisor | `bell.rs` | an eventfd | a pipe |
//! | wait for descriptors | `poll.rs` | `poll` | `poll` |
//! | start and fork a process | `process.rs`, `fork.rs` | `exec`, `fork` | `exec`, `fork` |
//! | watch, signal and reap a process | `process.rs` | a pidfd | its socket's end, `kill`, `waitid` |
//! | share memory | `shared.rs`, by `files.rs`, `system_v.rs` | a sealed file in memory | an unlinked file: `shm_open`, or in a folder |
//! | ask for large pages | `pages.rs` | `madvise` | nothing |
//! | lend a long buffer | `segment.rs`, by `files.rs` | a sealed file in memory | `shm_open`, unlinked |
//! | talk to a process, and pass files | `socket.rs` | a socket of packets | a socket of bytes |
//! | die with the parent | `parent_death.rs` | `PR_SET_PDEATHSIG` | a thread that waits for the end of a socket or pipe |
//! | limit a process | `limits.rs` | `setrlimit` | `setrlimit` |
//! | find the program and its code | `image.rs`, `mach_o.rs` | `/proc/self/exe`, ELF | the path of the program, ELF or Mach-O |
//! | signals of the system | `posix_signals.rs` | `sigaction` | `sigaction` |
//! | know the CPU of a thread | `cpu.rs` | `getcpu` | unknown |
//! | measure a time | [`std::time::Instant`] | `CLOCK_MONOTONIC` | as the standard library |
//! | take the time of an event | `ticks.rs` | on x86-64 the processor's counter, if the kernel uses it | unknown |
//! | share a clock with other processes | `clock.rs` | `CLOCK_MONOTONIC` | `CLOCK_MONOTONIC`; elsewhere the time of this process |

pub(crate) mod clock;
#[cfg_attr(
    not(all(feature = "process", target_os = "linux")),
    allow(dead_code, reason = "there are no words that processes share")
)]
pub(crate) mod futex;
pub(crate) mod pages;
pub(crate) mod signal;
pub(crate) mod ticks;

#[cfg(all(feature = "process", unix))]
pub(crate) use processes::*;

#[cfg(all(feature = "process", unix))]
#[path = ""]
#[cfg_attr(loom_models, allow(dead_code))]
mod processes {
    pub(crate) mod backend;
    pub(crate) mod bell;
    pub(crate) mod cpu;
    pub(crate) mod descriptors;
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only one way"))]
    pub(crate) mod fallback;
    pub(crate) mod files;
    pub(crate) mod fork;
    #[cfg_attr(
        target_vendor = "apple",
        allow(dead_code, reason = "the format is another")
    )]
    pub(crate) mod image;
    pub(crate) mod limits;
    #[cfg(target_vendor = "apple")]
    mod mach_o;
    pub(crate) mod parent_death;
    pub(crate) mod poll;
    pub(crate) mod posix_signals;
    pub(crate) mod process;
    pub(crate) mod segment;
    pub(crate) mod shared;
    pub(crate) mod socket;
    pub(crate) mod standard_input;
    #[cfg(target_os = "linux")]
    pub(crate) mod system_v;

    pub(crate) use rustix::io::Errno;
}
