//! The engine, for other faces of it, which is what the Python package is.
//!
//! It is there with the feature `unstable-engine`, which says what to expect: it changes as those
//! faces need it, in any version. Nothing of it can be reached without the feature. With the
//! feature, what could break the safety of memory is `unsafe`, and says what it asks for.

pub use crate::current::is_worker_of;
pub use crate::deadlock::{ForkGuard, Futures};
pub use crate::future::blocking::{Stop, wait_until_done};
pub use crate::future::places::Places;
pub use crate::future::ready::Watched;
pub use crate::future::state::{Advance, Cancel, Phase, State};
pub use crate::future::task::{ForeignTask, Header, TaskRef, VTable};
pub use crate::future::wait::{
    HasTask, Seal, has_failed, next_ready, wait_for_all, wait_for_first,
};
#[cfg(target_os = "linux")]
pub use crate::process::host::{
    Answer, Argument, Attachment, CallOrder, CallSpan, Called, Caller, Definition, Items, Kept,
    PoolSettings, ProcessPool, Progress, Received, RemoteAnswer, RemoteCall, RemoteTask, Segments,
    StartedWorker, WorkerHost, refuse, serve,
};
#[cfg(target_os = "linux")]
pub use crate::process::os::guard_forks;
pub use crate::signal::glancing;
pub use crate::sync::{deadline_after, spin_limit};
pub use crate::thread::MAX_WORKERS;
pub use crate::thread::host::{Host, WorkerThread};
pub use crate::thread::limit::{PendingLimit, Permit, WhenFull};
pub use crate::thread::pool::Pool;
