//! `concurrent_futures.Future`, and the functions over many futures.

pub(crate) mod as_completed;
pub(crate) mod call;
pub(crate) mod execute;
pub(crate) mod methods;
pub(crate) mod object;
pub(crate) mod observers;
pub(crate) mod outcome;
pub(crate) mod plain;
#[cfg(has_processes)]
pub(crate) mod recorded;
#[cfg(has_processes)]
pub(crate) mod remote;
#[cfg(not(has_processes))]
#[path = "no_remote.rs"]
pub(crate) mod remote;
#[cfg(has_processes)]
mod reply;
mod set_table;
pub(crate) mod wait;
