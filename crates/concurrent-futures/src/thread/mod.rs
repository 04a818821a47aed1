//! `ThreadPoolExecutor`: runs tasks on threads of this process.

mod builder;
mod call;
mod crew;
mod executor;
mod idle;
mod join;
mod lifecycle;
#[cfg(all(test, loom_models))]
mod models;
pub(crate) mod pool;
mod queue;
mod scope;
mod spare;
#[cfg(all(test, loom_models))]
mod spare_models;
pub(crate) mod spawner;
mod std_threads;
mod submit;
mod worker;

pub use builder::{InitializerOutcome, ThreadPoolExecutorBuilder};
pub use executor::ThreadPoolExecutor;
pub use scope::Scope;
