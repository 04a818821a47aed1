//! The list of pools that waiting threads do work for.
//!
//! A thread must receive the results of worker processes. A thread that waits for a future of such a pool may
//! as well receive the results itself. That saves two wake-ups: of the receiving thread, and of the waiting
//! thread.

#![forbid(unsafe_code)]

use crate::deadlock::Futures;
use crate::id::{FutureId, PoolId};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::Instant;

/// A pool that a waiting thread can do work for.
pub trait Driver: Send + Sync {
    /// Works until `is_done`, until there has been nothing to do for some time, or until
    /// about the deadline. Returns whether it is done.
    ///
    /// The thread waits for `future`, and may make its value while there is no deadline.
    fn drive(
        &self,
        future: FutureId,
        is_done: &dyn Fn() -> bool,
        deadline: Option<Instant>,
    ) -> bool;

    /// Recalls a task that was dispatched to a worker and has not begun, and cancels it. Returns whether it
    /// was cancelled.
    fn cancel(&self, future: FutureId) -> bool;

    /// Forgets a task that was cancelled while it was pending.
    fn forget(&self, future: FutureId);

    /// Returns whether a worker has begun a task that was dispatched to it.
    fn has_begun(&self, future: FutureId) -> bool;

    /// Ends the task of a running future, together with its worker. Returns whether the task will end.
    fn terminate(&self, future: FutureId) -> bool;

    /// Learns that a worker is about to sleep until a future of the pool is done. The worker drops the value when it
    /// goes on.
    fn note_sleep(&self) -> Option<Box<dyn Sleeping>> {
        None
    }
}

/// The sleep of a worker; see [`Driver::note_sleep`].
pub trait Sleeping {}

/// The list of pools, each with its identity in its tasks.
static DRIVERS: RwLock<Drivers> = RwLock::new(Vec::new());
/// The number of pools, so that programs without pools need not take the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Adds a pool to the list.
#[cfg(all(feature = "process", unix))]
pub fn add(pool: PoolId, driver: Weak<dyn Driver>) {
    let mut drivers = DRIVERS.write().unwrap_or_else(PoisonError::into_inner);
    drivers.retain(|(_, known)| known.strong_count() > 0);
    drivers.push((pool, driver));
    // ORDERING: Relaxed: a thread that has a future of the pool got it after this store.
    COUNT.store(drivers.len(), Ordering::Relaxed);
}

/// Removes a pool from the list.
#[cfg(all(feature = "process", unix))]
pub fn remove(pool: PoolId) {
    let mut drivers = DRIVERS.write().unwrap_or_else(PoisonError::into_inner);
    drivers.retain(|(known, _)| *known != pool);
    COUNT.store(drivers.len(), Ordering::Relaxed);
}

type Drivers = Vec<(PoolId, Weak<dyn Driver>)>;

thread_local! {
    /// The list, while this thread forks.
    static HELD: RefCell<Option<RwLockWriteGuard<'static, Drivers>>> = const { RefCell::new(None) };
}

/// Takes the lock before a fork, so that no other thread holds the lock meanwhile. The holder of the lock
/// waits for nothing.
#[cfg(all(feature = "process", unix))]
pub(crate) fn before_fork() {
    HELD.set(Some(
        DRIVERS.write().unwrap_or_else(PoisonError::into_inner),
    ));
}

/// Releases the lock after a fork, on both sides. In the child, forgets the pools, which are the parent's.
#[cfg(all(feature = "process", unix))]
pub(crate) fn after_fork(in_child: bool) {
    if let (Some(mut drivers), true) = (HELD.take(), in_child) {
        std::mem::forget(std::mem::take(&mut *drivers));
        // ORDERING: Relaxed: a fork has one thread.
        COUNT.store(0, Ordering::Relaxed);
    }
}

fn find(pool: Option<PoolId>) -> Option<std::sync::Arc<dyn Driver>> {
    let pool = pool?;
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let drivers = DRIVERS.read().unwrap_or_else(PoisonError::into_inner);
    let mut known = drivers.iter().filter(|(known, _)| *known == pool);
    known.find_map(|(_, driver)| driver.upgrade())
}

/// Works for the pool of a future, as long as that helps. Returns whether `is_done`; none if the pool is not
/// in the list.
pub(crate) fn drive(
    pool: Option<PoolId>,
    future: FutureId,
    is_done: &dyn Fn() -> bool,
    deadline: Option<Instant>,
) -> Option<bool> {
    find(pool).map(|driver| driver.drive(future, is_done, deadline))
}

/// Tells the pool of a future that the calling worker is about to sleep. The value is kept until the worker goes on.
pub(crate) fn note_sleep(pool: Option<PoolId>) -> Option<Box<dyn Sleeping>> {
    find(pool).and_then(|driver| driver.note_sleep())
}

/// Tells the pool of one of the futures the same, if one has a pool that takes note.
pub(crate) fn note_sleep_for_any(futures: &Futures<'_>) -> Option<Box<dyn Sleeping>> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mut sleeping = None;
    futures(&mut |future| {
        sleeping = note_sleep(future.pool_id());
        sleeping.is_some()
    });
    sleeping
}

/// Cancels the dispatched task of a future, if the pool of the future can recall it.
pub(crate) fn cancel(pool: Option<PoolId>, future: FutureId) -> bool {
    find(pool).is_some_and(|driver| driver.cancel(future))
}

/// Tells the pool of a future that it was cancelled.
pub(crate) fn forget(pool: Option<PoolId>, future: FutureId) {
    if let Some(driver) = find(pool) {
        driver.forget(future);
    }
}

/// Returns whether the dispatched task of a future was begun, as far as its pool knows.
pub(crate) fn has_begun(pool: Option<PoolId>, future: FutureId) -> bool {
    find(pool).is_none_or(|driver| driver.has_begun(future))
}

/// Ends the task of a running future, if the pool of the future can.
pub(crate) fn terminate(pool: Option<PoolId>, future: FutureId) -> bool {
    find(pool).is_some_and(|driver| driver.terminate(future))
}
