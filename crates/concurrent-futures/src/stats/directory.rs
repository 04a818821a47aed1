//! The counters of all pools, by the pools' numbers.
//!
//! A task knows the number of its pool, and not the pool. A thread that cancels tasks looks the counters up here, and
//! remembers those that it has found last.

#![forbid(unsafe_code)]

use crate::id::PoolId;
use crate::stats::counts::Counts;
use crate::stats::view::{Inspect, PoolView};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockWriteGuard, Weak};

type Directory = HashMap<PoolId, Arc<Counts>>;

/// Whether all pools measure times, those too that are made later.
static MEASURES: AtomicBool = AtomicBool::new(false);

static POOLS: LazyLock<RwLock<Directory>> = LazyLock::new(RwLock::default);

thread_local! {
    /// The counters that the thread has found last.
    static LAST: RefCell<Option<(PoolId, Arc<Counts>)>> = const { RefCell::new(None) };
    /// The directory, while this thread forks.
    static HELD: RefCell<Option<RwLockWriteGuard<'static, Directory>>> = const { RefCell::new(None) };
}

fn write() -> RwLockWriteGuard<'static, Directory> {
    POOLS.write().unwrap_or_else(PoisonError::into_inner)
}

/// The entry of a pool, which is removed with the pool.
#[derive(Debug)]
pub(crate) struct Listed {
    id: PoolId,
    counts: Arc<Counts>,
}

impl Listed {
    pub(crate) fn new(id: PoolId, counts: Counts) -> Self {
        let counts = Arc::new(counts);
        if MEASURES.load(Ordering::Relaxed) {
            counts.measure();
        }
        write().insert(id, Arc::clone(&counts));
        Self { id, counts }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Notes how the pool describes itself.
    pub(crate) fn set_inspect(&self, inspect: Weak<dyn Inspect>) {
        // A pool is made once.
        let _ = self.counts.inspect.set(inspect);
    }
}

impl std::ops::Deref for Listed {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        write().remove(&self.id);
    }
}

/// Calls `count` with the counters of a pool, if the pool is there.
pub(crate) fn count(pool: Option<PoolId>, count: impl FnOnce(&Counts)) {
    let Some(pool) = pool else {
        return;
    };
    // Without access, the thread is ending: it cancels nothing that is worth remembering.
    let counts = LAST.try_with(|last| {
        let mut last = last.try_borrow_mut().ok()?;
        if last.as_ref().is_none_or(|(known, _)| *known != pool) {
            let found = find(pool)?;
            *last = Some((pool, found));
        }
        last.as_ref().map(|(_, counts)| Arc::clone(counts))
    });
    let counts = counts.ok().flatten().or_else(|| find(pool));
    if let Some(counts) = counts {
        count(&counts);
    }
}

fn find(pool: PoolId) -> Option<Arc<Counts>> {
    let pools = POOLS.read().unwrap_or_else(PoisonError::into_inner);
    pools.get(&pool).cloned()
}

/// Lets all pools measure times from now on, those too that are made later.
pub fn measure_all() {
    MEASURES.store(true, Ordering::Relaxed);
    let pools = POOLS.read().unwrap_or_else(PoisonError::into_inner);
    pools.values().for_each(|counts| counts.measure());
}

/// Returns the pools by their numbers, with a description of each that is to be had.
pub(crate) fn pools() -> Vec<(usize, Option<PoolView>)> {
    let pools: Vec<_> = {
        let pools = POOLS.read().unwrap_or_else(PoisonError::into_inner);
        let inspect = |counts: &Arc<Counts>| counts.inspect.get()?.upgrade();
        pools
            .iter()
            .filter_map(|(id, counts)| Some((PoolId::number(Some(*id)), inspect(counts)?)))
            .collect()
    };
    let mut views: Vec<_> = pools
        .into_iter()
        .map(|(number, pool)| (number, pool.inspect()))
        .collect();
    views.sort_by_key(|(number, _)| *number);
    views
}

/// Takes the lock before a fork, so that no other thread holds the lock meanwhile.
#[cfg(all(feature = "process", unix))]
pub(crate) fn before_fork() {
    HELD.set(Some(write()));
}

/// Releases the lock after a fork, on both sides. In the child, forgets the pools, which are the parent's.
#[cfg(all(feature = "process", unix))]
pub(crate) fn after_fork(in_child: bool) {
    if let (Some(mut pools), true) = (HELD.take(), in_child) {
        // Other threads may have held locks in there.
        std::mem::forget(std::mem::take(&mut *pools));
    }
}
