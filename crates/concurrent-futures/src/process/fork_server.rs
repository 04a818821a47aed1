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
//! | `made` | | process id, and the pidfd |
//! | `fail` | | why it could not be |
//! | `exit` | | process id; 0 and exit code, or 1 and signal |

#![forbid(unsafe_code)]

use super::channel::{Packet, Socket};
use super::child::{Child, exit_of};
use super::error::WorkerExit;
use super::os::{self, Forked};
use super::worker;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::time::Timespec;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;

/// How long the fork server may take to tell a worker's exit status.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// The fork server, as its supervisor holds it.
#[derive(Debug)]
pub(super) struct ForkServer {
    child: Arc<Child>,
    exits: HashMap<u32, WorkerExit>,
    ended: bool,
}

impl ForkServer {
    pub(super) fn new(child: Arc<Child>) -> Self {
        Self {
            child,
            exits: HashMap::new(),
            ended: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Has a worker forked.
    pub(super) fn fork(&mut self, ours: Socket, theirs: Socket) -> io::Result<Arc<Child>> {
        if let Err(error) = self.child.socket.send(b"fork", Some(theirs.as_fd())) {
            self.ended = true;
            return Err(error);
        }
        drop(theirs);
        loop {
            match self.receive()? {
                Some(Message::Made(pid, pidfd)) => {
                    return Ok(Arc::new(Child::with_pidfd(pid, pidfd, ours)));
                }
                Some(Message::Failed(why)) => return Err(io::Error::other(why)),
                Some(Message::Exited) => {}
                None => {
                    let why = format!(
                        "the fork server ended: does `main` call concurrent_futures::init() \
                         first? It {}",
                        self.child.reap()
                    );
                    return Err(io::Error::other(why));
                }
            }
        }
    }

    /// The exit status of a worker that has ended.
    pub(super) fn exit_of(&mut self, child: &Child) -> WorkerExit {
        loop {
            if let Some(exit) = self.exits.remove(&child.pid()) {
                return exit;
            }
            if self.ended {
                return WorkerExit::Unknown;
            }
            let mut fds = [PollFd::new(&self.child.socket, PollFlags::IN)];
            let has_come = matches!(rustix::event::poll(&mut fds, Some(&PATIENCE)), Ok(1..));
            if !has_come || self.receive().is_err() {
                return WorkerExit::Unknown;
            }
        }
    }

    /// The next message; none when the fork server has ended.
    fn receive(&mut self) -> io::Result<Option<Message>> {
        match self.child.socket.receive(true)? {
            Packet::Message(bytes, file) => {
                let message = Message::decode(&bytes, file, &mut self.exits);
                message.map(Some).ok_or(io::ErrorKind::InvalidData.into())
            }
            Packet::End => {
                self.ended = true;
                Ok(None)
            }
            Packet::Nothing | Packet::WakeUp => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        if !self.ended {
            self.child.kill();
            self.child.tell();
            self.child.reap();
        }
    }
}

enum Message {
    Made(u32, OwnedFd),
    Failed(String),
    Exited,
}

impl Message {
    fn decode(
        bytes: &[u8],
        file: Option<OwnedFd>,
        exits: &mut HashMap<u32, WorkerExit>,
    ) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        match kind {
            b"made" => Some(Self::Made(u32::from_ne_bytes(*rest.first_chunk()?), file?)),
            b"fail" => Some(Self::Failed(String::from_utf8_lossy(rest).into_owned())),
            b"exit" => {
                let (pid, rest) = rest.split_first_chunk()?;
                let (kind, rest) = rest.split_first()?;
                let number = i32::from_ne_bytes(*rest.first_chunk()?);
                let exit = match kind {
                    0 => WorkerExit::Code(number),
                    1 => WorkerExit::Signal(number),
                    _ => WorkerExit::Unknown,
                };
                exits.insert(u32::from_ne_bytes(*pid), exit);
                Some(Self::Exited)
            }
            _ => None,
        }
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
    let mut workers: Vec<(Pid, OwnedFd)> = Vec::new();
    loop {
        let ended = wait(socket, &workers)?;
        for index in ended.into_iter().rev() {
            let (pid, pidfd) = workers.swap_remove(index);
            report_exit(socket, pid, &pidfd)?;
        }
        match socket.receive(false)? {
            Packet::End => return Ok(None),
            Packet::Message(_, Some(file)) => match fork() {
                Ok(None) => return Socket::from_fd(file).map(Some),
                Ok(Some((pid, pidfd))) => {
                    let mut message = b"made".to_vec();
                    message.extend(pid.as_raw_nonzero().get().to_ne_bytes());
                    socket.send(&message, Some(pidfd.as_fd()))?;
                    workers.push((pid, pidfd));
                }
                Err(error) => {
                    let mut message = b"fail".to_vec();
                    message.extend(error.to_string().bytes().take(1000));
                    socket.send(&message, None)?;
                }
            },
            _ => {}
        }
    }
}

/// Forks; none in the child.
fn fork() -> io::Result<Option<(Pid, OwnedFd)>> {
    match os::fork()? {
        Forked::Child => Ok(None),
        Forked::Parent(pid) => {
            // It cannot be anybody else's yet: only we take its exit status.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Some((pid, pidfd)))
        }
    }
}

/// Waits for a request or the end of a worker. Returns the places of those that ended.
fn wait(socket: &Socket, workers: &[(Pid, OwnedFd)]) -> io::Result<Vec<usize>> {
    let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
    let pidfds = workers.iter().map(|(_, pidfd)| pidfd);
    fds.extend(pidfds.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ended = fds[1..].iter().enumerate();
    Ok(ended
        .filter(|(_, fd)| !fd.revents().is_empty())
        .map(|(index, _)| index)
        .collect())
}

fn report_exit(socket: &Socket, pid: Pid, pidfd: &OwnedFd) -> io::Result<()> {
    let (kind, number) = match exit_of(pidfd.as_fd()) {
        WorkerExit::Code(code) => (0, code),
        WorkerExit::Signal(signal) => (1, signal),
        WorkerExit::Unknown => (2, 0),
    };
    let mut message = b"exit".to_vec();
    message.extend(pid.as_raw_nonzero().get().to_ne_bytes());
    message.push(kind);
    message.extend(number.to_ne_bytes());
    socket.send(&message, None)
}
