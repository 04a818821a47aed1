//! `ProcessPoolExecutor`: worker processes behind the same interface.
//!
//! # Who there is
//! - **Submitters**, any threads of the program: they turn the argument into bytes, and hand the
//!   task to a worker, or queue it (`pool.rs`, `state.rs`).
//! - The **supervisor**, one thread a pool: it starts workers, notices their death, and watches
//!   time limits (`supervisor.rs`).
//! - **Helpers**, threads that wait for a future: for as long as it pays they receive answers
//!   themselves, and the supervisor sleeps on (`Driver` in `pool.rs`, `awake.rs`).
//! - A thread for **callbacks** and wakers, there while there are some: they may take long, and delay
//!   nothing but each other (`callbacks.rs`).
//! - **Deliverers**, threads that make values by foreign code, there while there are some
//!   (`deliver.rs`).
//! - **Workers**, processes with one thread: the program started anew, or a fork of one that
//!   was (`worker.rs`, `fork_server.rs`, `init.rs`).
//!
//! What they share in this process is under one lock, which is held for no foreign code and no
//! system call that may block.
//!
//! # The channel
//! Each worker has two byte streams in shared memory, one in each direction, and a socket
//! (`channel/`). Frames are written to the streams without a system call. Who sleeps says so in
//! the shared memory, and is woken by a byte through the socket. A value that is longer than a
//! stream runs through it while both sides copy: nothing is mapped, cut off or cleaned up for it.
//!
//! # The life of a task
//! The phase is that of its future; see the table in `task.rs`.
//!
//! 1. *Pending*, in the queue; it may be cancelled.
//! 2. *Handed over*: its frame is in the stream, `Ready`. More than one only while tasks are short
//!    (`state.rs`). To whoever asks it is still pending, and may be cancelled (`Driver` in
//!    `pool.rs`).
//!    A worker that stops in the middle of a span gives back the rest of it. It takes nothing more
//!    until that was read; what is behind it is taken back with it, and stays behind.
//! 3. *Begun*: the worker has turned the frame's claim from `Ready` to `Taken`. The pool may have
//!    turned it to `Recalled` first, and then the task is pending again, or cancelled. (An
//!    argument too long for the stream is recalled by nobody: it is not there as a whole.)
//! 4. *Answered*: the frame of the answer is there to its last byte.
//! 5. *Ended*: the value is made of the bytes, outside the lock, and by another thread than the supervisor
//!    and the helpers if that is foreign code (`deliver.rs`). There are no callbacks and no wakers:
//!    finished, and waiting threads are woken. Otherwise the thread for callbacks does that after them.
//!
//! # What happens at each death
//! | who dies | when | what happens |
//! |---|---|---|
//! | worker | idle | it is replaced; no task notices |
//! | worker | having begun a task | that one fails ([`WorkerDied`]), or is repeated if it may be |
//! | worker | with tasks behind it, or an argument half sent | these were not begun: first in the queue again |
//! | worker | in the middle of an answer | the task was begun and not answered: it fails |
//! | worker | in the middle of a span | the items that were done have their results (`draft.rs`); the others fail |
//! | worker | after an answer | the answer counts, whatever came of the worker |
//! | worker | before it could work | started again. After three in a row the pool is broken, unless another worker works: then with pauses that grow |
//! | worker | killed for a time limit, or by `terminate` | its task fails with that; the rest as above |
//! | fork server | any time | the system kills its workers; see above. Another is started |
//! | supervisor's process | any time | the system kills workers and fork server (`PR_SET_PDEATHSIG`); an idle worker sees the end of its socket |
//!
//! The claim in the frame's header tells a task that was begun from one that was not, without a
//! message that could be lost: the memory outlives the worker.
//!
//! # Invariants
//! 1. A worker answers each frame before it claims the next, in the order of the stream: at most
//!    one task of a dead worker was begun and not answered.
//! 2. A task is in one place: the queue, one worker's frames in flight, or on its way to its
//!    future. Dropping it anywhere finishes the future: nobody waits forever.
//! 3. A wake-up is not lost: who goes to sleep says so and looks again, who has something writes
//!    it and looks whether the other sleeps (`channel/ring.rs`). The supervisor sleeps only if
//!    nothing has `changed` under the lock since it looked.
//! 4. What a worker writes is copied out of the shared memory before it is looked at, and checked.
//!    What is against the protocol costs that worker its life, and nothing else.
//! 5. Only the supervisor's thread starts processes: the system would kill them when the thread
//!    that started them ends.
//! 6. Exit statuses are taken once (`handle.rs`). No zombie is left, and no other process is signalled.
//! 7. Foreign code runs neither in the supervisor nor in a thread that counts as a helper.
//! 8. The supervisor of a pool that was shut down ends when no answer is in transit to its future.

mod awake;
mod builder;
mod callbacks;
mod channel;
mod child;
mod codec;
mod deliver;
mod draft;
mod error;
mod executor;
mod failure;
mod fork_server;
mod function;
#[cfg(all(any(test, fuzzing), not(loom_models)))]
pub(crate) mod fuzz;
mod handle;
mod handshake;
pub(crate) mod host;
mod image;
mod init;
mod items;
mod member;
#[cfg(all(test, loom_models))]
mod models;
mod observed;
mod options;
pub(crate) mod os;
mod pool;
mod spin;
mod start;
mod state;
mod supervisor;
mod task;
mod worker;

pub use builder::ProcessPoolExecutorBuilder;
pub use error::{
    RemoteError, TimeLimitExceeded, TransferError, TransferStep, WorkerDied, WorkerExit,
};
pub use executor::ProcessPoolExecutor;
pub use init::{init, init_before_main};
pub use options::{StartMethod, TaskOptions};
