//! A thread that waits for one future.

use super::driver;
use super::state::{Action, Node, State};
use super::task::TaskRef;
use crate::current::{self, Worker};
use crate::deadlock::{self, Futures, Need};
use crate::error::Deadlock;
use crate::signal::{Signal, Woken};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, UnsafeCell, spin_until, time_left};
use std::ptr::NonNull;
use std::time::Instant;

/// Asked whenever a signal of the operating system may have ended a sleep: whether to
/// stop waiting.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Goes on waiting whatever signals come.
pub(crate) const NEVER: Stop<'static> = &|| false;

/// Waits until the future is done. Returns false when the deadline passed first, or
/// `stop` said so.
///
/// On a worker thread, a future that is pending in the worker's own pool is run
/// in place; not with a deadline, which running it could overrun.
///
/// # Errors
/// `Deadlock`, if what the future waits for is the calling task.
pub fn wait_until_done(
    task: &TaskRef,
    deadline: Option<Instant>,
    stop: Stop<'_>,
) -> Result<bool, Deadlock> {
    if task.state().is_done() {
        return Ok(true);
    }
    if deadline.is_some_and(|deadline| time_left(deadline).is_none()) {
        return Ok(false);
    }
    current::with_worker(|worker| {
        if is_done_soon(task, worker.filter(|_| deadline.is_none()), deadline) {
            return Ok(true);
        }
        let (Some(worker), None) = (worker, deadline) else {
            return Ok(wait_parked(task.state(), deadline, || false, stop));
        };
        let futures: &Futures<'_> = &|f| f(task);
        let blocking = deadlock::block(worker, Need::All, futures, Signal::of_this_thread())?;
        let is_interrupted = || blocking.interrupted().is_some();
        if wait_parked(task.state(), None, is_interrupted, stop) {
            return Ok(true);
        }
        blocking
            .interrupted()
            .map_or(Ok(false), |deadlock| Err(deadlock.clone()))
    })
}

/// Waits until the future is done, whatever happens; runs it in place if that can
/// be. Should the calling task be what it waits for, another task gets the error.
pub(crate) fn wait_always(task: &TaskRef) {
    current::with_worker(|worker| {
        if is_done_soon(task, worker, None) {
            return;
        }
        let futures: &Futures<'_> = &|f| f(task);
        let _blocking = worker.map(|worker| deadlock::block_always(worker, Need::All, futures));
        wait_parked(task.state(), None, || false, NEVER);
    });
}

/// Whether the future is done, can be run in place by `worker`, or is done before a
/// sleep and a wake-up would be over.
fn is_done_soon(task: &TaskRef, worker: Option<&Worker<'_>>, deadline: Option<Instant>) -> bool {
    let is_done = || task.state().is_done();
    is_done()
        || worker.is_some_and(|worker| worker.run_in_place(task))
        // Who has worked for the pool has waited awake enough.
        || driver::drive(task.home(), &is_done, deadline).unwrap_or_else(|| spin_until(is_done))
}

/// A thread's entry in the list of the future it waits for.
#[repr(C)]
struct Waiter {
    node: Node,
    signal: UnsafeCell<Option<Arc<Signal>>>,
    notified: AtomicBool,
}

impl Waiter {
    /// # Safety
    /// As the state machine does it: once, with the node of a registered entry.
    unsafe fn notify(node: NonNull<Node>) {
        // SAFETY: the node is the first field of a waiter, which stays until it
        // sees `notified`; the signal is taken before that, by us alone.
        unsafe {
            let waiter = node.cast::<Self>().as_ref();
            let signal = waiter.signal.with_mut(|signal| (*signal).take());
            // ORDERING: Release, so that the waiter goes on after our accesses.
            waiter.notified.store(true, Ordering::Release);
            if let Some(signal) = signal {
                signal.notify();
            }
        }
    }

    fn wait(
        &self,
        signal: &Signal,
        deadline: Option<Instant>,
        is_interrupted: impl Fn() -> bool,
        stop: Stop<'_>,
    ) -> bool {
        // ORDERING: Acquire pairs with the Release in `notify`.
        while !self.notified.load(Ordering::Acquire) {
            if is_interrupted() {
                return false;
            }
            match signal.wait_once(deadline) {
                Woken::Expired => return false,
                Woken::Early if stop() => return false,
                Woken::Notified | Woken::Early => {}
            }
        }
        true
    }
}

/// Makes the calling thread sleep until the future is done. Returns false when the
/// deadline passed first, `is_interrupted` when its signal was notified, or `stop` said so.
pub(crate) fn wait_parked(
    state: &State,
    deadline: Option<Instant>,
    is_interrupted: impl Fn() -> bool,
    stop: Stop<'_>,
) -> bool {
    let signal = Signal::of_this_thread();
    let waiter = Waiter {
        node: Node::new(&Action::Notify(Waiter::notify)),
        signal: UnsafeCell::new(Some(Arc::clone(&signal))),
        notified: AtomicBool::new(false),
    };
    let node = NonNull::from(&waiter).cast::<Node>();
    // SAFETY: the waiter stays where it is until it was notified or unregistered.
    if !unsafe { state.register(node) } || waiter.wait(&signal, deadline, is_interrupted, stop) {
        return true;
    }
    // SAFETY: registered above.
    if unsafe { state.unregister(node) } {
        return false;
    }
    // Done after all; the notification is on its way.
    waiter.wait(&signal, None, || false, NEVER)
}
