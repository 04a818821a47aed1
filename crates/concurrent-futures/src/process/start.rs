//! Starts worker processes, by either start method.
//!
//! Whoever calls this must live as long as the workers: the system kills them when the
//! *thread* that started them ends. It is the supervisor. Workers of a
//! [`WorkerHost`](super::host::WorkerHost) may be started by any thread.

#![forbid(unsafe_code)]

use super::builder::Settings;
use super::channel::{CAPACITY, Lane, Memory, Reader, Shared, Socket, Writer};
use super::child::Child;
use super::error::WorkerExit;
use super::fork_server::ForkServer;
use super::handshake::{FACE, LANE, NO_LANE, Setup};
use super::image::{EXECUTABLE, image};
use super::init::{Role, VARIABLE};
use super::member::Member;
use super::options::StartMethod;
use super::worker::NO_FUNCTION;
use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// Starts workers.
#[derive(Debug, Default)]
pub(super) struct Starter {
    fork_server: Option<ForkServer>,
}

impl Starter {
    /// Starts a worker, and sends it what it needs to work. None if the fork server was asked for
    /// it: [`collect`](Self::collect) has it later.
    pub(super) fn start(&mut self, settings: &Settings) -> io::Result<Option<Member>> {
        let (ours, theirs) = Socket::pair()?;
        let child = match (&settings.host, settings.start_method) {
            (Some(host), _) => {
                let started = host.start(theirs.into_fd())?;
                Arc::new(Child::new(started.pid, ours, settings.is_lean)?)
            }
            (None, StartMethod::Spawn) => spawn(settings, Role::Worker, ours, theirs)?,
            (None, StartMethod::ForkServer) => {
                self.request(settings, ours, &theirs)?;
                return Ok(None);
            }
        };
        self.set_up(settings, &child).map(Some)
    }

    /// Sends a worker what it needs to work. One that cannot be given that is killed and reaped.
    fn set_up(&mut self, settings: &Settings, child: &Arc<Child>) -> io::Result<Member> {
        let set_up = || {
            let (shared, memory) = Memory::create(CAPACITY)?;
            let (file, segment) = match &shared {
                Shared::File(file) => (Some(file.as_fd()), None),
                Shared::Segment(number) => (None, Some(*number)),
            };
            let setup = Setup {
                capacity: CAPACITY as u64,
                memory_limit: settings.memory_limit,
                segment,
            };
            let identity = match settings.host {
                Some(_) => FACE,
                None => image()?.identity(),
            };
            let setup = setup.encode(identity);
            // A worker that has died is noticed as any other.
            let _ = child.socket.send(&setup, file);
            let lane = match settings.host {
                // Long buffers go through the streams.
                Some(_) if settings.is_lean => {
                    let _ = child.socket.send(NO_LANE, None);
                    None
                }
                Some(_) => {
                    let (ours, theirs) = Lane::pair()?;
                    let _ = child.socket.send(LANE, Some(theirs.as_fd()));
                    Some(ours)
                }
                None => None,
            };
            let (writer, reader) = (Writer::to_worker(&memory), Reader::from_worker(&memory));
            let mut member = Member::new(Arc::clone(child), writer, reader, lane);
            let (function, argument) = match &settings.initializer {
                Some((function, argument)) => (*function, Arc::clone(argument)),
                None => (NO_FUNCTION, Arc::default()),
            };
            member
                .initialize(function, argument)
                .map_err(io::Error::other)?;
            Ok(member)
        };
        set_up().inspect_err(|_: &io::Error| {
            child.kill();
            child.tell();
            self.exit_of(settings, child, true);
        })
    }

    /// Asks the fork server for a worker.
    fn request(&mut self, settings: &Settings, ours: Socket, theirs: &Socket) -> io::Result<()> {
        if self.fork_server.as_ref().is_none_or(ForkServer::has_ended) {
            let (server, its) = Socket::pair()?;
            let server = spawn(settings, Role::ForkServer, server, its)?;
            self.fork_server = Some(ForkServer::new(server));
        }
        match &mut self.fork_server {
            Some(server) => server.request(ours, theirs),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Returns what is readable when [`collect`](Self::collect) has something.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.fork_server.as_ref()?.socket()
    }

    /// Returns when [`collect`](Self::collect) is to be called at the latest.
    pub(super) fn due(&self, settings: &Settings) -> Option<Instant> {
        self.fork_server.as_ref()?.due(settings.start_timeout)
    }

    /// Returns whether [`collect`](Self::collect) has something at once.
    pub(super) fn has_outcomes(&self) -> bool {
        let server = self.fork_server.as_ref();
        server.is_some_and(ForkServer::has_outcomes)
    }

    /// Ends the fork server if it was asked for workers, which are not wanted any more. Returns how
    /// many these were.
    pub(super) fn abandon(&mut self) -> usize {
        let asked = self.fork_server.as_ref().map_or(0, ForkServer::asked);
        if asked > 0 {
            self.fork_server = None;
        }
        asked
    }

    /// Takes the workers that the fork server was asked for, and sends them what they need to work.
    pub(super) fn collect(&mut self, settings: &Settings) -> Vec<io::Result<Member>> {
        let Some(server) = &mut self.fork_server else {
            return Vec::new();
        };
        let outcomes = server.collect(settings.start_timeout).into_iter();
        outcomes
            .map(|outcome| self.set_up(settings, &outcome?))
            .collect()
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
    Child::new(child.id(), ours, false).map(Arc::new)
}
