//! Calls and replies of worker processes, as bytes.

pub(crate) mod buffers;
pub(crate) mod by_name;
pub(crate) mod callee;
pub(crate) mod calls;
pub(crate) mod definitions;
mod kept_bytes;
pub(crate) mod objects;
pub(crate) mod partials;
pub(crate) mod picklers;
mod plain_size;
pub(crate) mod replies;
pub(crate) mod seen;
pub(crate) mod snapshot;
pub(crate) mod unpickling;
pub(crate) mod values;
