//! The next steps of spare workers, and the errors if no thread can be started.

use crate::deadlock::analysis::Question;
use crate::deadlock::{BlockedPool, Order, Registry, registry};
use crate::error::{Deadlock, TaskError};
use crate::id::FutureId;
use crate::runtime::crew::{self, Crew};
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::Arc;
use crate::task::current::Worker;
use crate::task::{Phase, TaskRef, log};
use std::io;
use std::ptr;

/// The next step of a spare worker.
pub(crate) enum Duty {
    /// Runs this task, which was started.
    Run(TaskRef),
    /// Takes the oldest task from the queue.
    TakeOldest,
    /// Does nothing: the worker is parked now.
    Park,
}

/// Returns the next step of the calling spare worker, which is awake and runs no task. `park` is
/// called under the lock if the worker is to park.
pub(crate) fn next_duty(worker: &Worker<'_>, park: impl FnOnce()) -> Duty {
    let mut registry = registry();
    let mut calls = Vec::new();
    let mut dropped = Vec::new();
    let duty = loop {
        if crew::is_crowded(&**worker.crew) {
            break Duty::Park;
        }
        let order = registry
            .pools
            .get_mut(&worker.pool_id)
            .and_then(|pool| pool.orders.pop_front());
        match order {
            Some(Order::Oldest) => break Duty::TakeOldest,
            Some(Order::Task { waiter, future }) => {
                if let Some(task) = registry.claim(waiter, future, &mut dropped) {
                    break Duty::Run(task);
                }
            }
            None => {
                calls.extend(registry.give_orders(Some(worker.pool_id)));
                let pool = registry.pools.get(&worker.pool_id);
                if pool.is_none_or(|pool| pool.orders.is_empty()) {
                    break Duty::Park;
                }
            }
        }
    };
    if matches!(duty, Duty::Park) {
        if let Some(pool) = registry.pools.get_mut(&worker.pool_id)
            && worker.crew.tally().spares() == 1
        {
            // They were made for a pool that stood still, and it does not.
            pool.orders.clear();
        }
        worker.crew.tally().spare_leaves();
        park();
    }
    drop(registry);
    call(calls);
    // Which may call foreign code.
    drop(dropped);
    duty
}

/// Notes that a spare worker, which is awake, ends instead of parking.
pub(crate) fn spare_ends(crew: &dyn Crew) {
    let _registry = registry();
    crew.tally().spare_leaves();
}

/// Makes a regular worker wait while its pool runs as many tasks as it may without this worker.
pub(crate) fn hold_back(crew: &dyn Crew) {
    let signal = Arc::new(Signal::new());
    loop {
        let registry = registry();
        if !crew::is_crowded(crew) {
            return;
        }
        crew.tally().hold(&signal);
        drop(registry);
        signal.wait(None);
    }
}

/// Returns whether a regular worker may have to be [held back](hold_back) before it takes a task. A worker
/// that was counted as awake a moment ago is as good as a worker that takes a task now.
#[inline]
pub(crate) fn may_be_crowded<C: Crew>(crew: &C) -> bool {
    crew.tally().spares() > 0 && crew::is_crowded(crew)
}

/// Returns whether the calling worker is the only one that could run `task`, so that spinning for the task is
/// in vain.
pub(crate) fn is_last_awake(worker: &Worker<'_>, task: &TaskRef) -> bool {
    task.pool_id() == Some(worker.pool_id)
        && task.state().phase() == Phase::Pending
        && crew::awake(&**worker.crew) <= 1
}

/// Calls a spare worker of each of these pools. The spare workers are counted already.
pub(super) fn call(crews: Vec<Arc<dyn Crew>>) {
    for crew in crews {
        if let Err(error) = Arc::clone(&crew).call_spare() {
            log::thread_not_started(&error);
            crew_stays_short(&crew, Arc::new(error), true);
        }
    }
}

/// Ends a wait of the pool, if the thread of a regular worker could not be started and the pool stands still.
pub(crate) fn worker_was_refused(crew: &Arc<dyn Crew>, error: Arc<io::Error>) {
    crew_stays_short(crew, error, false);
}

/// Ends one of a pool's waits, if no thread could be started for the pool and the pool stands still.
fn crew_stays_short(crew: &Arc<dyn Crew>, error: Arc<io::Error>, was_spare: bool) {
    let mut dropped = Vec::new();
    let failing = {
        let mut registry = registry();
        if was_spare {
            crew.tally().spare_leaves();
        }
        registry.end_a_wait(crew, error, &mut dropped)
    };
    drop(dropped);
    if let Some((task, deadlock)) = failing {
        // SAFETY: it was claimed, which started it.
        unsafe { task.fail(TaskError::Deadlock(deadlock)) };
    }
}

impl Registry {
    /// Ends a wait, if the pool of a crew stands still without another worker. If all waits
    /// are ends of scopes, returns a task that must fail instead.
    fn end_a_wait(
        &mut self,
        crew: &Arc<dyn Crew>,
        error: Arc<io::Error>,
        dropped: &mut Vec<TaskRef>,
    ) -> Option<(TaskRef, Deadlock)> {
        let is_of_crew =
            |pool: &&BlockedPool| ptr::addr_eq(Arc::as_ptr(&pool.crew), Arc::as_ptr(crew));
        let pool = self.pools.values().find(is_of_crew)?;
        pool.is_refused.set(true);
        self.ask(Question::Cycle, None, || false);
        pool.is_refused.set(false);
        let stuck = self.blocked.iter().rev();
        let stuck = stuck.filter(|(_, blocked)| !blocked.goes_on.get());
        let stuck: Vec<_> = stuck.map(|(number, _)| *number).collect();
        let newest = *stuck.first()?;
        let victim = self.victim(&stuck);
        let cycle = self.cycle(victim.unwrap_or(newest));
        let deadlock = Deadlock::new(&cycle.tasks, Some(error));
        if let Some(victim) = victim {
            self.interrupt(victim, deadlock);
            return None;
        }
        let task = stuck.iter().find_map(|number| {
            let mut needed = Vec::new();
            self.blocked[number].any_future(|future| {
                needed.push(future.id());
                false
            });
            needed
                .into_iter()
                .find_map(|future| self.claim(*number, future, dropped))
        })?;
        Some((task, deadlock))
    }

    /// Starts a task that a blocked worker needs, if it is pending still. References that
    /// turn out to be superfluous are for the caller to drop, without the lock.
    fn claim(&self, waiter: u64, future: FutureId, dropped: &mut Vec<TaskRef>) -> Option<TaskRef> {
        let mut claimed = None;
        self.blocked.get(&waiter)?.any_future(|task| {
            if task.id() != future {
                return false;
            }
            // SAFETY: the waiter keeps the task, and is blocked while we have the lock, under
            // which alone tasks are claimed.
            claimed = unsafe { task.claim(dropped) };
            true
        });
        claimed
    }
}
