//! The fork server: a process with one thread, which forks workers.
//!
//! It is the program, started anew, and has come to `init` and no further. Its supervisor
//! sends it the socket of a worker to be; it forks, and answers with the worker's process
//! id and pidfd. Workers are its children: it takes their exit status and passes it on.
//! Should it die, the system kills its workers, and the supervisor starts another.
//!
//! | packet | from the supervisor | from the fork server |
//! |---|---|---|
//! | `fork` | a socket | |
//! | `made` | | process id, and the pidfd if the system has one to give |
//! | `fail` | | why it could not be |
//! | `exit` | | process id; 0 and exit code, or 1 and signal |
//!
//! # Protocol
//! The supervisor never waits for an answer: the program's `main` may take long before it comes to
//! `init`. It notes its request, watches the socket beside those of the workers, and takes the answers in
//! the order of the requests. A request that is not answered within the start timeout ends the fork
//! server, and with it all requests.
//!
//! # Invariants
//! 1. Each request gets one outcome: a worker, or why there is none.
//! 2. A fork server that has ended, or was killed, is reaped at once.
//! 3. A process id tells one worker from others only between its `made` and its `exit`: the fork server
//!    reports an exit before it forks again, and an exit that nobody has asked for is forgotten by the
//!    next `made` of that id.

#![forbid(unsafe_code)]

use super::channel::{Packet, Socket};
use super::child::Child;
use super::error::WorkerExit;
use super::handle::{CHECK, Handle};
use super::os::{self, Forked};
use super::worker;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use rustix::time::Timespec;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the fork server may take to tell a worker's exit status.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// A worker that was asked for.
type Outcome = io::Result<Arc<Child>>;

/// The fork server, as its supervisor holds it.
#[derive(Debug)]
pub(super) struct ForkServer {
    child: Arc<Child>,
    /// Our ends of the sockets of workers that were asked for, and since when they are awaited.
    requests: VecDeque<(Socket, Instant)>,
    /// The outcomes of other requests.
    outcomes: Vec<Outcome>,
    /// Its workers: how they have ended, once they have.
    workers: HashMap<u32, Option<WorkerExit>>,
    ended: bool,
}

impl ForkServer {
    pub(super) fn new(child: Arc<Child>) -> Self {
        Self {
            child,
            requests: VecDeque::new(),
            outcomes: Vec::new(),
            workers: HashMap::new(),
            ended: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns what is readable when there is an answer to take.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.child.socket.as_fd())
    }

    /// Returns whether [`collect`](Self::collect) has something at once.
    pub(super) fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Returns how many workers were asked for and not collected.
    pub(super) fn asked(&self) -> usize {
        self.requests.len() + self.outcomes.len()
    }

    /// Asks for a worker.
    ///
    /// # Errors
    /// The fork server has ended, or takes no requests: it is ended then.
    pub(super) fn request(&mut self, ours: Socket, theirs: &Socket) -> io::Result<()> {
        let asked = self.child.socket.try_send(b"fork", Some(theirs.as_fd()));
        if let Err(error) = asked {
            self.end(&|_| error.into());
            return Err(error.into());
        }
        self.requests.push_back((ours, Instant::now()));
        Ok(())
    }

    /// Returns when the first request will have taken too long.
    pub(super) fn due(&self, limit: Duration) -> Option<Instant> {
        let (_, since) = self.requests.front()?;
        since.checked_add(limit)
    }

    /// Takes what became of workers that were asked for. Ends the fork server if it takes too long.
    pub(super) fn collect(&mut self, limit: Duration) -> Vec<Outcome> {
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

    /// The exit status of a worker that has ended.
    pub(super) fn exit_of(&mut self, child: &Child) -> WorkerExit {
        loop {
            match self.workers.get(&child.pid()) {
                Some(Some(exit)) => {
                    let exit = *exit;
                    self.workers.remove(&child.pid());
                    return exit;
                }
                Some(None) if !self.ended => {}
                // It was the worker of another fork server, or nobody can tell any more.
                _ => return WorkerExit::Unknown,
            }
            let mut fds = [PollFd::new(&self.child.socket, PollFlags::IN)];
            let has_come = matches!(rustix::event::poll(&mut fds, Some(&PATIENCE)), Ok(1..));
            if !has_come || !self.receive() {
                self.workers.remove(&child.pid());
                return WorkerExit::Unknown;
            }
        }
    }

    /// Takes the next packet. False if there is none.
    fn receive(&mut self) -> bool {
        match self.child.socket.receive(false) {
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

    /// Notes what a message says; none if it makes no sense.
    fn note(&mut self, bytes: &[u8], file: Option<OwnedFd>) -> Option<()> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        match kind {
            b"made" => {
                let pid = u32::from_ne_bytes(*rest.first_chunk()?);
                let (socket, _) = self.requests.pop_front()?;
                self.workers.insert(pid, None);
                let child = Child::with_pidfd(pid, file, socket);
                self.outcomes.push(child.map(Arc::new));
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
                // One that nobody asks about any more is not kept.
                if let Some(known) = self.workers.get_mut(&u32::from_ne_bytes(*pid)) {
                    *known = Some(exit);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Ends the fork server, and all requests with that.
    fn end(&mut self, why: &dyn Fn(WorkerExit) -> io::Error) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.child.kill();
        self.child.tell();
        let exit = self.child.reap();
        let requests = self.requests.drain(..);
        self.outcomes.extend(requests.map(|_| Err(why(exit))));
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        self.end(&|_| io::ErrorKind::BrokenPipe.into());
    }
}

/// Serves the supervisor at the other end, then ends the process.
pub(super) fn serve(socket: Socket) -> ! {
    let worker = serve_until_end(&socket);
    // A worker has nothing to do with the fork server's socket.
    drop(socket);
    match worker {
        Ok(Some(worker)) => worker::run(&worker),
        Ok(None) => process::exit(0),
        Err(_) => process::exit(70),
    }
}

/// Returns the socket of the worker that this process is, once it is one.
fn serve_until_end(socket: &Socket) -> io::Result<Option<Socket>> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    os::leave_interrupts_to_parent();
    let mut workers: Vec<Worker> = Vec::new();
    loop {
        for index in wait(socket, &workers)?.into_iter().rev() {
            report_exit(socket, &workers.swap_remove(index))?;
        }
        match socket.receive(false)? {
            Packet::End => return Ok(None),
            Packet::Message(_, Some(file)) => match os::fork() {
                Ok(Forked::Child) => return Socket::from_fd(file).map(Some),
                Ok(Forked::Parent(pid)) => {
                    // The id cannot be anybody else's yet: only we take the exit status.
                    let handle = Handle::open(pid);
                    let mut message = b"made".to_vec();
                    message.extend(pid.as_raw_nonzero().get().to_ne_bytes());
                    socket.send(&message, handle.readable())?;
                    workers.push(Worker { pid, handle });
                }
                Err(error) => {
                    let mut message = b"fail".to_vec();
                    message.extend(error.to_string().bytes().take(1000));
                    socket.send(&message, None)?;
                }
            },
            Packet::Message(_, None) => {
                // The socket was there when it was sent: no descriptor was left for it.
                let why = io::Error::from(rustix::io::Errno::MFILE);
                let mut message = b"fail".to_vec();
                message.extend(why.to_string().bytes());
                socket.send(&message, None)?;
            }
            _ => {}
        }
    }
}

/// A worker, as its parent holds it.
struct Worker {
    pid: Pid,
    handle: Handle,
}

/// Waits for a request or the end of a worker. Returns the places of those that ended.
fn wait(socket: &Socket, workers: &[Worker]) -> io::Result<Vec<usize>> {
    let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
    let readable = workers.iter().filter_map(|worker| worker.handle.readable());
    fds.extend(readable.map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)));
    let is_whole = fds.len() == workers.len() + 1;
    let timeout = (!is_whole)
        .then(|| Timespec::try_from(CHECK).ok())
        .flatten();
    let found = match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(found) => found,
        Err(rustix::io::Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    let is_request = !fds[0].revents().is_empty();
    if is_whole && found == usize::from(is_request) {
        return Ok(Vec::new());
    }
    let ended = workers.iter().enumerate();
    Ok(ended
        .filter(|(_, worker)| worker.handle.has_ended())
        .map(|(index, _)| index)
        .collect())
}

fn report_exit(socket: &Socket, worker: &Worker) -> io::Result<()> {
    let (kind, number) = match worker.handle.reap() {
        WorkerExit::Code(code) => (0, code),
        WorkerExit::Signal(signal) => (1, signal),
        WorkerExit::Unknown => (2, 0),
    };
    let mut message = b"exit".to_vec();
    message.extend(worker.pid.as_raw_nonzero().get().to_ne_bytes());
    message.push(kind);
    message.extend(number.to_ne_bytes());
    socket.send(&message, None)
}
