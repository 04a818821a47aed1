//! The operating system: every system call of this module that is not the engine's.
//!
//! | job | interface | on Windows |
//! |---|---|---|
//! | read the clock | [`monotonic`], [`seconds`], [`Ticks`] | the clock of Rust's standard library, `GetTickCount64` |
//! | know the thread | [`is_first_thread`], [`signed_thread_number`] | as CPython knows it |
//! | look up a function of the interpreter | [`symbol`] | in CPython's library |
//! | handle signals | [`Action`], [`raise`] | no signal is held back |
//! | dump by a signal | `process`, `kill`, `write_bytes` | none |
//!
//! Processes, pipes and forks are the engine's.

#[cfg(unix)]
mod posix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use posix::*;
#[cfg(windows)]
pub(crate) use windows::*;
