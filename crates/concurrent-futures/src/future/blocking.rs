//! A thread that waits for one future.

use crate::deadlock::{self, Escape, Futures, Need, Wait};
use crate::error::Deadlock;
use crate::future::driver;
use crate::runtime::os::signal::{Signal, Woken};
use crate::runtime::spin::Spin;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};
use crate::runtime::sync::{Arc, UnsafeCell, deadline_after, time_left};
use crate::task::TaskRef;
use crate::task::current::{self, Worker};
use crate::task::list::{Action, Node};
use crate::task::state::State;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// Decides whether to stop waiting. Called whenever a signal of the operating system may have ended a sleep.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Goes on waiting whatever signals come.
pub(crate) const NEVER: Stop<'static> = &|| false;

/// The time after which a wait with a time limit, in a worker, counts as a wait that does not end by itself.
/// A program that polls a future now and then does not stand still.
const GRACE: Duration = Duration::from_millis(100);

/// Waits until the future is done. Returns false when the deadline passed first, or `stop` returned true.
///
/// A pool of threads whose workers all wait for its pending tasks gets another worker.
/// A wait with a time limit of less than a tenth of a second does not count for that.
///
/// # Errors
/// `Deadlock`, if what the future waits for is the calling task, or a worker that the
/// pool cannot have.
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
        if let Some(worker) = worker {
            return wait_in_worker(worker, task, deadline, stop);
        }
        let is_done = is_done_soon(task, deadline);
        Ok(is_done || wait_parked(task.state(), deadline, || false, stop))
    })
}

fn wait_in_worker(
    worker: &Worker<'_>,
    task: &TaskRef,
    deadline: Option<Instant>,
    stop: Stop<'_>,
) -> Result<bool, Deadlock> {
    let is_vain = deadline.is_none() && deadlock::is_last_awake(worker, task);
    if !is_vain && is_done_soon(task, deadline) {
        return Ok(true);
    }
    if let ControlFlow::Break(done) = wait_in_grace(deadline, stop, |deadline, stop| {
        wait_parked(task.state(), deadline, || false, stop).then_some(())
    }) {
        return Ok(done.is_some());
    }
    let futures: &Futures<'_> = &|f| f(task);
    let wait = Wait {
        need: Need::All,
        futures,
        is_timed: deadline.is_some(),
        escape: Escape::Error(Signal::of_this_thread()),
    };
    let _sleeping = driver::note_sleep(task.pool_id());
    let blocking = deadlock::block(worker, wait)?;
    if blocking.has_help && Spin::Thread.until(|| task.state().is_done()) {
        return Ok(true);
    }
    let is_interrupted = || blocking.interrupted().is_some();
    if wait_parked(task.state(), deadline, is_interrupted, stop) {
        return Ok(true);
    }
    blocking
        .interrupted()
        .map_or(Ok(false), |deadlock| Err(deadlock.clone()))
}

/// Lets `wait`, which returns none when it was ended, wait for the first moments of a wait with a deadline.
/// Breaks with the result of the whole wait, if it is over. Continues if the wait goes on after these
/// moments, or has no deadline.
pub(crate) fn wait_in_grace<R>(
    deadline: Option<Instant>,
    stop: Stop<'_>,
    wait: impl FnOnce(Option<Instant>, Stop<'_>) -> Option<R>,
) -> ControlFlow<Option<R>> {
    let (Some(deadline), Some(grace)) = (deadline, deadline_after(GRACE)) else {
        return ControlFlow::Continue(());
    };
    let has_stopped = Cell::new(false);
    let stop = || {
        has_stopped.set(stop());
        has_stopped.get()
    };
    let result = wait(Some(grace.min(deadline)), &stop);
    let is_over = result.is_some() || has_stopped.get() || time_left(deadline).is_none();
    if is_over {
        ControlFlow::Break(result)
    } else {
        ControlFlow::Continue(())
    }
}

/// Waits until the future is done, whatever happens. If the wait closes a cycle, another task of the cycle
/// gets the error.
pub(crate) fn wait_always(task: &TaskRef) {
    current::with_worker(|worker| {
        let is_vain = worker.is_some_and(|worker| deadlock::is_last_awake(worker, task));
        if task.state().is_done() || !is_vain && is_done_soon(task, None) {
            return;
        }
        let futures: &Futures<'_> = &|f| f(task);
        let _sleeping = worker.and_then(|_| driver::note_sleep(task.pool_id()));
        let _blocking = worker.map(|worker| {
            let wait = Wait {
                need: Need::All,
                futures,
                is_timed: false,
                escape: Escape::None,
            };
            deadlock::block(worker, wait)
        });
        wait_parked(task.state(), None, || false, NEVER);
    });
}

/// Spins for the future, no longer than a sleep and a wake-up would take. Returns whether it is done.
fn is_done_soon(task: &TaskRef, deadline: Option<Instant>) -> bool {
    let is_done = || task.state().is_done();
    // A thread that has worked for the pool need not spin.
    driver::drive(task.pool_id(), task.id(), &is_done, deadline)
        .unwrap_or_else(|| Spin::Thread.until(is_done))
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
        let is_notified = || self.notified.load(Ordering::Acquire);
        while !is_notified() {
            if is_interrupted() || signal.wait_once(deadline) == Woken::Expired {
                return false;
            }
            // A notification from before may hide that a signal of the system came.
            if !is_notified() && stop() {
                return false;
            }
        }
        true
    }
}

/// Makes the calling thread sleep until the future is done. Returns false when the deadline passed first,
/// `is_interrupted` returned true after its signal was notified, or `stop` returned true.
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
    // SAFETY: the waiter stays where it is until it was notified or unregistered, which the guard
    // sees to if `is_interrupted` or `stop` panic.
    if !unsafe { state.register(node) } {
        return true;
    }
    let registered = Registered {
        state,
        waiter: &waiter,
        signal: &signal,
    };
    if waiter.wait(&signal, deadline, is_interrupted, stop) {
        std::mem::forget(registered);
        return true;
    }
    registered.leave()
}

/// A waiter that is in the list of a future, or on its way out of there.
struct Registered<'a> {
    state: &'a State,
    waiter: &'a Waiter,
    signal: &'a Signal,
}

impl Registered<'_> {
    /// Takes the waiter out of the list. Returns whether the future is done after all.
    fn leave(self) -> bool {
        let is_done = self.end();
        std::mem::forget(self);
        is_done
    }

    fn end(&self) -> bool {
        // SAFETY: registered, and not unregistered since.
        if unsafe { self.state.unregister(NonNull::from(self.waiter).cast()) } {
            return false;
        }
        // The notification is on its way.
        self.waiter.wait(self.signal, None, || false, NEVER)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
