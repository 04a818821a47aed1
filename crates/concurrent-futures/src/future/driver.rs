//! Pools that live from other threads' waiting.
//!
//! The results of worker processes have to be received by somebody. While a thread waits for
//! a future of such a pool, it may as well do that itself: it saves waking another thread,
//! and being woken by that.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::Instant;

/// A pool that a waiting thread can do work for.
pub(crate) trait Driver: Send + Sync {
    /// Works until `is_done`, until there has been nothing to do for some time, or until
    /// about the deadline. Returns whether it is done.
    ///
    /// The thread waits for `future`, and may make its value while there is no deadline.
    fn drive(
        &self,
        future: super::FutureId,
        is_done: &dyn Fn() -> bool,
        deadline: Option<Instant>,
    ) -> bool;

    /// Takes back a task that was handed to a worker, if that has not begun, and cancels it.
    /// Returns whether it did.
    fn cancel(&self, future: super::FutureId) -> bool;

    /// Forgets a task that was cancelled while it was pending.
    fn forget(&self, future: super::FutureId);

    /// Whether a worker has begun with a task that was handed to one.
    fn has_begun(&self, future: super::FutureId) -> bool;

    /// Ends the task of a future that is running, together with its worker. Returns
    /// whether it will be.
    fn terminate(&self, future: super::FutureId) -> bool;
}

/// The pools there are, each by the address that identifies it in its tasks.
static DRIVERS: RwLock<Vec<(usize, Weak<dyn Driver>)>> = RwLock::new(Vec::new());
/// How many they are, so that programs without any need not look.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Makes a pool known.
#[cfg(target_os = "linux")]
pub(crate) fn add(home: *const (), driver: Weak<dyn Driver>) {
    let mut drivers = DRIVERS.write().unwrap_or_else(PoisonError::into_inner);
    drivers.retain(|(_, known)| known.strong_count() > 0);
    drivers.push((home.addr(), driver));
    // ORDERING: Relaxed: who has a future of the pool has learnt of it later than this.
    COUNT.store(drivers.len(), Ordering::Relaxed);
}

/// Forgets a pool.
#[cfg(target_os = "linux")]
pub(crate) fn remove(home: *const ()) {
    let mut drivers = DRIVERS.write().unwrap_or_else(PoisonError::into_inner);
    drivers.retain(|(known, _)| *known != home.addr());
    COUNT.store(drivers.len(), Ordering::Relaxed);
}

type Drivers = Vec<(usize, Weak<dyn Driver>)>;

thread_local! {
    /// The list, while this thread forks.
    static HELD: RefCell<Option<RwLockWriteGuard<'static, Drivers>>> = const { RefCell::new(None) };
}

/// Called right before a fork: no other thread shall hold the lock meanwhile. Who holds it waits
/// for nothing.
#[cfg(target_os = "linux")]
pub(crate) fn before_fork() {
    HELD.set(Some(
        DRIVERS.write().unwrap_or_else(PoisonError::into_inner),
    ));
}

/// Called right after a fork, on both sides: the pools are the parent's.
#[cfg(target_os = "linux")]
pub(crate) fn after_fork(in_child: bool) {
    if let (Some(mut drivers), true) = (HELD.take(), in_child) {
        std::mem::forget(std::mem::take(&mut *drivers));
        // ORDERING: Relaxed: a fork has one thread.
        COUNT.store(0, Ordering::Relaxed);
    }
}

fn find(home: *const ()) -> Option<std::sync::Arc<dyn Driver>> {
    if home.is_null() || COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let drivers = DRIVERS.read().unwrap_or_else(PoisonError::into_inner);
    let mut known = drivers.iter().filter(|(known, _)| *known == home.addr());
    known.find_map(|(_, driver)| driver.upgrade())
}

/// Works for the pool of a future, as long as that helps. Returns whether `is_done`; none if
/// the pool is not one of these.
pub(crate) fn drive(
    home: *const (),
    future: super::FutureId,
    is_done: &dyn Fn() -> bool,
    deadline: Option<Instant>,
) -> Option<bool> {
    find(home).map(|driver| driver.drive(future, is_done, deadline))
}

/// Cancels the task of a future that is not pending, if its pool can.
pub(crate) fn cancel(home: *const (), future: super::FutureId) -> bool {
    find(home).is_some_and(|driver| driver.cancel(future))
}

/// Tells the pool of a future that it was cancelled.
pub(crate) fn forget(home: *const (), future: super::FutureId) {
    if let Some(driver) = find(home) {
        driver.forget(future);
    }
}

/// Whether the task of a future that is not pending was begun, as far as its pool knows.
pub(crate) fn has_begun(home: *const (), future: super::FutureId) -> bool {
    find(home).is_none_or(|driver| driver.has_begun(future))
}

/// Ends the task of a running future, if its pool can.
pub(crate) fn terminate(home: *const (), future: super::FutureId) -> bool {
    find(home).is_some_and(|driver| driver.terminate(future))
}
