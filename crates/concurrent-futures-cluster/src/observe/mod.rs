//! The observer: shows the hosts and the queues of a server, and changes nothing there.

#![forbid(unsafe_code)]

mod text;
mod view;

pub use view::{ClusterView, HostDetails, HostView, LaneView, QueueView};

use crate::access::{URL, is_queue_name};
use crate::builder::ClusterBuilder;
use crate::bus::BusError;
use crate::bus::kept::kept_of;
use crate::error::ClusterError;
use crate::log;
use crate::nats::{Nats, QueueLook};
use crate::roles::OBSERVER_INBOX;
use crate::service::Service;
use crate::wire::{HostInfo, Kind, Seal};
use std::collections::HashMap;
use std::env;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time for which the kept tasks of a queue are not looked at after a refusal.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// Makes a [`ClusterObserver`]; see [`ClusterObserver::builder`].
pub type ClusterObserverBuilder = ClusterBuilder<ObserverSettings>;

/// The settings that only observers have.
#[derive(Clone, Debug, Default)]
pub struct ObserverSettings {}

/// Looks at the queues and the hosts of a server: the part behind `concurrent-futures top`.
///
/// A look reads the state of streams and the registry of hosts. The role
/// [`ClusterRole::Observer`](crate::ClusterRole::Observer) is enough for that. Without the key of a queue, its hosts are
/// counted, and their details are not known.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterObserver;
///
/// let observer = ClusterObserver::builder().url("nats://127.0.0.1:4222").build()?;
/// for queue in observer.look()?.queues {
///     println!("{}: {} tasks wait, {} hosts", queue.name, queue.waiting, queue.hosts.len());
/// }
/// # Ok::<(), concurrent_futures_cluster::ClusterError>(())
/// ```
pub struct ClusterObserver {
    service: Service,
    nats: Arc<Nats>,
    seal: Seal,
    /// The queue; none for all queues.
    queue: Option<String>,
    /// When the server has refused a look at the kept tasks of the queue.
    kept_refused: Arc<Mutex<Option<Instant>>>,
    url: String,
    /// The numbers of the last look, by queue.
    before: Mutex<HashMap<String, Before>>,
}

/// The numbers of a queue at a moment.
#[derive(Clone, Copy)]
struct Before {
    at: Instant,
    published: u64,
    done: u64,
}

impl ClusterBuilder<ObserverSettings> {
    /// Connects to the server. Without a queue, the observer shows all queues. The tasks of a queue's sessions are a
    /// queue of their own, whose name ends with `+kept`.
    ///
    /// # Errors
    /// [`ClusterError`], when the server does not answer, or a setting makes no sense.
    pub fn build(mut self) -> Result<ClusterObserver, ClusterError> {
        let given = self.door.url.take().or_else(|| env::var(URL).ok());
        let url = given.ok_or_else(|| ClusterError::Address(String::new()))?;
        let queue = match &self.door.queue {
            Some(name) if !is_queue_name(name) => {
                return Err(ClusterError::QueueName(name.clone()));
            }
            name => name.clone(),
        };
        // A look is no task: another machine needs no key.
        let seal = Seal::new(self.door.key().as_deref());
        let service = Service::start()?;
        let (door, address) = (self.door, url.clone());
        let connecting = async move { door.connect_nats(&address, OBSERVER_INBOX).await };
        let nats = service.run(connecting);
        let nats = nats.unwrap_or(Err(ClusterError::Server(BusError::Closed)))?;
        Ok(ClusterObserver {
            service,
            nats: Arc::new(nats),
            seal,
            queue,
            kept_refused: Arc::default(),
            url: crate::access::without_secrets(&url),
            before: Mutex::default(),
        })
    }
}

impl ClusterObserver {
    /// Makes an observer with other settings.
    pub fn builder() -> ClusterObserverBuilder {
        ClusterObserverBuilder::default()
    }

    /// Returns the state of the server. From the second look on, queues have rates: those since the look before.
    ///
    /// # Errors
    /// [`BusError`], when the server does not answer, or refuses the look.
    pub fn look(&self) -> Result<ClusterView, BusError> {
        let (nats, queue) = (Arc::clone(&self.nats), self.queue.clone());
        let kept_refused = Arc::clone(&self.kept_refused);
        let looks = self.service.run(async move {
            let names = match &queue {
                Some(queue) => vec![queue.clone()],
                None => nats.queues().await?,
            };
            let mut looks = Vec::new();
            for name in names {
                let look = nats.look(&name).await?;
                looks.push((name, look));
            }
            if let Some(queue) = queue {
                looks.extend(look_at_kept(&nats, &queue, &kept_refused).await);
            }
            Ok((nats.version(), looks))
        });
        let (version, looks) = looks.unwrap_or(Err(BusError::Closed))?;
        let queues = looks.into_iter().map(|(name, look)| self.view(name, look));
        Ok(ClusterView {
            server: self.url.clone(),
            server_version: version,
            queues: queues.collect(),
        })
    }

    /// Returns the view of a queue.
    fn view(&self, name: String, look: QueueLook) -> QueueView {
        let done = look.published.saturating_sub(look.tasks);
        let now = Before {
            at: Instant::now(),
            published: look.published,
            done,
        };
        let before = {
            let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            before.insert(name.clone(), now)
        };
        // A stream that was made anew counts from 1.
        let before = before.filter(|before| before.published <= now.published);
        let rate = |number: u64, before_number: fn(&Before) -> u64| {
            let before = before.as_ref()?;
            let seconds = now.at.duration_since(before.at).as_secs_f64();
            let difference = number.saturating_sub(before_number(before));
            (seconds > 0.0).then(|| as_float(difference) / seconds)
        };
        let lanes: Vec<LaneView> = look
            .lanes
            .into_iter()
            .map(|((environment, priority), lane)| LaneView {
                environment,
                priority,
                waiting: lane.tasks.saturating_sub(lane.held),
                held: lane.held,
                redelivered: lane.redelivered,
            })
            .collect();
        let hosts = look.hosts.iter();
        let hosts = hosts.map(|(entry, content)| self.host(&name, entry, content));
        QueueView {
            waiting: lanes.iter().map(|lane| lane.waiting).sum(),
            held: lanes.iter().map(|lane| lane.held).sum(),
            redelivered: lanes.iter().map(|lane| lane.redelivered).sum(),
            published: now.published,
            done,
            published_rate: rate(now.published, |before| before.published),
            done_rate: rate(done, |before| before.done),
            outcomes: look.outcomes,
            payload_bytes: look.payload_bytes,
            hosts: hosts.collect(),
            lanes,
            name,
        }
    }

    /// Returns the view of a host, whose entry in the registry has the name of its environment and its number.
    fn host(&self, queue: &str, entry: &str, content: &[u8]) -> HostView {
        let environment = entry.rsplit_once('.').map_or(entry, |(name, _)| name);
        let opened = self
            .seal
            .open::<HostInfo>(Kind::Host, queue.as_bytes(), content);
        // Without a key, an entry of another key may look like one without.
        let info = opened
            .ok()
            .filter(|info| info.queue == queue && info.environment == environment);
        HostView {
            environment: environment.to_owned(),
            details: info.map(HostDetails::of),
        }
    }
}

/// Looks at the part of a queue that has kept sessions; none if it has none.
async fn look_at_kept(
    nats: &Nats,
    queue: &str,
    refused: &Mutex<Option<Instant>>,
) -> Option<(String, QueueLook)> {
    let lock = || refused.lock().unwrap_or_else(PoisonError::into_inner);
    // A server whose roles are older than sessions lets each question run out of time.
    if lock().is_some_and(|since| since.elapsed() < AFTER_REFUSAL) {
        return None;
    }
    let name = kept_of(queue);
    match nats.look(&name).await {
        Ok(found) => found.is_there.then_some((name, found)),
        Err(error) => {
            log::trouble("the tasks of sessions cannot be looked at", &error);
            *lock() = Some(Instant::now());
            None
        }
    }
}

/// Returns a number for a rate.
#[allow(clippy::cast_precision_loss, reason = "a rate is not exact")]
fn as_float(number: u64) -> f64 {
    number as f64
}

impl fmt::Debug for ClusterObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterObserver")
            .field("url", &self.url)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
