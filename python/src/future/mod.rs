//! `concurrent_futures.Future`, and the functions over many futures.

pub(crate) mod as_completed;
pub(crate) mod call;
pub(crate) mod execute;
pub(crate) mod methods;
pub(crate) mod object;
pub(crate) mod observers;
pub(crate) mod outcome;
pub(crate) mod plain;
pub(crate) mod remote;
mod reply;
mod set_table;
pub(crate) mod wait;
