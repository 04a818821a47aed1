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
//!
//! All under one lock, which is taken only by workers that are about to sleep.

use crate::current::Worker;
use crate::error::Deadlock;
use crate::future::{FutureId, Phase, TaskRef};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many of the futures a worker needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    All,
    Any,
}

/// The futures a worker needs: calls its argument with each of them until that
/// returns true, and returns whether it did.
pub(crate) type Futures<'a> = dyn Fn(&mut dyn FnMut(&TaskRef) -> bool) -> bool + 'a;

/// A worker that is blocked.
struct Blocked {
    number: u64,
    /// Its tasks, the innermost first.
    tasks: Vec<(FutureId, &'static str)>,
    home: *const (),
    max_workers: usize,
    need: Need,
    /// On the blocked worker's stack, which stays as it is while this is noted.
    futures: *const Futures<'static>,
}

// SAFETY: `home` is compared, never followed; `futures` is called under the
// registry's lock only, and looks at nothing but the states of futures.
unsafe impl Send for Blocked {}

impl Blocked {
    fn any_future(&self, mut f: impl FnMut(&TaskRef) -> bool) -> bool {
        // SAFETY: the guard removes this entry, under the lock, before the blocked
        // worker goes on.
        unsafe { (*self.futures)(&mut f) }
    }
}

#[derive(Default)]
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

/// Keeps a worker noted as blocked.
pub(crate) struct BlockedGuard<'a> {
    number: u64,
    futures: PhantomData<&'a ()>,
}

impl Drop for BlockedGuard<'_> {
    fn drop(&mut self) {
        registry()
            .blocked
            .retain(|blocked| blocked.number != self.number);
    }
}

/// Notes that `worker` is about to block until `futures` are done.
///
/// # Errors
/// `Deadlock` if it would never go on; nothing is noted then.
pub(crate) fn block<'a>(
    worker: &Worker<'_>,
    need: Need,
    futures: &'a Futures<'a>,
) -> Result<BlockedGuard<'a>, Deadlock> {
    let mut registry = registry();
    let number = registry.next_number;
    registry.next_number += 1;
    registry.blocked.push(Blocked {
        number,
        tasks: worker.tasks().collect(),
        home: worker.home,
        max_workers: worker.max_workers,
        need,
        // SAFETY: only the lifetime changes; the guard ends before it does.
        futures: unsafe { forget_lifetime(futures) },
    });
    let analysis = Analysis::new(&registry.blocked);
    let new = registry.blocked.len() - 1;
    if analysis.goes_on[new] {
        return Ok(BlockedGuard {
            number,
            futures: PhantomData,
        });
    }
    let tasks = analysis.cycle(new).into();
    registry.blocked.pop();
    Err(Deadlock { tasks })
}

/// # Safety
/// The pointer is not used after `'a`.
unsafe fn forget_lifetime<'a>(futures: &'a Futures<'a>) -> *const Futures<'static> {
    // SAFETY: references differ in their lifetime only.
    unsafe { mem::transmute::<&'a Futures<'a>, &'static Futures<'static>>(futures) }
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
            Phase::Finished | Phase::Cancelled => true,
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
        let stuck = of_pool.clone().count() == max_workers
            && of_pool.all(|(index, _)| !self.goes_on[index]);
        stuck.then_some(first)
    }

    /// Follows what the worker waits for until it comes around.
    fn cycle(&self, start: usize) -> Vec<(FutureId, &'static str)> {
        let mut steps: Vec<(FutureId, &'static str)> = Vec::new();
        let mut at = start;
        // The task through which the walk came to a worker: at first its
        // innermost, the one that waits.
        let mut through = self.blocked[start].tasks.first().copied();
        while let Some(task) = through {
            if let Some(seen) = steps.iter().position(|(id, _)| *id == task.0) {
                // What led to the cycle is not part of it.
                return steps.split_off(seen);
            }
            steps.push(task);
            let mut future = None;
            self.blocked[at].any_future(|candidate| {
                let stuck = !self.will_finish(candidate);
                future = stuck.then(|| candidate.clone());
                stuck
            });
            let Some(future) = future else {
                break;
            };
            let next = self.stack_of.get(&future.id()).copied().or_else(|| {
                // Pending: it waits for a worker, and the first of its pool's workers
                // for something else.
                steps.push((future.id(), future.name()));
                self.stuck_workers(future.home())
            });
            through = next.and_then(|index| {
                at = index;
                let tasks = &self.blocked[index].tasks;
                let same = tasks.iter().find(|(id, _)| *id == future.id());
                same.or(tasks.first()).copied()
            });
        }
        steps
    }
}
