//! The Python package `concurrent_futures_cluster`: its native part.
//!
//! The thread of the cluster never waits for the interpreter's lock. It leaves outcomes (`client.rs`) and calls
//! (`host.rs`) in an inbox, which a thread of Python empties, many at a time. The one exception is the termination of a
//! call. The host's thread asks its pool of processes then, as the client wants to know whether the call will end.

#![cfg(unix)]

mod client;
mod content;
mod direct;
mod errors;
mod host;
mod inbox;
mod observer;
mod plain;
mod settings;

use pyo3::pymodule;

/// The native part of `concurrent_futures_cluster`.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::content::Content;
    #[pymodule_export]
    use super::host::{Host, Job};
    #[pymodule_export]
    use super::observer::Observer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
