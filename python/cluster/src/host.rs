//! The host: its calls run in a pool of processes that Python code has.
//!
//! # A call
//! | phase | the call is | leaves by |
//! |---|---|---|
//! | `Direct` | with the pool, without the interpreter | its end; a recall, if the pool has not begun it |
//! | `Queued` | in the queue of the threads that wait for calls | a thread; a recall; a termination |
//! | `Handed` | with the pool | its end; a recall, if the pool has not begun it |
//! | `Over` | over | |
//!
//! Each transition is made under the call's lock. A call is `Direct` if the pool accepts it from the host's thread
//! (`direct.rs`). The first calls of a pool, long ones, and those beyond its workers are `Queued`.
//!
//! A termination that comes while a thread submits a queued call is noted, and then counts: the call's own end is not told
//! any more. A recall of a call that the pool has is a cancellation there. The thread learns of it, and ends the call. A
//! direct call is ended by the pool. If its outcome takes Python code, one of the threads ends it.

use crate::client::{CALL, shared};
use crate::content::{joined, object_of};
use crate::direct::{self, Caller, DirectPool, Task};
use crate::errors::cluster_error;
use crate::settings::{Settings, seconds};
use bytes::Bytes;
use concurrent_futures_cluster::{Call, CallOptions, ClusterHost, Ended, Runner, Running};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCapsule};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The most calls that wait in the queue while all workers have one.
const AHEAD: usize = 256;

/// The length from which on a worker gets a call through memory that it shares with this process.
const LONG: usize = 256 * 1024;

/// The way of a call's end to the host.
type Telling = oneshot::Sender<Ended>;

enum Phase {
    Direct(Direct),
    Queued(Telling),
    Handed(Handed),
    Over,
}

/// A call that the pool has without the interpreter.
struct Direct {
    telling: Telling,
    /// Known once the call is submitted.
    task: Option<Arc<Task>>,
    is_terminated: bool,
}

/// A call that the pool has.
struct Handed {
    telling: Telling,
    /// The pool's future, once it is known.
    future: Option<Py<PyAny>>,
    is_terminated: bool,
    is_recalled: bool,
}

struct Shared {
    phase: Mutex<Phase>,
    /// The pickled error of terminated calls.
    terminated: Bytes,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        // No foreign code runs under the lock.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a call that the pool does not have yet. Returns whether that is so.
    fn end_queued(&self, ended: Ended) -> bool {
        let mut phase = self.lock();
        if !matches!(*phase, Phase::Queued(_)) {
            return false;
        }
        if let Phase::Queued(telling) = mem::replace(&mut *phase, Phase::Over) {
            // The host waits, or is gone.
            let _ = telling.send(ended);
        }
        true
    }

    /// Makes a queued call a direct one, or a direct one that was refused a queued one.
    fn set_direct(&self, is_direct: bool) {
        let mut phase = self.lock();
        *phase = match (mem::replace(&mut *phase, Phase::Over), is_direct) {
            (Phase::Queued(telling), true) => Phase::Direct(Direct {
                telling,
                task: None,
                is_terminated: false,
            }),
            (Phase::Direct(direct), false) => Phase::Queued(direct.telling),
            (former, _) => former,
        };
    }

    /// Notes the task of a direct call, unless the call is over.
    fn note_task(&self, task: &Arc<Task>) {
        if let Phase::Direct(direct) = &mut *self.lock() {
            direct.task = Some(Arc::clone(task));
        }
    }

    /// Returns the task of a direct call that is not over.
    fn task(&self) -> Option<Arc<Task>> {
        match &*self.lock() {
            Phase::Direct(direct) => direct.task.clone(),
            _ => None,
        }
    }

    /// Notes whether a direct call is being terminated.
    fn set_terminated(&self, is_terminated: bool) {
        if let Phase::Direct(direct) = &mut *self.lock() {
            direct.is_terminated = is_terminated;
        }
    }

    /// Ends a call that is not over.
    fn end(&self, ended: Ended) {
        let former = mem::replace(&mut *self.lock(), Phase::Over);
        let (telling, is_terminated) = match former {
            Phase::Direct(direct) => {
                let is_untouched = ended == Ended::Untouched;
                (direct.telling, direct.is_terminated && is_untouched)
            }
            Phase::Queued(telling) => (telling, false),
            Phase::Handed(handed) => (handed.telling, handed.is_terminated),
            Phase::Over => return,
        };
        let ended = if is_terminated {
            Ended::Failure(self.terminated.clone())
        } else {
            ended
        };
        // The host waits, or is gone.
        let _ = telling.send(ended);
    }
}

/// A call for the pool.
#[pyclass(module = "concurrent_futures_cluster._native", frozen)]
pub(crate) struct Job {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    /// The pickled call, until Python code gets it.
    argument: Mutex<Bytes>,
    object: PyOnceLock<Py<PyAny>>,
    options: CallOptions,
    /// Whether the call counts as one of the first pool.
    is_in_first: AtomicBool,
    /// The task of a direct call whose outcome takes Python code.
    ended: Option<Task>,
}

impl Job {
    /// Tells the end of the call. The host may begin another one once it knows.
    fn tell(&self, ended: Ended) {
        self.leave();
        self.shared.end(ended);
    }

    fn argument_bytes(&self) -> MutexGuard<'_, Bytes> {
        // No foreign code runs under the lock.
        self.argument.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of bytes of the call.
    fn length(&self) -> usize {
        self.argument_bytes().len()
    }

    /// Takes the pickled call.
    fn take_argument(&self) -> Bytes {
        mem::take(&mut *self.argument_bytes())
    }

    /// Notes that the first pool does not have the call any more.
    fn leave(&self) {
        if self.is_in_first.swap(false, Ordering::Relaxed) {
            self.calls.lock().busy -= 1;
        }
    }
}

impl Caller for Job {
    fn end(self, ended: Ended) {
        self.tell(ended);
    }

    fn end_by_python(mut self, task: Task) {
        self.leave();
        self.ended = Some(task);
        let calls = Arc::clone(&self.calls);
        calls.put_ended(self);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Its thread has ended by force if the call is not over.
        self.tell(Ended::Failure(self.shared.terminated.clone()));
    }
}

#[pymethods]
impl Job {
    /// The pickled call.
    #[getter]
    fn argument(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let object = self.object.get_or_try_init(py, || {
            object_of(py, self.take_argument(), LONG).map(Bound::unbind)
        });
        object.map(|object| object.clone_ref(py))
    }

    /// The seconds that the call may run.
    #[getter]
    fn time_limit(&self) -> Option<f64> {
        self.options.time_limit.map(|limit| limit.as_secs_f64())
    }

    /// The number under which the worker sends parts of the result.
    #[getter]
    fn token(&self) -> u64 {
        self.options.token
    }

    /// Whether the call goes to the pool of calls that run while others wait.
    #[getter]
    fn is_spare(&self) -> bool {
        !self.is_in_first.load(Ordering::Relaxed)
    }

    /// The number of times that the call is repeated if its worker dies.
    #[getter]
    fn retries(&self) -> u32 {
        self.options.retries
    }

    /// Whether the call has ended, and `outcome` has its outcome.
    #[getter]
    fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns the outcome of a call that has ended, or raises its exception; once.
    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.ended {
            Some(task) => task.take(py),
            None => Err(PyRuntimeError::new_err("the call has not ended")),
        }
    }

    /// Takes the call for the pool. Returns False if it is over.
    fn take(&self) -> bool {
        let mut phase = self.shared.lock();
        match mem::replace(&mut *phase, Phase::Over) {
            Phase::Queued(telling) => {
                *phase = Phase::Handed(Handed {
                    telling,
                    future: None,
                    is_terminated: false,
                    is_recalled: false,
                });
                true
            }
            former => {
                *phase = former;
                drop(phase);
                self.leave();
                false
            }
        }
    }

    /// Notes the pool's future of the call. Returns whether the call is to be terminated.
    fn begun(&self, future: Py<PyAny>) -> bool {
        match &mut *self.shared.lock() {
            Phase::Handed(handed) => {
                handed.future = Some(future);
                handed.is_terminated
            }
            Phase::Direct(_) | Phase::Queued(_) | Phase::Over => false,
        }
    }

    /// Ends the call, whose future was cancelled before its worker began: by a recall, or by a termination.
    fn end_cancelled(&self) {
        let is_recalled = match &*self.shared.lock() {
            Phase::Handed(handed) => handed.is_recalled,
            // The pool was shut down.
            Phase::Direct(_) => true,
            Phase::Queued(_) | Phase::Over => return,
        };
        self.tell(if is_recalled {
            Ended::Untouched
        } else {
            Ended::Failure(self.shared.terminated.clone())
        });
    }

    /// Ends the call, with the bytes of a short outcome; see `_calls.run`.
    fn end_short(&self, outcome: &Bound<'_, PyBytes>) {
        self.tell(direct::ended(&shared(outcome)));
    }

    /// Ends the call, with the pickled result or the pickled error. A result may be in pieces.
    fn end(&self, is_value: bool, outcome: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = match outcome.cast::<PyBytes>() {
            Ok(bytes) => shared(bytes),
            Err(_) => joined(outcome)?,
        };
        self.tell(if is_value {
            Ended::Value(bytes)
        } else {
            Ended::Failure(bytes)
        });
        Ok(())
    }
}

/// A call of the host.
struct Carried {
    shared: Arc<Shared>,
    told: oneshot::Receiver<Ended>,
}

impl Future for Carried {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let terminated = self.shared.terminated.clone();
        Pin::new(&mut self.told).poll(context).map(|told| {
            // The thread that carries the call out has ended by force.
            told.unwrap_or_else(|_| Ended::Failure(terminated))
        })
    }
}

impl Running for Carried {
    fn recall(&self) -> bool {
        if self.shared.end_queued(Ended::Untouched) {
            return true;
        }
        if let Some(task) = self.shared.task() {
            return task.cancel();
        }
        // A call that went ahead may wait in the pool.
        let recalled = Python::try_attach(|py| {
            let future = match &mut *self.shared.lock() {
                Phase::Handed(handed) if !handed.is_terminated => {
                    let Some(future) = &handed.future else {
                        return Ok(false);
                    };
                    handed.is_recalled = true;
                    future.clone_ref(py)
                }
                _ => return Ok(false),
            };
            let is_cancelled: PyResult<bool> = future.call_method0(py, "cancel")?.extract(py);
            if !matches!(is_cancelled, Ok(true))
                && let Phase::Handed(handed) = &mut *self.shared.lock()
            {
                handed.is_recalled = false;
            }
            is_cancelled
        });
        matches!(recalled, Some(Ok(true)))
    }

    fn terminate(&self) -> bool {
        let failure = Ended::Failure(self.shared.terminated.clone());
        if self.shared.end_queued(failure) {
            return true;
        }
        if let Some(task) = self.shared.task() {
            // Noted before it counts: a call that no worker has begun is cancelled.
            self.shared.set_terminated(true);
            let will_end = task.cancel() || task.terminate();
            self.shared.set_terminated(will_end);
            return will_end;
        }
        let ending = Python::try_attach(|py| {
            let future = match &mut *self.shared.lock() {
                Phase::Handed(handed) => {
                    let Some(future) = &handed.future else {
                        handed.is_terminated = true;
                        return Ok(true);
                    };
                    future.clone_ref(py)
                }
                _ => return Ok(false),
            };
            future.call_method0(py, "terminate")?.extract(py)
        });
        matches!(ending, Some(Ok(true)))
    }
}

/// The queue of the threads that wait for calls.
///
/// The first pool has a worker for each slot. A call goes to the other pool if all workers of the first one have calls: the
/// host begins it as some of those wait.
///
/// A call that the first pool accepts at once is not in the queue.
///
/// There is a thread for each call that has a slot of the host, and one more. A call that has come ahead of its slot waits
/// until fewer threads carry calls out than there are workers. Then a thread takes several of them at once, if they are short.
struct Calls {
    state: Mutex<Queue>,
    changed: Condvar,
    workers: usize,
}

/// The next work of a thread.
enum Work {
    /// Calls, or one call that has ended; none if there will be no more.
    Calls(Vec<Job>),
    /// The start of a worker for a call.
    Start(Arc<Task>),
}

#[derive(Default)]
struct Queue {
    /// The first pool, once it accepts calls without the interpreter.
    direct: Option<Arc<DirectPool>>,
    /// The calls for which workers are to be started.
    starts: Vec<Arc<Task>>,
    /// The direct calls whose outcome takes Python code.
    ended: VecDeque<Job>,
    calls: VecDeque<Job>,
    ahead: VecDeque<Job>,
    /// The number of threads that carry calls out.
    carried: usize,
    /// The number of calls that the first pool has, or is about to get.
    busy: usize,
    /// The number of threads that wait.
    waiting: usize,
    closed: bool,
}

impl Calls {
    fn new(workers: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            workers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a call to the first pool, or queues it.
    fn begin(&self, job: Job) {
        let Some((pool, job)) = self.choose(job) else {
            return;
        };
        let shared = Arc::clone(&job.shared);
        shared.set_direct(true);
        let argument = job.take_argument();
        let options = job.options;
        match pool.submit(job, options, &argument) {
            Ok((task, wants_worker)) => {
                let task = Arc::new(task);
                shared.note_task(&task);
                if wants_worker {
                    self.lock().starts.push(task);
                    self.changed.notify_one();
                }
            }
            Err(job) => {
                shared.set_direct(false);
                job.leave();
                *job.argument_bytes() = argument;
                self.put(*job);
            }
        }
    }

    /// Counts a call as one of the first pool, and returns both. Queues the call, and returns none, if the call is not for
    /// this pool, or the pool needs Python code for it.
    fn choose(&self, mut job: Job) -> Option<(Arc<DirectPool>, Job)> {
        let mut state = self.lock();
        let is_spare = !job.options.is_ahead && state.busy >= self.workers;
        let is_long = job.length() > LONG;
        match state.direct.clone() {
            Some(pool) if !is_spare && !is_long => {
                state.busy += 1;
                *job.is_in_first.get_mut() = true;
                Some((pool, job))
            }
            _ => {
                drop(state);
                self.put(job);
                None
            }
        }
    }

    /// Queues a direct call whose outcome takes Python code.
    fn put_ended(&self, job: Job) {
        self.lock().ended.push_back(job);
        self.changed.notify_one();
    }

    fn put(&self, job: Job) {
        let mut state = self.lock();
        let mut is_waited_for = state.waiting > 0;
        if job.options.is_ahead {
            is_waited_for &= state.carried < self.workers;
            state.ahead.push_back(job);
        } else {
            state.calls.push_back(job);
        }
        drop(state);
        if is_waited_for {
            self.changed.notify_one();
        }
    }

    /// Waits for calls, up to `most` of them, or for other work. `carried` tells whether the thread has carried calls out.
    fn next(&self, carried: bool, most: usize) -> Work {
        let mut state = self.lock();
        state.carried -= usize::from(carried);
        loop {
            if let Some(task) = state.starts.pop() {
                return Work::Start(task);
            }
            if let Some(ended) = state.ended.pop_front() {
                state.carried += 1;
                return Work::Calls(vec![ended]);
            }
            let mut next: Vec<Job> = state.calls.pop_front().into_iter().collect();
            // As many calls of the first pool wait for others, which this one may be.
            let is_spare = !next.is_empty() && state.busy >= self.workers;
            if next.is_empty() && (state.carried < self.workers || state.closed) {
                let count = state.ahead.len().min(most.max(1));
                next = state.ahead.drain(..count).collect();
            }
            if !is_spare {
                state.busy += next.len();
                for job in &mut next {
                    *job.is_in_first.get_mut() = true;
                }
            }
            if !next.is_empty() {
                state.carried += 1;
                return Work::Calls(next);
            }
            if state.closed {
                return Work::Calls(next);
            }
            state.waiting += 1;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The pool of processes, as the host sees it.
struct Pool {
    workers: usize,
    spares: usize,
    calls: Arc<Calls>,
    terminated: Bytes,
}

impl Runner for Pool {
    fn workers(&self) -> usize {
        self.workers
    }

    fn spares(&self) -> usize {
        self.spares
    }

    fn ahead(&self) -> usize {
        AHEAD
    }

    fn knows(&self, call: &Call) -> bool {
        matches!(call, Call::Opaque(name) if name == CALL)
    }

    fn run(&self, _: &Call, argument: Bytes, options: CallOptions) -> Box<dyn Running> {
        let (telling, told) = oneshot::channel();
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase::Queued(telling)),
            terminated: self.terminated.clone(),
        });
        self.calls.begin(Job {
            shared: Arc::clone(&shared),
            calls: Arc::clone(&self.calls),
            argument: Mutex::new(argument),
            object: PyOnceLock::new(),
            options,
            is_in_first: AtomicBool::new(false),
            ended: None,
        });
        Box::new(Carried { shared, told })
    }

    fn receive_soon(&self) {
        let direct = self.calls.lock().direct.clone();
        if let Some(direct) = direct {
            direct.receive_soon();
        }
    }

    fn close(&self) {
        self.calls.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// The native part of a host.
#[pyclass(module = "concurrent_futures_cluster._native", frozen)]
pub(crate) struct Host {
    serving: Mutex<Option<ClusterHost>>,
    calls: Arc<Calls>,
    process: u32,
}

#[pymethods]
impl Host {
    /// Starts a host, whose calls `next` returns. `terminated` is the pickled error of calls that are terminated.
    #[new]
    #[pyo3(signature = (settings, *, workers, spares, drain, terminated))]
    fn new(
        py: Python<'_>,
        settings: Settings,
        workers: usize,
        spares: usize,
        drain: f64,
        terminated: Vec<u8>,
    ) -> PyResult<Self> {
        let calls = Arc::new(Calls::new(workers));
        let pool = Pool {
            workers,
            spares,
            calls: Arc::clone(&calls),
            terminated: terminated.into(),
        };
        let builder = settings
            .apply(ClusterHost::builder())?
            .drain(seconds("drain", drain)?)
            .runner(Arc::new(pool));
        let host = py.detach(|| builder.start());
        let host = host.map_err(|error| cluster_error(py, &error))?;
        Ok(Self {
            serving: Mutex::new(Some(host)),
            calls,
            process: std::process::id(),
        })
    }

    /// Waits for calls, and returns up to `most` of them, or one that has ended; none when there will be no more. `carried`
    /// tells whether the thread has carried calls out before. Raises the exception of a worker that could not start.
    fn next(&self, py: Python<'_>, mut carried: bool, most: usize) -> PyResult<Vec<Job>> {
        loop {
            match py.detach(|| self.calls.next(carried, most)) {
                Work::Calls(jobs) => return Ok(jobs),
                Work::Start(task) => task.start_worker(py)?,
            }
            carried = false;
        }
    }

    /// Submits calls to the pool of this capsule without the interpreter, from now on; to none if it is None.
    fn use_direct_calls(&self, capsule: Option<&Bound<'_, PyCapsule>>) -> PyResult<()> {
        let pool = capsule.map(DirectPool::of).transpose()?.map(Arc::new);
        let former = mem::replace(&mut self.calls.lock().direct, pool);
        drop(former);
        Ok(())
    }

    /// Returns how many threads wait for a call.
    fn waiting(&self) -> usize {
        self.calls.lock().waiting
    }

    /// Returns the path of the socket on which workers say that their calls wait for others.
    fn waits_path(&self) -> Option<OsString> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let path = serving.as_ref()?.waits_path()?;
        Some(path.as_os_str().to_owned())
    }

    /// Drains the host, and ends it.
    fn stop(&self, py: Python<'_>) {
        let host = self
            .serving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if self.process == std::process::id() {
            py.detach(|| drop(host));
            self.calls.close();
            let direct = self.calls.lock().direct.take();
            drop(direct);
        } else {
            mem::forget(host);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let host = self
            .serving
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if self.process == std::process::id() {
            Python::try_attach(|py| py.detach(|| drop(host)));
        } else {
            mem::forget(host);
        }
    }
}
