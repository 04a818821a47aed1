//! The task behind a future: its state machine, its memory, and the worker that runs it.

pub(crate) mod current;
pub(crate) mod header;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod panic;
pub(crate) mod state;

pub(crate) use header::{Call, Outcome, TaskRef};
pub(crate) use state::Phase;
