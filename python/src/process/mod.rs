//! The parts of `concurrent_futures.ProcessPoolExecutor`.

pub(crate) mod callbacks;
pub(crate) mod direct;
pub(crate) mod feeder;
pub(crate) mod iternext_slot;
pub(crate) mod map;
mod methods;
pub(crate) mod parent_death;
pub(crate) mod pool;
pub(crate) mod shared;
pub(crate) mod source;
pub(crate) mod spawner;
mod submit;
pub(crate) mod supervisor;
pub(crate) mod task;
pub(crate) mod worker;
