//! The fork server: a process with one thread, which forks workers.
//!
//! The fork server is the program, started anew, which has come to `init` and no further. Its supervisor sends it
//! the socket of a future worker; it forks, and answers with the worker's process id and pidfd. Workers are its
//! children: it takes their exit status and passes it on. If the fork server dies, its workers are killed
//! (`runtime/os/parent_death.rs`), and the supervisor starts another.
//!
//! | packet | from the supervisor | from the fork server |
//! |---|---|---|
//! | `fork` | a socket | |
//! | `made` | | process id, and the pidfd if the system has one |
//! | `fail` | | the reason why there is no worker |
//! | `exit` | | process id; 0 and exit code, or 1 and signal |
//!
//! # Protocol
//! The supervisor never waits for an answer: the program's `main` may take long before it comes to `init`. The
//! supervisor notes its request, watches the socket beside those of the workers, and takes the answers in the
//! order of the requests. A request that is not answered within the start timeout ends the fork server, and with
//! it all requests.
//!
//! # Invariants
//! 1. Each request gets one outcome: a worker, or the reason why there is none.
//! 2. A fork server that has ended, or was killed, is reaped at once.
//! 3. A process id identifies a worker only between its `made` and its `exit`. The fork server reports an
//!    exit before it forks again. If the supervisor has not asked for an exit, the next `made` of the same id
//!    erases the exit.

#![forbid(unsafe_code)]

use crate::process::worker;
use crate::runtime::os::fork::{Forked, fork};
use crate::runtime::os::parent_death::{Forker, Life, Parent};
use crate::runtime::os::poll::poll;
use crate::runtime::os::process::{CHECK, Exit, Handle, Pid};
use crate::runtime::os::socket::{Packet, Socket};
use crate::runtime::os::{Errno, posix_signals};
use std::io;
use std::os::fd::AsFd;
use std::process;

/// Serves the supervisor at the other end, then ends the process.
pub(crate) fn serve(socket: Socket) -> ! {
    let worker = serve_until_end(&socket);
    // A worker has nothing to do with the fork server's socket.
    drop(socket);
    match worker {
        Ok(Some((worker, forker))) => worker::run(&worker, &Parent::Forker(forker)),
        Ok(None) => process::exit(0),
        Err(_) => process::exit(70),
    }
}

/// Serves requests until the end. In a worker that it forks, returns the worker's socket, and the fork server as the
/// worker knows it.
fn serve_until_end(socket: &Socket) -> io::Result<Option<(Socket, Forker)>> {
    let Some(life) = Life::begin(socket.as_fd())? else {
        return Ok(None);
    };
    posix_signals::leave_interrupts_to_parent();
    let mut workers: Vec<Worker> = Vec::new();
    loop {
        for index in wait(socket, &workers)?.into_iter().rev() {
            report_exit(socket, &workers.swap_remove(index))?;
        }
        match socket.receive(false)? {
            Packet::End => return Ok(None),
            Packet::Message(_, Some(file)) => match fork() {
                Ok(Forked::Child) => return Ok(Some((Socket::from_fd(file)?, life.of_parent()))),
                Ok(Forked::Parent(pid)) => {
                    // The id cannot be another process's yet: only we take the exit status.
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
                let why = io::Error::from(Errno::MFILE);
                let mut message = b"fail".to_vec();
                message.extend(why.to_string().bytes());
                socket.send(&message, None)?;
            }
            _ => {}
        }
    }
}

/// A worker, as the fork server holds it.
struct Worker {
    pid: Pid,
    handle: Handle,
}

/// Waits for a request or the end of a worker. Returns the places of the workers that ended.
fn wait(socket: &Socket, workers: &[Worker]) -> io::Result<Vec<usize>> {
    let mut fds = vec![Some(socket.as_fd())];
    fds.extend(workers.iter().map(|worker| worker.handle.readable()));
    let is_whole = fds.iter().all(Option::is_some);
    let ready = match poll(&fds, (!is_whole).then_some(CHECK)) {
        Ok(ready) => ready,
        Err(Errno::INTR) => vec![false; fds.len()],
        Err(error) => return Err(error.into()),
    };
    if is_whole && !ready[1..].contains(&true) {
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
        Exit::Code(code) => (0, code),
        Exit::Signal(signal) => (1, signal),
        Exit::Unknown => (2, 0),
    };
    let mut message = b"exit".to_vec();
    message.extend(worker.pid.as_raw_nonzero().get().to_ne_bytes());
    message.push(kind);
    message.extend(number.to_ne_bytes());
    socket.send(&message, None)
}
