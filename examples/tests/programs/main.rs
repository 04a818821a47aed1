//! Runs the programs, and checks what they print, write and end with.
//!
//! Where the order of lines depends on the length of a sleep, the tests check only the parts that hold for
//! every order.

mod command;
#[cfg(unix)]
mod ctrl_c;
mod download;
mod short;
