//! Stands for `remote.rs` where there are no worker processes: no future has a remote part.

use crate::future::object::Future;
use pyo3::prelude::*;

/// The additional state of a future of a process pool, of which there is none.
pub(crate) enum Remote {}

impl Remote {
    /// Returns whether the task has failed in its worker.
    pub(crate) fn has_failed(&self) -> bool {
        match *self {}
    }

    /// Recalls the task of a future from its worker.
    pub(crate) fn recall(&self, _: &Future, _: &mut dyn FnMut()) -> bool {
        match *self {}
    }

    /// Returns whether a worker has begun the task of a future.
    pub(crate) fn has_begun(&self, _: &Future) -> bool {
        match *self {}
    }

    /// Ends the task of a future.
    pub(crate) fn terminate(&self, _: &Future) -> bool {
        match *self {}
    }

    /// Leaves the place among pending tasks.
    pub(crate) fn leave(&self) {
        match *self {}
    }
}

/// Opens the reply of a worker: there is none.
#[allow(
    clippy::unnecessary_wraps,
    reason = "the signature is that of `remote.rs`"
)]
pub(crate) fn open(_: &Bound<'_, Future>) -> PyResult<()> {
    Ok(())
}
