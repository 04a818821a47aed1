//! The settings that only executors have, and the making of an executor.

#![forbid(unsafe_code)]

use super::driver::ClusterDriver;
use super::embedded::{EMBEDDED, Embedded};
use super::families::Families;
use super::{ClusterExecutor, ClusterOptions};
use crate::access::URL;
use crate::builder::ClusterBuilder;
use crate::bus::{BusError, Lane, PRIORITIES};
use crate::client::{Client, KeptSettings, Settings};
use crate::error::ClusterError;
use crate::roles::CLIENT_INBOX;
use crate::service::Service;
use crate::wire::{hex, random};
use concurrent_futures::engine::{self, PendingLimit, PoolId, RemotePool};
use std::env;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Makes a [`ClusterExecutor`]; see [`ClusterExecutor::builder`].
pub type ClusterExecutorBuilder = ClusterBuilder<ExecutorSettings>;

/// The settings that only executors have.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    priority: u8,
    max_pending: Option<usize>,
    options: ClusterOptions,
    most_deliveries: u32,
    wait_for_workers: Duration,
    session: Option<String>,
    keep: Option<Duration>,
    replicas: usize,
    /// Whether the session must have tasks.
    is_attached: bool,
    pub(super) server_program: Option<PathBuf>,
    /// Whether the embedded server comes without a host.
    pub(super) is_without_host: bool,
}

/// The time for which the server keeps tasks and outcomes, unless [`keep`](ClusterExecutorBuilder::keep) sets it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            priority: 1,
            max_pending: None,
            options: ClusterOptions::default(),
            most_deliveries: 3,
            wait_for_workers: Duration::from_secs(30),
            session: None,
            keep: None,
            replicas: 1,
            is_attached: false,
            server_program: None,
            is_without_host: false,
        }
    }
}

impl ClusterBuilder<ExecutorSettings> {
    /// Sets the priority of the tasks: 0, 1 (the default) or 2. Hosts start no task while one of a
    /// higher priority waits on the server.
    pub fn priority(mut self, priority: u8) -> Self {
        self.role.priority = priority;
        self
    }

    /// Limits the number of pending tasks: those that no host is known to have begun. A call of `submit` that finds no
    /// room waits until a host begins a task; [`try_submit`](ClusterExecutor::try_submit) returns an error.
    ///
    /// Without a limit, the tasks of a program that submits faster than hosts work fill its memory.
    pub fn max_pending(mut self, max_pending: usize) -> Self {
        self.role.max_pending = Some(max_pending);
        self
    }

    /// Sets the options of tasks.
    pub fn task_options(mut self, options: ClusterOptions) -> Self {
        self.role.options = options;
        self
    }

    /// Sets how many hosts may be lost while they run a task, before the task fails with
    /// [`PoisonTask`](crate::PoisonTask). The default is 3.
    pub fn most_deliveries(mut self, number: u32) -> Self {
        self.role.most_deliveries = number.max(1);
        self
    }

    /// Sets how long tasks wait for a first host. Then they fail with [`NoWorkersError`](crate::NoWorkersError). The
    /// default is 30 seconds.
    pub fn wait_for_workers(mut self, time: Duration) -> Self {
        self.role.wait_for_workers = time;
        self
    }

    /// Lets tasks outlive the program: they belong to a session of this name in the queue, and are on the server's disk.
    /// [`attach`](ClusterExecutor::attach) finds them later, and all outcomes.
    ///
    /// If the session has tasks of an earlier executor, this one takes them over. A session has one executor at a time.
    /// A program that ends without [`flush`](ClusterExecutor::flush), or a drop of the executor, may lose its last
    /// tasks. Each item of a [`map`](ClusterExecutor::map) is a task then.
    ///
    /// # Examples
    /// ```no_run
    /// use concurrent_futures_cluster::ClusterExecutor;
    /// use std::time::Duration;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     concurrent_futures_cluster::init(); // hosts and worker processes begin here
    ///
    ///     let builder = ClusterExecutor::builder().url("nats://127.0.0.1:4222");
    ///     let cluster = builder.session("tonight").build()?;
    ///     for n in 0..100 {
    ///         drop(cluster.submit(|n: u64| n * n, n)?); // its future is for a later program
    ///     }
    ///     assert!(cluster.flush(Duration::from_secs(60))); // from now on, this program is not needed
    ///     std::process::exit(0)
    /// }
    /// ```
    pub fn session(mut self, name: impl Into<String>) -> Self {
        self.role.session = Some(name.into());
        self
    }

    /// Sets the time for which the server keeps a task after its submission, and an outcome after its arrival. It is
    /// counted in seconds. The default is a day. Without a [`session`](Self::session), the executor makes one with a random name.
    pub fn keep(mut self, time: Duration) -> Self {
        self.role.keep = Some(time);
        self
    }

    /// Sets on how many nodes of the server each task and outcome of a session is. The default is 1. The first executor
    /// of a queue with a session decides.
    pub fn replicas(mut self, number: usize) -> Self {
        self.role.replicas = number.max(1);
        self
    }

    /// Attaches to a [`session`](Self::session) that an earlier program has left.
    ///
    /// # Errors
    /// [`ClusterError::UnknownSession`], when the session has no task. [`ClusterError::SessionInUse`], when another
    /// program has it. Else as for [`build`](Self::build).
    pub fn attach(mut self, session: impl Into<String>) -> Result<ClusterExecutor, ClusterError> {
        self.role.is_attached = true;
        self.session(session).build()
    }

    /// Returns the settings of the session, if there is one.
    fn kept(&self) -> Result<Option<KeptSettings>, ClusterError> {
        let settings = &self.role;
        let name = match &settings.session {
            Some(name) if name.is_empty() => return Err(ClusterError::SessionName),
            Some(name) => name.clone(),
            None if settings.keep.is_some() => hex(&random::<8>()?),
            None => return Ok(None),
        };
        Ok(Some(KeptSettings {
            name,
            age: settings.keep.unwrap_or(DAY),
            replicas: settings.replicas,
        }))
    }

    /// Sets the program of the embedded server. The default is `CONCURRENT_FUTURES_NATS_SERVER`, or else `nats-server`
    /// from `PATH` or the active environment of Python.
    pub fn server_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.role.server_program = Some(path.into());
        self
    }

    /// Starts the embedded server without a host. For frontends whose hosts are other programs; see
    /// [`embedded_server`](ClusterExecutor::embedded_server).
    pub fn without_host(mut self) -> Self {
        self.role.is_without_host = true;
        self
    }

    /// Connects to the cluster.
    ///
    /// # Errors
    /// [`ClusterError`], when the server does not answer, or a setting makes no sense.
    pub fn build(mut self) -> Result<ClusterExecutor, ClusterError> {
        if self.role.priority >= PRIORITIES {
            return Err(ClusterError::Priority(self.role.priority));
        }
        let limit = PendingLimit::bound(self.role.max_pending);
        let limit = limit.map_err(|_| ClusterError::ZeroPending)?;
        self.door.queue_name()?;
        let given = self.door.url.take().or_else(|| env::var(URL).ok());
        let url = given.unwrap_or_else(|| String::from(EMBEDDED));
        let kept = self.kept()?;
        if kept.is_some() && url == EMBEDDED {
            return Err(ClusterError::SessionEmbedded);
        }
        let service = Service::start()?;
        let options = self.role.options;
        let parts = service.run(self.connect(url, kept));
        let (client, embedded) = parts.unwrap_or(Err(ClusterError::Server(BusError::Closed)))?;
        let driver = Arc::new(ClusterDriver {
            client: Arc::clone(&client),
            handle: service.handle().clone(),
        });
        let id = PoolId::next();
        let weak = Arc::downgrade(&driver);
        engine::add_driver(id, weak);
        let callbacks = Arc::default();
        let recorded = Arc::new(RemotePool::new("ClusterExecutor"));
        Ok(ClusterExecutor {
            id,
            client,
            limit,
            options,
            families: Families::new(Arc::clone(&callbacks), Arc::clone(&recorded)),
            callbacks,
            recorded,
            closed: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            embedded: Mutex::new(embedded),
            driver,
            service,
        })
    }

    /// Connects to the cluster, whose server and host are started before if they belong to the executor.
    async fn connect(
        mut self,
        mut url: String,
        kept: Option<KeptSettings>,
    ) -> Result<(Arc<Client>, Option<Embedded>), ClusterError> {
        let mut embedded = None;
        if url == EMBEDDED {
            let started = Embedded::start(&mut self).await?;
            url.clone_from(&embedded.insert(started).server.url);
        }
        let seal = self.door.seal(&url)?;
        let settings = Settings {
            lane: Lane {
                queue: self.door.queue_name()?,
                environment: self.environment_of(&seal)?,
                priority: self.role.priority,
                rank: 0,
            },
            seal,
            wait_for_workers: self.role.wait_for_workers,
            most_deliveries: self.role.most_deliveries,
            kept,
            objects: self.door.objects()?,
        };
        let bus = self.door.connect(&url, CLIENT_INBOX).await?;
        let client = Arc::new(Client::new(bus, settings)?);
        client.claim_session().await?;
        let (ready, is_ready) = oneshot::channel();
        let mut work = tokio::spawn(Arc::clone(&client).work(ready));
        tokio::select! {
            Ok(()) = is_ready => {}
            ended = &mut work => return match ended {
                Ok(Err(error)) => Err(ClusterError::Server(error)),
                _ => Err(ClusterError::Server(BusError::Closed)),
            }
        }
        // From now on, hosts are answered.
        client.open_session(self.role.is_attached).await?;
        Ok((client, embedded))
    }
}
