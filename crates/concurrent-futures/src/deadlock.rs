//! Finds tasks whose waiting would never end.
//!
//! Every worker that blocks without a time limit is noted here first: its tasks,
//! and the futures it needs. Before it blocks it asks whether it could ever go
//! on, by a least fixed point over all blocked workers:
//!
//! - a running task *will finish* unless it is on the stack of a blocked worker
//!   that will not go on;
//! - a pending task will finish unless all workers of its pool are blocked and
//!   will not go on (a pool that may still start a worker has fewer);
//! - a blocked worker *will go on* if the futures it needs (all of them, or any)
//!   will finish.
//!
//! Both facts only become true by tasks that are not blocked, so a worker that
//! will not go on never does. The last one to close the circle finds it, and gets
//! the error instead of blocking; the others are released by what it does next.
//! The end of a scope cannot be refused: it blocks, and another worker of the
//! circle is woken with the error in its place.
//!
//! All under one lock, which is taken only by workers that are about to sleep.

use crate::current::Worker;
use crate::error::Deadlock;
use crate::future::{FutureId, Phase, TaskRef};
use crate::signal::Signal;
use crate::sync::Arc;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How many of the futures a worker needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    All,
    Any,
}

/// The futures a worker needs: calls its argument with each of them until that
/// returns true, and returns whether it did.
pub type Futures<'a> = dyn Fn(&mut dyn FnMut(&TaskRef) -> bool) -> bool + 'a;

/// A worker that is blocked.
struct Blocked {
    number: u64,
    /// Its tasks, the innermost first.
    tasks: Vec<(FutureId, *const TaskRef)>,
    home: *const (),
    max_workers: usize,
    need: Need,
    /// On the blocked worker's stack, which stays as it is while this is noted.
    futures: *const Futures<'static>,
    /// How to end its wait; none for one that cannot fail.
    interrupt: Option<Arc<Interrupt>>,
}

// SAFETY: `home` is compared, never followed; `futures` is called, and the pointers to
// tasks are followed, under the registry's lock only, while the worker that they belong
// to is blocked; both look at nothing but states, numbers and names.
unsafe impl Send for Blocked {}

impl Blocked {
    fn any_future(&self, mut f: impl FnMut(&TaskRef) -> bool) -> bool {
        // SAFETY: the guard removes this entry, under the lock, before the blocked
        // worker goes on.
        unsafe { (*self.futures)(&mut f) }
    }
}

struct Registry {
    blocked: Vec<Blocked>,
    next_number: u64,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    blocked: Vec::new(),
    next_number: 0,
});

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other threads from holding the registry's lock, while this process forks.
pub struct ForkGuard(#[expect(dead_code, reason = "held")] MutexGuard<'static, Registry>);

impl ForkGuard {
    /// Waits for the lock.
    #[must_use]
    pub fn hold() -> Self {
        Self(registry())
    }
}

impl fmt::Debug for ForkGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForkGuard")
    }
}

/// Ends the wait of a blocked worker with an error.
struct Interrupt {
    deadlock: OnceLock<Deadlock>,
    /// Wakes the worker.
    signal: Arc<Signal>,
}

impl Interrupt {
    fn interrupt(&self, deadlock: Deadlock) {
        // A second one has the same effect.
        let _ = self.deadlock.set(deadlock);
        self.signal.notify();
    }
}

/// Keeps a worker noted as blocked.
pub(crate) struct Blocking<'a> {
    number: u64,
    interrupt: Option<Arc<Interrupt>>,
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
        registry()
            .blocked
            .retain(|blocked| blocked.number != self.number);
    }
}

/// Notes that `worker` is about to block until `futures` are done. It must look at
/// [`Blocking::interrupted`] whenever it wakes up, for which `signal` is used.
///
/// # Errors
/// `Deadlock` if it would never go on; nothing is noted then.
pub(crate) fn block<'a>(
    worker: &Worker<'_>,
    need: Need,
    futures: &'a Futures<'a>,
    signal: Arc<Signal>,
) -> Result<Blocking<'a>, Deadlock> {
    let interrupt = Interrupt {
        deadlock: OnceLock::new(),
        signal,
    };
    let mut registry = registry();
    let new = registry.add(worker, need, futures, Some(Arc::new(interrupt)));
    let analysis = Analysis::new(&registry.blocked);
    if analysis.goes_on[new] {
        return Ok(registry.blocking(new));
    }
    let deadlock = analysis.cycle(new).into();
    registry.blocked.pop();
    Err(deadlock)
}

/// The same for a wait that must not fail. If it would never end, another worker
/// gets the error.
pub(crate) fn block_always<'a>(
    worker: &Worker<'_>,
    need: Need,
    futures: &'a Futures<'a>,
) -> Blocking<'a> {
    let mut registry = registry();
    let new = registry.add(worker, need, futures, None);
    let analysis = Analysis::new(&registry.blocked);
    if !analysis.goes_on[new] {
        let cycle = analysis.cycle(new);
        let interrupt = cycle.workers.iter().find_map(|&index| {
            let blocked = &registry.blocked[index];
            blocked.interrupt.as_ref()
        });
        // Without one, all of the cycle are scopes: there is nobody to tell.
        if let Some(interrupt) = interrupt {
            interrupt.interrupt((&cycle).into());
        }
    }
    registry.blocking(new)
}

impl Registry {
    /// Notes a worker, and returns its place.
    fn add(
        &mut self,
        worker: &Worker<'_>,
        need: Need,
        futures: &Futures<'_>,
        interrupt: Option<Arc<Interrupt>>,
    ) -> usize {
        let number = self.next_number;
        self.next_number += 1;
        self.blocked.push(Blocked {
            number,
            tasks: worker
                .tasks()
                .map(|task| (task.id(), ptr::from_ref(task)))
                .collect(),
            home: worker.home,
            max_workers: worker.max_workers,
            need,
            // SAFETY: `Blocking`, which removes this entry, keeps the lifetime.
            futures: unsafe { forget_lifetime(futures) },
            interrupt,
        });
        self.blocked.len() - 1
    }

    fn blocking<'a>(&self, index: usize) -> Blocking<'a> {
        let blocked = &self.blocked[index];
        Blocking {
            number: blocked.number,
            interrupt: blocked.interrupt.clone(),
            futures: PhantomData,
        }
    }
}

/// # Safety
/// The pointer is not used after the reference's lifetime.
unsafe fn forget_lifetime(futures: &Futures<'_>) -> *const Futures<'static> {
    // SAFETY: references differ in their lifetime only.
    unsafe { mem::transmute::<&Futures<'_>, &'static Futures<'static>>(futures) }
}

/// Which of the blocked workers will go on.
struct Analysis<'a> {
    blocked: &'a [Blocked],
    /// On whose stack each task is.
    stack_of: HashMap<FutureId, usize>,
    goes_on: Vec<bool>,
}

impl<'a> Analysis<'a> {
    fn new(blocked: &'a [Blocked]) -> Self {
        let stack_of = blocked
            .iter()
            .enumerate()
            .flat_map(|(index, blocked)| blocked.tasks.iter().map(move |(id, _)| (*id, index)))
            .collect();
        let mut analysis = Self {
            blocked,
            stack_of,
            goes_on: vec![false; blocked.len()],
        };
        let mut changed = true;
        while changed {
            changed = false;
            for (index, worker) in blocked.iter().enumerate() {
                let goes_on = match worker.need {
                    Need::All => !worker.any_future(|future| !analysis.will_finish(future)),
                    Need::Any => worker.any_future(|future| analysis.will_finish(future)),
                };
                if goes_on && !analysis.goes_on[index] {
                    analysis.goes_on[index] = true;
                    changed = true;
                }
            }
        }
        analysis
    }

    fn will_finish(&self, future: &TaskRef) -> bool {
        match future.state().phase() {
            Phase::Pending => self.stuck_workers(future.home()).is_none(),
            Phase::Finished | Phase::Cancelled | Phase::Notified => true,
            Phase::Running | Phase::Setting | Phase::Finishing | Phase::Cancelling => self
                .stack_of
                .get(&future.id())
                .is_none_or(|&index| self.goes_on[index]),
        }
    }

    /// The first of a pool's workers, if it has as many as it may and none of
    /// them will go on.
    fn stuck_workers(&self, home: *const ()) -> Option<usize> {
        let mut of_pool = self
            .blocked
            .iter()
            .enumerate()
            .filter(|(_, blocked)| blocked.home == home);
        let (first, max_workers) = of_pool
            .clone()
            .next()
            .map(|(index, blocked)| (index, blocked.max_workers))?;
        let stuck = of_pool.clone().count() >= max_workers
            && of_pool.all(|(index, _)| !self.goes_on[index]);
        stuck.then_some(first)
    }

    /// Follows what a worker waits for until it comes around.
    fn cycle(&self, start: usize) -> Cycle {
        let mut cycle = Cycle::default();
        let mut visits: Vec<Visit> = Vec::new();
        let mut at = start;
        // How many of the worker's tasks, from the innermost, are part of it: those
        // up to the one that is waited for.
        let mut depth = 1;
        loop {
            let blocked = &self.blocked[at];
            if let Some(visit) = visits.iter().find(|visit| visit.worker == at) {
                // It has come around. What led there is not part of the cycle; tasks
                // further out on this worker than at first are.
                let before = visit.first_step + visit.depth.saturating_sub(depth);
                let further_out = blocked.tasks.get(visit.depth..depth).unwrap_or_default();
                let further_out = further_out.iter().rev().map(step);
                cycle.tasks.splice(..before, further_out);
                return cycle;
            }
            visits.push(Visit {
                worker: at,
                depth,
                first_step: cycle.tasks.len(),
            });
            cycle.workers.push(at);
            // Each waits for the one that it runs in place.
            let tasks = blocked.tasks.iter().take(depth).rev();
            cycle.tasks.extend(tasks.map(step));
            let Some(future) = self.stuck_future(blocked) else {
                return cycle;
            };
            let (id, name, home) = future;
            let next = self.stack_of.get(&id).copied().or_else(|| {
                // Pending: it waits for a worker, and the first of its pool's workers
                // for something else.
                cycle.tasks.push((id, name));
                self.stuck_workers(home)
            });
            let Some(next) = next else {
                return cycle;
            };
            at = next;
            let tasks = &self.blocked[next].tasks;
            let place = tasks.iter().position(|(task, _)| *task == id);
            depth = place.map_or(tasks.len(), |place| place + 1);
        }
    }

    /// A future for which a worker waits in vain: number, name and pool.
    fn stuck_future(&self, blocked: &Blocked) -> Option<(FutureId, Cow<'static, str>, *const ())> {
        let mut future = None;
        blocked.any_future(|candidate| {
            let stuck = !self.will_finish(candidate);
            future = stuck.then(|| (candidate.id(), candidate.name(), candidate.home()));
            stuck
        });
        future
    }
}

/// A worker that the walk along a cycle has come to.
struct Visit {
    worker: usize,
    depth: usize,
    /// The place in the cycle of the first of its tasks.
    first_step: usize,
}

/// A task of a cycle.
type Step = (FutureId, Cow<'static, str>);

fn step((id, task): &(FutureId, *const TaskRef)) -> Step {
    // SAFETY: the worker that the task is on is blocked, and stays so while the registry
    // is locked, as it is here.
    (*id, unsafe { (**task).name() })
}

/// Tasks that wait for each other, and the workers they are on.
#[derive(Default)]
struct Cycle {
    tasks: Vec<Step>,
    workers: Vec<usize>,
}

impl From<&Cycle> for Deadlock {
    fn from(cycle: &Cycle) -> Self {
        Self {
            tasks: cycle.tasks.as_slice().into(),
        }
    }
}

impl From<Cycle> for Deadlock {
    fn from(cycle: Cycle) -> Self {
        (&cycle).into()
    }
}
