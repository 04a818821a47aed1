//! The views that an observer returns.

#![forbid(unsafe_code)]

use crate::wire::HostInfo;
use serde::Serialize;

/// The state of a server at a moment. `{}` shows it as a table.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// let view = observer.look()?;
/// println!("{view}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ClusterView {
    /// The address of the server.
    pub server: String,
    /// The version of the server.
    pub server_version: String,
    /// The queues, by their names.
    pub queues: Vec<QueueView>,
}

/// The state of a queue. The server counts parcels of tasks: short tasks of a burst share one.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// for queue in observer.look()?.queues {
///     println!("{}: {} parcels wait, {} are at hosts", queue.name, queue.waiting, queue.held);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueView {
    /// The name of the queue.
    pub name: String,
    /// The tasks on the server that no host has: the depth of the queue.
    pub waiting: u64,
    /// The tasks that hosts have.
    pub held: u64,
    /// Those among them that were delivered before: to a host that was lost, say.
    pub redelivered: u64,
    /// The tasks that clients have ever sent, repetitions included, since the stream was made.
    pub published: u64,
    /// Those that have left the server: done, given back, or cancelled.
    pub done: u64,
    /// The tasks that were sent in a second; none at the first look.
    pub published_rate: Option<f64>,
    /// The tasks that have left the server in a second; none at the first look.
    pub done_rate: Option<f64>,
    /// The outcomes that wait for their clients.
    pub outcomes: u64,
    /// The bytes of long arguments and results on the server.
    pub payload_bytes: u64,
    /// The parts of the queue, by environment and priority.
    pub lanes: Vec<LaneView>,
    /// The hosts.
    pub hosts: Vec<HostView>,
}

/// The tasks of one environment and one priority.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// for lane in observer.look()?.queues.iter().flat_map(|queue| &queue.lanes) {
///     println!("{}, priority {}: {} parcels wait", lane.environment, lane.priority, lane.waiting);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LaneView {
    /// The environment.
    pub environment: String,
    /// The priority.
    pub priority: u8,
    /// The tasks that no host has.
    pub waiting: u64,
    /// The tasks that hosts have.
    pub held: u64,
    /// Those among them that were delivered before.
    pub redelivered: u64,
}

/// A host in the registry.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// for host in observer.look()?.queues.iter().flat_map(|queue| &queue.hosts) {
///     println!("{}: key known: {}", host.environment, host.details.is_some());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HostView {
    /// The environment whose tasks the host runs.
    pub environment: String,
    /// The host's own words about itself; none if the host has another key than the observer.
    pub details: Option<HostDetails>,
}

/// The state of a host, as the host itself has written it a third of a lease ago at most.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// let view = observer.look()?;
/// for host in view.queues.iter().flat_map(|queue| &queue.hosts) {
///     if let Some(details) = &host.details {
///         println!("{}: {} of {} workers run", details.machine, details.running, details.workers);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HostDetails {
    /// The name of the machine.
    pub machine: String,
    /// The process id of the host.
    pub pid: u32,
    /// The number of tasks that the host runs at once.
    pub workers: u32,
    /// The number of tasks that run.
    pub running: u32,
    /// The number of tasks that have ended, failed ones included.
    pub ended: u64,
    /// The number of tasks that have failed: by an error of the call, the death of a worker, or a time limit.
    pub failed: u64,
    /// The number of tasks that the host has given back.
    pub returned: u64,
    /// The average seconds of recent tasks; none until one has ended.
    pub seconds: Option<f64>,
}

impl HostDetails {
    pub(super) fn of(info: HostInfo) -> Self {
        let figures = info.figures;
        Self {
            machine: info.machine,
            pid: info.pid,
            workers: info.workers,
            running: figures.running,
            ended: figures.ended,
            failed: figures.failed,
            returned: figures.returned,
            seconds: figures.pace.map(|pace| pace.as_secs_f64()),
        }
    }
}

impl ClusterView {
    /// Returns the view as a line of JSON, whose members are those of the structs.
    ///
    /// # Examples
    /// ```no_run
    /// use concurrent_futures_cluster::ClusterObserver;
    ///
    /// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
    /// println!("{}", observer.look()?.to_json());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}
