//! A thread that waits for one future.

use super::state::{Action, Node, State};
use super::task::TaskRef;
use crate::current;
use crate::deadlock::{self, Futures, Need};
use crate::error::Deadlock;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Thread, UnsafeCell, park, spin_until, thread};
use std::ptr::NonNull;
use std::time::Instant;

/// Waits until the future is done. Returns false when the deadline passed first.
///
/// On a worker thread, a future that is pending in the worker's own pool is run
/// in place; not with a deadline, which running it could overrun.
///
/// # Errors
/// `Deadlock`, if what the future waits for is the calling task.
pub(crate) fn wait_until_done(task: &TaskRef, deadline: Option<Instant>) -> Result<bool, Deadlock> {
    if task.state().is_done() {
        return Ok(true);
    }
    current::with_worker(|worker| {
        if deadline.is_none() && worker.is_some_and(|worker| worker.run_in_place(task)) {
            return Ok(true);
        }
        if spin_until(|| task.state().is_done()) {
            return Ok(true);
        }
        let futures: &Futures<'_> = &|f| f(task);
        let _blocked = match worker {
            Some(worker) if deadline.is_none() => {
                Some(deadlock::block(worker, Need::All, futures)?)
            }
            _ => None,
        };
        Ok(wait_parked(task.state(), deadline))
    })
}

/// A thread's entry in the list of the future it waits for.
#[repr(C)]
struct Waiter {
    node: Node,
    thread: UnsafeCell<Option<Thread>>,
    notified: AtomicBool,
}

impl Waiter {
    unsafe fn notify(node: NonNull<Node>) {
        // SAFETY: the node is the first field of a waiter, which stays until it
        // sees `notified`; the thread is taken before that, by us alone.
        unsafe {
            let waiter = node.cast::<Self>().as_ref();
            let thread = waiter.thread.with_mut(|thread| (*thread).take());
            // ORDERING: Release, so that the waiter goes on after our accesses.
            waiter.notified.store(true, Ordering::Release);
            if let Some(thread) = thread {
                thread.unpark();
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> bool {
        // ORDERING: Acquire pairs with the Release in `notify`.
        while !self.notified.load(Ordering::Acquire) {
            if !park(deadline) {
                return false;
            }
        }
        true
    }
}

/// Parks the calling thread until the future is done or the deadline passes.
pub(crate) fn wait_parked(state: &State, deadline: Option<Instant>) -> bool {
    let waiter = Waiter {
        node: Node::new(&Action::Notify(Waiter::notify)),
        thread: UnsafeCell::new(Some(thread::current())),
        notified: AtomicBool::new(false),
    };
    let node = NonNull::from(&waiter).cast::<Node>();
    // SAFETY: the waiter stays where it is until it was notified or unregistered.
    if !unsafe { state.register(node) } || waiter.wait(deadline) {
        return true;
    }
    // SAFETY: registered above.
    if unsafe { state.unregister(node) } {
        return false;
    }
    // Done after all; the notification is on its way.
    waiter.wait(None)
}
