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
//! | run tasks in worker processes (Linux) | `ProcessPoolExecutor`, by the same calls; first `init` |
//! | wait for one future | [`result`](Future::result), [`result_timeout`](Future::result_timeout), `.await` |
//! | wait for many | [`wait`], [`as_completed`] |
//! | be told | [`add_done_callback`](Future::add_done_callback) |
//! | write an executor | [`promise`], [`Executor`] |
//!
//! # What it promises
//! - A task runs at most once, and its future is done exactly once, with a value or
//!   a [`TaskError`] that keeps the cause.
//! - A task that panics fails its future; the worker lives on.
//! - A task may wait for others of its own pool: a pool whose workers all do so
//!   gets spare workers. Tasks that wait for each other in a cycle get an error.
//! - Nothing is printed. What nobody can be told (a callback that panicked) is
//!   logged by [`tracing`].
//!
//! The map of the code, and the protocols, are in the repository's
//! `ARCHITECTURE.md`.

// Other faces use these items, and nothing else does.
#![cfg_attr(not(feature = "unstable-engine"), allow(dead_code, unreachable_pub))]

mod current;
mod deadlock;
mod error;
mod executor;
#[cfg(target_os = "linux")]
mod futex;
mod future;
mod log;
mod map;
mod observer;
mod panic;
#[cfg(target_os = "linux")]
mod process;
#[cfg(doctest)]
mod sealed;
mod signal;
mod sync;
mod thread;

pub use error::{
    BrokenExecutor, BuildError, Deadlock, InvalidStateError, PanicBacktrace, PanicLocation,
    Rejected, SubmitError, TaskError, TaskPanic, TimeoutError,
};
pub use executor::{Executor, Function, Value};
pub use future::{
    AsCompleted, AsCompletedTimeout, DoneAndNotDone, Future, FutureId, Promise, ReturnWhen,
    Waitable, as_completed, promise,
};
// Not by `future`: it has a module of this name as well.
pub use future::wait::wait;
pub use map::{BufferedMap, Map, MapOptions};
pub use observer::Observer;
#[cfg(target_os = "linux")]
pub use process::{
    ProcessPoolExecutor, ProcessPoolExecutorBuilder, RemoteError, StartMethod, TaskOptions,
    TimeLimitExceeded, TransferError, TransferStep, WorkerDied, WorkerExit, init,
};
pub use thread::{InitializerOutcome, Scope, ThreadPoolExecutor, ThreadPoolExecutorBuilder};

#[cfg(feature = "unstable-engine")]
#[doc(hidden)]
pub mod engine;
/// As public as with the feature, so that it is checked in the same way; but out of reach.
#[cfg(not(feature = "unstable-engine"))]
#[allow(unused_imports, reason = "it is for other faces")]
mod engine;

/// The function that the fuzzer of `fuzz/` calls.
#[cfg(all(fuzzing, target_os = "linux"))]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::process::fuzz::frames;
}

/// The functions that macros of this crate call.
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod __private {
    pub use crate::process::init_before_main;
}

/// The example of the README is one of the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
