//! The server of the embedded mode: a child on loopback, which ends with the executor.

#![forbid(unsafe_code)]

use crate::error::ClusterError;
use crate::folder::Folder;
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
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// The variable that names the program.
const VARIABLE: &str = "CONCURRENT_FUTURES_NATS_SERVER";
const PROGRAM: &str = "nats-server";
/// The time that the server may take to start.
const START: Duration = Duration::from_secs(20);
/// The variables by which programs in Go are told how much memory garbage may take.
const GARBAGE: &str = "GOGC";
const MEMORY: &str = "GOMEMLIMIT";
/// The garbage that the server may keep, in percent of its data. By default, the server takes a fourth more time for a
/// payload of 8 MB, as it collects several times meanwhile. With still more garbage, it would be little faster.
const MUCH: &str = "200";
/// The words of its log before the address at which it listens.
const LISTENS: &str = "Listening for client connections on ";

/// A server on this machine.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The server's folder, which goes with it.
    _folder: Folder,
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
        let folder = Folder::make("cf-server-", &env::temp_dir())?;
        let token = hex(&random::<16>()?);
        let path = folder.path().join("server.conf");
        let tuning = Tuning::found();
        fs::write(&path, configuration(folder.path(), &token, tuning.as_ref()))?;
        let mut command = Command::new(&program);
        if let Some(Tuning { limit, .. }) = tuning {
            command.env(GARBAGE, MUCH).env(MEMORY, limit.to_string());
        }
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

/// The memory of the server, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Tuning {
    /// The memory above which the server collects its garbage more often. With the default settings, it would need all memory
    /// for so much data.
    limit: u64,
    /// The room for payloads and the like. It is that of a server without a limit, which would take it from the limit.
    room: u64,
}

impl Tuning {
    fn of(memory: u64, limit: Option<u64>) -> Self {
        Self {
            limit: memory.min(limit.unwrap_or(u64::MAX)) / 2,
            room: memory / 4 * 3,
        }
    }

    /// Returns the tuning for this machine; none if the user has tuned programs in Go, or the memory is not known.
    fn found() -> Option<Self> {
        if env::var_os(GARBAGE).is_some() || env::var_os(MEMORY).is_some() {
            return None;
        }
        Some(Self::of(os::memory()?, os::memory_limit()))
    }
}

/// Returns the configuration.
fn configuration(folder: &Path, token: &str, tuning: Option<&Tuning>) -> String {
    let folder = folder.display();
    let room = tuning.map_or_else(String::new, |tuning| {
        format!(", max_memory_store: {}", tuning.room)
    });
    format!(
        "listen: \"127.0.0.1:-1\"\n\
         authorization {{ token: \"{token}\" }}\n\
         jetstream {{ store_dir: \"{folder}/jetstream\"{room} }}\n"
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

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "skipped tests say so")]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn the_limit_is_half_of_the_least_memory() {
        let tuning = Tuning::of(16 << 30, None);
        assert_eq!((tuning.limit, tuning.room), (8 << 30, 12 << 30));
        let tuning = Tuning::of(16 << 30, Some(2 << 30));
        assert_eq!((tuning.limit, tuning.room), (1 << 30, 12 << 30));
        assert_eq!(
            Tuning::of(16 << 30, Some(1 << 40)),
            Tuning::of(16 << 30, None)
        );
    }

    /// The room of the server's memory store is that of a server which is not tuned.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_server_collects_less_often_and_has_its_usual_room() -> Result<(), Box<dyn Error>> {
        let (Some(program), Some(tuning)) = (for_tests(), Tuning::found()) else {
            eprintln!("skipped: there is no nats-server, or GOGC or GOMEMLIMIT is set");
            return Ok(());
        };
        let server = Server::start(Some(program)).await?;
        let environment = fs::read(format!("/proc/{}/environ", server.child.id()))?;
        let has = |variable: String| {
            environment
                .split(|byte| *byte == 0)
                .any(|it| it == variable.as_bytes())
        };
        assert!(has(format!("{GARBAGE}={MUCH}")));
        assert!(has(format!("{MEMORY}={}", tuning.limit)));
        let options = async_nats::ConnectOptions::with_token(server.token.clone());
        let client = options.connect(&server.url).await?;
        let context = async_nats::jetstream::new(client);
        let stream = |max_bytes| async_nats::jetstream::stream::Config {
            name: "room".to_owned(),
            storage: async_nats::jetstream::stream::StorageType::Memory,
            max_bytes,
            ..Default::default()
        };
        let room = i64::try_from(tuning.room)?;
        assert!(context.create_stream(stream(room + 1)).await.is_err());
        context.create_stream(stream(room)).await?;
        Ok(())
    }
}
