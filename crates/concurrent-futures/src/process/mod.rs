#![doc = include_str!("README.md")]

mod builder;
pub(crate) mod call;
mod channel;
mod codec;
pub(crate) mod contract;
pub(crate) mod direct;
mod executor;
mod failure;
pub(crate) mod forks;
pub(crate) mod frontend;
pub(crate) mod function;
#[cfg(all(any(test, fuzzing), not(loom_models)))]
pub(crate) mod fuzz;
mod items;
mod options;
pub(crate) mod pool;
pub(crate) mod spawner;
mod worker;

pub use crate::error::process::{
    RemoteError, TimeLimitExceeded, TransferError, TransferStep, WorkerDied, WorkerExit,
};
pub use builder::ProcessPoolExecutorBuilder;
pub use executor::ProcessPoolExecutor;
pub use options::{OnWorkerDeath, StartMethod, TaskOptions};
pub use worker::init::{init, init_before_main};
