//! The pools of threads that end with the interpreter.

#[cfg(unix)]
use crate::interp::fork::kept_across_forks;
use crate::interp::{attach, stdlib, waiting};
use concurrent_futures::engine::Pool;
use pyo3::prelude::*;
#[cfg(unix)]
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The pools that may have workers.
static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());

fn pools() -> MutexGuard<'static, Vec<Weak<Pool>>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a pool, to be ended with the interpreter.
pub(crate) fn note(pool: &Arc<Pool>) {
    let mut pools = pools();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(pool));
}

// The child forgets all pools. The pools are the parent's: nothing that they refer to may even be dropped there.
#[cfg(unix)]
kept_across_forks!(pools(), Vec<Weak<Pool>>, |pools| mem::forget(mem::take(
    pools
)));

/// Makes executors refuse tasks from now on, as the interpreter ends. Waits until all workers have finished
/// the pending tasks.
#[pyfunction]
pub(crate) fn interpreter_exits(py: Python<'_>) -> PyResult<()> {
    attach::set_exiting(true);
    let pools: Vec<_> = pools().iter().filter_map(Weak::upgrade).collect();
    for pool in &pools {
        pool.close();
    }
    for pool in &pools {
        if let Err(deadlock) = waiting::detached(py, |stop| pool.wait_for_threads(stop))? {
            return Err(stdlib::deadlock(py, &deadlock));
        }
    }
    Ok(())
}
