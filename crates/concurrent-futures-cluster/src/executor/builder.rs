//! The settings that only executors have, and the making of an executor.

#![forbid(unsafe_code)]

use super::driver::ClusterDriver;
use super::embedded::{EMBEDDED, Embedded};
use super::{ClusterExecutor, ClusterOptions};
use crate::access::URL;
use crate::builder::ClusterBuilder;
use crate::bus::{BusError, Lane, PRIORITIES};
use crate::client::{Client, Settings};
use crate::error::ClusterError;
use crate::roles::CLIENT_INBOX;
use crate::service::Service;
use concurrent_futures::engine::{self, PendingLimit, PoolId};
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
    pub(super) server_program: Option<PathBuf>,
    /// Whether the embedded server comes without a host.
    pub(super) is_without_host: bool,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            priority: 1,
            max_pending: None,
            options: ClusterOptions::default(),
            most_deliveries: 3,
            wait_for_workers: Duration::from_secs(30),
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
        let service = Service::start()?;
        let options = self.role.options;
        let parts = service.run(self.connect(url));
        let (client, embedded) = parts.unwrap_or(Err(ClusterError::Server(BusError::Closed)))?;
        let driver = Arc::new(ClusterDriver {
            client: Arc::clone(&client),
            handle: service.handle().clone(),
        });
        let id = PoolId::next();
        let weak = Arc::downgrade(&driver);
        engine::add_driver(id, weak);
        Ok(ClusterExecutor {
            id,
            client,
            limit,
            options,
            callbacks: Arc::default(),
            closed: AtomicBool::new(false),
            embedded: Mutex::new(embedded),
            driver,
            service,
        })
    }

    /// Connects to the cluster, whose server and host are started before if they belong to the executor.
    async fn connect(
        mut self,
        mut url: String,
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
            },
            seal,
            wait_for_workers: self.role.wait_for_workers,
            most_deliveries: self.role.most_deliveries,
        };
        let bus = self.door.connect(&url, CLIENT_INBOX).await?;
        let client = Arc::new(Client::new(bus, settings)?);
        let (ready, is_ready) = oneshot::channel();
        let mut work = tokio::spawn(Arc::clone(&client).work(ready));
        tokio::select! {
            Ok(()) = is_ready => Ok((client, embedded)),
            ended = &mut work => match ended {
                Ok(Err(error)) => Err(ClusterError::Server(error)),
                _ => Err(ClusterError::Server(BusError::Closed)),
            }
        }
    }
}
