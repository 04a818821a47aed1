//! The spawners of the Rust frontend, whose workers are this program, started anew.
//!
//! | start method | spawner | a worker is |
//! |---|---|---|
//! | [`StartMethod::Spawn`] | [`Program`] | a new process of this program |
//! | [`StartMethod::ForkServer`] | [`ForkServerSpawner`] | a fork of a new process of this program |
//!
//! The calling thread must live as long as the workers: the system kills the workers when the *thread* that
//! started them ends. That thread is the supervisor.

#![forbid(unsafe_code)]

pub(crate) mod fork_server;

use crate::error::process::WorkerExit;
use crate::process::contract::{EndedWorker, StartedWorker, WorkerSpawner};
use crate::process::options::StartMethod;
use crate::process::spawner::fork_server::ForkServerSpawner;
use crate::process::worker::init::{Role, VARIABLE};
use crate::runtime::os::image::executable;
use crate::runtime::os::process::name_as;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Starts this program anew for each worker.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) clear_environment: bool,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) current_dir: Option<PathBuf>,
    /// The path of the program; none for this process's own.
    pub(crate) path: Option<OsString>,
}

impl Program {
    /// Returns the spawner of a start method. `start_timeout` is the time that the fork server has for a
    /// worker.
    pub(crate) fn spawner(
        self,
        method: StartMethod,
        start_timeout: Duration,
    ) -> Arc<dyn WorkerSpawner> {
        match method {
            StartMethod::Spawn => Arc::new(self),
            StartMethod::ForkServer => Arc::new(ForkServerSpawner::new(self, start_timeout)),
        }
    }

    /// Starts the program with one end of a socket as its standard input. Returns the process id.
    fn spawn(&self, role: Role, channel: OwnedFd) -> io::Result<u32> {
        let path = self.path.as_deref();
        let mut command = match path {
            Some(path) => Command::new(path),
            None => Command::new(executable()?),
        };
        let mut arguments = env::args_os();
        if let (Some(name), None) = (arguments.next(), path) {
            name_as(&mut command, &name);
        }
        command.args(arguments);
        if self.clear_environment {
            command.env_clear();
        }
        for (key, value) in &self.environment {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.env(VARIABLE, role.announce(&channel)?);
        if let Some(folder) = &self.current_dir {
            command.current_dir(folder);
        }
        command.stdin(Stdio::from(channel));
        Ok(command.spawn()?.id())
    }
}

impl WorkerSpawner for Program {
    fn start(&self, channel: OwnedFd) -> io::Result<Option<StartedWorker>> {
        let pid = self.spawn(Role::Worker, channel)?;
        Ok(Some(StartedWorker::child(pid)))
    }

    fn exit_of(&self, worker: &EndedWorker<'_>) -> WorkerExit {
        worker.reap()
    }
}
