//! The parent's side of the pool. This binary is both the tests and the programs that the tests
//! start, so it has a `main` of its own. Process pools exist on Linux only.

#![allow(clippy::print_stdout, reason = "the programs talk to the tests")]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod starts;

fn main() {
    #[cfg(target_os = "linux")]
    programs::main();
}
