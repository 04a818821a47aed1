//! The fork server, as the supervisor of a pool sees it.
//!
//! The packets and the protocol are described in `worker/fork_server.rs`.

#![forbid(unsafe_code)]

use crate::error::process::WorkerExit;
use crate::process::contract::{EndedWorker, StartedWorker, WorkerRequests, WorkerSpawner};
use crate::process::pool::child::Child;
use crate::process::spawner::Program;
use crate::process::worker::init::Role;
use crate::runtime::os::poll::poll;
use crate::runtime::os::socket::{Packet, Socket};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time that the fork server may take to send a worker's exit status.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outcome of a request for a worker.
type Outcome = io::Result<StartedWorker>;

/// Requests workers from a fork server, which is started for the first worker.
#[derive(Debug)]
pub(crate) struct ForkServerSpawner {
    program: Program,
    /// The time that the fork server has for a worker.
    start_timeout: Duration,
    /// Only the supervisor takes this lock.
    server: Mutex<Option<ForkServer>>,
}

impl ForkServerSpawner {
    pub(crate) fn new(program: Program, start_timeout: Duration) -> Self {
        Self {
            program,
            start_timeout,
            server: Mutex::new(None),
        }
    }

    fn server(&self) -> MutexGuard<'_, Option<ForkServer>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerSpawner for ForkServerSpawner {
    fn start(&self, channel: OwnedFd) -> io::Result<Option<StartedWorker>> {
        let mut server = self.server();
        let outcomes = match &mut *server {
            Some(server) if !server.ended => None,
            // Its outcomes stay, before those of its successor.
            ended => Some(
                ended
                    .as_mut()
                    .map(|ended| std::mem::take(&mut ended.outcomes)),
            ),
        };
        if let Some(outcomes) = outcomes {
            let (ours, its) = Socket::pair()?;
            let pid = self.program.spawn(Role::ForkServer, its.into_fd())?;
            let mut new = ForkServer::new(Child::new(pid, ours, false)?);
            new.outcomes = outcomes.unwrap_or_default();
            *server = Some(new);
        }
        match &mut *server {
            Some(server) => server.request(&channel).map(|()| None),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn exit_of(&self, worker: &EndedWorker<'_>) -> WorkerExit {
        match &mut *self.server() {
            Some(server) => server.exit_of(worker.pid()),
            None => worker.reap(),
        }
    }

    fn requests(&self) -> Option<&dyn WorkerRequests> {
        Some(self)
    }
}

impl WorkerRequests for ForkServerSpawner {
    fn readable(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        let server = self.server();
        let server = server.as_ref().filter(|server| !server.ended)?;
        Some(Arc::clone(&server.socket) as _)
    }

    fn due(&self) -> Option<Instant> {
        self.server().as_ref()?.due(self.start_timeout)
    }

    fn has_outcomes(&self) -> bool {
        let server = self.server();
        server
            .as_ref()
            .is_some_and(|server| !server.outcomes.is_empty())
    }

    fn collect(&self) -> Vec<io::Result<StartedWorker>> {
        let mut server = self.server();
        server
            .as_mut()
            .map_or_else(Vec::new, |server| server.collect(self.start_timeout))
    }

    fn abandon(&self) {
        *self.server() = None;
    }
}

/// The socket of a fork server.
#[derive(Debug)]
struct ServerSocket(Child);

impl AsFd for ServerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// The fork server, as its supervisor holds it.
#[derive(Debug)]
struct ForkServer {
    socket: Arc<ServerSocket>,
    /// The moments at which the workers that are not there yet were requested.
    requests: VecDeque<Instant>,
    /// The outcomes of finished requests.
    outcomes: Vec<Outcome>,
    /// The workers of the fork server, with their exit status once they have ended.
    workers: HashMap<u32, Option<WorkerExit>>,
    ended: bool,
}

impl ForkServer {
    fn new(child: Child) -> Self {
        Self {
            socket: Arc::new(ServerSocket(child)),
            requests: VecDeque::new(),
            outcomes: Vec::new(),
            workers: HashMap::new(),
            ended: false,
        }
    }

    fn child(&self) -> &Child {
        &self.socket.0
    }

    /// Requests a worker.
    ///
    /// # Errors
    /// The fork server has ended, or takes no requests: it is ended then.
    fn request(&mut self, channel: &OwnedFd) -> io::Result<()> {
        let socket = &self.child().socket;
        let asked = socket.try_send(b"fork", Some(channel.as_fd()));
        if let Err(error) = asked {
            self.end(&|_| error.into());
            return Err(error.into());
        }
        self.requests.push_back(Instant::now());
        Ok(())
    }

    /// Returns the moment when the first request will have taken too long.
    fn due(&self, limit: Duration) -> Option<Instant> {
        self.requests.front()?.checked_add(limit)
    }

    /// Takes the outcomes of requests. Ends the fork server if it takes too long.
    fn collect(&mut self, limit: Duration) -> Vec<Outcome> {
        while !self.ended && self.receive() {}
        if self.due(limit).is_some_and(|due| due <= Instant::now()) {
            self.end(&|_| {
                let why = format!(
                    "the fork server was not ready {limit:?} after its start: does `main` call \
                     concurrent_futures::init() first?"
                );
                io::Error::new(io::ErrorKind::TimedOut, why)
            });
        }
        std::mem::take(&mut self.outcomes)
    }

    /// Returns the exit status of a worker that has ended.
    fn exit_of(&mut self, pid: u32) -> WorkerExit {
        loop {
            match self.workers.get(&pid) {
                Some(Some(exit)) => {
                    let exit = *exit;
                    self.workers.remove(&pid);
                    return exit;
                }
                Some(None) if !self.ended => {}
                // It was the worker of another fork server, or its status is lost.
                _ => return WorkerExit::Unknown,
            }
            let fds = [Some(self.child().socket.as_fd())];
            let has_come = poll(&fds, Some(PATIENCE)).is_ok_and(|ready| ready[0]);
            if !has_come || !self.receive() {
                self.workers.remove(&pid);
                return WorkerExit::Unknown;
            }
        }
    }

    /// Takes the next packet. Returns false if there is none.
    fn receive(&mut self) -> bool {
        match self.child().socket.receive(false) {
            Ok(Packet::Message(bytes, file)) => {
                if self.note(&bytes, file).is_none() {
                    self.end(&|_| io::ErrorKind::InvalidData.into());
                }
                true
            }
            Ok(Packet::WakeUp) => true,
            Ok(Packet::Nothing) => false,
            Ok(Packet::End) | Err(_) => {
                self.end(&|exit| {
                    let why = format!(
                        "the fork server ended: does `main` call concurrent_futures::init() \
                         first? It {exit}"
                    );
                    io::Error::other(why)
                });
                false
            }
        }
    }

    /// Notes the content of a message; returns none if the message makes no sense.
    fn note(&mut self, bytes: &[u8], file: Option<OwnedFd>) -> Option<()> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        match kind {
            b"made" => {
                let pid = u32::from_ne_bytes(*rest.first_chunk()?);
                self.requests.pop_front()?;
                self.workers.insert(pid, None);
                self.outcomes.push(Ok(StartedWorker::of_other(pid, file)));
            }
            b"fail" => {
                self.requests.pop_front()?;
                let why = String::from_utf8_lossy(rest).into_owned();
                self.outcomes.push(Err(io::Error::other(why)));
            }
            b"exit" => {
                let (pid, rest) = rest.split_first_chunk()?;
                let (kind, rest) = rest.split_first()?;
                let number = i32::from_ne_bytes(*rest.first_chunk()?);
                let exit = match kind {
                    0 => WorkerExit::Code(number),
                    1 => WorkerExit::Signal(number),
                    _ => WorkerExit::Unknown,
                };
                // A status that no caller asks for any more is not kept.
                if let Some(known) = self.workers.get_mut(&u32::from_ne_bytes(*pid)) {
                    *known = Some(exit);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Ends the fork server, and with it all requests.
    fn end(&mut self, why: &dyn Fn(WorkerExit) -> io::Error) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.child().kill();
        self.child().tell();
        let exit = self.child().reap();
        let requests = self.requests.drain(..);
        self.outcomes.extend(requests.map(|_| Err(why(exit))));
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        self.end(&|_| io::ErrorKind::BrokenPipe.into());
    }
}
