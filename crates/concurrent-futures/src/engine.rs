//! The engine's interface for other frontends, such as the Python package.
//!
//! The interface exists only with the feature `unstable-engine`. It is unstable: any version may change it, as
//! those frontends need. Functions that could break the safety of memory are `unsafe`, and name their
//! conditions.

pub use crate::deadlock::Futures;
pub use crate::dump::{describe as describe_pools, worker_pids};
pub use crate::early::EarlyParts;
pub use crate::error::MAX_WORKERS;
pub use crate::future::blocking::{Stop, wait_until_done};
#[cfg(all(feature = "process", unix))]
pub use crate::future::driver::{Driver, Sleeping, add as add_driver, remove as remove_driver};
pub use crate::future::places::Places;
pub use crate::future::ready::Watched;
#[cfg(all(feature = "process", unix))]
pub use crate::future::remote::{Rest, cancel, complete, give_back, id_of, promise_in};
pub use crate::future::wait::{
    HasTask, Seal, has_failed, next_ready, wait_for_all, wait_for_first,
};
pub use crate::id::{PoolId, number_of};
pub use crate::limit::{PendingLimit, Permit, WhenFull, admit};
pub use crate::map::{submit_items, submit_spans};
#[cfg(feature = "recording")]
pub use crate::page::write as write_page;
#[cfg(all(feature = "process", unix))]
pub use crate::process::function::{SpanWatch, part_of};
#[cfg(feature = "recording")]
pub use crate::recording::Follower;
#[cfg(feature = "recording")]
pub use crate::recording::recorder::set_program;
#[cfg(all(feature = "process", unix))]
pub use crate::recording::remote::{RemoteEnd, RemoteLoss, RemotePool, RemoteRun};
pub use crate::runtime::departures::Departures;
pub use crate::runtime::os::clock::now as recording_clock;
/// The recorder, for frontends that name tasks.
pub mod recorder {
    pub use crate::recording::record::RunOutcome;
    pub use crate::recording::recorder::{
        Name, argument_length, epoch, is_on, name, note_error, note_name, pickled, rejected,
        submitted_with, text,
    };
}
#[cfg(all(feature = "process", unix))]
pub use crate::process::call::{
    Called as RemoteOutcome, RemoteFunction, Unsent, decode_error, encode_error, is_entry,
    name_error, receive_soon, submit_entry,
};
#[cfg(all(feature = "process", unix))]
pub use crate::process::contract::{
    Answer, Argument, Attachment, CallOrder, CallSpan, Called, Caller, Definition, EndedWorker,
    Items, Kept, MappedSegment, PoolSettings, Progress, RemoteAnswer, RemoteCall, RemoteTask,
    Segments, StartedWorker, WorkerRequests, WorkerSpawner,
};
#[cfg(all(feature = "process", unix))]
pub use crate::process::direct::{
    CAPSULE, DirectCall, DirectCalls, DirectEnd, DirectTask, Done, Submitted,
};
#[cfg(all(feature = "process", unix))]
pub use crate::process::forks::guard_forks;
#[cfg(all(feature = "process", unix))]
pub use crate::process::frontend::{ProcessPool, refuse, serve};
#[cfg(all(feature = "process", unix))]
pub use crate::process::pool::callbacks::Callbacks;
pub use crate::runtime::os::signal::glancing;
#[cfg(all(feature = "process", unix))]
pub use crate::runtime::os::{
    descriptors::{identity, pipe},
    fork::around as around_forks,
    parent_death::end_with_pipe,
};
pub use crate::runtime::spin::spin_limit;
pub use crate::runtime::sync::deadline_after;
pub use crate::stats::directory::measure_all;
pub use crate::task::current::is_worker_of;
pub use crate::task::header::{ForeignTask, Header, VTable};
pub use crate::task::reference::TaskRef;
pub use crate::task::state::{Advance, Cancel, Phase, State};
pub use crate::thread::pool::Pool;
pub use crate::thread::spawner::{ThreadSpawner, WorkerThread};
