//! The native module of the Python package `concurrent_futures`: Python objects around the engine.
//!
//! # Rules for threads
//! - Only attached threads read and write references to Python objects. A thread that waits is detached. The
//!   state of a future is the engine's atomic word. So a thread need not be attached to wake another thread,
//!   or to be woken.
//! - No lock is held while a thread attaches or may detach. A thread may detach while Python code runs, in a
//!   critical section, and when it gives up a reference. So an attached thread may take any lock here or in the
//!   engine. The holder never waits for the interpreter, nor for a thread that stops all others. (The lock of the
//!   deadlock detector is the exception: only detached threads take it.)
//! - Nothing relies on the global interpreter lock. Where two attached threads could meet, one of three
//!   things separates them. These are a phase that belongs to one thread alone, a critical section of the
//!   object, or a lock. ARCHITECTURE.md has the table of all shared objects.
//! - A thread that collects garbage stops the others where they are detached, or run Python code. So
//!   `__traverse__` meets no thread of ours in the middle of a step.
//! - Objects of the program (lists, dictionaries, attributes of functions) may change at any time. Each look at
//!   them takes a reference. Each decision about several of their items is made on a copy.

#![allow(
    clippy::doc_markdown,
    reason = "the docs of Python objects are their docstrings"
)]
#![allow(clippy::elidable_lifetime_names, reason = "PyO3's users know 'py")]
#![allow(clippy::needless_pass_by_value, reason = "as PyO3 passes arguments")]
#![cfg_attr(
    not(has_processes),
    allow(dead_code, reason = "some parts are for worker processes only")
)]

mod dump;
mod future;
mod interp;
mod interpreters;
mod lifecycle;
mod pickle;
#[cfg(has_processes)]
mod process;
mod recording;
mod stats;
mod thread;

use pyo3::pymodule;

/// The engine behind `concurrent_futures`.
#[pymodule(gil_used = false)]
mod _engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::dump::running::running_calls;
    #[cfg(unix)]
    #[pymodule_export]
    use super::dump::signal::{dump_workers, mark_stacks, unwatch_dumps, watch_dumps};
    #[pymodule_export]
    use super::dump::{dump_pools, frames_of_threads, has_other_interpreters};
    #[pymodule_export]
    use super::future::as_completed::{AsCompleted, as_completed};
    #[pymodule_export]
    use super::future::object::Future;
    #[pymodule_export]
    use super::future::plain::{are_unchanged, use_types, versions};
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::future::recorded::RemotePool;
    #[pymodule_export]
    use super::future::wait::wait;
    #[pymodule_export]
    use super::interp::class_layout::describe_class;
    #[pymodule_export]
    use super::interp::entry::{lead_to, py_leads_to};
    #[pymodule_export]
    use super::interp::fork::generation;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::interp::jobs::JobsThread;
    #[pymodule_export]
    use super::interp::shared_generator::SharedGenerator;
    #[pymodule_export]
    use super::interp::signals::{allow_interrupts, with_signals_held};
    #[pymodule_export]
    use super::interp::stdlib::{
        look_up_for_futures, look_up_for_interpreters, look_up_for_processes, look_up_for_threads,
        look_up_for_workers,
    };
    #[pymodule_export]
    use super::interp::waiting::is_threading_replaced;
    #[pymodule_export]
    use super::lifecycle::register_hooks;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::callbacks::CallbacksThread;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::map::SpanIterator;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::parent_death::{life_of_this_process, live_no_longer_than};
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::pool::ProcessPool;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::supervisor::Supervisor;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::worker::call_chunk;
    #[cfg(has_processes)]
    #[pymodule_export]
    use super::process::worker::{refuse, serve};
    #[pymodule_export]
    use super::recording::object::{Follower, Recording, call_with_label};
    #[pymodule_export]
    use super::thread::at_exit::interpreter_exits;
    #[pymodule_export]
    use super::thread::map::ResultIterator;
    #[pymodule_export]
    use super::thread::pool::ThreadPool;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        super::lifecycle::only_in_first_interpreter(py)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("MAX_WORKERS", concurrent_futures::engine::MAX_WORKERS)?;
        let are_safe = super::interp::shared_generator::GENERATORS_ARE_SAFE;
        module.add("GENERATORS_ARE_SAFE", are_safe)?;
        // Made now, as all that is made once; see `interp/interned.rs`.
        super::interp::interned::make(py);
        super::interp::stdlib::look_up_for_all(py)?;
        py.get_type::<super::thread::spawner::Worker>();
        module.add("HAS_PROCESSES", cfg!(has_processes))?;
        #[cfg(has_processes)]
        {
            py.get_type::<super::pickle::buffers::Buffer>();
            py.get_type::<super::pickle::buffers::Collector>();
            py.get_type::<super::pickle::buffers::SegmentFile>();
            super::process::iternext_slot::set(py)?;
        }
        #[cfg(unix)]
        super::lifecycle::count_forks();
        super::interp::sent::look_up_place(py)?;
        Future::measure(py)
    }
}
