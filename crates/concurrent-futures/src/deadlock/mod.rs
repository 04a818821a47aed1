//! The detector of deadlocks: gives a pool spare workers, and finds waits that would never end.
//!
//! # Contract
//! A pool runs at most `max_workers` tasks at once, and a task that waits counts as one of
//! them. So a pool stands still when all of its workers wait for tasks that are pending in
//! the pool. Such a pool gets *spare workers*, each a thread of its own, until it no longer
//! stands still. A pool of which a worker is awake, or will go on, gets none.
//!
//! # Words
//! A worker is *blocked* while it waits in this crate for futures, for room in a full queue
//! or for the end of another pool. A worker that waits for a lock or for input is not.
//! A worker is *regular* or *spare*. A spare worker without an order is *parked*.
//! All other workers are *awake*, also those that sleep as the queue is empty.
//!
//! # Protocol
//! Each worker that is about to sleep notes under one lock what it needs ([`block`]). If
//! some of that comes from an awake worker or from outside, the worker sleeps. If not, two
//! questions are answered by a least fixed point over all blocked workers
//! ([`Question`]):
//!
//! - *Is this a cycle?* A running task will finish unless it runs on a blocked worker that
//!   will not go on. A pending task will finish. A wait with a time limit will end. A
//!   blocked worker will go on if what it needs (all of it, or any) will come. If the new
//!   wait is left over, it ends with the error.
//! - *Does a pool stand still?* The question is the same, with two exceptions. A pending task will finish
//!   only if a worker of its pool is awake or will go on. Time limits do not count. A pool needs help if it
//!   is left over and a blocked worker in it needs a pending task. Such a pool gets an *order* for that task
//!   and a spare worker. A pool gets up to `max_workers` orders at once, for the newest waits first.
//!
//! A spare worker claims the task of an order under the lock, while the worker that waits for the task is
//! blocked. Then the spare worker runs the task ([`next_duty`]). Afterwards the spare worker asks whether its
//! pool would stand still without it. If so, it gets the next order. If not, it parks before the lock is
//! released.
//!
//! A worker that goes on while spare workers run may bring the pool above `max_workers`. A
//! regular worker takes no task then ([`hold_back`]), until a spare worker parks or blocks.
//! A spare worker parks then, whatever its orders are.
//!
//! # Invariants
//! 1. While a worker of a pool is blocked and needs a pending task of that pool, one of three things holds. A
//!    worker of that pool is awake or will go on. Or a spare worker is on its way to an order. Or a thread
//!    that could start no other thread is about to end a wait with an error. Because: a worker that stops
//!    being awake asks both questions, or knows from the count that another is awake, in the same critical
//!    section.
//! 2. A task is *taken* only while at most `max_workers` workers are awake and not held back,
//!    the taker among them. Of the tasks that run and are not blocked, all but `max_workers`
//!    were running before, and were blocked when another one was taken. So there are
//!    at most as many more than `max_workers` as there are spare workers.
//! 3. A wait that is left over by the first question would stand still in any pool. No thread outside the
//!    cycle can end the wait, as running tasks cannot be cancelled.
//! 4. An entry's pointers are followed under the lock only, while its worker is blocked.
//!
//! The end of a scope cannot be refused: a worker that waits for one blocks, and another
//! worker of the cycle gets the error. If no thread can be started for an order, the newest
//! wait that needs it ends with the error. If all of these are ends of scopes, the pending
//! task of one of them fails with the error.

mod analysis;
mod spares;

pub(crate) use spares::{
    Duty, hold_back, is_last_awake, may_be_crowded, next_duty, spare_ends, worker_was_refused,
};

use crate::error::Deadlock;
use crate::id::{FutureId, PoolId};
use crate::recording::recorder::{self, Waiting};
use crate::runtime::crew::Crew;
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::{Arc, Mutex, MutexGuard, lock};
use crate::task::current::Worker;
use crate::task::{Phase, TaskRef};
use analysis::Question;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

/// The event that a blocked worker needs before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// All futures of the wait.
    All,
    /// Any future of the wait.
    Any,
    /// A worker that takes a task out of this pool's queue.
    Room(PoolId),
    /// The end of this pool.
    End(PoolId),
}

/// The futures that a worker needs, as a function. The function calls its argument with each future until the
/// argument returns true, and returns whether the argument did.
pub type Futures<'a> = dyn Fn(&mut dyn FnMut(&TaskRef) -> bool) -> bool + 'a;

/// No futures, for waits that need none.
pub(crate) const NO_FUTURES: &Futures<'static> = &|_| false;

/// The action that ends a wait that would never end by itself.
pub(crate) enum Escape {
    /// The wait ends with the error, by this signal.
    Error(Arc<Signal>),
    /// The wait can end with the error, by this signal; but only if no other wait of the cycle can end.
    LastResort(Arc<Signal>),
    /// Another wait must end.
    None,
}

/// A wait that is about to begin.
pub(crate) struct Wait<'a> {
    pub(crate) need: Need,
    pub(crate) futures: &'a Futures<'a>,
    /// Whether the wait has a time limit.
    pub(crate) is_timed: bool,
    pub(crate) escape: Escape,
}

/// A worker that is blocked.
struct Blocked {
    /// The task that the worker runs; none for an initializer.
    task: Option<(FutureId, *const TaskRef)>,
    pool_id: PoolId,
    need: Need,
    /// The futures, on the blocked worker's stack, which stays as it is while the wait is registered.
    futures: *const Futures<'static>,
    is_timed: bool,
    /// Ends the worker's wait; none for a wait that cannot fail.
    interrupt: Option<Arc<Interrupt>>,
    /// Whether the worker goes on, by the last answer.
    goes_on: Cell<bool>,
}

// SAFETY: `futures` is called, and the pointer
// to the task is followed, under the registry's lock only, while the worker that they belong to is blocked.
// Both look at nothing but states, numbers and names.
unsafe impl Send for Blocked {}

impl Blocked {
    fn any_future(&self, mut f: impl FnMut(&TaskRef) -> bool) -> bool {
        // SAFETY: the guard removes this entry, under the lock, before the blocked
        // worker goes on.
        unsafe { (*self.futures)(&mut f) }
    }

    fn is_interrupted(&self) -> bool {
        let interrupt = self.interrupt.as_ref();
        interrupt.is_some_and(|interrupt| interrupt.deadlock.get().is_some())
    }
}

/// A pool with a blocked worker.
struct BlockedPool {
    crew: Arc<dyn Crew>,
    blocked: usize,
    /// The orders for the pool's spare workers.
    orders: VecDeque<Order>,
    /// Whether the pool cannot have another worker.
    is_refused: Cell<bool>,
    /// Whether a worker of the pool is awake or goes on, by the last answer.
    goes_on: Cell<bool>,
}

/// A step that a spare worker is to take.
enum Order {
    /// Runs the task that this blocked worker needs.
    Task { waiter: u64, future: FutureId },
    /// Takes the oldest task from a full queue, in which other workers wait for room.
    Oldest,
}

/// A map with numbers as keys, which can be made at compile time.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// A hash for the numbers of pools and futures, which no adversary chooses.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The bits in which numbers differ must reach the lower and the upper bits of the hash.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

struct Registry {
    /// The blocked workers, in the order in which they blocked.
    blocked: BTreeMap<u64, Blocked>,
    next_number: u64,
    pools: Map<PoolId, BlockedPool>,
    /// The blocked worker that each task runs on.
    runs_on: Map<FutureId, u64>,
}

#[cfg(not(loom_models))]
static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());
#[cfg(loom_models)]
loom::lazy_static! {
    static ref REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());
}

fn registry() -> MutexGuard<'static, Registry> {
    lock(&REGISTRY)
}

#[cfg(all(feature = "process", unix, not(loom_models)))]
std::thread_local! {
    /// The registry, while this thread forks.
    static HELD: Cell<Option<MutexGuard<'static, Registry>>> = const { Cell::new(None) };
}

/// Takes the registry's lock before a fork, so that no other thread holds the lock meanwhile. No code of the program
/// runs under the lock, so that its holder needs no other lock of the program, and no interpreter.
#[cfg(all(feature = "process", unix, not(loom_models)))]
pub(crate) fn before_fork() {
    // Without access, the thread is ending, and so is its fork.
    let _ = HELD.try_with(|held| held.set(Some(registry())));
}

/// Releases the lock after a fork, on both sides. In the child, forgets the blocked workers, whose threads are the
/// parent's.
#[cfg(all(feature = "process", unix, not(loom_models)))]
pub(crate) fn after_fork(in_child: bool) {
    if let (Ok(Some(mut registry)), true) = (HELD.try_with(Cell::take), in_child) {
        // Not dropped: a pool of the parent must not end here.
        mem::forget(mem::replace(&mut *registry, Registry::new()));
    }
}

/// Ends the wait of a blocked worker with an error.
struct Interrupt {
    deadlock: OnceLock<Deadlock>,
    /// Wakes the worker.
    signal: Arc<Signal>,
    is_last_resort: bool,
}

impl Interrupt {
    fn new(escape: Escape) -> Option<Arc<Self>> {
        let (signal, is_last_resort) = match escape {
            Escape::Error(signal) => (signal, false),
            Escape::LastResort(signal) => (signal, true),
            Escape::None => return None,
        };
        Some(Arc::new(Self {
            deadlock: OnceLock::new(),
            signal,
            is_last_resort,
        }))
    }

    fn interrupt(&self, deadlock: Deadlock) {
        // A second one has the same effect.
        let _ = self.deadlock.set(deadlock);
        self.signal.notify();
    }
}

/// A wait of a task, for people.
#[derive(Debug)]
pub(crate) struct WaitView {
    /// The task that waits; none for an initializer.
    pub(crate) waiter: Option<FutureId>,
    need: Need,
    /// The first few futures that are not done, with their pools.
    futures: Vec<(FutureId, Option<PoolId>, Phase)>,
    /// The number of futures that are not done.
    count: usize,
}

/// The number of futures of a wait that are shown.
const SHOWN: usize = 8;

impl fmt::Display for WaitView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.need {
            Need::Room(pool) => {
                return write!(f, "waits for room in pool {}", PoolId::number(Some(pool)));
            }
            Need::End(pool) => {
                return write!(
                    f,
                    "waits for the end of pool {}",
                    PoolId::number(Some(pool))
                );
            }
            Need::All => f.write_str("waits for")?,
            Need::Any => f.write_str("waits for any of")?,
        }
        for (place, (future, pool, phase)) in self.futures.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let phase = if *phase == Phase::Pending {
                "pending"
            } else {
                "running"
            };
            write!(f, "{comma} task {future} ({phase}")?;
            match pool {
                Some(pool) => write!(f, " in pool {})", PoolId::number(Some(*pool)))?,
                None => f.write_str(", of no pool)")?,
            }
        }
        if self.count > self.futures.len() {
            write!(f, " and {} more", self.count - self.futures.len())?;
        }
        Ok(())
    }
}

/// Returns the waits of all blocked workers.
pub(crate) fn waits() -> Vec<WaitView> {
    let registry = registry();
    let view = |blocked: &Blocked| {
        let mut futures = Vec::new();
        let mut count = 0;
        blocked.any_future(|task| {
            if !task.state().is_done() {
                count += 1;
                if futures.len() < SHOWN {
                    futures.push((task.id(), task.pool_id(), task.state().phase()));
                }
            }
            false
        });
        WaitView {
            waiter: blocked.task.map(|(id, _)| id),
            need: blocked.need,
            futures,
            count,
        }
    };
    registry.blocked.values().map(view).collect()
}

/// Keeps a worker registered as blocked.
pub(crate) struct Blocking<'a> {
    number: u64,
    interrupt: Option<Arc<Interrupt>>,
    /// Whether spare workers were called for this wait.
    pub(crate) has_help: bool,
    /// Records the wait when it ends.
    _recorded: Option<Waiting>,
    futures: PhantomData<&'a ()>,
}

impl Blocking<'_> {
    /// The error with which the wait must end, if it must.
    pub(crate) fn interrupted(&self) -> Option<&Deadlock> {
        self.interrupt.as_ref()?.deadlock.get()
    }
}

impl Drop for Blocking<'_> {
    fn drop(&mut self) {
        registry().remove(self.number);
    }
}

/// Registers `worker` as about to block. The worker must look at [`Blocking::interrupted`] whenever it wakes
/// up.
///
/// # Errors
/// `Deadlock` if it would never go on; nothing is noted then.
pub(crate) fn block<'a>(worker: &Worker<'_>, wait: Wait<'a>) -> Result<Blocking<'a>, Deadlock> {
    let interrupt = Interrupt::new(wait.escape);
    let recorded = match worker.task() {
        Some(task) if recorder::is_on() => {
            let mut awaited = None;
            (wait.futures)(&mut |future| {
                if !future.state().is_done() {
                    awaited = Some(future.id());
                }
                awaited.is_some()
            });
            Waiting::begin(task.id(), awaited)
        }
        _ => None,
    };
    let mut registry = registry();
    let number = registry.add(
        Blocked {
            task: worker.task().map(|task| (task.id(), ptr::from_ref(task))),
            pool_id: worker.pool_id,
            need: wait.need,
            // SAFETY: `Blocking`, which removes this entry, keeps the lifetime.
            futures: unsafe { forget_lifetime(wait.futures) },
            is_timed: wait.is_timed,
            interrupt: interrupt.clone(),
            goes_on: Cell::new(false),
        },
        worker.crew,
    );
    let mut calls = Vec::new();
    if !registry.goes_on_at_once(number) {
        if let Some(deadlock) = registry.break_cycle(number) {
            registry.remove(number);
            return Err(deadlock);
        }
        calls = registry.give_orders(None);
    }
    drop(registry);
    let blocking = Blocking {
        number,
        interrupt,
        has_help: !calls.is_empty(),
        _recorded: recorded,
        futures: PhantomData,
    };
    spares::call(calls);
    Ok(blocking)
}

impl Registry {
    const fn new() -> Self {
        Self {
            blocked: BTreeMap::new(),
            next_number: 0,
            pools: HashMap::with_hasher(BuildHasherDefault::new()),
            runs_on: HashMap::with_hasher(BuildHasherDefault::new()),
        }
    }

    /// Registers a worker, and returns its number.
    fn add(&mut self, blocked: Blocked, crew: &Arc<dyn Crew>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if let Some((id, _)) = blocked.task {
            self.runs_on.insert(id, number);
        }
        let pool = self
            .pools
            .entry(blocked.pool_id)
            .or_insert_with(|| BlockedPool {
                crew: Arc::clone(crew),
                blocked: 0,
                orders: VecDeque::new(),
                is_refused: Cell::new(false),
                goes_on: Cell::new(false),
            });
        pool.blocked += 1;
        crew.tally().blocks();
        self.blocked.insert(number, blocked);
        number
    }

    fn remove(&mut self, number: u64) {
        let Some(blocked) = self.blocked.remove(&number) else {
            return;
        };
        if let Some((id, _)) = blocked.task {
            self.runs_on.remove(&id);
        }
        if let Some(pool) = self.pools.get_mut(&blocked.pool_id) {
            pool.crew.tally().goes_on();
            pool.blocked -= 1;
            if pool.blocked == 0 {
                self.pools.remove(&blocked.pool_id);
            }
        }
    }

    /// Ends one of the waits, if the worker that has just blocked would never go on. Returns the error if the
    /// worker's own wait must end.
    fn break_cycle(&self, number: u64) -> Option<Deadlock> {
        let goes_on = || self.blocked[&number].goes_on.get();
        self.ask(Question::Cycle, None, goes_on);
        if goes_on() {
            return None;
        }
        let cycle = self.cycle(number);
        let deadlock = Deadlock::new(&cycle.tasks, None);
        let workers: Vec<u64> = iter::once(number).chain(cycle.workers).collect();
        let victim = self.victim(&workers);
        // Without one, all waits of the cycle are ends of scopes, and no wait can return the error.
        let victim = victim?;
        if victim == number {
            return Some(deadlock);
        }
        self.interrupt(victim, deadlock);
        None
    }

    /// Returns the first of the workers whose wait can end with an error.
    fn victim(&self, workers: &[u64]) -> Option<u64> {
        let find = |last_resort| {
            let mut workers = workers.iter().copied();
            workers.find(|number| {
                let interrupt = self.blocked[number].interrupt.as_ref();
                interrupt.is_some_and(|interrupt| interrupt.is_last_resort == last_resort)
            })
        };
        find(false).or_else(|| find(true))
    }

    fn interrupt(&self, number: u64, deadlock: Deadlock) {
        if let Some(interrupt) = &self.blocked[&number].interrupt {
            interrupt.interrupt(deadlock);
        }
    }
}

/// # Safety
/// The pointer is not used after the reference's lifetime.
unsafe fn forget_lifetime(futures: &Futures<'_>) -> *const Futures<'static> {
    // SAFETY: references differ in their lifetime only.
    unsafe { mem::transmute::<&Futures<'_>, &'static Futures<'static>>(futures) }
}
