//! Recordings: which worker ran which task when, and where time was lost.
//!
//! | file | contents |
//! |---|---|
//! | `recorder.rs` | the switch, and what the engine calls at events |
//! | `buffer.rs` | the buffer of a thread |
//! | `lane.rs`, `current.rs` | its parts, with their protocols |
//! | `session.rs` | the lanes and tables while something is recorded |
//! | `record.rs` | the records |
//! | `times.rs` | the stamps of events, and the times that readers make of them |
//! | `processes.rs`, `remote.rs` | pools of processes on this machine and on others, as they describe themselves |
//! | `snapshot.rs` | records as rows: runs of tasks, and waits |
//! | `handle.rs`, `options.rs` | recordings, as programs hold them |
//! | `follower.rs` | the updates of live pages |
//! | `cursor.rs` | places in the lanes, from which recordings read on |
//! | `writer.rs`, `log.rs` | recordings to files that grow, and the format of the files |
//! | `columns.rs`, `chrome.rs` | the formats, which `docs/recording.md` describes |
//!
//! # Invariants
//! 1. A program runs as it would without a recording: no event waits, fails or calls foreign code.
//! 2. The record of a run is there before its future is done. So a recording that is stopped after all futures
//!    are done has all runs.
//! 3. A recording reads records that were written between its beginning and its end, and counts those that were
//!    overwritten.

#![forbid(unsafe_code)]

mod buffer;
#[cfg(feature = "recording")]
mod chrome;
#[cfg(feature = "recording")]
mod columns;
mod current;
#[cfg(feature = "recording")]
mod cursor;
#[cfg(feature = "recording")]
mod file;
#[cfg(feature = "recording")]
mod follower;
#[cfg(feature = "recording")]
mod handle;
mod lane;
#[cfg(feature = "recording")]
mod log;
#[cfg(all(test, loom_models))]
mod models;
#[cfg(feature = "recording")]
mod options;
#[cfg(all(feature = "process", unix))]
pub(crate) mod processes;
pub(crate) mod record;
pub(crate) mod recorder;
#[cfg(all(feature = "process", unix))]
#[allow(unreachable_pub, reason = "other frontends use it")]
pub(crate) mod remote;
pub(crate) mod session;
#[cfg(feature = "recording")]
mod snapshot;
mod times;
#[cfg(feature = "recording")]
mod writer;

pub use recorder::with_label;

#[cfg(feature = "recording")]
#[allow(unused_imports, reason = "other frontends use it")]
pub use follower::Follower;
#[cfg(feature = "recording")]
pub use handle::Recording;
#[cfg(feature = "recording")]
pub use options::RecordingOptions;
