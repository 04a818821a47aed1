//! The builder of a process pool.

#![forbid(unsafe_code)]

use crate::error::process::{TransferError, TransferStep};
use crate::error::{BuildError, MAX_WORKERS};
use crate::executor::{Function, Value};
use crate::limit::PendingLimit;
use crate::observer::Observer;
use crate::process::codec::{self, Bytes};
use crate::process::executor::ProcessPoolExecutor;
use crate::process::failure::Failure;
use crate::process::function::{self, Invoke};
use crate::process::options::{OnWorkerDeath, StartMethod, TaskOptions};
use crate::process::pool::observed::Observed;
use crate::process::pool::settings::Settings;
use crate::process::pool::{Pool, supervisor};
use crate::process::spawner::Program;
use crate::process::worker::init::is_initialized;
use crate::runtime::os::image::image;
use crate::task::{Outcome, panic};
use crate::thread::InitializerOutcome;
use std::any::type_name;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Makes a [`ProcessPoolExecutor`]; see [`ProcessPoolExecutor::builder`].
///
/// # Examples
/// See [`ProcessPoolExecutor::builder`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Default)]
pub struct ProcessPoolExecutorBuilder {
    settings: Settings,
    program: Program,
    start_method: StartMethod,
    /// The reason why the initializer cannot be sent to workers.
    initializer_error: Option<TransferError>,
    max_pending: Option<usize>,
}

impl ProcessPoolExecutorBuilder {
    /// Sets the number of worker processes that the pool may have. The default is the number of CPUs that the
    /// process may use.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().max_workers(2).build()?;
    /// pool.map(|n: u32| n + 1, 0..100)?.for_each(drop);
    /// assert!((1..=2).contains(&pool.worker_pids().len()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.settings.max_workers = max_workers;
        self
    }

    /// Sets the start method of workers. The default is [`StartMethod::Spawn`].
    ///
    /// # Examples
    /// See [`ProcessPoolExecutor::builder`].
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = method;
        self
    }

    /// Sets how long a worker may take from its start until it can work, with its initializer. The default is
    /// a minute. A worker that takes longer is killed.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder()
    ///     .start_timeout(Duration::from_secs(300))
    ///     .initializer(|model: String| println!("loads {model} for minutes"), "a model".to_owned())
    ///     .build()?;
    /// assert_eq!(pool.submit(|n: u32| n + 1, 41)?.result()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = timeout;
        self
    }

    /// Ends a worker after this many tasks, and starts another. By default workers live as long as the pool.
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

    /// Makes each worker call `initializer(argument)` before its first task.
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

    /// Limits the memory that each worker may take for data, in bytes (`RLIMIT_DATA`). By default there is no
    /// limit. A worker that asks for more is refused, which ends most programs: the task fails as when a
    /// worker dies.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().memory_limit(1 << 30).build()?;
    /// let sum = pool.submit(|length: usize| vec![1_u64; length].iter().sum::<u64>(), 1000)?;
    /// assert_eq!(sum.result()?, 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// Sets a variable in the environment of workers. Apart from such variables, the environment is that of
    /// this process at the moment when a worker starts.
    ///
    /// # Examples
    /// See [`ProcessPoolExecutor::builder`].
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (key, value) = (key.as_ref().to_owned(), value.as_ref().to_owned());
        self.program.environment.push((key, Some(value)));
        self
    }

    /// Removes a variable from the environment of workers.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().env_remove("PATH").build()?;
    /// let path = pool.submit(|()| std::env::var_os("PATH"), ())?;
    /// assert_eq!(path.result()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        let key = key.as_ref().to_owned();
        self.program.environment.push((key, None));
        self
    }

    /// Starts workers with an empty environment, except for the variables that [`env`](Self::env) sets.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    /// use std::env;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().env_clear().env("LEVEL", "3").build()?;
    /// let variables = pool.submit(|()| (env::var("LEVEL").ok(), env::var("PATH").ok()), ())?;
    /// assert_eq!(variables.result()?, (Some("3".to_owned()), None));
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.program.environment.clear();
        self.program.clear_environment = true;
        self
    }

    /// Sets the working folder of workers. The default is that of this process at the moment when a worker
    /// starts.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    /// use std::path::Path;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().current_dir("/").build()?;
    /// let folder = pool.submit(|()| std::env::current_dir().unwrap(), ())?;
    /// assert_eq!(folder.result()?, Path::new("/"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.program.current_dir = Some(folder.into());
        self
    }

    /// Sets the program that workers run. The default is the executable of this process, even if its file was
    /// deleted or replaced since. The program must be of the same build. For processes that were not started
    /// by their own executable, as under an emulator.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder().program(std::env::current_exe()?).build()?;
    /// assert_eq!(pool.submit(f64::sqrt, 9.0)?.result()?, 3.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn program(mut self, path: impl Into<OsString>) -> Self {
        self.program.path = Some(path.into());
        self
    }

    /// Sets the effect of a worker's death. By default, only the task fails that the worker was running.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{OnWorkerDeath, ProcessPoolExecutor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let pool = ProcessPoolExecutor::builder()
    ///     .on_worker_death(OnWorkerDeath::Break)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_worker_death(mut self, effect: OnWorkerDeath) -> Self {
        self.settings.on_worker_death = effect;
        self
    }

    /// Sets the options of tasks that [`submit`](ProcessPoolExecutor::submit) and
    /// [`map`](ProcessPoolExecutor::map) make. By default there is no time limit and no retry.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskError, TaskOptions};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// fn spin(on: bool) {
    ///     while on {}
    /// }
    /// let options = TaskOptions::new().time_limit(Duration::from_millis(10));
    /// let pool = ProcessPoolExecutor::builder().task_options(options).build()?;
    /// for result in pool.map(spin, [true, true])? {
    ///     assert!(matches!(result, Err(TaskError::TimeLimit(_))));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn task_options(mut self, options: TaskOptions) -> Self {
        self.settings.options = options;
        self
    }

    /// Bounds the number of pending tasks: `submit` and `map` wait for room. Dispatched and running tasks do
    /// not count. By default there is no bound.
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

    /// Reports the events of each task to `observer`, in the thread that causes the event. That is a thread
    /// that submits, a thread that waits, or a thread of the pool. A task is started when it is the next that
    /// its worker runs. A repeated task is reported as started once.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Shutdown, FutureId, Observer, ProcessPoolExecutor};
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
    /// pool.shutdown(Shutdown::Wait);
    /// assert_eq!(finished.0.load(Ordering::Relaxed), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.settings.observed = Some(Arc::new(Observed::new(Box::new(observer))));
        self
    }

    /// Counts the pool among those of a recording that was started with
    /// [`only_named_pools`](crate::RecordingOptions::only_named_pools). Other recordings have all pools.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, RecordingOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// concurrent_futures::init();
    /// let recording = RecordingOptions::new().only_named_pools().start();
    /// let pool = ProcessPoolExecutor::builder().recording(&recording).build()?;
    /// assert_eq!(pool.submit(f64::sqrt, 9.0)?.result()?, 3.0);
    /// recording.stop();
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "recording")]
    pub fn recording(self, recording: &crate::Recording) -> Self {
        recording.add_pool(self.settings.recorded.number());
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
        self.settings.limit = PendingLimit::bound(self.max_pending)?;
        if let Some(error) = self.initializer_error {
            return Err(BuildError::Transfer(error));
        }
        image()?;
        panic::install_hook();
        let spawner = self
            .program
            .spawner(self.start_method, self.settings.start_timeout);
        let pool = Pool::new(self.settings, spawner)?;
        supervisor::start(&pool)?;
        Ok(ProcessPoolExecutor::from_pool(pool))
    }
}

/// Returns the error of a function that lies in a shared library.
pub(crate) fn not_ours<F>() -> TransferError {
    let why = "it is not in the executable, but in a shared library";
    TransferError::new::<F>(TransferStep::Function, why.to_owned())
}

/// The call of an initializer.
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
