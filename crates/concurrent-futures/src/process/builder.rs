//! How a pool of processes is made.

#![forbid(unsafe_code)]

use super::codec::{self, Bytes};
use super::error::{TransferError, TransferStep};
use super::executor::ProcessPoolExecutor;
use super::failure::Failure;
use super::function::{self, Invoke};
use super::host::{PoolSettings, WorkerHost};
use super::image::image;
use super::init::is_initialized;
use super::observed::Observed;
use super::options::{StartMethod, TaskOptions};
use super::pool::Pool;
use super::supervisor;
use crate::error::BuildError;
use crate::executor::{Function, Value};
use crate::future::Outcome;
use crate::observer::Observer;
use crate::panic;
use crate::thread::limit::PendingLimit;
use crate::thread::{InitializerOutcome, MAX_WORKERS};
use std::any::type_name;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a pool was made with.
pub(super) struct Settings {
    pub(super) max_workers: usize,
    pub(super) max_tasks_per_child: Option<usize>,
    pub(super) start_method: StartMethod,
    pub(super) start_timeout: Duration,
    /// Its place, and its argument.
    pub(super) initializer: Option<(u64, Arc<[u8]>)>,
    pub(super) memory_limit: Option<u64>,
    pub(super) clear_environment: bool,
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) program: Option<OsString>,
    pub(super) strict: bool,
    pub(super) options: TaskOptions,
    /// The bound on pending tasks.
    pub(super) limit: Option<Arc<PendingLimit>>,
    pub(super) observed: Option<Arc<Observed>>,
    /// What starts the workers, if they are not this program, started anew.
    pub(super) host: Option<Arc<dyn WorkerHost>>,
    /// Whether the host's workers are to cost as few descriptors as can be.
    pub(super) is_lean: bool,
}

impl Settings {
    /// Those of a pool of another face.
    pub(super) fn of_host(settings: &PoolSettings, host: Arc<dyn WorkerHost>) -> Self {
        Self {
            max_workers: settings.max_workers,
            max_tasks_per_child: settings.max_tasks_per_child,
            start_timeout: Duration::MAX,
            memory_limit: settings.memory_limit,
            strict: settings.strict,
            host: Some(host),
            is_lean: is_lean(settings.max_workers),
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_workers: thread::available_parallelism().map_or(1, usize::from),
            max_tasks_per_child: None,
            start_method: StartMethod::default(),
            start_timeout: Duration::from_mins(1),
            initializer: None,
            memory_limit: None,
            clear_environment: false,
            environment: Vec::new(),
            current_dir: None,
            program: None,
            strict: false,
            options: TaskOptions::new(),
            limit: None,
            observed: None,
            host: None,
            is_lean: false,
        }
    }
}

/// Returns whether this many workers of a host would take more than half of the descriptors that this
/// process may have.
fn is_lean(max_workers: usize) -> bool {
    /// Socket, lane and pidfd, and two that the host has for itself.
    const EACH: u64 = 5;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.is_some_and(|limit| EACH.saturating_mul(max_workers as u64) > limit / 2)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("max_workers", &self.max_workers)
            .field("max_tasks_per_child", &self.max_tasks_per_child)
            .field("start_method", &self.start_method)
            .field("memory_limit", &self.memory_limit)
            .field("strict", &self.strict)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Makes a [`ProcessPoolExecutor`]; see [`ProcessPoolExecutor::builder`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Default)]
pub struct ProcessPoolExecutorBuilder {
    settings: Settings,
    /// Why the initializer does not travel.
    initializer_error: Option<TransferError>,
    max_pending: Option<usize>,
}

impl ProcessPoolExecutorBuilder {
    /// The number of worker processes that the pool may have; by default the number of
    /// CPUs that the process may use.
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.settings.max_workers = max_workers;
        self
    }

    /// How workers are started; by default [`StartMethod::Spawn`].
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.settings.start_method = method;
        self
    }

    /// How long a worker may take from its start until it can work, with its initializer;
    /// by default a minute. One that takes longer is killed.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = timeout;
        self
    }

    /// Ends a worker after so many tasks, and starts another; by default workers live as
    /// long as the pool.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).max_tasks_per_child(1).build()?;
    /// let pids = pool.map(|()| std::process::id(), [(), ()])?;
    /// let pids = pids.collect::<Result<Vec<_>, _>>()?;
    /// assert_ne!(pids[0], pids[1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_tasks_per_child(mut self, tasks: usize) -> Self {
        self.settings.max_tasks_per_child = Some(tasks);
        self
    }

    /// Has each worker call `initializer(argument)` before its first task.
    ///
    /// If it returns an error or panics, the pool is broken: pending futures fail with
    /// [`TaskError::Broken`](crate::TaskError::Broken), and so does `submit`.
    ///
    /// It may capture as little as a task; see
    /// [values without size](crate::ProcessPoolExecutor#safety-values-without-size).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder()
    ///     .initializer(|name: String| Err::<(), _>(format!("no {name}")), "database".to_owned())
    ///     .build()?;
    /// match pool.submit(|()| (), ())?.result() {
    ///     Err(TaskError::Broken(broken)) => {
    ///         assert_eq!(broken.cause().to_string(), "no database");
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn initializer<F, A, R>(mut self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Function,
        A: Value,
        R: InitializerOutcome,
    {
        // Its type is all there is to it.
        let _ = initializer;
        let place = function::place_of::<Initialize<F, A, R>>();
        let mut bytes = Vec::new();
        match (place, codec::encode(argument, &mut bytes)) {
            (Some(place), Ok(())) => self.settings.initializer = Some((place, bytes.into())),
            (None, _) => {
                self.initializer_error = Some(not_ours::<F>());
            }
            (_, Err(error)) => {
                let error = TransferError::new::<A>(TransferStep::SendArgument, error);
                self.initializer_error = Some(error);
            }
        }
        self
    }

    /// Limits the memory that each worker may take for data, in bytes (`RLIMIT_DATA`);
    /// by default there is no limit. A worker that asks for more is refused, which ends
    /// most programs: the task fails as when a worker dies.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// Sets a variable in the environment of workers, which is otherwise that of this
    /// process at the moment when they start.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (key, value) = (key.as_ref().to_owned(), value.as_ref().to_owned());
        self.settings.environment.push((key, Some(value)));
        self
    }

    /// Removes a variable from the environment of workers.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        let key = key.as_ref().to_owned();
        self.settings.environment.push((key, None));
        self
    }

    /// Has workers begin with an empty environment, but for what
    /// [`env`](Self::env) sets.
    pub fn env_clear(mut self) -> Self {
        self.settings.environment.clear();
        self.settings.clear_environment = true;
        self
    }

    /// The folder that workers work in, by default that of this process at the moment
    /// when they start.
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.current_dir = Some(folder.into());
        self
    }

    /// The program that workers are, by default the executable that this process runs,
    /// even if its file was deleted or replaced since. It must be of the same build: for
    /// programs that were started by something else than themselves, as under an emulator.
    pub fn program(mut self, path: impl Into<OsString>) -> Self {
        self.settings.program = Some(path.into());
        self
    }

    /// Whether the death of a worker breaks the pool, as it does in `CPython`: all
    /// pending futures fail, and nothing more is accepted. By default only the task
    /// fails that the worker was running.
    pub fn strict(mut self, strict: bool) -> Self {
        self.settings.strict = strict;
        self
    }

    /// How tasks are run that [`submit`](ProcessPoolExecutor::submit) and
    /// [`map`](ProcessPoolExecutor::map) make; by default without time limit and retries.
    pub fn task_options(mut self, options: TaskOptions) -> Self {
        self.settings.options = options;
        self
    }

    /// Bounds the number of pending tasks: `submit` and `map` wait for room. Those that were
    /// handed to a worker do not count, as do those that run. By default there is no bound.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(2).max_pending(10).build()?;
    /// let squares = pool.map(|n: u64| n * n, 0..1000)?;
    /// assert_eq!(squares.map(Result::unwrap).sum::<u64>(), 332_833_500);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_pending(mut self, max_pending: usize) -> Self {
        self.max_pending = Some(max_pending);
        self
    }

    /// Has `observer` told what becomes of each task. It is called by whoever has to do with
    /// the task at that moment: the thread that submits, one that waits, or one of the
    /// pool's. A task is started when it is the next that its worker runs; one that is
    /// repeated is reported as started once.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{FutureId, Observer, ProcessPoolExecutor};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// #[derive(Default)]
    /// struct Finished(AtomicUsize);
    ///
    /// impl Observer for Finished {
    ///     fn finished(&self, _: FutureId) {
    ///         self.0.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let finished = Arc::new(Finished::default());
    /// let pool = ProcessPoolExecutor::builder().observer(Arc::clone(&finished)).build()?;
    /// pool.map(f64::sqrt, [1.0, 4.0, 9.0])?.for_each(drop);
    /// pool.shutdown(true, false);
    /// assert_eq!(finished.0.load(Ordering::Relaxed), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.settings.observed = Some(Arc::new(Observed::new(Box::new(observer))));
        self
    }

    /// Makes the executor. Its workers are started when there are tasks.
    ///
    /// # Errors
    /// [`BuildError`] when a setting makes no sense, when [`init`](crate::init) was not
    /// called, or when the system refuses a thread.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{BuildError, ProcessPoolExecutor};
    ///
    /// // `init` was forgotten:
    /// let error = ProcessPoolExecutor::builder().build().unwrap_err();
    /// assert!(matches!(error, BuildError::NotInitialized));
    ///
    /// concurrent_futures::init();
    /// let error = ProcessPoolExecutor::builder().max_workers(0).build().unwrap_err();
    /// assert!(matches!(error, BuildError::ZeroWorkers));
    /// ```
    pub fn build(mut self) -> Result<ProcessPoolExecutor, BuildError> {
        if !is_initialized() {
            return Err(BuildError::NotInitialized);
        }
        match (self.settings.max_workers, self.settings.max_tasks_per_child) {
            (0, _) => return Err(BuildError::ZeroWorkers),
            (many, _) if many > MAX_WORKERS => return Err(BuildError::TooManyWorkers(many)),
            (_, Some(0)) => return Err(BuildError::ZeroTasks),
            _ => {}
        }
        if self.max_pending == Some(0) {
            return Err(BuildError::ZeroPending);
        }
        self.settings.limit = self.max_pending.map(PendingLimit::new);
        if let Some(error) = self.initializer_error {
            return Err(BuildError::Transfer(error));
        }
        image()?;
        panic::install_hook();
        let pool = Pool::new(self.settings)?;
        supervisor::start(&pool)?;
        Ok(ProcessPoolExecutor::from_pool(pool))
    }
}

/// The error of a function that lies in a shared library.
pub(super) fn not_ours<F>() -> TransferError {
    let why = "it is not in the executable, but in a shared library";
    TransferError::new::<F>(TransferStep::Function, why.to_owned())
}

/// Calls an initializer.
struct Initialize<F, A, R>(PhantomData<fn(F, A) -> R>);

impl<F, A, R> Invoke for Initialize<F, A, R>
where
    F: Fn(A) -> R + Function,
    A: Value,
    R: InitializerOutcome,
{
    type Output = ();

    fn name() -> &'static str {
        type_name::<F>()
    }

    fn invoke(argument: Bytes<'_>, _: &mut Vec<u8>) -> Result<(), Failure> {
        let argument = codec::decode(argument).map_err(Failure::argument::<A>)?;
        let outcome = function::conjure::<F>()(argument).into_result();
        outcome.map_err(|error: Box<dyn Error + Send + Sync>| Failure::failed(&*error))
    }

    fn receive(_: Bytes<'_>) -> Outcome<()> {
        Ok(())
    }

    fn is_plain() -> bool {
        true
    }
}

impl fmt::Debug for ProcessPoolExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
