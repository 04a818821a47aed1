//! `ThreadPoolExecutor`: runs tasks on threads of this process.

mod builder;
mod call;
mod executor;
mod idle;
mod limit;
#[cfg(all(test, loom_models))]
mod models;
mod pool;
mod queue;
mod scope;
mod worker;

pub use builder::{InitializerOutcome, ThreadPoolExecutorBuilder};
pub use executor::ThreadPoolExecutor;
pub use scope::Scope;

/// The most threads a pool can count.
pub(crate) const MAX_WORKERS: usize = idle::MAX_THREADS;
