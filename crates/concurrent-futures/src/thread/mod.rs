//! `ThreadPoolExecutor`: runs tasks on threads of this process.

mod builder;
mod call;
mod executor;
pub(crate) mod host;
mod idle;
pub(crate) mod limit;
#[cfg(all(test, loom_models))]
mod models;
pub(crate) mod pool;
mod queue;
mod scope;
mod spare;
#[cfg(all(test, loom_models))]
mod spare_models;
mod worker;

pub use builder::{InitializerOutcome, ThreadPoolExecutorBuilder};
pub use executor::ThreadPoolExecutor;
pub use scope::Scope;

/// The most threads a pool can count.
pub const MAX_WORKERS: usize = idle::MAX_THREADS;
