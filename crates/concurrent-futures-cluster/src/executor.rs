//! The handle of a cluster, and its builder.

#![forbid(unsafe_code)]

use crate::access::{Door, URL};
use crate::bus::{BusError, Lane, PRIORITIES};
use crate::client::{Arrived, Client, ClusterOptions, Request, Settings, Sink};
use crate::environment;
use crate::error::ClusterError;
use crate::jobs::Jobs;
use crate::server::Server;
use crate::service::{Service, run_on};
use crate::wire::{Call, HostInfo, hex, random};
use crate::worker::{ClusterHostBuilder, Serving};
use concurrent_futures::engine::{
    self, Driver, MapParts, PoolId, RemoteFunction, RemoteOutcome, Unsent, map_chunks, map_single,
    number_of, promise_in,
};
use concurrent_futures::{
    Executor, Function, Future, FutureId, Map, MapOptions, Promise, Shutdown, SubmitError, Value,
};
use std::borrow::Cow;
use std::env;
use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The address that stands for a server and a host of this process.
const EMBEDDED: &str = "embedded";
/// The longest time that a cancellation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of tasks that `map` makes at least of many items, and the most items of a task.
const SPANS: usize = 64;
const LONGEST_SPAN: usize = 1024;

/// Makes a [`ClusterExecutor`]; see [`ClusterExecutor::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClusterExecutorBuilder {
    door: Door,
    priority: u8,
    options: ClusterOptions,
    most_deliveries: u32,
    wait_for_workers: Duration,
    workers: Option<usize>,
    environment: Option<String>,
    server_program: Option<PathBuf>,
}

impl Default for ClusterExecutorBuilder {
    fn default() -> Self {
        Self {
            door: Door::default(),
            priority: 1,
            options: ClusterOptions::default(),
            most_deliveries: 3,
            wait_for_workers: Duration::from_secs(30),
            workers: None,
            environment: None,
            server_program: None,
        }
    }
}

impl ClusterExecutorBuilder {
    /// Sets the address of the server, such as `nats://127.0.0.1:4222`, or `embedded`. The default is
    /// `CONCURRENT_FUTURES_URL`, or else `embedded`: a server and a host that belong to the executor.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.door.url = Some(url.into());
        self
    }

    /// Sets the queue. The default is `CONCURRENT_FUTURES_QUEUE`, or else `default`.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.door.queue = Some(name.into());
        self
    }

    /// Sets the key of the queue, by which clients and hosts authenticate tasks and results. The default is
    /// `CONCURRENT_FUTURES_KEY`.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.door.key = Some(key.into());
        self
    }

    /// Accepts a server on another machine without a key: who can write to the server can forge results.
    pub fn insecure(mut self) -> Self {
        self.door.insecure = true;
        self
    }

    /// Sets the token with which the client logs in to the server.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.door.token(token.into());
        self
    }

    /// Sets the file with the credentials with which the client logs in to the server.
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.door.credentials(path.into());
        self
    }

    /// Sets the seed of the `NKey` with which the client logs in to the server.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.door.nkey(seed.into());
        self
    }

    /// Sets the file with the certificates that the server's certificate is checked by.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.door.root_certificates(path.into());
        self
    }

    /// Sets a tag that clients and hosts must have in common, besides the build.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.door.tag = tag.into();
        self
    }

    /// Sets the priority of the tasks: 0, 1 (the default) or 2. Hosts start tasks of a higher priority first.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the options of tasks.
    pub fn task_options(mut self, options: ClusterOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets how many hosts may be lost while they run a task, before the task fails with
    /// [`PoisonTask`](crate::PoisonTask). The default is 3.
    pub fn most_deliveries(mut self, number: u32) -> Self {
        self.most_deliveries = number.max(1);
        self
    }

    /// Sets how long tasks wait for a first host. Then they fail with [`NoWorkersError`](crate::NoWorkersError). The
    /// default is 30 seconds.
    pub fn wait_for_workers(mut self, time: Duration) -> Self {
        self.wait_for_workers = time;
        self
    }

    /// Sets the time for which a task is a host's own after the host's last sign. The default is 15 seconds. When it
    /// passes, another host gets the task. All clients and hosts of a queue must have the same.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.door.lease = lease;
        self
    }

    /// Sets how many tasks the embedded host runs at once. The default is the number of CPUs that the process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the program of the embedded server. The default is `CONCURRENT_FUTURES_NATS_SERVER`, or else `nats-server`
    /// from `PATH` or the active environment of Python.
    pub fn server_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.server_program = Some(path.into());
        self
    }

    /// Sets the environment of the tasks, a part of a subject. It is for tasks of other frontends, which need other
    /// things of a host than the build of this program.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Connects to the cluster.
    ///
    /// # Errors
    /// [`ClusterError`], when the server does not answer, or a setting makes no sense.
    pub fn build(mut self) -> Result<ClusterExecutor, ClusterError> {
        let given = self.door.url.take().or_else(|| env::var(URL).ok());
        let url = given.unwrap_or_else(|| String::from(EMBEDDED));
        if self.priority >= PRIORITIES {
            return Err(ClusterError::Priority(self.priority));
        }
        let queue = self.door.queue_name()?;
        let service = Service::start()?;
        let options = self.options;
        let parts = service.run(async move {
            let embedded = if url == EMBEDDED {
                Some(self.embed().await?)
            } else {
                None
            };
            let url = match &embedded {
                Some(embedded) => embedded.server.url.clone(),
                None => url,
            };
            let seal = self.door.seal(&url)?;
            let settings = Settings {
                lane: Lane {
                    queue,
                    environment: match self.environment {
                        Some(environment) => environment,
                        None => environment::of_this_program(&self.door.tag, &seal)?,
                    },
                    priority: self.priority,
                },
                seal,
                wait_for_workers: self.wait_for_workers,
                most_deliveries: self.most_deliveries,
            };
            let bus = self.door.connect(&url).await?;
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
        });
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
            options,
            jobs: Arc::new(Jobs::start()?),
            closed: AtomicBool::new(false),
            embedded: Mutex::new(embedded),
            driver,
            service,
        })
    }

    /// Starts a server and a host for this executor alone.
    async fn embed(&mut self) -> Result<Embedded, ClusterError> {
        let server = Server::start(self.server_program.take()).await?;
        self.door.token(server.token.clone());
        if self.door.key.is_none() {
            self.door.key = Some(hex(&random::<32>()?).into_bytes());
        }
        let mut door = self.door.clone();
        door.url = Some(server.url.clone());
        let host = ClusterHostBuilder {
            door,
            workers: self.workers,
            // Its tasks are those of the executor, which waits for them.
            drain: Duration::ZERO,
            ..ClusterHostBuilder::default()
        };
        Ok(Embedded {
            host: host.serve().await?,
            server,
        })
    }
}

impl fmt::Debug for ClusterExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterExecutorBuilder")
            .finish_non_exhaustive()
    }
}

/// The server and the host of an executor.
struct Embedded {
    host: Serving,
    server: Server,
}

/// An executor whose workers are on other machines, behind a NATS server with `JetStream`.
///
/// A task is a function, or a closure that captures nothing, and its argument, as for a
/// [`ProcessPoolExecutor`](concurrent_futures::ProcessPoolExecutor). Hosts run the same build of the program; see
/// [`init`](crate::init). Its futures are those of the other executors, and mix with them in
/// [`wait`](concurrent_futures::wait) and [`as_completed`](concurrent_futures::as_completed).
///
/// A task runs at least once, and its future gets one outcome: the first that arrives. Dropping the executor waits for
/// its tasks.
///
/// # Examples
/// ```no_run
/// use concurrent_futures_cluster::ClusterExecutor;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     concurrent_futures_cluster::init(); // hosts and worker processes begin here
///
///     let cluster = ClusterExecutor::builder().url("embedded").build()?;
///     let squares = cluster.map(|n: u64| n * n, 1..=3)?;
///     assert_eq!(squares.collect::<Result<Vec<_>, _>>()?, [1, 4, 9]);
///     Ok(())
/// }
/// ```
pub struct ClusterExecutor {
    id: PoolId,
    client: Arc<Client>,
    options: ClusterOptions,
    jobs: Arc<Jobs>,
    closed: AtomicBool,
    embedded: Mutex<Option<Embedded>>,
    /// The engine has a weak reference.
    driver: Arc<ClusterDriver>,
    service: Service,
}

impl ClusterExecutor {
    /// Makes an executor with other settings.
    pub fn builder() -> ClusterExecutorBuilder {
        ClusterExecutorBuilder::default()
    }

    /// Submits the call `f(argument)`, and returns its future at once.
    ///
    /// An argument that does not serialise fails the future with [`TaskError::Transfer`](concurrent_futures::TaskError::Transfer).
    ///
    /// # Safety
    /// A captured value without size must not be a token, as for
    /// [`ProcessPoolExecutor`](concurrent_futures::ProcessPoolExecutor#safety-values-without-size).
    ///
    /// # Errors
    /// [`SubmitError::Shutdown`], when the executor was shut down.
    pub fn submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        self.submit_with(self.options, f, argument)
    }

    /// Submits a call as [`submit`](Self::submit) does, with options of its own.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_with<F, A, T>(
        &self,
        options: ClusterOptions,
        f: F,
        argument: A,
    ) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        self.submit_call(options, RemoteFunction::plain(f), argument)
    }

    /// Submits a call whose `Err` becomes the future's [`TaskError::Failed`](concurrent_futures::TaskError::Failed), with its text and those of its sources;
    /// see [`RemoteError`](concurrent_futures::RemoteError).
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_fallible<F, A, T, E>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> Result<T, E> + Function,
        A: Value,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_call(self.options, RemoteFunction::fallible(f), argument)
    }

    /// Submits a call for each item at once, and returns an iterator over their results in the order of the items. Use
    /// [`std::iter::zip`] for several iterables.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    pub fn map<F, I, T>(&self, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        self.map_with(MapOptions::new(), f, items)
    }

    /// Submits calls as [`map`](Self::map) does, with a time limit or a number of items a task. Without such a number, up
    /// to 64 items are a task each, and more are grouped into at least 64 tasks.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit); nothing is left pending then.
    pub fn map_with<F, I, T>(
        &self,
        options: MapOptions,
        f: F,
        items: I,
    ) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        let MapParts { timeout, chunksize } = options.into();
        let items = items.into_iter();
        let chunksize = chunksize.unwrap_or_else(|| {
            let length = (items.size_hint().0 / SPANS).min(LONGEST_SPAN);
            NonZeroUsize::new(length).unwrap_or(NonZeroUsize::MIN)
        });
        if chunksize.get() > 1 {
            let call = RemoteFunction::chunk(f);
            return map_chunks(timeout, chunksize, items, |chunk| {
                self.submit_call(self.options, call, chunk)
            });
        }
        let call = RemoteFunction::plain(f);
        map_single(timeout, items, |item| {
            self.submit_call(self.options, call, item)
        })
    }

    /// Refuses tasks from now on; `how` decides whether pending tasks run, and whether the call waits.
    ///
    /// Called by one of the executor's own callbacks, it does not wait.
    pub fn shutdown(&self, how: Shutdown) {
        self.closed.store(true, Ordering::SeqCst);
        let (waits, cancels) = match how {
            Shutdown::Wait => (true, false),
            Shutdown::NoWait => (false, false),
            Shutdown::CancelPending => (true, true),
            Shutdown::CancelPendingNoWait => (false, true),
        };
        if cancels {
            let cancelling = Arc::clone(&self.client).cancel_all();
            if waits {
                // None if the thread has ended.
                let sinks = self.service.run(cancelling).unwrap_or_default();
                for sink in sinks {
                    sink.cancel();
                }
            } else {
                let jobs = Arc::clone(&self.jobs);
                self.service.handle().spawn(async move {
                    for sink in cancelling.await {
                        jobs.run(Box::new(move || sink.cancel()));
                    }
                });
            }
        }
        if waits && !self.jobs.is_current() {
            self.client.wait_until_idle();
            self.jobs.finish();
            let embedded = self
                .embedded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(Embedded { host, server }) = embedded {
                let _ = self.service.run(host.stop());
                drop(server);
            }
        }
    }

    /// Returns the hosts of the queue, those with other environments included.
    ///
    /// # Errors
    /// [`BusError`], when the server does not answer.
    pub fn hosts(&self) -> Result<Vec<HostInfo>, BusError> {
        let client = Arc::clone(&self.client);
        let hosts = self.service.run(async move { client.hosts().await });
        hosts.unwrap_or(Err(BusError::Closed))
    }

    /// Waits until a host takes tasks of this executor, up to `limit`. Returns whether there is one.
    ///
    /// # Errors
    /// [`BusError`], when the server does not answer.
    pub fn wait_for_host(&self, limit: Duration) -> Result<bool, BusError> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let environment = &self.client.lane().environment;
            if self
                .hosts()?
                .iter()
                .any(|host| host.environment() == environment)
            {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the address and the token of the embedded server, for further hosts of this machine.
    #[must_use]
    pub fn embedded_server(&self) -> Option<(String, String)> {
        let embedded = self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
        embedded
            .as_ref()
            .map(|embedded| (embedded.server.url.clone(), embedded.server.token.clone()))
    }

    /// Submits a call of another frontend, as bytes, for which `sink` stands for the future. No other call of the
    /// executor has the number.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_bytes(
        &self,
        number: u64,
        call: Call,
        argument: Vec<u8>,
        options: ClusterOptions,
        sink: Box<dyn Sink>,
    ) -> Result<(), SubmitError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SubmitError::Shutdown);
        }
        let request = Request {
            call,
            argument: argument.into(),
            options,
        };
        self.client.submit(number, request, sink);
        Ok(())
    }

    /// Cancels a call of [`submit_bytes`](Self::submit_bytes) that no host has begun. Returns whether it was cancelled.
    pub fn cancel_bytes(&self, number: u64) -> bool {
        self.driver.cancel_number(number)
    }

    /// Ends a call of [`submit_bytes`](Self::submit_bytes) that runs. Returns whether it will end.
    pub fn terminate_bytes(&self, number: u64) -> bool {
        self.driver.terminate_number(number)
    }

    fn submit_call<A: Value, T: Send + 'static>(
        &self,
        options: ClusterOptions,
        function: RemoteFunction<A, T>,
        argument: A,
    ) -> Result<Future<T>, SubmitError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SubmitError::Shutdown);
        }
        let (promise, future) = promise_in(self.id);
        match function.send(argument) {
            Ok((entry, bytes)) => {
                let request = Request {
                    call: Call::Entry(entry),
                    argument: bytes.into(),
                    options,
                };
                let sink = RustSink {
                    promise,
                    function,
                    jobs: Arc::clone(&self.jobs),
                };
                self.client
                    .submit(number_of(future.id()), request, Box::new(sink));
            }
            // The handle is here, so that there are no callbacks yet.
            Err(Unsent(error)) => {
                if let Some(rest) = engine::complete(promise, Err(error)) {
                    rest();
                }
            }
        }
        Ok(future)
    }
}

impl Executor for ClusterExecutor {
    fn submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        self.submit(f, argument)
    }

    fn submit_fallible<F, A, T, E>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> Result<T, E> + Function,
        A: Value,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.submit_fallible(f, argument)
    }

    fn map_with<F, I, T>(&self, options: MapOptions, f: F, items: I) -> Result<Map<T>, SubmitError>
    where
        F: Fn(I::Item) -> T + Function,
        I: IntoIterator<Item: Value>,
        T: Value,
    {
        self.map_with(options, f, items)
    }

    fn shutdown(&self, how: Shutdown) {
        self.shutdown(how);
    }
}

impl Drop for ClusterExecutor {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Wait);
        engine::remove_driver(self.id);
    }
}

impl fmt::Debug for ClusterExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterExecutor")
            .field("client", &self.client)
            .field("unfinished", &self.client.unfinished())
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

/// The future of a Rust program.
struct RustSink<A, T> {
    promise: Promise<T>,
    function: RemoteFunction<A, T>,
    jobs: Arc<Jobs>,
}

impl<A: Value, T: Send + 'static> Sink for RustSink<A, T> {
    fn start(&self) -> bool {
        self.promise.set_running_or_notify_cancel()
    }

    fn cancel(self: Box<Self>) {
        engine::give_back(&self.promise);
        engine::cancel(&self.promise);
    }

    fn complete(self: Box<Self>, arrived: Arrived) {
        let Self {
            promise,
            function,
            jobs,
        } = *self;
        let outcome = move || match &arrived {
            Arrived::Value(bytes) => function.receive(RemoteOutcome::Value(Cow::Borrowed(bytes))),
            Arrived::Failure(bytes) => {
                function.receive(RemoteOutcome::Failure(Cow::Borrowed(bytes)))
            }
            Arrived::Error(error) => Err(error.clone()),
        };
        if function.is_plain() {
            if let Some(rest) = engine::complete(promise, outcome()) {
                jobs.run(rest);
            }
        } else {
            jobs.run(Box::new(move || {
                if let Some(rest) = engine::complete(promise, outcome()) {
                    rest();
                }
            }));
        }
    }
}

/// The engine's way to a cluster.
struct ClusterDriver {
    client: Arc<Client>,
    handle: Handle,
}

impl ClusterDriver {
    fn cancel_number(&self, number: u64) -> bool {
        let client = Arc::clone(&self.client);
        let cancelled = run_on(&self.handle, async move {
            timeout(PATIENCE, client.cancel(number)).await
        });
        match cancelled {
            Some(Ok(Some(sink))) => {
                sink.cancel();
                true
            }
            _ => false,
        }
    }

    fn terminate_number(&self, number: u64) -> bool {
        let client = Arc::clone(&self.client);
        let ended = run_on(&self.handle, async move { client.terminate(number).await });
        ended.unwrap_or(false)
    }
}

impl Driver for ClusterDriver {
    fn drive(&self, _: FutureId, is_done: &dyn Fn() -> bool, _: Option<Instant>) -> bool {
        is_done()
    }

    fn cancel(&self, future: FutureId) -> bool {
        self.cancel_number(number_of(future))
    }

    fn forget(&self, future: FutureId) {
        self.client.forget(number_of(future));
    }

    fn has_begun(&self, future: FutureId) -> bool {
        self.client.has_begun(number_of(future))
    }

    fn terminate(&self, future: FutureId) -> bool {
        self.terminate_number(number_of(future))
    }
}

impl fmt::Debug for ClusterDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterDriver").finish_non_exhaustive()
    }
}
