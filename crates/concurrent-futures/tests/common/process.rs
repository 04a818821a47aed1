//! Helpers of the tests with worker processes: gates that hold a task in another process.

use super::eventually;
use concurrent_futures::{Future, ProcessPoolExecutor, StartMethod, TaskError, WorkerDied};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns both start methods.
pub(crate) fn start_methods() -> [StartMethod; 2] {
    [StartMethod::Spawn, StartMethod::ForkServer]
}

/// Makes a pool with this many workers.
pub(crate) fn pool(max_workers: usize, method: StartMethod) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder()
        .max_workers(max_workers)
        .start_method(method)
        .build()
        .unwrap()
}

/// A folder by which a task in another process says that it runs, and is told to go on.
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("concurrent-futures-gate-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // Of a process that had the same number, and was killed.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Returns the argument for [`hold`].
    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// Returns when the task runs, with its process id.
    pub(crate) fn wait_until_reached(&self) -> u32 {
        let reached = self.0.join("reached");
        eventually("the task runs", || reached.exists());
        std::fs::read_to_string(reached).unwrap().parse().unwrap()
    }

    /// Lets the task go on.
    pub(crate) fn open(&self) {
        std::fs::write(self.0.join("open"), "").unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A task that still waits goes on when the folder is gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reports that a task runs.
pub(crate) fn reach(gate: &Path) {
    let unfinished = gate.join(format!("reached-{}", std::process::id()));
    std::fs::write(&unfinished, std::process::id().to_string()).unwrap();
    std::fs::rename(unfinished, gate.join("reached")).unwrap();
}

/// Reports that the task runs, and returns when the gate is open.
#[allow(clippy::needless_pass_by_value, reason = "a task has its argument")]
pub(crate) fn hold(gate: PathBuf) {
    reach(&gate);
    eventually("the gate is open", || {
        gate.join("open").exists() || !gate.exists()
    });
}

/// Returns the processes of the workers, once there is one.
pub(crate) fn pids_of(pool: &ProcessPoolExecutor) -> Vec<u32> {
    eventually("there is a worker", || !pool.worker_pids().is_empty());
    pool.worker_pids()
}

/// Returns whether a process is there, and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Returns whether a process is there, or its zombie.
pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Checks that the system has no process or zombie with these ids.
pub(crate) fn assert_gone(pids: &[u32]) {
    for &pid in pids {
        assert!(!exists(pid), "process {pid} is still there");
    }
}

/// Sends a signal.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Returns the process of a worker that takes a task.
pub(crate) fn pid(pool: &ProcessPoolExecutor) -> u32 {
    pool.submit(|()| std::process::id(), ())
        .unwrap()
        .result()
        .unwrap()
}

/// Returns the way in which the worker of a task died.
pub(crate) fn death<T>(future: Future<T>) -> Arc<WorkerDied> {
    match future.result() {
        Err(TaskError::WorkerDied(death)) => death,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the task has a value"),
    }
}

/// Returns the death of the worker that broke the pool of a task.
pub(crate) fn breaking_death<T>(future: Future<T>) -> Arc<WorkerDied> {
    match future.result() {
        Err(TaskError::Broken(broken)) => {
            let death = broken.cause().downcast_ref::<WorkerDied>();
            Arc::new(death.expect("a death broke the pool").clone())
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the task has a value"),
    }
}
