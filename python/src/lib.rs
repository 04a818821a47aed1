//! The native module of the Python package `concurrent_futures`: Python objects around
//! the engine of the crate `concurrent-futures`.
//!
//! # Who may touch what
//! - References to Python objects are read and written by attached threads only. A
//!   thread that waits is detached; the state of a future is the engine's atomic word,
//!   for which nobody needs to be attached: neither to wake nor to be woken.
//! - No lock is held while Python code runs, nor while a thread attaches; so whoever is
//!   attached may take any lock here or in the engine. (The lock of the deadlock
//!   detector is the exception: it is only taken detached.)
//! - Nothing relies on the global interpreter lock. Where an attached thread could meet
//!   another one, there is a phase that belongs to it alone, a critical section of the
//!   object, or a lock.

#![allow(
    clippy::doc_markdown,
    reason = "the docs of Python objects are their docstrings"
)]
#![allow(clippy::elidable_lifetime_names, reason = "PyO3's users know 'py")]
#![allow(clippy::needless_pass_by_value, reason = "as PyO3 passes arguments")]

mod as_completed;
mod aside;
mod buffers;
mod by_name;
mod callbacks;
mod entry;
mod exclusive;
mod feeder;
mod fields;
mod future;
mod handled;
mod host;
mod interrupts;
mod jobs;
mod kinship;
mod life;
mod map;
mod name;
mod observers;
mod outcome;
mod picklers;
mod pickling;
mod plain;
mod pool;
mod process;
mod process_errors;
mod process_host;
mod process_map;
mod process_pool;
mod process_shared;
mod process_source;
mod released;
mod remote;
mod replaceable;
mod shortcut;
mod span_results;
mod stdlib;
mod task;
mod ticks;
mod time_limit;
mod unpickling;
mod wait;
mod waiting;
mod worker_process;

use pyo3::pymodule;

/// The engine behind `concurrent_futures`.
#[pymodule(gil_used = true)]
mod _engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::as_completed::{AsCompleted, as_completed};
    #[pymodule_export]
    use super::callbacks::CallbacksThread;
    #[pymodule_export]
    use super::entry::{lead_to, py_leads_to};
    #[pymodule_export]
    use super::future::Future;
    #[pymodule_export]
    use super::interrupts::allow_interrupts;
    #[pymodule_export]
    use super::jobs::JobsThread;
    #[pymodule_export]
    use super::kinship::describe_class;
    #[pymodule_export]
    use super::life::{life_of_this_process, live_no_longer_than};
    #[pymodule_export]
    use super::map::ResultIterator;
    #[pymodule_export]
    use super::pool::ThreadPool;
    #[pymodule_export]
    use super::process::{interpreter_exits, register_hooks};
    #[pymodule_export]
    use super::process_map::SpanIterator;
    #[pymodule_export]
    use super::process_pool::{ProcessPool, Supervisor};
    #[pymodule_export]
    use super::process_source::call_chunk;
    #[pymodule_export]
    use super::stdlib::{
        look_up_for_futures, look_up_for_processes, look_up_for_threads, look_up_for_workers,
        use_types,
    };
    #[pymodule_export]
    use super::wait::wait;
    #[pymodule_export]
    use super::worker_process::{refuse, serve};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        super::process::only_in_first_interpreter(py)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("MAX_WORKERS", concurrent_futures::engine::MAX_WORKERS)?;
        // Made now, as all that is made once; see `name.rs`.
        super::name::make(py);
        super::stdlib::look_up_for_all(py)?;
        py.get_type::<super::host::Worker>();
        py.get_type::<super::buffers::Buffer>();
        py.get_type::<super::buffers::Collector>();
        py.get_type::<super::buffers::SegmentFile>();
        super::process::count_forks();
        super::shortcut::set(py)?;
        Future::measure(py)
    }
}
