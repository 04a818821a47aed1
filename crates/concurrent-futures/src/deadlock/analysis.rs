//! Decides which blocked workers will go on, and which waits never end.

use crate::deadlock::{Blocked, BlockedPool, Need, Order, Registry};
use crate::id::{FutureId, PoolId};
use crate::runtime::crew;
use crate::runtime::crew::Crew;
use crate::runtime::sync::Arc;
use crate::task::{Phase, TaskRef};
use std::borrow::Cow;
use std::collections::HashSet;

/// The question that a fixed point answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Finds waits that would never end, whatever workers their pools get.
    Cycle,
    /// Finds waits that do not end without another worker.
    StandsStill,
}

/// A task of a cycle.
type Step = (FutureId, Cow<'static, str>);

/// Tasks that wait for each other, and the workers that run them.
#[derive(Default)]
pub(super) struct Cycle {
    pub(super) tasks: Vec<Step>,
    pub(super) workers: Vec<u64>,
}

/// The obstacle that keeps a blocked worker from going on.
enum Obstacle {
    /// A future that is pending in this pool, or running.
    Future(Step, Option<PoolId>),
    /// A worker of this pool.
    Pool(PoolId),
}

impl Registry {
    /// Answers a question. `without` is a pool whose asking worker counts as blocked although it is
    /// awake. The answer is in `goes_on`; it is incomplete if `is_known` has said that no more is needed.
    pub(super) fn ask(
        &self,
        question: Question,
        without: Option<PoolId>,
        is_known: impl Fn() -> bool,
    ) {
        for (id, pool) in &self.pools {
            let is_short = without == Some(*id);
            let awake = crew::awake(&*pool.crew);
            pool.goes_on.set(awake > usize::from(is_short));
        }
        for blocked in self.blocked.values() {
            let ends = blocked.is_timed && question == Question::Cycle;
            blocked.goes_on.set(ends || blocked.is_interrupted());
            if blocked.goes_on.get() {
                self.pool_goes_on(blocked);
            }
        }
        // The newest first: each often waits for one that has blocked later.
        let mut has_changed = !is_known();
        while has_changed {
            has_changed = false;
            for blocked in self.blocked.values().rev() {
                if !blocked.goes_on.get() && self.is_satisfied(blocked, question) {
                    blocked.goes_on.set(true);
                    self.pool_goes_on(blocked);
                    has_changed = true;
                    if is_known() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns whether a worker that is awake, or a thread outside, satisfies a blocked worker's need.
    pub(super) fn goes_on_at_once(&self, number: u64) -> bool {
        let comes = |future: &TaskRef| match future.state().phase() {
            Phase::Finished | Phase::Cancelled | Phase::Notified => true,
            Phase::Pending => self
                .pool(future.pool_id())
                .is_none_or(|pool| crew::awake(&*pool.crew) > 0),
            _ => !self.runs_on.contains_key(&future.id()),
        };
        let blocked = &self.blocked[&number];
        match blocked.need {
            Need::All => !blocked.any_future(|future| !comes(future)),
            Need::Any => blocked.any_future(comes),
            Need::Room(id) => self
                .pool(id)
                .is_none_or(|pool| crew::awake(&*pool.crew) > 0),
            Need::End(id) => self.pool(id).is_none(),
        }
    }

    fn pool(&self, id: impl Into<Option<PoolId>>) -> Option<&BlockedPool> {
        self.pools.get(&id.into()?)
    }

    fn pool_goes_on(&self, blocked: &Blocked) {
        if let Some(pool) = self.pool(blocked.pool_id) {
            pool.goes_on.set(true);
        }
    }

    fn is_satisfied(&self, blocked: &Blocked, question: Question) -> bool {
        match blocked.need {
            Need::All => !blocked.any_future(|future| !self.will_finish(future, question)),
            Need::Any => blocked.any_future(|future| self.will_finish(future, question)),
            Need::Room(id) => self.takes_tasks(id, question),
            Need::End(id) => {
                let mut all = self.blocked.values();
                all.all(|other| other.pool_id != id || other.goes_on.get())
                    && self.pool(id).is_none_or(|pool| {
                        !pool.crew.has_pending() || self.takes_tasks(id, question)
                    })
            }
        }
    }

    /// Returns whether a worker will take a pool's pending tasks.
    fn takes_tasks(&self, id: impl Into<Option<PoolId>>, question: Question) -> bool {
        // A pool of which no worker is blocked has awake ones.
        self.pool(id).is_none_or(|pool| {
            let may_grow = question == Question::Cycle && !pool.is_refused.get();
            may_grow || pool.goes_on.get()
        })
    }

    fn will_finish(&self, future: &TaskRef, question: Question) -> bool {
        match future.state().phase() {
            Phase::Pending => self.takes_tasks(future.pool_id(), question),
            Phase::Finished | Phase::Cancelled | Phase::Notified => true,
            Phase::Running | Phase::Setting | Phase::Finishing | Phase::Cancelling => self
                .runs_on
                .get(&future.id())
                .is_none_or(|number| self.blocked[number].goes_on.get()),
        }
    }

    /// Gives orders to pools that stand still, and counts the spare workers for them. Returns the pools that
    /// are to be called, once for each spare worker. A spare worker that asks for its own pool is not counted
    /// again.
    pub(super) fn give_orders(&mut self, asking: Option<PoolId>) -> Vec<Arc<dyn Crew>> {
        // While the pool of the one that asks goes on without it, nothing else has changed.
        let goes_on =
            || asking.is_some_and(|asking| self.takes_tasks(asking, Question::StandsStill));
        self.ask(Question::StandsStill, asking, goes_on);
        if goes_on() {
            return Vec::new();
        }
        let is_standing = |id: &&PoolId| !self.pools[*id].goes_on.get();
        let mut standing: Vec<PoolId> = self.pools.keys().filter(is_standing).copied().collect();
        // If there is something to do for the one that asks, it is awake.
        if let Some(asking) = asking
            && standing.contains(&asking)
            && !self.orders_for(asking).is_empty()
        {
            standing = vec![asking];
        }
        let mut calls = Vec::new();
        for id in standing {
            let orders = self.orders_for(id);
            if let Some(pool) = self.pools.get_mut(&id) {
                let is_own = asking == Some(id) && !orders.is_empty();
                let new = orders.len() - usize::from(is_own);
                pool.crew.tally().spares_come(new);
                calls.extend((0..new).map(|_| Arc::clone(&pool.crew)));
                pool.orders = orders.into();
            }
        }
        calls
    }

    /// Returns the orders that help the workers that do not go on without this pool. There are at most as
    /// many orders as tasks may run at once. Each of these workers gets one order first, the newest worker
    /// before the others.
    fn orders_for(&self, id: PoolId) -> Vec<Order> {
        let room = self.pools[&id].crew.max_workers();
        let mut seen = HashSet::new();
        let mut orders = Vec::new();
        let mut others = Vec::new();
        for (number, blocked) in self.blocked.iter().rev() {
            if orders.len() >= room {
                break;
            }
            if blocked.goes_on.get() {
                continue;
            }
            let mut is_first = true;
            match blocked.need {
                Need::Room(pool) if pool == id => orders.push(Order::Oldest),
                Need::Room(_) | Need::End(_) => {}
                Need::All | Need::Any => {
                    blocked.any_future(|future| {
                        let is_wanted = future.pool_id() == Some(id)
                            && future.state().phase() == Phase::Pending
                            && seen.insert(future.id());
                        if is_wanted {
                            let list = if is_first { &mut orders } else { &mut others };
                            list.push(Order::Task {
                                waiter: *number,
                                future: future.id(),
                            });
                            is_first = false;
                        }
                        others.len() >= room
                    });
                }
            }
        }
        orders.extend(others);
        orders.truncate(room);
        orders
    }

    /// Follows the waits from a worker on until they come around, by the last answer.
    pub(super) fn cycle(&self, start: u64) -> Cycle {
        let mut cycle = Cycle::default();
        // The place in the cycle of each worker's task.
        let mut places = Vec::new();
        let mut at = start;
        loop {
            if let Some(visit) = cycle.workers.iter().position(|worker| *worker == at) {
                // The tasks that led there are no part of the cycle.
                cycle.tasks.drain(..places[visit]);
                return cycle;
            }
            places.push(cycle.tasks.len());
            cycle.workers.push(at);
            let blocked = &self.blocked[&at];
            if let Some((id, task)) = blocked.task {
                // SAFETY: the worker that the task is on is blocked, and stays so while the
                // registry is locked, as it is here.
                cycle.tasks.push((id, unsafe { (*task).name() }));
            }
            let next = match self.obstacle(blocked) {
                Some(Obstacle::Future(step, id)) => {
                    self.runs_on.get(&step.0).copied().or_else(|| {
                        // Pending: it waits for a worker, and that for something else.
                        cycle.tasks.push(step);
                        self.stuck_worker(id)
                    })
                }
                Some(Obstacle::Pool(id)) => self.stuck_worker(id),
                None => None,
            };
            let Some(next) = next else {
                return cycle;
            };
            at = next;
        }
    }

    fn obstacle(&self, blocked: &Blocked) -> Option<Obstacle> {
        match blocked.need {
            Need::Room(id) | Need::End(id) => Some(Obstacle::Pool(id)),
            Need::All | Need::Any => {
                let mut obstacle = None;
                blocked.any_future(|future| {
                    let is_stuck = match future.state().phase() {
                        Phase::Pending => self
                            .pool(future.pool_id())
                            .is_some_and(|pool| !pool.goes_on.get()),
                        _ => !self.will_finish(future, Question::StandsStill),
                    };
                    if is_stuck {
                        let step = (future.id(), future.name());
                        obstacle = Some(Obstacle::Future(step, future.pool_id()));
                    }
                    is_stuck
                });
                obstacle
            }
        }
    }

    /// Returns the first worker of a pool that will not go on.
    fn stuck_worker(&self, id: impl Into<Option<PoolId>>) -> Option<u64> {
        let id = id.into()?;
        let mut blocked = self.blocked.iter();
        let found = blocked.find(|(_, blocked)| blocked.pool_id == id && !blocked.goes_on.get());
        found.map(|(number, _)| *number)
    }
}
