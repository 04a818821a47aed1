//! `init` and `init_before_main!`, where worker processes begin.

#![forbid(unsafe_code)]

use crate::process::worker::{self, fork_server};
use crate::runtime::os::parent_death::Parent;
use crate::runtime::os::process::Pid;
use crate::runtime::os::socket::Socket;
use crate::runtime::os::{posix_signals, standard_input};
use std::env;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable that tells a process its role: the role, its socket and its parent, which are numbers. The socket, known
/// by its inode, is the standard input. A process that inherits the variable, but not the socket, is no worker.
pub(crate) const VARIABLE: &str = "CONCURRENT_FUTURES_WORKER";

/// The role of a process that was started for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    ForkServer,
}

impl Role {
    /// Returns the variable's value.
    pub(crate) fn announce(self, socket: &OwnedFd) -> std::io::Result<String> {
        let inode = standard_input::identity(socket)?;
        let parent = std::process::id();
        Ok(format!("{}:{inode}:{parent}", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::ForkServer => "fork server",
        }
    }
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Returns whether [`init`] was called in this process.
pub(crate) fn is_initialized() -> bool {
    // ORDERING: Relaxed, as nothing is published by it.
    INITIALIZED.load(Ordering::Relaxed)
}

/// Turns a process that was started as a worker into a worker, and returns in every other process. In all
/// other processes it has no noticeable effect.
///
/// Call it first in `main`. Worker processes of a [`ProcessPoolExecutor`](crate::ProcessPoolExecutor) are the
/// same program, started anew, and each of them runs the code before this call. In a worker the call does not
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
    let Some((role, socket, parent)) = role() else {
        return;
    };
    match role {
        Role::Worker => worker::run(&socket, &Parent::Starter(parent)),
        Role::ForkServer => fork_server::serve(socket),
    }
}

/// Returns the role of this process, its socket and its parent, if it was started for a pool.
fn role() -> Option<(Role, Socket, Option<Pid>)> {
    let value = env::var(VARIABLE).ok()?;
    let (value, parent) = value.rsplit_once(':')?;
    let (name, inode) = value.rsplit_once(':')?;
    let role = [Role::Worker, Role::ForkServer]
        .into_iter()
        .find(|role| role.name() == name)?;
    let socket = standard_input::take_socket(inode.parse().ok()?)?;
    let parent = parent.parse().ok().and_then(Pid::from_raw);
    Some((role, Socket::from_fd(socket).ok()?, parent))
}

/// Calls [`init`] for a program that has not come to `main`.
#[doc(hidden)]
pub extern "C" fn init_before_main() {
    posix_signals::ignore_broken_pipes();
    init();
}

/// Calls [`init`](crate::init) before `main`: for tests, and other programs whose `main` is not yours.
///
/// Write it once in a program, at its top level. In a crate of tests that is the file in
/// `tests`, or `lib.rs` with `#[cfg(test)]`. The macro adds an entry to the executable's list of functions to
/// call at the start (`.init_array`). The entry runs the code of [`init`](crate::init), which does next to
/// nothing in a process that is no worker.
///
/// In a worker, tasks then run before `main`, where the standard library has not made its preparations. So a
/// stack overflow ends the worker without a message. Prefer [`init`](crate::init) where you have a `main`.
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
            #[cfg_attr(
                target_vendor = "apple",
                unsafe(link_section = "__DATA,__mod_init_func")
            )]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
            static INIT: extern "C" fn() = $crate::__private::init_before_main;
        };
    };
}
