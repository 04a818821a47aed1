//! Tasks that wait for other tasks of a cluster: their host runs another one meanwhile.
//!
//! A worker process tells its host when a task goes to sleep for a future of a cluster, and when the task goes on. It does
//! so on a socket of the host's own, whose path it has from a variable. The host counts the workers that
//! sleep, and takes that many tasks more. A worker that dies sleeps no more, as its connection ends.

#![forbid(unsafe_code)]

use crate::log;
use crate::os::UnixStream;
use concurrent_futures::engine::Sleeping;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

/// The variable with the path of the host's socket.
pub(crate) const SOCKET: &str = "CONCURRENT_FUTURES_HOST_SOCKET";
const SLEEPS: u8 = b'+';
const GOES_ON: u8 = b'-';

/// The socket of a host.
#[derive(Debug)]
pub(crate) struct Waits {
    listener: UnixListener,
    path: PathBuf,
    /// Removed with the socket. Other users cannot look into it.
    _folder: TempDir,
}

impl Waits {
    /// Opens a socket. None if the system has no place for one: then tasks that wait keep their slots.
    pub(crate) fn open() -> Option<Self> {
        // The path of a socket must be short, and that of the folder for temporary files may be long.
        let opened = Self::open_in(&env::temp_dir()).or_else(|_| Self::open_in(Path::new("/tmp")));
        let trouble = |error: &io::Error| log::trouble("a host cannot learn of waits", error);
        opened.inspect_err(trouble).ok()
    }

    fn open_in(place: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("cf-host-")
            .tempdir_in(place)?;
        let path = folder.path().join("waits");
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
            _folder: folder,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Receives the news of workers, and calls `note` whenever a worker goes to sleep (true) or goes on (false).
    pub(crate) async fn receive(self, note: impl Fn(bool) + Clone + Send + 'static) {
        let mut workers = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = workers.join_next() => continue,
            };
            match accepted {
                Ok((worker, _)) => {
                    workers.spawn(follow(worker, note.clone()));
                }
                Err(error) => {
                    log::trouble("a worker could not reach its host", &error);
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Follows one worker, until it ends.
async fn follow(mut worker: tokio::net::UnixStream, note: impl Fn(bool)) {
    let mut sleeping = 0_u64;
    let mut bytes = [0; 64];
    loop {
        // A connection that breaks has ended.
        let count = worker.read(&mut bytes).await.unwrap_or(0);
        let was_asleep = sleeping > 0;
        for byte in bytes.iter().take(count) {
            match *byte {
                SLEEPS => sleeping += 1,
                GOES_ON => sleeping = sleeping.saturating_sub(1),
                _ => {}
            }
        }
        if count == 0 {
            sleeping = 0;
        }
        if was_asleep != (sleeping > 0) {
            note(sleeping > 0);
        }
        if count == 0 {
            return;
        }
    }
}

/// The connection of this worker to its host.
static CONNECTION: Mutex<Option<UnixStream>> = Mutex::new(None);

/// Tells the host one byte. Returns false if there is no host, or it is gone.
fn tell(byte: u8) -> bool {
    tell_host(byte).unwrap_or_else(|error| {
        // Without the lock: a log is foreign code, which may wait for a task.
        log::trouble("a task waits, and its host does not know", &error);
        false
    })
}

/// Tells the host one byte. Returns false if there is no host, or it is gone.
///
/// # Errors
/// Why the host cannot be reached.
fn tell_host(byte: u8) -> io::Result<bool> {
    let mut connection = CONNECTION.lock().unwrap_or_else(PoisonError::into_inner);
    if connection.is_none() {
        let Some(path) = env::var_os(SOCKET) else {
            return Ok(false);
        };
        *connection = Some(UnixStream::connect(path)?);
    }
    let told = connection.as_mut().map(|stream| stream.write_all(&[byte]));
    let is_told = matches!(told, Some(Ok(())));
    if !is_told {
        *connection = None;
    }
    Ok(is_told)
}

/// The sleep of a task in a worker of a host.
struct Asleep;

impl Sleeping for Asleep {}

impl Drop for Asleep {
    fn drop(&mut self) {
        // If the connection has ended, the host has forgotten the sleep.
        tell(GOES_ON);
    }
}

/// Tells the host of this worker that its task goes to sleep. None in a process that is no such worker.
pub(crate) fn note_sleep() -> Option<Box<dyn Sleeping>> {
    tell(SLEEPS).then(|| Box::new(Asleep) as Box<dyn Sleeping>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_worker_sleeps_until_its_last_wait_ends_or_it_dies() -> io::Result<()> {
        let waits = Waits::open().ok_or(io::ErrorKind::Other)?;
        let path = waits.path().to_owned();
        let (sender, mut news) = mpsc::unbounded_channel();
        tokio::spawn(waits.receive(move |sleeps| {
            // The test has ended if there is no receiver.
            let _ = sender.send(sleeps);
        }));
        let mut one = UnixStream::connect(&path)?;
        let mut other = UnixStream::connect(&path)?;
        one.write_all(&[SLEEPS, SLEEPS])?;
        assert_eq!(news.recv().await, Some(true));
        other.write_all(&[SLEEPS])?;
        assert_eq!(news.recv().await, Some(true));
        one.write_all(&[GOES_ON])?;
        one.write_all(&[GOES_ON])?;
        assert_eq!(news.recv().await, Some(false));
        drop(other);
        assert_eq!(news.recv().await, Some(false));
        // A second end, which has no beginning, is no news.
        one.write_all(&[GOES_ON, SLEEPS])?;
        assert_eq!(news.recv().await, Some(true));
        Ok(())
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error() -> io::Result<()> {
        let folder = TempDir::new()?;
        let long = folder.path().join("a".repeat(150));
        std::fs::create_dir(&long)?;
        assert!(Waits::open_in(&long).is_err());
        Ok(())
    }
}
