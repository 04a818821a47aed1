//! Python's `concurrent.futures` for Rust: launch parallel tasks, and hold a
//! [`Future`] of each.
//!
//! # A tour
//! An [`Executor`] runs tasks on workers. [`ThreadPoolExecutor`] has threads:
//!
//! ```
//! use concurrent_futures::{ThreadPoolExecutor, as_completed};
//!
//! # fn load(url: &str) -> std::io::Result<Vec<u8>> { Ok(url.as_bytes().to_vec()) }
//! let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
//!
//! // `submit` returns a future at once,
//! let page = pool.submit_fallible(load, "http://localhost/")?;
//! // which can be asked for its result.
//! println!("{} bytes", page.result()?.len());
//!
//! // Many futures: the first to finish first.
//! let mut pages = Vec::new();
//! for url in ["http://localhost/a", "http://localhost/b"] {
//!     pages.push((url, pool.spawn_fallible(move || load(url))?));
//! }
//! for (url, page) in as_completed(pages) {
//!     match page.result() {
//!         Ok(page) => println!("{url} is {} bytes", page.len()),
//!         Err(error) => println!("{url}: {error}"),
//!     }
//! }
//!
//! // Or all results in the order of the items.
//! for square in pool.map(|n: u32| n * n, 1..=3)? {
//!     println!("{}", square?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | submit a call of a function, or a closure | [`submit`](ThreadPoolExecutor::submit), [`spawn`](ThreadPoolExecutor::spawn); [`submit_fallible`](ThreadPoolExecutor::submit_fallible), [`spawn_fallible`](ThreadPoolExecutor::spawn_fallible) for those that return a `Result` |
//! | call a function for each item | [`map`](ThreadPoolExecutor::map), [`map_buffered`](ThreadPoolExecutor::map_buffered) |
//! | borrow from the caller | [`scope`](ThreadPoolExecutor::scope) |
//! | run tasks in worker processes (not on Windows) | `ProcessPoolExecutor`, by the same calls; first `init` |
//! | wait for one future | [`result`](Future::result), [`result_timeout`](Future::result_timeout), `.await` |
//! | wait for many | [`wait`], [`as_completed`] |
//! | be told | [`add_done_callback`](Future::add_done_callback) |
//! | write an executor | [`promise`], [`Executor`] |
//!
//! # Guarantees
//! - A task runs at most once, and its future is done exactly once, with a value or
//!   a [`TaskError`] that keeps the cause.
//! - A task that panics fails its future; the worker lives on.
//! - A task may wait for others of its own pool: a pool whose workers all do so
//!   gets spare workers. Tasks that wait for each other in a cycle get an error.
//!   The pool sees the blocking waits of this crate. It does not see others, such as
//!   a channel, or an `.await` inside an async runtime's `block_on`.
//! - The engine does not print. An error that no caller can receive (a callback that panicked) is logged by
//!   [`tracing`].
//!
//! # Features
//! | feature | adds |
//! |---|---|
//! | `process` (default) | process pools (not on Windows), and [`Executor`], the interface that both kinds of pools share; compiles serde, postcard and memmap2 |
//! | `recording` (default) | `Recording`, which shows what ran when; compiles `serde_json` and base64 |
//! | `spans` | a [`tracing`] span `task` for each task, under the span of its submitter, with `function` and `error`; a worker thread enters it for the call |
//! | `unstable-engine` | the engine's own interface, for other frontends; it may change in any version |
//!
//! The map of the code, and the protocols, are in the repository's
//! `ARCHITECTURE.md`.

// Other frontends use these items, and nothing else does.
#![cfg_attr(
    not(all(feature = "unstable-engine", feature = "process", unix)),
    allow(dead_code, unreachable_pub)
)]

mod deadlock;
mod dump;
mod early;
mod error;
#[cfg(feature = "process")]
mod executor;
mod future;
mod id;
mod limit;
mod map;
mod observer;
#[cfg(feature = "recording")]
mod page;
#[cfg(all(feature = "process", unix))]
mod process;
mod recording;
mod runtime;
#[cfg(doctest)]
mod sealed;
mod shutdown;
mod stats;
mod task;
mod thread;

pub use error::{
    BrokenExecutor, BuildError, Deadlock, InvalidStateError, PanicBacktrace, PanicLocation,
    Rejected, SubmitError, TaskError, TaskPanic, TimeoutError,
};
#[cfg(feature = "process")]
pub use executor::{Executor, Function, Value};
pub use future::{
    AsCompleted, AsCompletedTimeout, DoneAndNotDone, Future, Promise, ReturnWhen, Waitable,
    as_completed, promise,
};
pub use id::FutureId;
pub use shutdown::Shutdown;
// Not by `future`: it has a module of this name as well.
pub use future::wait::wait;
pub use map::{BufferedMap, Map, MapOptions};
pub use observer::Observer;
#[cfg(all(feature = "process", unix))]
pub use process::{
    OnWorkerDeath, ProcessPoolExecutor, ProcessPoolExecutorBuilder, RemoteError, StartMethod,
    TaskOptions, TimeLimitExceeded, TransferError, TransferStep, WorkerDied, WorkerExit, init,
};
pub use recording::with_label;
#[cfg(feature = "recording")]
pub use recording::{Recording, RecordingOptions};
pub use stats::{ExecutorStats, QueueTimes};
pub use thread::{InitializerOutcome, Scope, ThreadPoolExecutor, ThreadPoolExecutorBuilder};

#[cfg(feature = "unstable-engine")]
#[doc(hidden)]
pub mod engine;
/// The engine's interface, as public as with the feature for the compiler, and out of reach of programs.
#[cfg(not(feature = "unstable-engine"))]
#[allow(unused_imports, reason = "it is for other frontends")]
mod engine;

/// The function that the fuzzer of `fuzz/` calls.
#[cfg(all(fuzzing, feature = "process", unix))]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::process::fuzz::frames;
}

/// The functions that macros of this crate call.
#[cfg(all(feature = "process", unix))]
#[doc(hidden)]
pub mod __private {
    pub use crate::process::init_before_main;
}

/// Makes the example of the README a test.
#[cfg(all(doctest, feature = "process", unix))]
#[doc = include_str!("../../../README.md")]
struct Readme;
