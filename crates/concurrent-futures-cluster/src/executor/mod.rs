//! The handle of a cluster.

#![forbid(unsafe_code)]

mod builder;
mod driver;
mod embedded;
mod families;
mod recorded;

pub use builder::{ClusterExecutorBuilder, ExecutorSettings};

use crate::bus::BusError;
use crate::client::{Client, ClusterOptions, Sink, Submission};
use crate::error::ClusterError;
use crate::register::types_of;
use crate::service::Service;
use crate::spans::HostWatch;
use crate::waits;
use crate::wire::{Call, HostInfo};
use bytes::Bytes;
use concurrent_futures::engine::{
    self, Callbacks, EarlyParts, PendingLimit, Permit, PoolId, RemoteFunction, RemoteOutcome,
    RemotePool, Unsent, WhenFull, admit, number_of, promise_in, submit_spans,
};
use concurrent_futures::{
    Function, Future, Map, MapOptions, Shutdown, SubmitError, TaskError, Value,
};
use driver::{ClusterDriver, RustSink};
use embedded::Embedded;
use families::Families;
use recorded::{Extra, note_submitted, note_unsent};
use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The number of tasks that `map` makes at least of many items, and the most items of a task.
const SPANS: usize = 64;
const LONGEST_SPAN: usize = 1024;
/// The time for which a drop waits for the records of tasks that are to go on without the executor.
const LEAVE: Duration = Duration::from_secs(60);
/// A submission that finds no room waits for it, however long that takes.
const WAIT: WhenFull<'static> = WhenFull::Wait(&|| false);

/// An executor whose workers are on other machines, behind a NATS server with `JetStream`.
///
/// A task is a function, or a closure that captures nothing, and its argument, as for a
/// [`ProcessPoolExecutor`](concurrent_futures::ProcessPoolExecutor). Hosts run the same build of the program; see
/// [`init`](crate::init). Its futures are those of the other executors, and mix with them in
/// [`wait`](concurrent_futures::wait) and [`as_completed`](concurrent_futures::as_completed).
///
/// A task runs at least once, and its future gets one outcome: the first that arrives. A
/// [`session`](ClusterExecutorBuilder::session) lets tasks outlive the program. Dropping the executor waits for
/// its tasks, as [`shutdown`](Self::shutdown) does. While it is being dropped, a server that answers nothing for the time
/// of [`wait_for_workers`](ClusterExecutorBuilder::wait_for_workers) and three seconds more fails them with
/// [`TaskError::Abandoned`](concurrent_futures::TaskError::Abandoned).
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
    limit: Option<Arc<PendingLimit>>,
    options: ClusterOptions,
    callbacks: Arc<Callbacks>,
    recorded: Arc<RemotePool>,
    families: Families,
    closed: AtomicBool,
    /// Whether a drop leaves the tasks of a session on the server.
    leaves: AtomicBool,
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

    /// Attaches to a session that an earlier program has left on a server, with the default settings; see
    /// [`ClusterExecutorBuilder::attach`].
    ///
    /// # Errors
    /// As for [`ClusterExecutorBuilder::attach`].
    ///
    /// # Examples
    /// ```no_run
    /// use concurrent_futures_cluster::ClusterExecutor;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     concurrent_futures_cluster::init(); // hosts and worker processes begin here
    ///
    ///     let cluster = ClusterExecutor::attach("nats://127.0.0.1:4222", "tonight")?;
    ///     for future in cluster.futures::<u64>()? {
    ///         println!("{}", future.result()?);
    ///     }
    ///     cluster.discard()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn attach(
        url: impl Into<String>,
        session: impl Into<String>,
    ) -> Result<Self, ClusterError> {
        Self::builder().url(url).attach(session)
    }

    /// Returns the name of the session; none if the tasks end with the executor.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.client.session_name()
    }

    /// Returns the futures of all tasks that the session had when it was opened, done or not, in the order of their submission.
    /// Each task has one future: a second call returns those that the first one has left.
    ///
    /// # Errors
    /// [`ClusterError::ResultType`], when a result has another type, by its name. Then no task has a future yet.
    pub fn futures<T: Value>(&self) -> Result<Vec<Future<T>>, ClusterError> {
        let asked = type_name::<T>();
        let other = self.client.found_results();
        if let Some(recorded) = other.into_iter().find(|name| name != asked) {
            return Err(ClusterError::ResultType {
                session: self.session().unwrap_or_default().to_owned(),
                recorded,
                asked,
            });
        }
        Ok(self.futures_of())
    }

    /// Returns futures as [`futures`](Self::futures) does, of the tasks whose results have this type. The other tasks
    /// are left.
    #[must_use]
    pub fn futures_of<T: Value>(&self) -> Vec<Future<T>> {
        let mut futures = Vec::new();
        let family = self
            .families
            .family(RemoteFunction::<(), T>::elsewhere(), None);
        self.claim_found(
            |name| name == type_name::<T>(),
            || {
                let (promise, future) = promise_in(self.id);
                let number = number_of(future.id());
                futures.push(future);
                let sink = RustSink {
                    promise,
                    family: Arc::clone(&family),
                    extra: None,
                };
                (number, Box::new(sink))
            },
        );
        futures
    }

    /// Waits until all submitted tasks of the session are recorded on the server, and hosts can get them, up to `limit`.
    /// Returns whether that is so. From then on, they and their outcomes outlive this program.
    ///
    /// Without a session, or when another program has it, the call returns false.
    pub fn flush(&self, limit: Duration) -> bool {
        let _sleeping = waits::note_sleep();
        self.client.flush(limit)
    }

    /// Removes the session from the server, with all its tasks and outcomes, and refuses tasks from now on. Futures
    /// that are not done fail with [`TaskError::Abandoned`](concurrent_futures::TaskError::Abandoned). Hosts finish what they run.
    ///
    /// # Errors
    /// [`BusError`], when the server does not answer. The rest goes by its age.
    pub fn discard(&self) -> Result<(), BusError> {
        self.closed.store(true, Ordering::SeqCst);
        let client = Arc::clone(&self.client);
        let discarded = self
            .service
            .run(async move { client.discard_session().await });
        discarded.unwrap_or(Err(BusError::Closed))
    }

    /// Gives the tasks that the session had when it was opened to another frontend, in the order of their submission. `make`
    /// makes what stands for the future of one, and a number that no other call of the executor has.
    pub fn futures_bytes(&self, make: impl FnMut() -> (u64, Box<dyn Sink>)) {
        self.claim_found(|_| true, make);
    }

    /// Returns the number of tasks that [`futures_bytes`](Self::futures_bytes) gives.
    #[must_use]
    pub fn found_bytes(&self) -> usize {
        self.client.found_results().len()
    }

    fn claim_found(
        &self,
        is_wanted: impl Fn(&str) -> bool,
        make: impl FnMut() -> (u64, Box<dyn Sink>),
    ) {
        let _entered = self.service.handle().enter();
        self.client.claim_found(is_wanted, make);
    }

    /// Submits the call `f(argument)`, and returns its future at once.
    ///
    /// An argument that does not serialise fails the future with [`TaskError::Transfer`](concurrent_futures::TaskError::Transfer).
    ///
    /// # Safety
    /// A captured value without size must not be a token, as for
    /// [`ProcessPoolExecutor`](concurrent_futures::ProcessPoolExecutor#safety-values-without-size).
    ///
    /// Waits for room if there are as many pending tasks as [`max_pending`](ClusterExecutorBuilder::max_pending) allows.
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
        self.submit_call(WAIT, options, RemoteFunction::plain(f), argument)
    }

    /// Submits a call as [`submit`](Self::submit) does, but does not wait for room.
    ///
    /// # Errors
    /// [`SubmitError::Full`], when there are as many pending tasks as
    /// [`max_pending`](ClusterExecutorBuilder::max_pending) allows. [`SubmitError::Shutdown`], when the executor was shut
    /// down.
    ///
    /// # Examples
    /// ```no_run
    /// use concurrent_futures::SubmitError;
    /// use concurrent_futures_cluster::ClusterExecutor;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     concurrent_futures_cluster::init(); // hosts and worker processes begin here
    ///
    ///     let cluster = ClusterExecutor::builder().max_pending(1000).build()?;
    ///     match cluster.try_submit(f64::sqrt, 2.0) {
    ///         Ok(future) => println!("{}", future.result()?),
    ///         Err(SubmitError::Full) => println!("the hosts are busy"),
    ///         Err(error) => return Err(error.into()),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn try_submit<F, A, T>(&self, f: F, argument: A) -> Result<Future<T>, SubmitError>
    where
        F: Fn(A) -> T + Function,
        A: Value,
        T: Value,
    {
        let call = RemoteFunction::plain(f);
        self.submit_call(WhenFull::Refuse, self.options, call, argument)
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
        self.submit_call(WAIT, self.options, RemoteFunction::fallible(f), argument)
    }

    /// Submits the call of a function that a host's program has registered under a name, and returns its future at once.
    ///
    /// The host's program may be another one than this; both have called [`by_name`](crate::ClusterBuilder::by_name). The future fails with
    /// [`NoFunction`](crate::NoFunction) if the name is unknown, or the function has other types. Types are compared by
    /// their names, such as `alloc::string::String`, and so by the path of your own.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```no_run
    /// use concurrent_futures_cluster::ClusterExecutor;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let cluster = ClusterExecutor::builder().url("nats://127.0.0.1:4222").by_name().build()?;
    ///     let area = cluster.submit_named::<(u32, u32), u32>("area", (6, 7))?;
    ///     println!("{}", area.result()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn submit_named<A, T>(&self, name: &str, argument: A) -> Result<Future<T>, SubmitError>
    where
        A: Value,
        T: Value,
    {
        let function = RemoteFunction::<A, T>::elsewhere();
        let bytes = function.send_argument(argument);
        let call = bytes.map(|bytes| {
            let call = Call::Named {
                name: name.to_owned(),
                types: types_of::<A, T>(),
            };
            (call, bytes)
        });
        let permit = self.admit(WAIT)?;
        Ok(self.submit_sent(permit, self.options, function, call, None))
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
    /// to 64 items are a task each, and more are grouped into at least 64 tasks. The results of a task come together, or
    /// in parts while a call of it takes long. A result that has come stays, also if its host is lost.
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
        let (single, span) = (
            RemoteFunction::plain(f),
            RemoteFunction::span::<F, HostWatch>(f),
        );
        // The future of a later program is that of an item.
        let options = match self.session() {
            Some(_) => options.chunksize(1),
            None => options,
        };
        submit_spans(
            options,
            items.into_iter(),
            |length| (length / SPANS).min(LONGEST_SPAN),
            |item| self.submit_call(WAIT, self.options, single, item),
            move |bytes| span.receive(RemoteOutcome::Value(Cow::Owned(bytes))),
            |items, parts| self.submit_span(span, items, parts),
        )
    }

    /// Refuses tasks from now on; `how` decides whether pending tasks run, and whether the call waits.
    ///
    /// The tasks of a [`session`](ClusterExecutorBuilder::session) go on without the executor if the call does not wait, and the executor is
    /// dropped. The drop waits until all of them are recorded, for up to a minute. Then it fails futures that are not done with
    /// [`TaskError::Abandoned`](concurrent_futures::TaskError::Abandoned).
    ///
    /// Called by one of the executor's own callbacks, it does not wait. A call that waits does so however long the server is
    /// away. [`abandon`](Self::abandon) ends the wait.
    pub fn shutdown(&self, how: Shutdown) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(limit) = &self.limit {
            limit.close();
        }
        let (waits, cancels) = match how {
            Shutdown::Wait => (true, false),
            Shutdown::NoWait => (false, false),
            Shutdown::CancelPending => (true, true),
            Shutdown::CancelPendingNoWait => (false, true),
        };
        self.leaves.store(!waits, Ordering::SeqCst);
        if cancels {
            let cancelling = Arc::clone(&self.client).cancel_all();
            if waits {
                // None if the thread has ended.
                let sinks = self.service.run(cancelling).unwrap_or_default();
                for sink in sinks {
                    sink.cancel();
                }
            } else {
                let callbacks = Arc::clone(&self.callbacks);
                self.service.handle().spawn(async move {
                    for sink in cancelling.await {
                        callbacks.run(Box::new(move || sink.cancel()));
                    }
                });
            }
        }
        if waits && !self.callbacks.is_current() {
            self.client.wait_until_idle();
            self.callbacks.finish();
            let client = Arc::clone(&self.client);
            self.service.run(async move { client.release().await });
            let embedded = self
                .embedded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(embedded) = embedded {
                // None if the thread has ended, and with it the host. The server was dropped then.
                let _ = self.service.run(embedded.stop());
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
        let client = Arc::clone(&self.client);
        let found = self
            .service
            .run(async move { client.wait_for_host(limit).await });
        found.unwrap_or(Err(BusError::Closed))
    }

    /// Returns the address and the token of the embedded server, for further hosts of this machine.
    #[must_use]
    pub fn embedded_server(&self) -> Option<(String, String)> {
        let embedded = self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
        embedded
            .as_ref()
            .map(|embedded| (embedded.server.url.clone(), embedded.server.token.clone()))
    }

    /// Submits a call of another frontend, as bytes. `sink` makes what stands for the future, if the call is accepted. No
    /// other call of the executor has the number. If there is no room, `when_full` decides.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit), and [`SubmitError::Full`] by `when_full`.
    pub fn submit_bytes(
        &self,
        when_full: WhenFull<'_>,
        number: u64,
        call: Call,
        argument: Bytes,
        options: ClusterOptions,
        sink: impl FnOnce() -> Box<dyn Sink>,
    ) -> Result<(), SubmitError> {
        let permit = self.admit(when_full)?;
        let kind = self.families.opaque(call, options);
        let submission = Submission::new(kind, argument.into());
        self.client.submit(number, submission, sink(), permit);
        Ok(())
    }

    /// Returns whether a host has begun a call of [`submit_bytes`](Self::submit_bytes).
    pub fn has_begun_bytes(&self, number: u64) -> bool {
        self.client.has_begun(number)
    }

    /// Fails all tasks that are not done, with [`TaskError::Abandoned`](concurrent_futures::TaskError::Abandoned). For
    /// programs that end while the server is away.
    pub fn abandon(&self) {
        self.client.abandon();
    }

    /// Cancels a call of [`submit_bytes`](Self::submit_bytes) that no host has begun. Returns whether it was cancelled.
    pub fn cancel_bytes(&self, number: u64) -> bool {
        self.driver.cancel_number(number)
    }

    /// Ends a call of [`submit_bytes`](Self::submit_bytes) that runs. Returns whether it will end.
    pub fn terminate_bytes(&self, number: u64) -> bool {
        self.driver.terminate_number(number)
    }

    /// Takes a permit for one task.
    fn admit(&self, when_full: WhenFull<'_>) -> Result<Option<Permit>, SubmitError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SubmitError::Shutdown);
        }
        let closed = || SubmitError::Shutdown;
        let admit = |when_full| admit(self.limit.as_ref(), self.id, when_full, closed);
        match (admit(WhenFull::Refuse), when_full) {
            (Err(SubmitError::Full), when_full @ WhenFull::Wait(_)) => {
                let _sleeping = waits::note_sleep();
                admit(when_full)
            }
            (admitted, _) => admitted,
        }
    }

    /// Submits a call for each of these items as one task.
    fn submit_span<A: Value, T: Value>(
        &self,
        function: RemoteFunction<Vec<A>, Vec<Result<T, TaskError>>>,
        items: Vec<A>,
        parts: Arc<EarlyParts>,
    ) -> Result<Future<Vec<Result<T, TaskError>>>, SubmitError> {
        let permit = self.admit(WAIT)?;
        let count = items.len();
        let sent = function.send(items);
        let call = sent.map(|(entry, bytes)| (Call::Span(entry), bytes));
        let span = Some((count, parts));
        Ok(self.submit_sent(permit, self.options, function, call, span))
    }

    fn submit_call<A: Value, T: Send + 'static>(
        &self,
        when_full: WhenFull<'_>,
        options: ClusterOptions,
        function: RemoteFunction<A, T>,
        argument: A,
    ) -> Result<Future<T>, SubmitError> {
        let permit = self.admit(when_full)?;
        let sent = function.send(argument);
        let call = sent.map(|(entry, bytes)| (Call::Entry(entry), bytes));
        Ok(self.submit_sent(permit, options, function, call, None))
    }

    /// Submits an encoded call, or makes the future of one that does not serialise.
    fn submit_sent<A: Value, T: Send + 'static>(
        &self,
        permit: Option<Permit>,
        options: ClusterOptions,
        function: RemoteFunction<A, T>,
        call: Result<(Call, Vec<u8>), Unsent>,
        span: Option<(usize, Arc<EarlyParts>)>,
    ) -> Future<T> {
        let (promise, future) = promise_in(self.id);
        let submitted = note_submitted(&self.recorded, future.id(), function.name(), &call);
        match call {
            Ok((call, bytes)) => {
                let (kind, family) = self.families.of(call, options, function);
                let submission = Submission::new(kind, bytes.into());
                let has_extra = submitted != 0 || span.is_some();
                let extra = has_extra.then(|| Box::new(Extra::new(submitted, span)));
                let sink = RustSink {
                    promise,
                    family,
                    extra,
                };
                let number = number_of(future.id());
                self.client
                    .submit(number, submission, Box::new(sink), permit);
            }
            // The handle is here, so that there are no callbacks yet.
            Err(Unsent(error)) => {
                note_unsent(&self.recorded, future.id(), &error);
                if let Some(rest) = engine::complete(promise, Err(error)) {
                    rest();
                }
            }
        }
        future
    }
}

concurrent_futures::__executor_by_own_methods!(ClusterExecutor);

impl Drop for ClusterExecutor {
    fn drop(&mut self) {
        let watch = Arc::clone(&self.client).give_up_if_silent();
        let watch = self.service.handle().spawn(watch);
        if self.leaves.load(Ordering::SeqCst) && self.session().is_some() {
            self.flush(LEAVE);
            self.abandon();
        }
        self.shutdown(Shutdown::Wait);
        watch.abort();
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
