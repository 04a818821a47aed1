//! The server of the embedded mode: a child on loopback, which ends with the executor.

#![forbid(unsafe_code)]

use crate::error::ClusterError;
use crate::os;
use crate::wire::{hex, random};
use std::env;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// The variable that names the program.
const VARIABLE: &str = "CONCURRENT_FUTURES_NATS_SERVER";
const PROGRAM: &str = "nats-server";
/// The time that the server may take to start.
const START: Duration = Duration::from_secs(20);
/// The words of its log before the address at which it listens.
const LISTENS: &str = "Listening for client connections on ";

/// A server on this machine.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The server's folder, which goes with it.
    _folder: TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
}

/// Returns the program of the server, by the variable, or else from `PATH`, or from the active environment of Python.
fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os(VARIABLE) {
        return Some(PathBuf::from(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let environment = env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin"));
    let mut folders = env::split_paths(&path).chain(environment);
    folders.find_map(|folder| Some(folder.join(PROGRAM)).filter(|path| path.is_file()))
}

impl Server {
    /// Starts a server. The thread that calls this must live as long as the server.
    pub(crate) async fn start(program: Option<PathBuf>) -> Result<Self, ClusterError> {
        let program = program.or_else(find).filter(|program| program.is_file());
        let program = program.ok_or(ClusterError::NoServer)?;
        let failed = |error: io::Error| ClusterError::ServerStart {
            program: program.clone(),
            cause: Arc::new(error),
        };
        // Only this user can read it: the file has the token.
        let folder = TempDir::with_prefix("concurrent-futures-")?;
        let token = hex(&random::<16>()?);
        let path = folder.path().join("server.conf");
        fs::write(&path, configuration(folder.path(), &token))?;
        let mut command = Command::new(&program);
        command
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        os::end_with_this_thread(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let log = child.stderr.take().map(OwnedFd::from);
        let mut server = Self {
            child,
            _folder: folder,
            url: String::new(),
            token,
        };
        let log = log
            .ok_or(io::ErrorKind::BrokenPipe)
            .map_err(io::Error::from);
        let mut log = Log::new(log.map_err(failed)?).map_err(failed)?;
        let address = timeout(START, log.address()).await;
        match address.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Some(address)) => server.url = format!("nats://{address}"),
            Ok(None) => {
                // A program that only closed its output is no server. One that has ended keeps its exit code.
                server.child.kill()?;
                let status = server.child.wait()?;
                let why = format!("it ended: {status}; its last words: {}", log.last.trim());
                return Err(failed(io::Error::other(why)));
            }
            Err(error) => return Err(failed(error)),
        }
        tokio::spawn(log.drain());
        Ok(server)
    }
}

/// The log of a server, by a pipe. A line tells when the server listens, and where.
struct Log {
    lines: Lines<BufReader<pipe::Receiver>>,
    last: String,
}

impl Log {
    fn new(output: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            lines: BufReader::new(pipe::Receiver::from_owned_fd(output)?).lines(),
            last: String::new(),
        })
    }

    /// Returns the address at which the server listens to clients; none if the server has ended.
    async fn address(&mut self) -> io::Result<Option<String>> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some((_, address)) = line.split_once(LISTENS) {
                return Ok(Some(address.trim().to_owned()));
            }
            self.last = line;
        }
        Ok(None)
    }

    /// Reads the log until the server ends, so that the server never waits for a reader.
    async fn drain(mut self) {
        while let Ok(Some(_)) = self.lines.next_line().await {}
    }
}

/// Returns the configuration.
fn configuration(folder: &Path, token: &str) -> String {
    let folder = folder.display();
    format!(
        "listen: \"127.0.0.1:-1\"\n\
         authorization {{ token: \"{token}\" }}\n\
         jetstream {{ store_dir: \"{folder}/jetstream\" }}\n"
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended if that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the program of the server for unit tests: that of users, or one that the project has installed.
#[cfg(test)]
pub(crate) fn for_tests() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let environments = fs::read_dir(root.join(".venv")).into_iter().flatten();
    let mut programs = environments
        .flatten()
        .map(|entry| entry.path().join("bin").join(PROGRAM));
    find().or_else(|| programs.find(|program| program.is_file()))
}
