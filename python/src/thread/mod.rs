//! The parts of `concurrent_futures.ThreadPoolExecutor`.

pub(crate) mod at_exit;
pub(crate) mod item;
pub(crate) mod map;
mod pace;
pub(crate) mod pool;
pub(crate) mod spawner;
