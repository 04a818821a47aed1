//! Dumps of programs that stand still: a description of all pools, and the Python stacks of worker processes.

pub(crate) mod running;
#[cfg(unix)]
pub(crate) mod signal;

use concurrent_futures::engine::describe_pools;
use pyo3::prelude::*;

/// Returns a text that says what each worker runs, and what waits for what.
#[pyfunction]
pub(crate) fn dump_pools(py: Python<'_>) -> String {
    py.detach(describe_pools)
}
