//! Dumps that a signal asks for, and the Python stacks of worker processes.
//!
//! # Protocol
//! A program asks by `register_dump` for dumps by a signal. `faulthandler` handles the signal first, and writes the
//! stacks of all threads without the interpreter's lock. Then it calls the handler of this module, [`ring`], which
//! writes one byte to a pipe. A thread of its own, which never attaches, reads the byte and writes the rest.
//!
//! A worker process has a file of its own in a folder of the parent. There, `faulthandler` handles the signal too,
//! and the handler of this module, [`mark`], writes a last line. The parent sends the signal only to workers that
//! take tasks and have a file. Both come after the worker has set the handlers.

use crate::interp::fork::kept_across_forks;
use crate::interp::os::{Action, kill, process, write_bytes};
use concurrent_futures::engine::{describe_pools, measure_all, pipe, worker_pids};
use pyo3::prelude::*;
use std::ffi::c_int;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The last line of the stacks of a worker.
const LAST: &str = "--- end of the stacks\n";
/// The time that a worker gets to write its stacks.
const PATIENCE: Duration = Duration::from_secs(2);

/// The writing end of the pipe by which the handler wakes the thread; -1 if there is none.
static BELL: AtomicI32 = AtomicI32::new(-1);
/// The process whose thread reads the pipe.
static WATCHER: AtomicU32 = AtomicU32::new(0);
/// The file of a worker's stacks; -1 if there is none.
static STACKS: AtomicI32 = AtomicI32::new(-1);

/// The way in which dumps are asked for.
struct Watch {
    signal: c_int,
    /// The descriptor to which dumps are written.
    fd: c_int,
    /// The folder with the files of workers.
    folder: PathBuf,
    /// The action that the signal had before.
    former: Option<Action>,
}

static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

fn watch() -> MutexGuard<'static, Option<Watch>> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

kept_across_forks!(watch(), Option<Watch>, |_| {});

/// Wakes the thread that writes dumps. This is a handler of signals.
extern "C" fn ring(_: c_int) {
    // The child of a fork has the pipe, too, but no thread.
    if WATCHER.load(Ordering::Relaxed) == process() {
        write_bytes(BELL.load(Ordering::Relaxed), b"!");
    }
}

/// Ends the stacks of this worker. This is a handler of signals.
extern "C" fn mark(_: c_int) {
    write_bytes(STACKS.load(Ordering::Relaxed), LAST.as_bytes());
}

/// Returns the stacks of a worker, or why there are none.
fn stacks_of(pid: u32, signal: c_int, folder: &Path) -> String {
    let path = folder.join(pid.to_string());
    let Ok(before) = fs::metadata(&path) else {
        return format!("The worker process {pid} began before register_dump() was called.\n");
    };
    let before = usize::try_from(before.len()).unwrap_or(usize::MAX);
    if !kill(pid, signal) {
        return format!("The worker process {pid} has ended.\n");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(before..).unwrap_or_default());
        if let Some(stacks) = text.strip_suffix(LAST) {
            return format!("Stacks of the worker process {pid}:\n{stacks}");
        }
        if Instant::now() > deadline {
            return format!(
                "The worker process {pid} has not answered within {} s.\n{text}",
                PATIENCE.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the stacks of all worker processes.
fn stacks_of_workers(signal: c_int, folder: &Path) -> String {
    let workers = worker_pids().into_iter();
    let stacks = workers.map(|pid| format!("\n{}", stacks_of(pid, signal, folder)));
    stacks.collect()
}

/// Writes a dump for each byte from the pipe.
fn answer(mut pipe: File) {
    let mut byte = [0];
    while let Ok(1) = pipe.read(&mut byte) {
        let request = watch()
            .as_ref()
            .map(|watch| (watch.signal, watch.fd, watch.folder.clone()));
        let Some((signal, fd, folder)) = request else {
            continue;
        };
        let text = format!("\n{}", describe_pools());
        write_bytes(fd, text.as_bytes());
        write_bytes(fd, stacks_of_workers(signal, &folder).as_bytes());
    }
}

/// Starts the thread that answers signals, unless this process has it.
fn start_watcher() -> PyResult<()> {
    if WATCHER.load(Ordering::Relaxed) == process() {
        return Ok(());
    }
    let (reading, writing) = pipe()?;
    thread::Builder::new()
        .name("concurrent_futures dump".to_owned())
        .spawn(move || answer(File::from(reading)))?;
    // Kept for the handler.
    BELL.store(writing.as_raw_fd(), Ordering::Relaxed);
    let _kept = writing.into_raw_fd();
    WATCHER.store(process(), Ordering::Relaxed);
    Ok(())
}

/// Writes dumps to a descriptor when this process gets a signal. The folder is for the workers.
#[pyfunction]
pub(crate) fn watch_dumps(
    py: Python<'_>,
    signal: c_int,
    fd: c_int,
    folder: PathBuf,
) -> PyResult<()> {
    py.detach(|| {
        start_watcher()?;
        measure_all();
        let mut watch = watch();
        let former = Action::calling(ring).exchange(signal);
        if former.is_none() {
            return Err(std::io::Error::last_os_error().into());
        }
        *watch = Some(Watch {
            signal,
            fd,
            folder,
            former,
        });
        Ok(())
    })
}

/// Writes no more dumps when this process gets the signal.
#[pyfunction]
pub(crate) fn unwatch_dumps(py: Python<'_>) {
    py.detach(|| {
        if let Some(watch) = watch().take()
            && let Some(former) = watch.former
        {
            former.exchange(watch.signal);
        }
    });
}

/// Ends the stacks that this worker writes to a descriptor, when it gets a signal.
#[pyfunction]
pub(crate) fn mark_stacks(signal: c_int, fd: c_int) {
    STACKS.store(fd, Ordering::Relaxed);
    Action::calling(mark).exchange(signal);
}

/// Returns the stacks of all worker processes as text.
#[pyfunction]
pub(crate) fn dump_workers(py: Python<'_>, signal: c_int, folder: PathBuf) -> String {
    py.detach(|| stacks_of_workers(signal, &folder))
}
