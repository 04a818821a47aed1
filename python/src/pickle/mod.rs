//! Calls and replies of worker processes, as bytes.

#[cfg(has_processes)]
pub(crate) mod buffers;
pub(crate) mod by_name;
#[cfg(has_processes)]
pub(crate) mod callee;
#[cfg(has_processes)]
pub(crate) mod calls;
#[cfg(has_processes)]
pub(crate) mod definitions;
#[cfg(has_processes)]
mod kept_bytes;
#[cfg(has_processes)]
pub(crate) mod objects;
#[cfg(has_processes)]
pub(crate) mod partials;
#[cfg(has_processes)]
pub(crate) mod picklers;
#[cfg(has_processes)]
mod plain_size;
#[cfg(has_processes)]
pub(crate) mod replies;
pub(crate) mod seen;
pub(crate) mod snapshot;
#[cfg(has_processes)]
pub(crate) mod unpickling;
pub(crate) mod values;
