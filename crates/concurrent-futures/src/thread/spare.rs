//! The life of a spare worker.
//!
//! A spare worker runs the tasks that the detector orders while all regular workers are blocked; the
//! [detector](crate::deadlock) decides when. It has no part in the protocol of idle workers: no submitter wakes it
//! for a task in the queue.
//!
//! A spare worker without an order is parked, for `keep_alive` at most. A parked worker is called for the next
//! order, or becomes a regular worker when the pool needs a thread. It ends when the pool is closed.
//!
//! # Invariants
//! 1. A spare worker is counted as awake ([`Tally`](crate::runtime::crew::Tally)) from before it is called until
//!    it parks or ends.
//! 2. The thread that takes a spare worker off the list of parked workers tells the worker the reason, once.
//! 3. No spare worker parks in a closed pool. It looks whether the pool is closed under the lock of the list,
//!    and the list is emptied after closing.

use crate::deadlock::{self, Duty};
use crate::error::TaskError;
use crate::runtime::os::signal::Signal;
use crate::runtime::spin::Spin;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, Mutex, deadline_after, lock};
use crate::task::TaskRef;
use crate::task::current::Worker;
use crate::thread::pool::Pool;
// Not loom's, which cannot be made at compile time. It is no part of the protocol.
use std::sync::atomic::AtomicUsize as StaticCount;

/// The maximal number of spare workers in the process. Each is a thread.
pub(super) const MAX_SPARES: usize = 4096;

/// The number of spare workers in the process.
static SPARES: StaticCount = StaticCount::new(0);

/// Counts a spare worker as long as this value lives. None if there are too many.
#[derive(Debug)]
pub(super) struct Place(());

impl Place {
    pub(super) fn take() -> Option<Self> {
        // ORDERING: Relaxed, as it is no more than a count.
        let before = SPARES.fetch_add(1, Ordering::Relaxed);
        let place = Self(());
        (before < MAX_SPARES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        SPARES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reason why a parked worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Why {
    Order = 1,
    BecomeRegular,
    End,
}

/// A spare worker, which can be called while it is parked.
struct Slot {
    signal: Signal,
    why: AtomicUsize,
}

impl Slot {
    fn why(&self) -> Option<Why> {
        // ORDERING: Acquire pairs with the Release in `call`.
        match self.why.load(Ordering::Acquire) {
            1 => Some(Why::Order),
            2 => Some(Why::BecomeRegular),
            3 => Some(Why::End),
            _ => None,
        }
    }

    fn call(&self, why: Why) {
        // ORDERING: Release publishes what the caller has done before.
        self.why.store(why as usize, Ordering::Release);
        self.signal.notify();
    }
}

/// The parked workers of a pool.
pub(super) struct Parked(Mutex<Vec<Arc<Slot>>>);

impl Parked {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Calls the worker that parked last. Returns false if none is parked.
    pub(super) fn call(&self, why: Why) -> bool {
        let slot = lock(&self.0).pop();
        let is_there = slot.is_some();
        if let Some(slot) = slot {
            slot.call(why);
        }
        is_there
    }

    fn add(&self, pool: &Pool, slot: &Arc<Slot>) -> bool {
        let mut parked = lock(&self.0);
        let is_open = !pool.is_closed();
        if is_open {
            slot.why.store(0, Ordering::Relaxed);
            parked.push(Arc::clone(slot));
        }
        is_open
    }

    /// Takes a worker off the list. Returns false if it was called meanwhile.
    fn remove(&self, slot: &Arc<Slot>) -> bool {
        let mut parked = lock(&self.0);
        let place = parked.iter().position(|other| Arc::ptr_eq(other, slot));
        if let Some(place) = place {
            parked.remove(place);
        }
        place.is_some()
    }
}

/// The next step of a spare worker.
enum Next {
    Run(TaskRef),
    TakeOldest,
    BecomeRegular,
    End,
}

/// Runs the ordered tasks until the thread is not needed any more. Returns whether the worker is to go on as
/// a regular worker.
pub(super) fn run(pool: &Arc<Pool>, worker: &Worker<'_>) -> bool {
    let slot = Arc::new(Slot {
        signal: Signal::new(),
        why: AtomicUsize::new(0),
    });
    loop {
        let mut next = Next::End;
        // The lock of the detector is not to be waited for while other threads wait for what the
        // spawner gives up here.
        pool.spawner
            .idle(&mut || next = next_for(pool, worker, &slot));
        match next {
            // SAFETY: the detector has started it.
            Next::Run(task) => unsafe { run_started(pool, worker, &task, 0) },
            Next::TakeOldest => {
                if let Some((task, number)) = pool.queue.pop_counted() {
                    // SAFETY: a task of a pool is run by that pool's workers; run below.
                    if unsafe { task.state().start() } {
                        // SAFETY: just started.
                        unsafe { run_started(pool, worker, &task, number) };
                    } else {
                        pool.skip(&task);
                    }
                }
            }
            Next::BecomeRegular => return true,
            Next::End => return false,
        }
    }
}

/// Runs a task, which came out of the queue as number `taken`; 0 if it is in the queue still.
///
/// # Safety
/// The task was started, for this worker.
unsafe fn run_started(pool: &Pool, worker: &Worker<'_>, task: &TaskRef, taken: u64) {
    // SAFETY: the task was started, for this worker, which is the condition of `fail` and `run`.
    unsafe {
        match pool.broken() {
            Some(broken) => task.fail(TaskError::Broken(broken)),
            None => worker.run(task, taken),
        }
    }
}

fn next_for(pool: &Arc<Pool>, worker: &Worker<'_>, slot: &Arc<Slot>) -> Next {
    loop {
        let mut is_parked = false;
        match deadlock::next_duty(worker, || is_parked = pool.parked.add(pool, slot)) {
            Duty::Run(task) => return Next::Run(task),
            Duty::TakeOldest => return Next::TakeOldest,
            Duty::Park if !is_parked => return Next::End,
            Duty::Park => {}
        }
        match wait_parked(pool, slot) {
            Why::Order => {}
            Why::BecomeRegular => return Next::BecomeRegular,
            Why::End => return Next::End,
        }
    }
}

/// Waits until the parked worker is called, or not needed any more.
fn wait_parked(pool: &Pool, slot: &Arc<Slot>) -> Why {
    let deadline = pool.keep_alive.and_then(deadline_after);
    if !Spin::Thread.until(|| slot.why().is_some()) {
        while slot.why().is_none() {
            if !slot.signal.wait(deadline) && pool.parked.remove(slot) {
                return Why::End;
            }
        }
    }
    slot.why().unwrap_or(Why::End)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::error::BrokenExecutor;
    use crate::thread::executor::ThreadPoolExecutor;
    use crate::thread::spawner::{ThreadSpawner, WorkerThread};
    use crate::thread::std_threads::Threads;
    use std::io;
    use std::sync::Weak;
    use std::thread::JoinHandle;

    /// A spawner that starts a few threads, and no more.
    struct Few {
        threads: Threads,
        left: StaticCount,
    }

    impl ThreadSpawner for Few {
        fn start_thread(
            &self,
            number: usize,
            worker: WorkerThread,
        ) -> io::Result<Option<JoinHandle<()>>> {
            let take = |left: usize| left.checked_sub(1);
            if self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_err()
            {
                return Err(io::Error::other("that was the last"));
            }
            self.threads.start_thread(number, worker)
        }

        fn initialize(&self) -> Result<(), BrokenExecutor> {
            Ok(())
        }
    }

    fn pool(max_workers: usize, threads: usize) -> Arc<ThreadPoolExecutor> {
        let spawner = Few {
            threads: Threads {
                name_prefix: "few".to_owned(),
                stack_size: None,
                initializer: None,
            },
            left: StaticCount::new(threads),
        };
        let pool = Pool::with_spawner(max_workers, None, Box::new(spawner)).unwrap();
        Arc::new(ThreadPoolExecutor::from_pool(pool))
    }

    fn nest(pool: &Weak<ThreadPoolExecutor>, depth: u32) -> Result<u32, TaskError> {
        let Some(below) = depth.checked_sub(1) else {
            return Ok(0);
        };
        let weak = Weak::clone(pool);
        let future = pool
            .upgrade()
            .unwrap()
            .spawn(move || nest(&weak, below))
            .unwrap();
        Ok(future.result()?? + 1)
    }

    #[test]
    fn tasks_wait_for_tasks_as_deep_as_there_are_threads() {
        for max_workers in 1..4 {
            let pool = pool(max_workers, 8);
            let weak = Arc::downgrade(&pool);
            let chain = pool.spawn(move || nest(&weak, 7)).unwrap();
            assert_eq!(chain.result().unwrap().unwrap(), 7);
        }
    }

    #[test]
    fn the_wait_that_needs_one_thread_more_ends_with_the_cause() {
        for max_workers in 1..4 {
            let pool = pool(max_workers, 8);
            for _ in 0..10 {
                let weak = Arc::downgrade(&pool);
                let chain = pool.spawn(move || nest(&weak, 30)).unwrap();
                let error = chain.result().unwrap().unwrap_err();
                let text = error.to_string();
                assert!(matches!(error, TaskError::Deadlock(_)), "{text}");
                let cause = "; no further worker can be started: that was the last";
                assert!(text.ends_with(cause), "{text}");
            }
            assert_eq!(pool.spawn(|| 1).unwrap().result().unwrap(), 1);
        }
    }

    /// A scope cannot end before its tasks: the task for which there is no thread fails.
    #[test]
    fn a_scope_that_needs_one_thread_more_ends_and_its_task_fails() {
        fn descend(pool: &ThreadPoolExecutor, depth: u32, deepest: &StaticCount) {
            if depth > 0 {
                pool.scope(|scope| {
                    drop(scope.spawn(|| descend(pool, depth - 1, deepest)).unwrap());
                });
                deepest.fetch_add(1, Ordering::SeqCst);
            }
        }
        for max_workers in 1..4 {
            let pool = pool(max_workers, 8);
            for _ in 0..10 {
                let deepest = StaticCount::new(0);
                descend(&pool, 30, &deepest);
                // The outermost is in no thread of the pool.
                assert_eq!(deepest.load(Ordering::SeqCst), 9);
            }
        }
    }

    #[test]
    fn the_message_stays_short() {
        let pool = pool(1, 60);
        let weak = Arc::downgrade(&pool);
        let chain = pool.spawn(move || nest(&weak, 100)).unwrap();
        let text = chain.result().unwrap().unwrap_err().to_string();
        assert!(text.contains(", and ") && text.contains(" more"), "{text}");
        assert!(text.len() < 4000, "{text}");
    }
}
