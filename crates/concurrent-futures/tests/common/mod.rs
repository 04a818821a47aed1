//! Helpers of all tests: gates that hold tasks, and waits for events. The time limits of the waits are there
//! for broken code only.

#![allow(dead_code, reason = "each test file uses some of it")]

#[cfg(target_os = "linux")]
pub(crate) mod memory;
#[cfg(all(feature = "process", target_os = "linux"))]
pub(crate) mod process;
#[cfg(feature = "recording")]
pub(crate) mod recording;

use concurrent_futures::{ExecutorStats, Future, TaskError, ThreadPoolExecutor};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of events that come at once in code that works.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A time limit that is meant to pass.
pub(crate) const SHORT: Duration = Duration::from_millis(5);

/// Makes a pool with this many workers.
pub(crate) fn pool(max_workers: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder()
        .max_workers(max_workers)
        .build()
        .unwrap()
}

/// Holds threads until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// A task that occupies a worker until it is released, at the latest when this is dropped.
pub(crate) struct Hold {
    gate: Gate,
    future: Option<Future<()>>,
}

impl Hold {
    /// Holds one worker of a pool; returns when its task runs.
    pub(crate) fn worker_of(pool: &ThreadPoolExecutor) -> Self {
        let gate = Gate::new();
        let started = Gate::new();
        let future = pool
            .spawn({
                let (gate, started) = (gate.clone(), started.clone());
                move || {
                    started.open();
                    gate.wait();
                }
            })
            .unwrap();
        started.wait();
        Self {
            gate,
            future: Some(future),
        }
    }

    /// Holds all workers of a pool that has nothing to do.
    pub(crate) fn all_workers_of(pool: &ThreadPoolExecutor) -> Vec<Self> {
        (0..pool.max_workers())
            .map(|_| Self::worker_of(pool))
            .collect()
    }

    pub(crate) fn future(&self) -> &Future<()> {
        self.future.as_ref().unwrap()
    }

    /// Lets the task go on.
    pub(crate) fn open(&self) {
        self.gate.open();
    }

    /// Lets the task go on, and waits for its end.
    pub(crate) fn release(mut self) {
        self.gate.open();
        self.future.take().unwrap().result().unwrap();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Returns pending, running, finished, failed, and cancelled tasks.
pub(crate) fn counts(stats: &ExecutorStats) -> [u64; 5] {
    [
        stats.pending,
        stats.running,
        stats.finished,
        stats.failed,
        stats.cancelled,
    ]
}

/// A counter that many threads share.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A value that is counted as long as it lives.
pub(crate) struct Counted(Counter);

impl Counted {
    pub(crate) fn new(alive: &Counter) -> Self {
        alive.add();
        Self(alive.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(self.0.get() > 0, "dropped twice");
        self.0.subtract();
    }
}

/// Waits until the condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Lets the threads of a test get this many steps apart. A step is a time: on a crowded machine, each turn of a thread
/// that yields takes milliseconds.
pub(crate) fn drift(steps: u32) {
    const STEP: Duration = Duration::from_micros(3);
    let start = Instant::now();
    while start.elapsed() < STEP * steps {
        thread::yield_now();
    }
}

/// Calls `f`, and panics if it does not return: a hang becomes a failed test.
pub(crate) fn within_limit<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(f)));
    });
    match receiver.recv_timeout(LONG) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(timeout) => panic!("hangs: {timeout}"),
    }
}

/// Receives, and panics if nothing comes.
pub(crate) fn receive<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(LONG).unwrap()
}

/// Copies the result that a callback was given.
pub(crate) fn owned<T: Clone>(result: Result<&T, &TaskError>) -> Result<T, TaskError> {
    result.cloned().map_err(Clone::clone)
}

/// Returns the way to shut down that Python has as these two arguments.
pub(crate) fn shutdown(wait: bool, cancel_futures: bool) -> concurrent_futures::Shutdown {
    use concurrent_futures::Shutdown;
    match (wait, cancel_futures) {
        (true, false) => Shutdown::Wait,
        (false, false) => Shutdown::NoWait,
        (true, true) => Shutdown::CancelPending,
        (false, true) => Shutdown::CancelPendingNoWait,
    }
}
