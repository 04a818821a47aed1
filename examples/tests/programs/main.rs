//! Runs the programs, and checks what they print, write and end with.
//!
//! Where the order of lines depends on how long somebody sleeps, only that is checked which
//! holds whatever the scheduler does.

mod command;
#[cfg(unix)]
mod ctrl_c;
mod download;
mod short;
