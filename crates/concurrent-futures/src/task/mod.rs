//! The task behind a future: its state machine, its memory, and the worker that runs it.

mod body;
pub(crate) mod current;
pub(crate) mod header;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod panic;
pub(crate) mod reference;
pub(crate) mod state;
pub(crate) mod trace;

pub(crate) use body::{Call, Outcome};
pub(crate) use reference::TaskRef;
pub(crate) use state::Phase;
