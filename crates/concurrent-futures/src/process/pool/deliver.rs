//! Deliveries: values that only foreign code can make, and the threads that make them.
//!
//! Making a value of a type that is not plain calls its `Deserialize`; dropping an unwanted value calls its
//! `Drop`. Both are foreign code, which may take long, block, or call the pool. The supervisor does neither, as it
//! has deaths and time limits to watch. A helper does neither, since no other thread receives replies meanwhile.
//!
//! | value | maker |
//! |---|---|
//! | plain (`is_plain`): made by code that is known to be short | the thread that receives the reply |
//! | the value that a helper waits for | the helper, after it has given up its role |
//! | any other | a *deliverer*, one of the threads that exist while there are values to make |
//!
//! # Protocol
//! A queue of deliveries is under a lock of its own. A deliverer takes the first delivery; a thread that waits
//! for a future takes that future's delivery, wherever it is in the queue. If a value takes longer than
//! [`PATIENCE`] while others wait behind it, the supervisor starts another deliverer.
//!
//! A delivery is counted as *in transit* (`Transit` in `mod.rs`) until its future has its value. The supervisor of
//! a pool that was shut down does not end before that, and so neither does `shutdown(wait)`.
//!
//! # Invariants
//! 1. Foreign code runs outside all locks, and its unwinding stops no thread.
//! 2. A delivery is in the queue, or taken by one thread. Dropping it finishes its future.

#![forbid(unsafe_code)]

use crate::id::{FutureId, PoolId};
use crate::process::channel::{MappedSegment, ReplyKind};
use crate::process::codec::Bytes;
use crate::process::pool::Transit;
use crate::process::pool::callbacks::Callbacks;
use crate::process::pool::task::{Ending, Task};
use crate::task::log;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The time that deliveries may wait behind a slow one before another thread is started for them.
const PATIENCE: Duration = Duration::from_millis(5);
/// The time for which a deliverer waits for more before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The largest number of deliverers.
const MOST: usize = 64;

/// An answer on its way to its future.
pub(crate) struct Delivery {
    pub(crate) task: Task,
    pub(crate) kind: ReplyKind,
    pub(crate) bytes: Vec<u8>,
    pub(crate) attachment: Option<io::Result<MappedSegment>>,
}

/// A delivery that its pool waits for.
struct Counted {
    delivery: Delivery,
    transit: Transit,
}

impl Counted {
    /// Makes the value, outside all locks.
    fn make(self) {
        let Self { delivery, transit } = self;
        let pool = transit.pool_id();
        let callbacks = transit.callbacks().cloned();
        let _current = Current::enter(pool);
        crate::task::panic::log_panic("a value could not be delivered", move || {
            delivery.make(callbacks.as_ref());
        });
        drop(transit);
    }
}

impl Delivery {
    fn make(self, callbacks: Option<&Arc<Callbacks>>) {
        let bytes = Bytes::Owned(self.bytes);
        let ending = match self.kind {
            ReplyKind::Value => Ending::Value(bytes, self.attachment),
            _ => Ending::Failure(bytes),
        };
        if let Some(task) = self.task.end(ending) {
            task.finish_here_or_by(callbacks);
        }
    }
}

/// The deliveries of a pool, and the threads for them.
#[derive(Default)]
pub(crate) struct Deliveries {
    state: Mutex<State>,
    /// Notified when there is a delivery.
    changed: Condvar,
    /// Whether there are deliveries in the queue; a hint.
    any: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Counted>,
    /// The moment since when each of the deliverers has been making a value; none while it waits for one.
    deliverers: Vec<(ThreadId, Option<Instant>)>,
    /// The number of deliverers that are being started.
    starting: usize,
    /// Whether deliverers are not to wait for more.
    closed: bool,
}

impl State {
    /// Returns the number of deliverers that have nothing to do, or will have.
    fn idle(&self) -> usize {
        let idle = self.deliverers.iter().filter(|(_, since)| since.is_none());
        idle.count() + self.starting
    }

    fn set_busy(&mut self, since: Option<Instant>) {
        let ours = thread::current().id();
        let mut deliverers = self.deliverers.iter_mut();
        if let Some(entry) = deliverers.find(|(thread, _)| *thread == ours) {
            entry.1 = since;
        }
    }
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues deliveries. Returns whether the supervisor is to look after them, as there are more deliveries
    /// than idle deliverers.
    pub(crate) fn push(self: &Arc<Self>, deliveries: Vec<Delivery>, transit: &Transit) -> bool {
        let counted = deliveries.into_iter().map(|delivery| Counted {
            delivery,
            transit: transit.clone(),
        });
        let mut state = self.lock();
        state.queue.extend(counted);
        // ORDERING: Relaxed: a hint; a thread that misses it leaves the delivery to a deliverer.
        self.any.store(true, Ordering::Relaxed);
        let is_first = state.deliverers.is_empty() && state.starting == 0;
        let idle = state.idle() + usize::from(is_first);
        let is_crowded = state.queue.len() > idle;
        drop(state);
        if is_first {
            self.start();
        } else {
            self.changed.notify_one();
        }
        is_crowded
    }

    /// Makes the value of this future in the calling thread, if the delivery is in the queue.
    pub(crate) fn make(&self, future: FutureId) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        let mut queue = state.queue.iter();
        let place = queue.position(|counted| counted.delivery.task.id() == future);
        let counted = place.and_then(|place| state.queue.remove(place));
        self.any.store(!state.queue.is_empty(), Ordering::Relaxed);
        drop(state);
        if let Some(counted) = counted {
            counted.make();
        }
    }

    /// Ends the idle deliverers.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Makes a value in the calling thread.
    pub(crate) fn make_own(delivery: Delivery, transit: Transit) {
        Counted { delivery, transit }.make();
    }

    /// Starts another deliverer if a value takes long and others wait behind it. Returns when to look again.
    pub(crate) fn look_after(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let idle = state.idle();
        if state.queue.len() <= idle || state.deliverers.len() + state.starting >= MOST {
            return None;
        }
        if idle > 0 {
            // They may be about to come to values that take long.
            return Some(now + PATIENCE);
        }
        let newest = state.deliverers.iter().filter_map(|(_, since)| *since);
        let due = newest.max().map_or(now, |newest| newest + PATIENCE);
        drop(state);
        if due > now {
            return Some(due);
        }
        self.start();
        Some(now + PATIENCE)
    }

    fn start(self: &Arc<Self>) {
        self.lock().starting += 1;
        let ours = Arc::clone(self);
        let started = thread::Builder::new()
            .name(String::from("cf-deliver"))
            .spawn(move || ours.work(true));
        if let Err(error) = started {
            log::no_thread_for_values(&error);
            let mut state = self.lock();
            let is_only = state.deliverers.is_empty();
            if !is_only {
                state.starting -= 1;
                return;
            }
            drop(state);
            self.work(false);
        }
    }

    /// Makes all values, and ends; with `lingers`, waits some time for more deliveries first.
    fn work(&self, lingers: bool) {
        let ours = thread::current().id();
        let mut state = self.lock();
        state.starting -= 1;
        state.deliverers.push((ours, None));
        loop {
            if let Some(counted) = state.queue.pop_front() {
                self.any.store(!state.queue.is_empty(), Ordering::Relaxed);
                state.set_busy(Some(Instant::now()));
                drop(state);
                counted.make();
                state = self.lock();
                state.set_busy(None);
                continue;
            }
            if lingers && !state.closed {
                let wait = self.changed.wait_timeout_while(state, KEEP_ALIVE, |state| {
                    state.queue.is_empty() && !state.closed
                });
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.queue.is_empty() {
                state.deliverers.retain(|(thread, _)| *thread != ours);
                return;
            }
        }
    }
}

thread_local! {
    /// The pools for which this thread makes a value. The last is the innermost.
    static CURRENT: RefCell<Vec<PoolId>> = const { RefCell::new(Vec::new()) };
}

/// Marks the calling thread as making a value for a pool.
struct Current;

impl Current {
    fn enter(pool: PoolId) -> Self {
        CURRENT.with_borrow_mut(|current| current.push(pool));
        Self
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(Vec::pop);
    }
}

/// Returns whether the calling thread makes a value for this pool. Such a thread must not wait for the pool's
/// deliveries.
pub(crate) fn is_delivering(pool: PoolId) -> bool {
    CURRENT.with_borrow(|current| current.contains(&pool))
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_for_which_pools_it_makes_values() {
        let (one, other) = (PoolId::next(), PoolId::next());
        let outer = Current::enter(one);
        let inner = Current::enter(other);
        assert!(is_delivering(one) && is_delivering(other));
        drop(inner);
        assert!(is_delivering(one) && !is_delivering(other));
        drop(outer);
        assert!(!is_delivering(one));
    }
}
