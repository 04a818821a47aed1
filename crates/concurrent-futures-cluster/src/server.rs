//! The server of the embedded mode: a child on loopback, which ends with the executor.

#![forbid(unsafe_code)]

use crate::error::ClusterError;
use crate::os;
use crate::wire::{hex, random};
use serde::Deserialize;
use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The variable that names the program.
const VARIABLE: &str = "CONCURRENT_FUTURES_NATS_SERVER";
const PROGRAM: &str = "nats-server";
/// The time that the server may take to start.
const START: Duration = Duration::from_secs(20);

/// A server on this machine.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The server's folder, which goes with it.
    _folder: TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
}

#[derive(Deserialize)]
struct Ports {
    nats: VecDeque<String>,
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
            .stderr(Stdio::null());
        os::end_with_this_thread(&mut command);
        let child = command.spawn().map_err(failed)?;
        let ports = folder
            .path()
            .join(format!("{PROGRAM}_{}.ports", child.id()));
        let mut server = Self {
            child,
            _folder: folder,
            url: String::new(),
            token,
        };
        let deadline = Instant::now() + START;
        loop {
            let written = fs::read(&ports).unwrap_or_default();
            if let Ok(mut ports) = serde_json::from_slice::<Ports>(&written)
                && let Some(url) = ports.nats.pop_front()
            {
                server.url = url;
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(failed(io::Error::other(format!("it ended: {status}"))));
            }
            if Instant::now() >= deadline {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Returns the configuration. Without memory of earlier runs, the name of the ports' file is that of the program.
fn configuration(folder: &Path, token: &str) -> String {
    let folder = folder.display();
    format!(
        "listen: \"127.0.0.1:-1\"\n\
         ports_file_dir: \"{folder}\"\n\
         logfile: \"{folder}/server.log\"\n\
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
