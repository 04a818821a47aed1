//! Starts worker processes, by either start method.
//!
//! Whoever calls this must live as long as the workers: the system kills them when the
//! *thread* that started them ends. It is the supervisor. Workers of a
//! [`WorkerHost`](super::host::WorkerHost) may be started by any thread.

#![forbid(unsafe_code)]

use super::builder::Settings;
use super::channel::{CAPACITY, Lane, Memory, Reader, Socket, Writer};
use super::child::Child;
use super::error::WorkerExit;
use super::fork_server::ForkServer;
use super::handshake::{FACE, Setup};
use super::image::{EXECUTABLE, image};
use super::init::{Role, VARIABLE};
use super::member::Member;
use super::options::StartMethod;
use super::worker::NO_FUNCTION;
use std::env;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Starts workers.
#[derive(Debug, Default)]
pub(super) struct Starter {
    fork_server: Option<ForkServer>,
}

impl Starter {
    /// Starts a worker, and sends it what it needs to work.
    pub(super) fn start(&mut self, settings: &Settings) -> io::Result<Member> {
        let (ours, theirs) = Socket::pair()?;
        let child = match (&settings.host, settings.start_method) {
            (Some(host), _) => {
                let started = host.start(theirs.into_fd())?;
                Arc::new(Child::of_host(&started, ours)?)
            }
            (None, StartMethod::Spawn) => spawn(settings, Role::Worker, ours, theirs)?,
            (None, StartMethod::ForkServer) => self.fork(settings, ours, theirs)?,
        };
        let (function, argument) = match &settings.initializer {
            Some((function, argument)) => (*function, &argument[..]),
            None => (NO_FUNCTION, &[][..]),
        };
        // Its frame is written before the worker is there to read.
        let capacity = CAPACITY.max((argument.len() + 4096).next_power_of_two());
        let set_up = || {
            let (file, memory) = Memory::create(capacity)?;
            let setup = Setup {
                capacity: capacity as u64,
                memory_limit: settings.memory_limit,
            };
            let identity = match settings.host {
                Some(_) => FACE,
                None => image()?.identity(),
            };
            let setup = setup.encode(identity);
            // A worker that has died is noticed as any other.
            let _ = child.socket.send(&setup, Some(file.as_fd()));
            let lane = match settings.host {
                Some(_) => {
                    let (ours, theirs) = Lane::pair()?;
                    let _ = child.socket.send(b"lane", Some(theirs.as_fd()));
                    Some(ours)
                }
                None => None,
            };
            let (writer, reader) = (Writer::to_worker(&memory), Reader::from_worker(&memory));
            let mut member = Member::new(Arc::clone(&child), writer, reader, lane);
            member
                .initialize(function, argument)
                .map_err(io::Error::other)?;
            Ok(member)
        };
        set_up().inspect_err(|_: &io::Error| {
            child.kill();
            child.tell();
            self.exit_of(settings, &child, true);
        })
    }

    fn fork(
        &mut self,
        settings: &Settings,
        ours: Socket,
        theirs: Socket,
    ) -> io::Result<Arc<Child>> {
        if self.fork_server.as_ref().is_none_or(ForkServer::has_ended) {
            let (server, its) = Socket::pair()?;
            let server = spawn(settings, Role::ForkServer, server, its)?;
            self.fork_server = Some(ForkServer::new(server));
        }
        match &mut self.fork_server {
            Some(server) => server.fork(ours, theirs),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes the exit status of a worker that has ended.
    pub(super) fn exit_of(
        &mut self,
        settings: &Settings,
        child: &Child,
        replaced: bool,
    ) -> WorkerExit {
        match (&settings.host, &mut self.fork_server) {
            (Some(host), _) => host.exit_of(child.pid(), replaced),
            (None, Some(server)) => server.exit_of(child),
            (None, None) => child.reap(),
        }
    }
}

/// Starts the program anew, with one end of a socket for its standard input.
fn spawn(settings: &Settings, role: Role, ours: Socket, theirs: Socket) -> io::Result<Arc<Child>> {
    let theirs = theirs.into_fd();
    let program = settings.program.as_deref();
    let mut command = Command::new(program.unwrap_or(EXECUTABLE.as_ref()));
    let mut arguments = env::args_os();
    if let (Some(name), None) = (arguments.next(), program) {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.args(arguments);
    if settings.clear_environment {
        command.env_clear();
    }
    for (key, value) in &settings.environment {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.env(VARIABLE, role.announce(&theirs)?);
    if let Some(folder) = &settings.current_dir {
        command.current_dir(folder);
    }
    command.stdin(Stdio::from(theirs));
    let child = command.spawn()?;
    Child::new(child.id(), ours).map(Arc::new)
}
