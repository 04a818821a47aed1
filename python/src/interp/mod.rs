//! The interpreter and its standard library: attaching, waiting, signals, and objects that come from Python.

pub(crate) mod addresses;
pub(crate) mod aside;
pub(crate) mod attach;
pub(crate) mod bias;
pub(crate) mod class_layout;
pub(crate) mod deferred_drop;
pub(crate) mod entry;
pub(crate) mod fields;
pub(crate) mod fork;
pub(crate) mod handled;
pub(crate) mod interned;
#[cfg(has_processes)]
pub(crate) mod jobs;
#[cfg(late_threads)]
mod late_threads;
pub(crate) mod nesting;
pub(crate) mod os;
#[cfg(has_processes)]
pub(crate) mod process_errors;
pub(crate) mod replaceable;
#[cfg(has_processes)]
pub(crate) mod room;
pub(crate) mod sent;
pub(crate) mod shared_generator;
pub(crate) mod signals;
pub(crate) mod stdlib;
pub(crate) mod thread_body;
pub(crate) mod time_limit;
pub(crate) mod try_lock_cell;
pub(crate) mod turns;
pub(crate) mod waiting;
