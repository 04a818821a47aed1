//! The thread pools, each behind the trait [`Pool`](crate::pool::Pool).

mod futures_pool;
mod ours;
mod rayon_pool;
mod rusty;
mod std_thread;
mod threadpool_crate;
mod threadpool_executor_crate;
mod tokio_runtime;

pub(crate) use futures_pool::FuturesPool;
pub(crate) use ours::Ours;
pub(crate) use rayon_pool::Rayon;
pub(crate) use rusty::RustyPool;
pub(crate) use std_thread::StdThread;
pub(crate) use threadpool_crate::Threadpool;
pub(crate) use threadpool_executor_crate::ThreadpoolExecutor;
pub(crate) use tokio_runtime::{TokioBlocking, TokioTasks, warm_runtime};

/// Evaluates an expression once for each pool, ours first, with the given name standing for the pool's type, and makes
/// a `Vec` of the values. [`StdThread`] is no pool: the few workloads that one thread a task can do add it themselves.
macro_rules! every_pool {
    ($Pool:ident => $value:expr) => {
        crate::contestants::every_pool!(@each $Pool => $value,
            Ours, Threadpool, RustyPool, Rayon, TokioTasks, TokioBlocking, FuturesPool, ThreadpoolExecutor)
    };
    (@each $Pool:ident => $value:expr, $first:ident $(, $rest:ident)*) => {{
        let mut values = Vec::new();
        crate::contestants::every_pool!(@push values, $Pool => $value, $first $(, $rest)*);
        values
    }};
    (@push $values:ident, $Pool:ident => $value:expr $(, $contestant:ident)*) => {
        $( { type $Pool = crate::contestants::$contestant; $values.push($value); } )*
    };
}
pub(crate) use every_pool;
