//! Hosts: processes that run the tasks of a queue.

#![forbid(unsafe_code)]

use crate::access::SECRETS;
use crate::builder::ClusterBuilder;
use crate::error::ClusterError;
use crate::host::{self, Settings};
use crate::os;
use crate::roles::HOST_INBOX;
use crate::runner::{Processes, Runner};
use crate::service::Service;
use crate::waits::{self, Waits};
use concurrent_futures::{ProcessPoolExecutor, ProcessPoolExecutorBuilder};
use std::env;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// The variable that makes a program a host: the address of its server.
const VARIABLE: &str = "CONCURRENT_FUTURES_WORKER";
const WORKERS: &str = "CONCURRENT_FUTURES_WORKERS";
const BY_NAME: &str = "CONCURRENT_FUTURES_BY_NAME";
const DRAIN: &str = "CONCURRENT_FUTURES_DRAIN";
/// The time that running tasks have when their host is to end.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// A host in this process: it runs the tasks of a queue, with the workers of a pool.
///
/// Dropping it drains it: see [`stop`](Self::stop).
pub struct ClusterHost {
    service: Service,
    running: Option<Serving>,
}

/// A host that runs in a service.
pub(crate) struct Serving {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ClusterError>>,
    /// None if workers cannot tell of waits.
    socket: Option<PathBuf>,
}

/// Makes a [`ClusterHost`]; see [`ClusterHost::builder`].
pub type ClusterHostBuilder = ClusterBuilder<HostSettings>;

/// The settings that only hosts have.
#[derive(Clone)]
pub struct HostSettings {
    runner: Option<Arc<dyn Runner>>,
    drain: Duration,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            runner: None,
            drain: DRAIN_TIME,
        }
    }
}

impl ClusterBuilder<HostSettings> {
    /// Sets the time that running tasks have when the host is to end. The default is 30 seconds. Tasks that take
    /// longer are ended, and run again on another host.
    pub fn drain(mut self, time: Duration) -> Self {
        self.role.drain = time;
        self
    }

    /// Runs tasks with this pool, instead of one with the default settings.
    pub fn pool(self, pool: ProcessPoolExecutor) -> Self {
        let is_by_name = self.is_by_name;
        self.runner(Arc::new(Processes::of(pool).by_name(is_by_name)))
    }

    /// Runs tasks with another kind of pool.
    pub fn runner(mut self, runner: Arc<dyn Runner>) -> Self {
        self.role.runner = Some(runner);
        self
    }

    /// Starts the host. When the call returns, the host takes tasks, and is in the list of hosts.
    ///
    /// # Errors
    /// [`ClusterError`], when the server does not answer, or the workers cannot be set up.
    pub fn start(self) -> Result<ClusterHost, ClusterError> {
        let service = Service::start()?;
        let running = service.run(self.serve());
        Ok(ClusterHost {
            running: Some(running.unwrap_or(Err(ClusterError::Server(crate::BusError::Closed)))?),
            service,
        })
    }

    /// Starts the host in the calling service.
    pub(crate) async fn serve(self) -> Result<Serving, ClusterError> {
        let url = self.door.url.clone().unwrap_or_default();
        let seal = self.door.seal(&url)?;
        let settings = Settings {
            queue: self.door.queue_name()?,
            environment: self.environment_of(&seal)?,
            machine: os::machine(),
            seal,
            drain: self.role.drain,
            objects: self.door.objects()?,
        };
        let waits = Waits::open();
        let socket = waits.as_ref().map(|waits| waits.path().to_owned());
        let runner = if let Some(runner) = self.role.runner {
            runner
        } else {
            let settings = |mut pool: ProcessPoolExecutorBuilder| {
                for name in SECRETS {
                    pool = pool.env_remove(name);
                }
                match &socket {
                    Some(socket) => pool.env(waits::SOCKET, socket),
                    None => pool.env_remove(waits::SOCKET),
                }
            };
            Arc::new(Processes::with(self.workers, settings)?.by_name(self.is_by_name))
        };
        let bus = self.door.connect(&url, HOST_INBOX).await?;
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let mut task = tokio::spawn(host::serve(
            bus,
            runner,
            settings,
            waits,
            stopped,
            Some(ready),
        ));
        tokio::select! {
            Ok(()) = is_ready => Ok(Serving { stop, task, socket }),
            ended = &mut task => match ended {
                Ok(Err(error)) => Err(error),
                _ => Err(ClusterError::Server(crate::BusError::Closed)),
            }
        }
    }
}

impl Serving {
    /// Drains the host, and waits for its end.
    pub(crate) async fn stop(self) {
        // Without a receiver, the host has ended by an error, which its task returns.
        let _ = self.stop.send(true);
        if let Ok(Err(error)) = self.task.await {
            crate::log::trouble("a host ended", &error);
        }
    }
}

impl ClusterHost {
    /// Makes a host with other settings.
    pub fn builder() -> ClusterHostBuilder {
        ClusterHostBuilder::default()
    }

    /// Returns the path of the socket on which workers tell the host that their tasks wait for others. For frontends
    /// with workers of their own.
    #[must_use]
    pub fn waits_path(&self) -> Option<&Path> {
        self.running.as_ref()?.socket.as_deref()
    }

    /// Takes no more tasks, gives those back that have not begun, waits for the others, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(running) = self.running.take() {
            // None if the thread has ended, and the host with it. Its tasks come to others when its lease ends.
            let _ = self.service.run(running.stop());
        }
    }
}

impl Drop for ClusterHost {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for ClusterHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterHost").finish_non_exhaustive()
    }
}

impl fmt::Debug for HostSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSettings")
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// Turns a process into what it was started as: a worker of a process pool, or a host of a cluster. Returns in every
/// other process.
///
/// Call it first in `main`, in place of [`concurrent_futures::init`]. A program that is started with
/// `CONCURRENT_FUTURES_WORKER=nats://HOST:PORT` is a host: it runs the tasks that other processes of the same build
/// submit. `CONCURRENT_FUTURES_QUEUE`, `CONCURRENT_FUTURES_KEY`, `CONCURRENT_FUTURES_WORKERS` (how many tasks at once)
/// and `CONCURRENT_FUTURES_DRAIN` (in seconds) are its settings, together with those of
/// [`token`](ClusterHostBuilder::token) and [`root_certificates`](ClusterHostBuilder::root_certificates). `SIGTERM` and Ctrl-C drain the host: it takes no more
/// tasks, and ends when the running ones are done. A second signal ends it at once.
///
/// # Examples
/// ```
/// concurrent_futures_cluster::init();
/// println!("neither a worker nor a host");
/// ```
pub fn init() {
    concurrent_futures::init();
    let Ok(url) = env::var(VARIABLE) else { return };
    if !url.starts_with("nats://") && !url.starts_with("tls://") {
        return;
    }
    let code = match run(url) {
        Ok(()) => 0,
        Err(error) => {
            // The process is a host and nothing else: this is the report of its end. If its output is closed, the exit
            // code still tells.
            let _ = writeln!(std::io::stderr(), "the host cannot work: {error}");
            70
        }
    };
    process::exit(code)
}

/// Runs a host until a signal comes.
fn run(url: String) -> Result<(), ClusterError> {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<usize>().ok())
    };
    let mut builder = ClusterHost::builder().url(url);
    builder.workers = number(WORKERS);
    if env::var_os(BY_NAME).is_some() {
        builder = builder.by_name();
    }
    if let Some(seconds) = number(DRAIN) {
        builder.role.drain = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
    }
    if let Some(millis) = number("CONCURRENT_FUTURES_LEASE_MS") {
        builder.door.lease = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    }
    let service = Service::start()?;
    let ended = service.run(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut pause = Duration::from_millis(50);
        let mut serving = loop {
            let served = tokio::select! {
                served = builder.clone().serve() => served,
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
            };
            match served {
                // The server may start after its hosts.
                Err(error @ (ClusterError::Connect { .. } | ClusterError::Server(_))) => {
                    crate::log::trouble("a host cannot begin its work yet", &error);
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_secs(5));
                }
                other => break other?,
            }
        };
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            // No part of it works any more.
            ended = &mut serving.task => return ended.unwrap_or_else(|error| {
                Err(ClusterError::Panicked(error.to_string()))
            }),
        }
        tokio::select! {
            () = serving.stop() => Ok(()),
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
        }
    });
    ended.unwrap_or(Err(ClusterError::Server(crate::BusError::Closed)))
}

/// Calls [`init`] for a program that has not come to `main`.
#[doc(hidden)]
pub extern "C" fn init_before_main() {
    // Before `main`, a write to a server that has ended would end the process: the engine sees to that.
    concurrent_futures::__private::init_before_main();
    init();
}

/// Calls [`init`](crate::init) before `main`: for tests, and other programs whose `main` is not yours.
///
/// Write it once in a program, at its top level.
#[macro_export]
macro_rules! init_before_main {
    () => {
        const _: () = {
            #[used]
            #[cfg_attr(
                target_vendor = "apple",
                unsafe(link_section = "__DATA,__mod_init_func")
            )]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
            static INIT: extern "C" fn() = $crate::__private::init_before_main;
        };
    };
}
