//! Tasks that wait for other tasks of a cluster: their host runs another one meanwhile. And parts of results.
//!
//! A worker process tells its host when a task goes to sleep for a future of a cluster, and when the task goes on. It does
//! so on a socket of the host's own, whose path it has from a variable. The host counts the workers that
//! sleep, and takes that many tasks more. A worker that dies sleeps no more, as its connection ends.
//!
//! On the same socket, a worker sends parts of the result of a call that still runs. A part is the byte `p`, three numbers
//! and the bytes. The numbers are the token of the call, the place of the part in the result, and the length. They have
//! 64 bits each, in little-endian order.

#![forbid(unsafe_code)]

use crate::folder::Folder;
use crate::log;
use crate::os::UnixStream;
use bytes::{Buf, Bytes, BytesMut};
use concurrent_futures::engine::Sleeping;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

/// The variable with the path of the host's socket.
pub(crate) const SOCKET: &str = "CONCURRENT_FUTURES_HOST_SOCKET";
const SLEEPS: u8 = b'+';
const GOES_ON: u8 = b'-';
const PART: u8 = b'p';
/// The length of a part before its bytes.
const HEAD: usize = 1 + 3 * 8;
/// The longest part.
const LONGEST_PART: u64 = 1 << 32;

/// The news of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The worker goes to sleep (true), or goes on.
    Sleeps(bool),
    Part(Part),
}

/// A part of the result of a call that runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The token of the call.
    pub(crate) token: u64,
    /// The place in the result.
    pub(crate) first: u64,
    pub(crate) bytes: Bytes,
}

impl Part {
    /// Takes a part out of the bytes of a worker, if all of it is there.
    ///
    /// # Errors
    /// When it is longer than any part.
    fn take(bytes: &mut BytesMut) -> io::Result<Option<Self>> {
        let Some(head) = bytes.get(1..HEAD) else {
            return Ok(None);
        };
        let mut numbers = head.chunks_exact(8).map(|number| {
            let number: [u8; 8] = number.try_into().unwrap_or_default();
            u64::from_le_bytes(number)
        });
        let mut number = || numbers.next().unwrap_or_default();
        let (token, first, length) = (number(), number(), number());
        if length > LONGEST_PART {
            return Err(io::Error::other("a part of a result is too long"));
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if bytes.len() < HEAD + length {
            bytes.reserve(HEAD + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(HEAD);
        Ok(Some(Self {
            token,
            first,
            bytes: bytes.split_to(length).freeze(),
        }))
    }
}

/// The socket of a host.
#[derive(Debug)]
pub(crate) struct Waits {
    listener: UnixListener,
    path: PathBuf,
    /// Removed with the socket. Other users cannot look into it.
    _folder: Folder,
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
        let folder = Folder::make("cf-host-", place)?;
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

    /// Receives the news of workers, and calls `note` for each.
    pub(crate) async fn receive(self, note: impl Fn(Word) + Clone + Send + 'static) {
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
async fn follow(mut worker: tokio::net::UnixStream, note: impl Fn(Word)) {
    let mut sleeping = 0_u64;
    let mut bytes = BytesMut::with_capacity(64);
    loop {
        // A connection that breaks has ended.
        let count = worker.read_buf(&mut bytes).await.unwrap_or(0);
        let was_asleep = sleeping > 0;
        let is_right = take_words(&mut bytes, &mut sleeping, &note);
        let is_over = count == 0 || is_right.is_err();
        if let Err(error) = is_right {
            log::trouble("a worker sends no news that its host knows", &error);
        }
        if is_over {
            sleeping = 0;
        }
        if was_asleep != (sleeping > 0) {
            note(Word::Sleeps(sleeping > 0));
        }
        if is_over {
            return;
        }
    }
}

/// Takes all news out of the bytes of a worker that are there as a whole.
fn take_words(bytes: &mut BytesMut, sleeping: &mut u64, note: &impl Fn(Word)) -> io::Result<()> {
    while let Some(first) = bytes.first() {
        match *first {
            SLEEPS => *sleeping += 1,
            GOES_ON => *sleeping = sleeping.saturating_sub(1),
            PART => {
                let Some(part) = Part::take(bytes)? else {
                    return Ok(());
                };
                note(Word::Part(part));
                continue;
            }
            _ => {}
        }
        bytes.advance(1);
    }
    Ok(())
}

/// The connection of this worker to its host.
static CONNECTION: Mutex<Option<UnixStream>> = Mutex::new(None);

/// Tells the host one byte. Returns false if there is no host, or it is gone.
fn tell(byte: u8) -> bool {
    tell_host(&[byte]).unwrap_or_else(|error| {
        // Without the lock: a log is foreign code, which may wait for a task.
        log::trouble("a task waits, and its host does not know", &error);
        false
    })
}

/// Returns whether this process is the worker of a host that can be told something.
pub(crate) fn has_host() -> bool {
    env::var_os(SOCKET).is_some()
}

/// Tells the host a part of the result of a call, which has this place in it. If that fails, the whole result has it.
pub(crate) fn tell_part(token: u64, first: u64, part: &[u8]) {
    let mut frame = Vec::with_capacity(HEAD + part.len());
    frame.push(PART);
    frame.extend(
        [token, first, part.len() as u64]
            .map(u64::to_le_bytes)
            .concat(),
    );
    frame.extend_from_slice(part);
    if let Err(error) = tell_host(&frame) {
        log::trouble("a part of a result could not be told", &error);
    }
}

/// Tells the host something. Returns false if there is no host, or it is gone.
///
/// # Errors
/// Why the host cannot be reached.
fn tell_host(news: &[u8]) -> io::Result<bool> {
    let mut connection = CONNECTION.lock().unwrap_or_else(PoisonError::into_inner);
    if connection.is_none() {
        let Some(path) = env::var_os(SOCKET) else {
            return Ok(false);
        };
        *connection = Some(UnixStream::connect(path)?);
    }
    let told = connection.as_mut().map(|stream| stream.write_all(news));
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
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_worker_sleeps_until_its_last_wait_ends_or_it_dies() -> io::Result<()> {
        let waits = Waits::open().ok_or(io::ErrorKind::Other)?;
        let path = waits.path().to_owned();
        let (sender, mut news) = mpsc::unbounded_channel();
        tokio::spawn(waits.receive(move |word| {
            // The test has ended if there is no receiver.
            let _ = sender.send(word);
        }));
        let mut one = UnixStream::connect(&path)?;
        let mut other = UnixStream::connect(&path)?;
        one.write_all(&[SLEEPS, SLEEPS])?;
        assert_eq!(news.recv().await, Some(Word::Sleeps(true)));
        other.write_all(&[SLEEPS])?;
        assert_eq!(news.recv().await, Some(Word::Sleeps(true)));
        one.write_all(&[GOES_ON])?;
        one.write_all(&[GOES_ON])?;
        assert_eq!(news.recv().await, Some(Word::Sleeps(false)));
        drop(other);
        assert_eq!(news.recv().await, Some(Word::Sleeps(false)));
        // A second end, which has no beginning, is no news.
        one.write_all(&[GOES_ON, SLEEPS])?;
        assert_eq!(news.recv().await, Some(Word::Sleeps(true)));
        Ok(())
    }

    #[tokio::test]
    async fn parts_of_results_come_whole_however_their_bytes_do() -> io::Result<()> {
        let (mut worker, host) = tokio::net::UnixStream::pair()?;
        let (sender, mut news) = mpsc::unbounded_channel();
        tokio::spawn(follow(host, move |word| {
            // The test has ended if there is no receiver.
            let _ = sender.send(word);
        }));
        let mut frame = Vec::new();
        for (token, text) in [(7, "one"), (8, ""), (9, "+-p")] {
            frame.push(PART);
            frame.extend(
                [token, token + 1, text.len() as u64]
                    .map(u64::to_le_bytes)
                    .concat(),
            );
            frame.extend(text.as_bytes());
        }
        frame.push(SLEEPS);
        for byte in frame {
            worker.write_all(&[byte]).await?;
            tokio::task::yield_now().await;
        }
        for (token, text) in [(7, "one"), (8, ""), (9, "+-p")] {
            let part = Part {
                token,
                first: token + 1,
                bytes: Bytes::from_static(text.as_bytes()),
            };
            assert_eq!(news.recv().await, Some(Word::Part(part)));
        }
        assert_eq!(news.recv().await, Some(Word::Sleeps(true)));
        // One that is too long for any host ends the connection.
        worker.write_all(&[PART; HEAD]).await?;
        assert_eq!(news.recv().await, Some(Word::Sleeps(false)));
        assert_eq!(news.recv().await, None);
        Ok(())
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error() -> io::Result<()> {
        let folder = tempfile::TempDir::new()?;
        let long = folder.path().join("a".repeat(150));
        std::fs::create_dir(&long)?;
        assert!(Waits::open_in(&long).is_err());
        Ok(())
    }
}
