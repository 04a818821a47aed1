//! Where worker processes begin.

#![forbid(unsafe_code)]

use super::channel::Socket;
use super::{fork_server, worker};
use rustix::fs::{FileType, Mode, OFlags};
use std::env;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a process what it was started for: a role, and the socket (by its inode) that is
/// its standard input. A process that inherits the variable, but not the socket, is
/// nobody's worker.
pub(super) const VARIABLE: &str = "CONCURRENT_FUTURES_WORKER";

/// What a process was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Worker,
    ForkServer,
}

impl Role {
    /// The variable's value.
    pub(super) fn announce(self, socket: &OwnedFd) -> std::io::Result<String> {
        let inode = rustix::fs::fstat(socket)?.st_ino;
        Ok(format!("{}:{inode}", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::ForkServer => "fork server",
        }
    }
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Whether [`init`] was called in this process.
pub(super) fn is_initialized() -> bool {
    // ORDERING: Relaxed, as nothing is published by it.
    INITIALIZED.load(Ordering::Relaxed)
}

/// Makes a process that was started as a worker one; in all others it does nothing that
/// can be noticed.
///
/// Call it first in `main`: worker processes of a
/// [`ProcessPoolExecutor`](crate::ProcessPoolExecutor) are the same program, started anew,
/// and what comes before this call happens in each of them. In a worker it does not
/// return. Without it, no [`ProcessPoolExecutor`](crate::ProcessPoolExecutor) can be made.
///
/// Where `main` is not yours, as in tests, use
/// [`init_before_main!`](crate::init_before_main).
///
/// # Examples
/// ```
/// concurrent_futures::init();
/// println!("only once");
/// ```
pub fn init() {
    INITIALIZED.store(true, Ordering::Relaxed);
    let Some((role, socket)) = role() else {
        return;
    };
    match role {
        Role::Worker => worker::run(&socket),
        Role::ForkServer => fork_server::serve(socket),
    }
}

/// What this process was started for, if it was.
fn role() -> Option<(Role, Socket)> {
    let value = env::var(VARIABLE).ok()?;
    let (name, inode) = value.rsplit_once(':')?;
    let role = [Role::Worker, Role::ForkServer]
        .into_iter()
        .find(|role| role.name() == name)?;
    let input = rustix::stdio::stdin();
    let stat = rustix::fs::fstat(input).ok()?;
    let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        && inode.parse() == Ok(stat.st_ino);
    if !is_ours {
        return None;
    }
    // From now on the socket is private, and standard input is empty.
    let socket = rustix::io::fcntl_dupfd_cloexec(input, 3).ok()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(nothing).ok()?;
    Some((role, Socket::from_fd(socket).ok()?))
}

/// [`init`] for a program that has not come to `main`.
#[doc(hidden)]
pub extern "C" fn init_before_main() {
    super::os::ignore_broken_pipes();
    init();
}

/// Calls [`init`](crate::init) before `main`: for tests, and other programs whose `main`
/// is not yours.
///
/// Write it once in a program, at its top level. In a crate of tests that is the file in
/// `tests`, or `lib.rs` with `#[cfg(test)]`. It works by an entry in the executable's list
/// of functions to call at the start (`.init_array`), and runs what [`init`](crate::init)
/// runs: in a process that is no worker, next to nothing.
///
/// In a worker, tasks then run before `main`, where the standard library has not made its
/// preparations: a stack overflow ends the worker without a message. Prefer
/// [`init`](crate::init) where you have a `main`.
///
/// # Examples
/// ```standalone_crate
/// // In `tests/squares.rs`, where the functions are tests:
/// concurrent_futures::init_before_main!();
///
/// # fn main() {
/// fn squares() {
///     let pool = concurrent_futures::ProcessPoolExecutor::new().unwrap();
///     let square = pool.submit(|n: u32| n * n, 7).unwrap();
///     assert_eq!(square.result().unwrap(), 49);
/// }
/// # squares();
/// # }
/// ```
#[macro_export]
macro_rules! init_before_main {
    () => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".init_array")]
            static INIT: extern "C" fn() = $crate::__private::init_before_main;
        };
    };
}
