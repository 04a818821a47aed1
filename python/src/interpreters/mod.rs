//! The parts of `concurrent_futures.InterpreterPoolExecutor`.

pub(crate) mod context;
mod copying;
mod inside;
mod known;
mod stack;
pub(crate) mod task;
mod visit;
