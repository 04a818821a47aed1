//! The client: a `ClusterExecutor` whose calls and futures are Python's.
//!
//! The futures complete through their own methods in Python, by one thread, which `deliver` belongs to. In a fork of
//! the process, where the threads of the cluster are not, nothing of it is used, nor dropped.

use crate::content::object_of;
use crate::errors::{Host, cluster_error, describe, host, submit_error, unreachable};
use crate::inbox::{Inbox, Taken};
use crate::plain::is_plain;
use crate::settings::{Settings, seconds};
use bytes::Bytes;
use concurrent_futures::engine::{RemoteLoss, RemoteRun, WhenFull};
use concurrent_futures::{Shutdown, SubmitError, TaskError};
use concurrent_futures_cluster::{
    Arrived, Call, ClusterExecutor, ClusterOptions, OnHostLoss, Sink,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyType};
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The name of the calls that the hosts of this package know.
pub(crate) const CALL: &[u8] = b"python-2";

/// The most ends of tasks that are taken at once, so that other threads of Python get their turn.
const MOST: usize = 256;

/// The numbers that stand for kinds of outcomes.
const VALUE: u8 = 0;
const FAILURE: u8 = 1;
const ERROR: u8 = 2;
const CANCELLED: u8 = 3;
const PART: u8 = 4;

/// The class of futures.
static FUTURE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The function that unpickles.
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The length from which on bytes are not copied.
const LONG: usize = 64 * 1024;

/// Returns the bytes of an object, which live on in it if they are long.
pub(crate) fn shared(bytes: &Bound<'_, PyBytes>) -> Bytes {
    if bytes.as_bytes().len() < LONG {
        return Bytes::copy_from_slice(bytes.as_bytes());
    }
    Bytes::from_owner(PyBackedBytes::from(bytes.clone()))
}

/// The end of a task, or a part of its value.
#[derive(Debug)]
enum Ended {
    Arrived(Arrived, Runs),
    Cancelled,
    Part(u64, Bytes),
}

/// The run of a call that gave the outcome, and those that gave none.
#[derive(Debug, Default)]
struct Runs {
    run: Option<RemoteRun>,
    losses: Vec<RemoteLoss>,
}

/// A run as Python's recorder takes it: machine, process, place, begin and end.
type Described<'a> = (&'a str, u32, Option<u32>, u64, u64);

/// The run that gave the outcome, and those that gave none, with the numbers of their ends.
type DescribedRuns<'a> = (Option<Described<'a>>, Vec<(Described<'a>, u8)>);

impl Runs {
    /// Returns the runs as Python's recorder takes them; none if there are none.
    fn described(&self) -> Option<DescribedRuns<'_>> {
        if self.run.is_none() && self.losses.is_empty() {
            return None;
        }
        let losses = self.losses.iter();
        let losses = losses.map(|loss| (described(&loss.run), loss.outcome as u8));
        Some((self.run.as_ref().map(described), losses.collect()))
    }
}

/// Futures are shared, as threads that are not attached can make no references to them.
type Ends = Inbox<(Arc<Py<PyAny>>, Ended)>;

/// Returns the key of a future's ends in the inbox.
fn key_of(future: &Py<PyAny>) -> usize {
    future.as_ptr().addr()
}

/// The future of a call, as the cluster sees it. It is told of every end, and of one only.
struct Waiting {
    future: Option<Arc<Py<PyAny>>>,
    ends: Arc<Ends>,
    runs: Runs,
}

impl Waiting {
    fn new(future: Option<Arc<Py<PyAny>>>, ends: &Arc<Ends>) -> Self {
        Self {
            future,
            ends: Arc::clone(ends),
            runs: Runs::default(),
        }
    }
}

impl Waiting {
    fn end(&mut self, ended: Ended) {
        if let Some(future) = self.future.take() {
            self.ends.put(key_of(&future), (future, ended));
        }
    }
}

impl Sink for Waiting {
    fn start(&self) -> bool {
        // Futures are cancelled by way of the cluster only.
        true
    }

    fn cancel(mut self: Box<Self>) {
        self.end(Ended::Cancelled);
    }

    fn take_part(&self, first: u64, bytes: Bytes) {
        if let Some(future) = &self.future {
            self.ends.expect();
            let part = Ended::Part(first, bytes);
            self.ends.put(key_of(future), (Arc::clone(future), part));
        }
    }

    fn note_run(&mut self, run: RemoteRun) {
        self.runs.run = Some(run);
    }

    fn note_losses(&mut self, losses: Vec<RemoteLoss>) {
        self.runs.losses = losses;
    }

    fn complete(mut self: Box<Self>, arrived: Arrived) {
        let runs = mem::take(&mut self.runs);
        self.end(Ended::Arrived(arrived, runs));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let abandoned = Arrived::Error(TaskError::Abandoned);
        self.end(Ended::Arrived(abandoned, Runs::default()));
    }
}

/// The native part of an executor.
#[pyclass(module = "concurrent_futures_cluster._native", frozen)]
pub(crate) struct Client {
    /// None after the end.
    executor: Mutex<Option<Arc<ClusterExecutor>>>,
    ends: Arc<Ends>,
    options: ClusterOptions,
    process: u32,
}

impl Client {
    fn executor(&self) -> PyResult<Arc<ClusterExecutor>> {
        if self.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "this ClusterExecutor belongs to the process that has made it, of which this process is a fork: make \
                 another one here",
            ));
        }
        let executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        let executor = executor.as_ref().map(Arc::clone);
        executor.ok_or_else(|| submit_error(&SubmitError::Shutdown))
    }
}

#[pymethods]
impl Client {
    /// Connects to a cluster.
    #[new]
    #[allow(clippy::too_many_arguments, reason = "passed by keyword")]
    #[pyo3(signature = (
        settings, *, priority, max_pending, wait_for_workers, retries, task_timeout, rerun, server_program, session, keep,
        replicas, is_attached
    ))]
    fn new(
        py: Python<'_>,
        settings: Settings,
        priority: u8,
        max_pending: Option<usize>,
        wait_for_workers: f64,
        retries: u32,
        task_timeout: Option<f64>,
        rerun: bool,
        server_program: Option<PathBuf>,
        session: Option<String>,
        keep: Option<f64>,
        replicas: usize,
        is_attached: bool,
    ) -> PyResult<Self> {
        let mut options = ClusterOptions::new().retries(retries);
        options = options.on_host_loss(if rerun {
            OnHostLoss::Rerun
        } else {
            OnHostLoss::Fail
        });
        if let Some(limit) = task_timeout {
            options = options.time_limit(seconds("task_timeout", limit)?);
        }
        let mut builder = settings
            .apply(ClusterExecutor::builder())?
            .priority(priority)
            .wait_for_workers(seconds("wait_for_workers", wait_for_workers)?)
            .without_host();
        if let Some(max_pending) = max_pending {
            builder = builder.max_pending(max_pending);
        }
        if let Some(program) = server_program {
            builder = builder.server_program(program);
        }
        if let Some(keep) = keep {
            builder = builder.keep(seconds("keep", keep)?);
        }
        builder = builder.replicas(replicas);
        let executor = py.detach(|| match session {
            Some(session) if is_attached => builder.attach(session),
            Some(session) => builder.session(session).build(),
            None => builder.build(),
        });
        let executor = executor.map_err(|error| cluster_error(py, &error))?;
        Ok(Self {
            executor: Mutex::new(Some(Arc::new(executor))),
            ends: Arc::default(),
            options,
            process: std::process::id(),
        })
    }

    /// Submits a pickled call, under a number that no other call has. Without room, waits for it, or returns False.
    fn submit(
        &self,
        py: Python<'_>,
        number: u64,
        future: Py<PyAny>,
        argument: &Bound<'_, PyBytes>,
        waits: bool,
    ) -> PyResult<bool> {
        let executor = self.executor()?;
        let argument = shared(argument);
        let submit = |when_full: WhenFull<'_>, argument, future| {
            let call = Call::Opaque(CALL.to_vec());
            let sink = || -> Box<dyn Sink> {
                self.ends.expect();
                Box::new(Waiting::new(Some(Arc::new(future)), &self.ends))
            };
            executor.submit_bytes(when_full, number, call, argument, self.options, sink)
        };
        let mut submitted = submit(WhenFull::Refuse, argument.clone(), future.clone_ref(py));
        let mut interrupted = None;
        if matches!(submitted, Err(SubmitError::Full)) {
            if !waits {
                return Ok(false);
            }
            submitted = py.detach(|| {
                let reason = Mutex::new(&mut interrupted);
                let look = |py: Python<'_>| py.check_signals();
                let stop = || match Python::try_attach(look) {
                    Some(Err(error)) => {
                        **reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        true
                    }
                    Some(Ok(())) => false,
                    None => true,
                };
                submit(WhenFull::Wait(&stop), argument, future)
            });
        }
        match (submitted, interrupted) {
            (Ok(()), _) => Ok(true),
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(submit_error(&error)),
        }
    }

    /// Returns the name of the session.
    fn session(&self) -> PyResult<Option<String>> {
        Ok(self.executor()?.session().map(ToOwned::to_owned))
    }

    /// Waits until all tasks of the session are recorded, up to `limit` seconds. Returns whether they are.
    fn flush(&self, py: Python<'_>, limit: f64) -> PyResult<bool> {
        let limit = seconds("timeout", limit)?;
        let Some(executor) = self.while_open()? else {
            return Ok(false);
        };
        Ok(py.detach(move || executor.flush(limit)))
    }

    /// Returns the number of tasks of earlier executors that have no future.
    fn found(&self) -> PyResult<usize> {
        Ok(self.executor()?.found_bytes())
    }

    /// Gives futures to so many tasks of earlier executors, together with numbers that no other call has.
    fn adopt(&self, py: Python<'_>, futures: Vec<(u64, Py<PyAny>)>) -> PyResult<()> {
        let executor = self.executor()?;
        let mut futures = futures.into_iter();
        py.detach(|| {
            executor.futures_bytes(|| {
                let next = futures.next();
                let number = next.as_ref().map_or(u64::MAX, |(number, _)| *number);
                let future = next.map(|(_, future)| Arc::new(future));
                if future.is_some() {
                    self.ends.expect();
                }
                (number, Box::new(Waiting::new(future, &self.ends)))
            });
        });
        Ok(())
    }

    /// Removes the session from the server, and refuses calls from now on.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let executor = self.executor()?;
        let discarded = py.detach(move || executor.discard());
        discarded.map_err(|error| unreachable(py, error.to_string()))
    }

    /// Waits for ends of tasks and parts of values, up to `limit` seconds, and calls `complete` for each. It gets the
    /// future, a number, what belongs to it, and the runs of the task on hosts, if `is_recorded` returns True. Returns
    /// the number of ends; None when there will be no more.
    fn deliver(
        &self,
        py: Python<'_>,
        complete: &Bound<'_, PyAny>,
        is_recorded: &Bound<'_, PyAny>,
        limit: Option<f64>,
    ) -> PyResult<Option<usize>> {
        let limit = limit.map(|limit| seconds("limit", limit)).transpose()?;
        let ends = match py.detach(|| self.ends.take(MOST, limit)) {
            Taken::End => return Ok(None),
            Taken::Nothing => return Ok(Some(0)),
            Taken::Things(ends) => ends,
        };
        let count = ends.len();
        let is_recorded: bool = is_recorded.call0()?.extract()?;
        for (future, ended) in ends {
            let future = future.bind(py);
            let mut known = Runs::default();
            let ended = match ended {
                Ended::Arrived(arrived, runs) => {
                    known = runs;
                    Ended::Arrived(arrived, Runs::default())
                }
                other => other,
            };
            let runs = is_recorded.then(|| known.described()).flatten();
            let called = match ended {
                Ended::Arrived(Arrived::Value(bytes), _) => object_of(py, bytes, LONG)
                    .and_then(|value| complete.call1((future, VALUE, value, runs))),
                Ended::Arrived(Arrived::Failure(bytes), _) => {
                    complete.call1((future, FAILURE, PyBytes::new(py, &bytes), runs))
                }
                Ended::Arrived(Arrived::Error(error), _) => {
                    complete.call1((future, ERROR, describe(&error), runs))
                }
                Ended::Arrived(other, _) => {
                    let text = format!("an outcome is of an unknown kind: {other:?}");
                    complete.call1((
                        future,
                        ERROR,
                        ("ClusterError", text, Vec::<Host>::new()),
                        runs,
                    ))
                }
                Ended::Cancelled => complete.call1((future, CANCELLED, py.None(), runs)),
                Ended::Part(first, bytes) => object_of(py, bytes, LONG)
                    .and_then(|part| complete.call1((future, PART, (first, part), runs))),
            };
            if let Err(error) = called {
                error.write_unraisable(py, Some(complete));
            }
            self.ends.settle(1);
        }
        Ok(Some(count))
    }

    /// Waits for the end of a call, up to `limit` seconds, and completes its future. Leaves it to `deliver` unless it is a
    /// short value that is plain, and the future has no callbacks.
    fn receive(
        &self,
        py: Python<'_>,
        future: &Bound<'_, PyAny>,
        is_recorded: &Bound<'_, PyAny>,
        limit: f64,
    ) -> PyResult<()> {
        let limit = seconds("limit", limit)?;
        if self.process != std::process::id() {
            return Ok(());
        }
        if !self.ends.begin_receiving(key_of(future.as_unbound())) {
            return Ok(());
        }
        // It may have been completed just before.
        let is_done = future.call_method0(intern!(py, "done"));
        let is_pending = is_done.is_ok_and(|is_done| !is_done.is(PyBool::new(py, true)));
        let limit = if is_pending { limit } else { Duration::ZERO };
        let received = py.detach(|| self.ends.receive(limit));
        let Some(thing) = received else {
            return Ok(());
        };
        let completed = match &thing.1 {
            Ended::Arrived(Arrived::Value(bytes), _) if bytes.len() < LONG && is_plain(bytes) => {
                complete_plainly(py, future, bytes, is_recorded)
            }
            Ended::Arrived(..) | Ended::Cancelled | Ended::Part(..) => Ok(false),
        };
        if let Ok(true) = completed {
            self.ends.settle(1);
            return Ok(());
        }
        self.ends.put_back(thing);
        completed.map(drop)
    }

    /// Keeps `deliver` from ending, until `release` is called.
    fn hold(&self) {
        self.ends.expect();
    }

    /// Undoes `hold`.
    fn release(&self) {
        self.ends.settle(1);
    }

    /// Lets `deliver` end when all tasks are done.
    fn close(&self) {
        self.ends.close();
    }

    /// Cancels a call that no host has begun. Returns whether it is cancelled.
    fn cancel(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let Some(executor) = self.while_open()? else {
            return Ok(false);
        };
        Ok(py.detach(move || executor.cancel_bytes(number)))
    }

    /// Ends a call that runs. Returns whether it will end.
    fn terminate(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let Some(executor) = self.while_open()? else {
            return Ok(false);
        };
        Ok(py.detach(move || executor.terminate_bytes(number)))
    }

    /// Returns whether a host has begun a call.
    fn has_begun(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let Some(executor) = self.while_open()? else {
            return Ok(false);
        };
        Ok(py.detach(move || executor.has_begun_bytes(number)))
    }

    /// Cancels all calls that no host has begun, and refuses calls from now on.
    fn cancel_all(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(executor) = self.while_open()? {
            py.detach(move || executor.shutdown(Shutdown::CancelPendingNoWait));
        }
        Ok(())
    }

    /// Fails all calls that are not done.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(executor) = self.while_open()? {
            py.detach(move || executor.abandon());
        }
        Ok(())
    }

    /// Leaves the cluster. All calls are done.
    fn end(&self, py: Python<'_>) {
        if self.process != std::process::id() {
            return;
        }
        let executor = self
            .executor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        py.detach(|| {
            if let Some(executor) = executor {
                executor.shutdown(Shutdown::Wait);
            }
        });
    }

    /// Returns the hosts of the queue: machine, process id, workers, queue, environment.
    fn hosts(&self, py: Python<'_>) -> PyResult<Vec<Host>> {
        let executor = self.executor()?;
        let hosts = py.detach(move || executor.hosts());
        let hosts = hosts.map_err(|error| unreachable(py, error.to_string()))?;
        Ok(hosts.iter().map(host).collect())
    }

    /// Waits until a host takes the tasks, up to `limit` seconds. Returns whether there is one.
    fn wait_for_host(&self, py: Python<'_>, limit: f64) -> PyResult<bool> {
        let executor = self.executor()?;
        let limit = seconds("timeout", limit)?;
        let found = py.detach(move || executor.wait_for_host(limit));
        found.map_err(|error| unreachable(py, error.to_string()))
    }

    /// Returns the address and the token of the embedded server.
    fn embedded_server<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some((url, token)) = self.executor()?.embedded_server() else {
            return Ok(None);
        };
        let both = PyDict::new(py);
        both.set_item("url", url)?;
        both.set_item("token", token)?;
        Ok(Some(both))
    }
}

impl Client {
    /// Returns the executor, unless it has ended: then all tasks are done.
    fn while_open(&self) -> PyResult<Option<Arc<ClusterExecutor>>> {
        if self.process == std::process::id() {
            let executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(executor.as_ref().map(Arc::clone));
        }
        self.executor().map(Some)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let executor = self
            .executor
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let executor = executor.take();
        if self.process != std::process::id() {
            // Its threads are in the other process.
            mem::forget(executor);
            return;
        }
        if let Some(executor) = executor {
            // Python code has lost it without an end, and waits for no task.
            executor.abandon();
            Python::try_attach(|py| py.detach(|| drop(executor)));
        }
    }
}

/// Completes a future with a plain value, unless it has callbacks or is recorded. Returns whether it has done so. An error
/// leaves the future as it was, and is that of a signal's handler, or of a lack of memory.
fn complete_plainly(
    py: Python<'_>,
    future: &Bound<'_, PyAny>,
    bytes: &Bytes,
    is_recorded: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let has_callbacks = future
        .getattr(intern!(py, "_done_callbacks"))?
        .is_truthy()?;
    if has_callbacks || is_recorded.call0()?.is_truthy()? {
        return Ok(false);
    }
    let loads = LOADS.import(py, "pickle", "loads")?;
    let value = loads.call1((PyBytes::new(py, bytes),))?;
    // From here on, no bytecode runs that a signal's handler could interrupt: these are methods of a native class.
    let class = FUTURE.import(py, "concurrent_futures", "Future")?;
    future.setattr(intern!(py, "_fn"), py.None())?;
    let begin = intern!(py, "set_running_or_notify_cancel");
    if class.call_method1(begin, (future,))?.is_truthy()? {
        class.call_method1(intern!(py, "set_result"), (future, value))?;
    }
    Ok(true)
}

/// Returns a run as Python's recorder takes it.
fn described(run: &RemoteRun) -> Described<'_> {
    let RemoteRun {
        machine,
        pid,
        place,
        start,
        end,
    } = run;
    (machine, *pid, *place, *start, *end)
}
