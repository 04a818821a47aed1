//! Recordings of a program's tasks, and the names that they show.

#[cfg(has_processes)]
pub(crate) mod calls;
pub(crate) mod names;
pub(crate) mod object;
