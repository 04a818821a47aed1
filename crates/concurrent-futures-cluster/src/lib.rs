//! An executor of [`concurrent-futures`](concurrent_futures) whose workers are on many machines.
//!
//! A [`ClusterExecutor`] sends tasks to *hosts*, through a [NATS] server with `JetStream`. A host is a process of the same
//! program on any machine. It runs the tasks in a process pool of its own. So crashes, time limits and termination are
//! those of a process pool. The futures are those of all executors.
//!
//! ```no_run
//! use concurrent_futures_cluster::ClusterExecutor;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     concurrent_futures_cluster::init(); // hosts and worker processes begin here
//!
//!     let cluster = ClusterExecutor::builder().url("nats://127.0.0.1:4222").build()?;
//!     println!("{}", cluster.submit(f64::sqrt, 2.0)?.result()?);
//!     Ok(())
//! }
//! ```
//!
//! `CONCURRENT_FUTURES_WORKER=nats://127.0.0.1:4222 ./program` starts a host. The address `embedded` needs no server: the
//! executor starts one on this machine, and a host.
//!
//! # The protocol
//! The *client* (an executor) is the source of truth. It keeps each task until it has the outcome, and submits a task
//! again that the server has lost. So a task runs at least once, and its future is done exactly once.
//!
//! | subject | message | from, to |
//! |---|---|---|
//! | `cf.t.QUEUE.ENVIRONMENT.PRIORITY` | a parcel of tasks, in a work queue | client, one host |
//! | `cf.c.SESSION` | a report: tasks held, started, ended; parts of values | host, client |
//! | `cf.q.SESSION` | a question: which tasks are open? | host, client |
//! | `cf.h.QUEUE.HOST`, `cf.h.QUEUE.all` | an order: run a task, recall, terminate | client, host |
//! | `cf.w.QUEUE` | news: a host has entered the registry | host, clients |
//! | `cf.i.client.ANY`, `cf.i.host.ANY` | answers of the server and of other parties | |
//! | `cf.o.QUEUE.SESSION.NUMBER` | an outcome whose client did not answer; the first one stays | host, client |
//! | `cf.t.QUEUE+kept.ENVIRONMENT.PRIORITY+RANK.SESSION.NUMBER` | an attempt of a kept task; it replaces the one before. The first rank has no name | client, one host |
//! | `cf.r.QUEUE+kept.SESSION.NUMBER` | the record of a kept task; the first one stays | client, later clients |
//! | `cf.o.QUEUE+kept.SESSION.NUMBER` | the outcome of a kept task; the first one stays | host, all clients |
//! | `cf.o.QUEUE+kept.SESSION.NUMBER.RUN` | the mark of a run; `.back` behind it says that the run has ended in order | host, hosts |
//! | `cf.s.QUEUE.SESSION` | the claim of a kept session, for a lease | client, clients |
//! | `cf.n.QUEUE` | news: a client has opened a kept session, or has a task that waits for long | client, hosts |
//! | `cf.p.QUEUE.SESSION.HASH.PART` | a part of a payload that is too long for a message | client, host; host, client |
//!
//! A session is a random number of 128 bits. A task's identity is its session, its number there, and the *attempt*: the
//! count of its submissions. A message has a *parcel* of tasks: one, or some short ones of a burst. A parcel's identity
//! is its session and its number there. The environment is a hash of the build, the architecture, a tag and the key. A host asks for
//! tasks of its own environment only.
//!
//! The life of a task:
//! 1. The client publishes the task in a parcel, under the parcel's identity. The server refuses a second message of the
//!    same identity for two minutes, so that a repetition after a lost confirmation makes no second task.
//! 2. The server delivers the parcel to one host, for the time of a *lease*. The host extends the lease while it has a
//!    task of the parcel, and reports the tasks that it holds.
//! 3. The host runs the task, and reports its start. The news of steps 2 and 3 wait for a millisecond: a task that is
//!    done by then is reported once. A task that was lost before, or must not run again, is reported first: the host runs
//!    it when it has the client's receipt.
//! 4. The host sends the outcome to the client as a request. The receipts for all tasks of a parcel permit the
//!    acknowledgement, which removes the parcel from the server. Without a client, the outcome goes into the stream of outcomes first.
//!
//! Invariants:
//! - *An outcome is with the client, or in the stream of outcomes, before the parcel of its task is acknowledged.* No death of a host
//!   loses an outcome.
//! - *The first outcome that the client accepts takes the task out of its table, under a lock.* A second outcome finds no
//!   task. It gets a receipt, too, so that its task is acknowledged.
//! - *The client looks for an outcome after it has found that a task is gone from the server.* By the first invariant, a
//!   task without an outcome was lost, and is submitted again as the next attempt. Clients look after each new connection,
//!   and after each lease without a sign of the task.
//! - *A cancellation succeeds only if no host will begin the task.* A parcel that is newer than all delivered ones is removed
//!   from the server, which says afterwards that it still was. Its other tasks are submitted again. Otherwise the host that has the task gives it up, or says
//!   that it runs. A host that does not have it yet remembers the order, and gives the task back on arrival. Without an
//!   answer, the task stays running. Another host may have a copy, as the lease had ended. So a host reports the start before it
//!   begins a task that comes again, or has waited for a third of the lease. The client's receipt names the tasks that it
//!   does not wait for. When the server has lost the first attempt of a task, a host may have got it right before. So a
//!   cancellation waits for a lease then: the host has begun the task and said so, or would ask.
//! - *A second loss is known.* The client has confirmed the start of each run of a task but the first one. So it counts
//!   the hosts that a task has taken along, except perhaps one.
//! - *No host begins a task unless all lanes of a higher priority are empty.* The host has the server's word for that, and
//!   a request is open since then that the next task of the lane answers. The word lasts as long as the request. A server
//!   that is about to answer other requests gives no word. A lane is not empty either while the host asks a client about a task of it.
//! - *An attempt that a host gives back is over.* The next one may come to the same host before the client's receipt of
//!   the return does. It is another task then. A task that waits or runs is the newest attempt that has come.
//! - *A host that ends, or cannot run a task, gives the task back to the client*, by a report without an outcome. So
//!   does a host without a free worker, after 100 ms. It has no tasks in reserve then until a worker is free. The client submits it again, or fails it: a task that has taken [several hosts](ClusterExecutorBuilder::most_deliveries)
//!   along fails with [`PoisonTask`].
//!
//! A client keeps about a second's work on the server, by the times that hosts report. So the tasks of another client
//! wait for about a second. The bounds are four tasks for each worker, and the greater of that and 1,000.
//!
//! Tasks share a parcel if they are submitted for the first time, and may run again. Their arguments have at most 16 KiB. A parcel has about ten milliseconds of work, by the times that hosts report, and at most 64 tasks.
//! A host settles each task of a parcel for itself: it may give some back. While two reports have no receipt yet, further
//! outcomes wait for each other, up to five milliseconds. Both together cost a burst a fraction of the messages.
//!
//! While tasks take less than 2 ms, a host hands some to its pool before a worker is free. For each worker, that is about
//! 2 ms of work. So no worker waits for its host. To hand a task to the pool is to begin it, as far as priorities go. Its start is not reported, and it can be
//! recalled, until a worker has it. After 10 ms in the pool it has begun, or comes back: it stands behind a long task. Tasks
//! whose start must be known, with a time limit or with a long argument never go ahead.
//!
//! A task that waits for a future of a cluster takes no slot of its host. Its worker tells the host, on a local socket, when
//! a wait begins and when it ends. The host takes as many more tasks as workers wait, up to 256. They run in further worker
//! processes. So tasks may wait for tasks of the same cluster, however few workers there are.
//!
//! A worker may send parts of the value of a task that still runs, on the same socket. The host reports each part until it
//! has the client's receipt, or the task has ended. The client takes parts of any attempt. A part has its place in the value. So a program knows the ones
//! that it has, and those that come again change nothing.
//!
//! So `map` yields results of a task while a later call of the task runs on. A worker sends those that are there when the task
//! has run for 100 ms, and then now and then.
//!
//! A report has the times of the runs that it tells of, and the time when it was made. All are of the host's clock. A
//! client that is recorded makes times of its own clock of them.
//!
//! Payloads of more than 256 KiB are stored in parts, in a stream of their own, under the session and the hash of the
//! content. Messages have the hash and the length, which the receiver checks. A payload that the server has lost is sent
//! again together with its task. With an [object store](ClusterBuilder::object_store), payloads of more than 64 MiB go
//! there, under the queue, the session and the hash. The same parties remove them. The message says where a payload is.
//!
//! # Tasks that go to a host directly
//! A program that waits for each task before the next one has one task at a time. The client sends such a task to the host
//! that has brought the last outcome, as an order, and not to the server's work queue. The host takes the task if a worker
//! is free for it. Otherwise it refuses, and the client publishes the task.
//!
//! A task that a host has taken is like one that the server has lost after its delivery, and the same rules hold. The host
//! reports it, and stores its outcome if the client does not answer. A client without a sign of the task for a lease looks
//! for an outcome, and submits the second attempt. A client that does not know whether the order has come publishes the
//! task, and a cancellation waits for a lease then. Only tasks of the first attempt go directly. They are not kept, and
//! may run again.
//!
//! # Kept sessions
//! The tasks of a [session](ClusterExecutorBuilder::session) outlive their client. Then the server's disk is the source of
//! truth, and a client is one of its readers. A session's identity is a hash of the queue and of its name. The numbers of its tasks begin at
//! the server's time in milliseconds, so that no two clients give one twice. The tasks, records, outcomes and payloads are in streams of their own, on disk, with
//! an age for each message. Hosts take tasks from both streams of a priority.
//!
//! All tasks of a session are on the server at once, and the server delivers those of a lane in their order. So that no
//! session keeps the others waiting, a task has a *rank*: by the number of unfinished tasks of its session before it. The
//! first rank has about a second's work, the second one sixteen times that, and the last one the rest. Each rank has a lane, and hosts
//! take tasks from all of them. So a session with few tasks waits for the first tasks of the others. Their many share the
//! hosts with it. Of several sessions with many tasks, the last rank is in the order of submission. The record has the rank,
//! as it is a part of the subject.
//!
//! 1. The client stores the *record* of a task, and publishes the task when the server has confirmed that. From then on,
//!    any client finds it. Each attempt has the task's own subject, so that any client can look for it. So a
//!    kept task shares no parcel.
//! 2. The host stores the outcome before it reports it. If an outcome is there, the host reports that one. So all
//!    clients get the same, however often the task has run. No client removes an outcome.
//! 3. A client that opens a session claims it, reads the records, and looks for each task: on the server, and *then*
//!    among the outcomes. A task that is in neither place was lost, and is submitted again. Its attempt has the number of the second, so that
//!    it is above those of all earlier clients.
//!
//! Invariants:
//! - *A task with a confirmed record is found, until its age passes.* A cancellation removes the record, and then the
//!   task, before it succeeds.
//! - *A session has one owner.* It renews its claim three times in a lease, by comparing and setting. Without a confirmation in the last lease, it answers no
//!   host, and publishes nothing. If the session has another owner then, all its futures fail with [`SessionLost`].
//! - *Hosts go on without a client.* A host gives a kept task that it cannot run back to the server, and not to the client. A client keeps all its
//!   kept tasks on the server, and not a second's work.
//! - *Hosts decide what no client is there for.* A copy of a parcel is refused unless the task has a record and no outcome. A task
//!   that comes again, or must not run twice, claims the first free mark before it begins. A mark without
//!   its second one stands for a lost host. With too many of them, the next host stores [`PoisonTask`] or [`HostLost`] as the
//!   outcome. The first run of a task that may run again has no mark, as its report would be one message
//!   more. So that count is exact, except for one. It is not the server's count of deliveries, which a restart of the server resets.
//!
//! # Security
//! With a key, every message has an authentication code (HMAC with SHA-256). It covers the message's kind and its subject,
//! or the message that it answers. Receivers check the code before they read the message. So a party without the key can
//! neither run code on hosts nor forge results, even if it can write to the server. A function is sent as a place in a
//! table of the executable, and never as an address. Hosts check that the place is that of an entry.
//!
//! A copy of an order to run a task is refused. An order is sealed for one host. That host refuses a parcel that it has
//! had, and one whose time is more than a minute from that of the server's clock.
//!
//! A copy of an old task is refused. Its message must have the identity of the parcel, and the server refuses a second one
//! for two minutes. A host asks the client about a parcel that is older than one minute when it is published, or that it
//! has had before. A copy of an outcome finds no task.
//!
//! The age of a parcel is that of the time in it, when the server got it. Both are times of the server's clock, which the
//! client and the host read from it at each new connection, and when there is doubt. No party reads its own clock. So clocks may differ by hours. Leases,
//! and all other times, are counted by each party for itself.
//!
//! Without a key, only servers on loopback are accepted, unless [`insecure`](ClusterExecutorBuilder::insecure) says
//! otherwise. A key does not hide anything: the server sees all payloads. Use TLS (`tls://`) on networks.
//!
//! `CONCURRENT_FUTURES_TOKEN`, `CONCURRENT_FUTURES_CREDENTIALS`, `CONCURRENT_FUTURES_NKEY` and
//! `CONCURRENT_FUTURES_ROOT_CERTIFICATES` are for programs that are started as hosts. The workers of a host do not get
//! the secrets among them.
//!
//! [NATS]: https://nats.io

#![cfg(unix)]

mod access;
mod builder;
mod bus;
mod client;
mod clock;
mod environment;
mod error;
mod executor;
mod folder;
mod host;
mod log;
#[cfg(test)]
mod memory;
mod nats;
mod objects;
mod observe;
mod os;
mod payloads;
mod register;
mod roles;
mod runner;
#[cfg(test)]
mod schedules;
mod server;
mod service;
mod spans;
mod waits;
mod wire;
mod worker;

pub use builder::ClusterBuilder;
pub use bus::BusError;
pub use client::{Arrived, ClusterOptions, Sink};
pub use error::{
    ClientPanicked, ClusterError, HostLost, NoFunction, NoWorkersError, ObjectStoreError,
    PoisonTask, SessionLost,
};
pub use executor::{ClusterExecutor, ClusterExecutorBuilder, ExecutorSettings};
pub use observe::{
    ClusterObserver, ClusterObserverBuilder, ClusterView, HostDetails, HostView, LaneView,
    ObserverSettings, QueueView,
};
pub use roles::{ClusterRole, authorization, authorization_of};
pub use runner::{CallOptions, Ended, Runner, Running};
pub use wire::{Call, HostInfo, OnHostLoss};
pub use worker::{ClusterHost, ClusterHostBuilder, HostSettings, init};

/// The functions that macros of this crate call.
#[doc(hidden)]
pub mod __private {
    pub use crate::register::register;
    pub use crate::worker::init_before_main;
}
