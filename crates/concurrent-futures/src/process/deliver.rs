//! Values that only foreign code can make.
//!
//! To make a value of a type that is not plain is to call its `Deserialize`; to drop one that
//! nobody wants is to call its `Drop`. Both are foreign code, which may take long, block, or call the
//! pool. So neither the supervisor does that, which has deaths and time limits to watch, nor a thread
//! that counts as a helper, since nobody else receives answers meanwhile.
//!
//! | value | maker |
//! |---|---|
//! | plain (`is_plain`): made by code that is known to be short | the thread that receives the answer |
//! | that of the future which a helper waits for | the helper, after it has given up its role |
//! | any other | a *deliverer*, one of the threads that are here while there are values to make |
//!
//! # Protocol
//! Under a lock of its own there is a queue of deliveries. A deliverer takes the first; a thread that waits
//! for a future takes that future's, wherever it is in the queue. A value that takes longer than
//! [`PATIENCE`] while others wait behind it gets another deliverer started, by the supervisor.
//!
//! A delivery is counted as *in transit* (`Transit` in `pool.rs`) until its future has its value: the
//! supervisor of a pool that was shut down does not end before, and so neither does `shutdown(wait)`.
//!
//! # Invariants
//! 1. Foreign code runs outside all locks, and what unwinds out of it stops nobody.
//! 2. A delivery is in the queue, or taken by one thread. Dropping one finishes its future.

#![forbid(unsafe_code)]

use super::callbacks::Callbacks;
use super::channel::{Received, ReplyKind};
use super::codec::Bytes;
use super::pool::Transit;
use super::task::{Ending, Task};
use crate::future::FutureId;
use crate::log;
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// How long values may wait behind one before another thread is started for them.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a deliverer waits for more before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The most deliverers.
const MOST: usize = 64;

/// An answer on its way to its future.
pub(super) struct Delivery {
    pub(super) task: Task,
    pub(super) kind: ReplyKind,
    pub(super) bytes: Vec<u8>,
    pub(super) attachment: Option<io::Result<Received>>,
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
        let home = transit.home();
        let callbacks = transit.callbacks().cloned();
        let _current = Current::enter(home);
        crate::panic::log_panic("a value could not be delivered", move || {
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
pub(super) struct Deliveries {
    state: Mutex<State>,
    /// There is a delivery.
    changed: Condvar,
    /// A hint: whether the queue has some.
    any: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Counted>,
    /// Since when each of the deliverers has been at a value; none while it waits for one.
    deliverers: Vec<(ThreadId, Option<Instant>)>,
    /// Deliverers that are being started.
    starting: usize,
    /// Whether deliverers are not to wait for more.
    closed: bool,
}

impl State {
    /// How many deliverers have nothing to do, or will have.
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

    /// Queues deliveries. Returns whether the supervisor is to look after them, as there are more
    /// deliveries than deliverers that have nothing to do.
    pub(super) fn push(self: &Arc<Self>, deliveries: Vec<Delivery>, transit: &Transit) -> bool {
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

    /// Makes the value of this future in the calling thread, if it is in the queue.
    pub(super) fn make(&self, future: FutureId) {
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

    /// Ends the deliverers that have nothing to do.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Makes a value in the calling thread.
    pub(super) fn make_own(delivery: Delivery, transit: Transit) {
        Counted { delivery, transit }.make();
    }

    /// Starts another deliverer if a value takes long and others wait behind it. Returns when to look
    /// again.
    pub(super) fn look_after(self: &Arc<Self>, now: Instant) -> Option<Instant> {
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

    /// Makes all values, then ends; with `lingers`, unless more come soon.
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
    /// The pools for which this thread makes a value, the last of them innermost.
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread makes a value for a pool.
struct Current;

impl Current {
    fn enter(home: *const ()) -> Self {
        CURRENT.with_borrow_mut(|current| current.push(home.addr()));
        Self
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(Vec::pop);
    }
}

/// Returns whether the calling thread makes a value for this pool, which must not wait for that.
pub(super) fn is_delivering(home: *const ()) -> bool {
    CURRENT.with_borrow(|current| current.contains(&home.addr()))
}

/// Returns whether values of a type are made and dropped by code that is known to be short.
pub(super) fn is_plain<T: 'static>() -> bool {
    let ours = TypeId::of::<T>();
    macro_rules! is_one_of {
        ($($plain:ty),* $(,)?) => {
            false $(
                || ours == TypeId::of::<$plain>()
                || ours == TypeId::of::<Option<$plain>>()
                || ours == TypeId::of::<Vec<$plain>>()
            )*
        };
    }
    is_one_of![
        (),
        bool,
        char,
        u8,
        u16,
        u32,
        u64,
        u128,
        usize,
        i8,
        i16,
        i32,
        i64,
        i128,
        isize,
        f32,
        f64,
        String,
        Vec<u8>,
        Duration,
    ]
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn only_types_of_the_standard_library_without_type_parameters_of_others_are_plain() {
        struct Own;
        assert!(is_plain::<u64>() && is_plain::<Vec<u8>>() && is_plain::<Option<String>>());
        assert!(!is_plain::<Own>() && !is_plain::<Vec<Own>>() && !is_plain::<Box<Own>>());
    }

    #[test]
    fn a_thread_knows_for_which_pools_it_makes_values() {
        let pools = [0_u8, 1];
        let (one, other) = (&raw const pools[0], &raw const pools[1]);
        let outer = Current::enter(one.cast());
        let inner = Current::enter(other.cast());
        assert!(is_delivering(one.cast()) && is_delivering(other.cast()));
        drop(inner);
        assert!(is_delivering(one.cast()) && !is_delivering(other.cast()));
        drop(outer);
        assert!(!is_delivering(one.cast()));
    }
}
