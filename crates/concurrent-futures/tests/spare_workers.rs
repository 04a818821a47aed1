//! Tests of spare workers: a pool whose workers all wait for its own tasks gets one, and no other pool does.

mod common;

use common::{Counter, Gate, Hold, LONG, SHORT, eventually, pool, within_limit};
use concurrent_futures::{
    Future, TaskError, ThreadPoolExecutor, Waitable, as_completed, promise, wait,
};
use concurrent_futures::{
    ReturnWhen::{AllCompleted, FirstCompleted},
    Shutdown,
};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Barrier, Mutex, Weak, mpsc};
use std::task::{Context, Wake};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// A way to wait for a future of the calling task's pool.
type WaitFor = fn(Future<ThreadId>) -> ThreadId;

const WAYS: [WaitFor; 6] = [
    |future| future.result().unwrap(),
    |mut future| future.result_timeout(LONG).unwrap(),
    |future| {
        wait([future], None, AllCompleted)
            .done
            .remove(0)
            .result()
            .unwrap()
    },
    |future| {
        wait([future], Some(LONG), FirstCompleted)
            .done
            .remove(0)
            .result()
            .unwrap()
    },
    |future| as_completed([future]).next().unwrap().result().unwrap(),
    |future| {
        let next = as_completed([future]).timeout(LONG).next();
        next.unwrap().unwrap().result().unwrap()
    },
];

fn upgraded(pool: &Weak<ThreadPoolExecutor>) -> Arc<ThreadPoolExecutor> {
    pool.upgrade().unwrap()
}

#[test]
fn the_only_worker_may_wait_in_each_way_for_its_pool() {
    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    within_limit(|| {
        let pool = Arc::new(pool(1));
        for wait_for in WAYS {
            let lock = Arc::new(Mutex::new(()));
            let weak = Arc::downgrade(&pool);
            let outer = pool.spawn(move || {
                NUMBER.set(1);
                let held = lock.lock().unwrap();
                let theirs = Arc::clone(&lock);
                let inner = upgraded(&weak).spawn(move || {
                    // The outer task's lock and thread-local are not ours.
                    assert!(theirs.try_lock().is_err());
                    assert_eq!(NUMBER.get(), 0);
                    thread::current().id()
                });
                assert_ne!(wait_for(inner.unwrap()), thread::current().id());
                drop(held);
                NUMBER.set(0);
            });
            outer.unwrap().result().unwrap();
        }
        assert_eq!(pool.workers(), 2);
    });
}

#[test]
fn a_pool_with_an_idle_worker_gets_no_other() {
    within_limit(|| {
        let pool = Arc::new(pool(2));
        drop(Hold::all_workers_of(&pool));
        for _ in 0..200 {
            let weak = Arc::downgrade(&pool);
            let outer = pool.spawn(move || {
                let inner = upgraded(&weak).spawn(|| thread::current().id());
                assert_ne!(inner.unwrap().result().unwrap(), thread::current().id());
            });
            outer.unwrap().result().unwrap();
        }
        assert_eq!(pool.workers(), 2);
    });
}

#[test]
fn subtasks_of_all_workers_run_at_the_same_time() {
    within_limit(|| {
        let pool = Arc::new(pool(3));
        let (all_run, all_meet) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        let outer: Vec<_> = (0..3)
            .map(|_| {
                let (weak, all_run) = (Arc::downgrade(&pool), Arc::clone(&all_run));
                let all_meet = Arc::clone(&all_meet);
                let task = move || {
                    all_run.wait();
                    let inner = upgraded(&weak).spawn(move || all_meet.wait().is_leader());
                    inner.unwrap().result().unwrap()
                };
                pool.spawn(task).unwrap()
            })
            .collect();
        let leaders = outer.into_iter().map(|one| one.result().unwrap());
        assert_eq!(leaders.filter(|is_leader| *is_leader).count(), 1);
        assert_eq!(pool.workers(), 6);
    });
}

#[test]
fn no_more_tasks_run_than_the_pool_allows() {
    for workers in 1..=3 {
        within_limit(move || {
            let pool = Arc::new(pool(workers));
            let (running, most) = (Counter::new(), Arc::new(Mutex::new(0)));
            let outer: Vec<_> = (0..30)
                .map(|_| {
                    let weak = Arc::downgrade(&pool);
                    let (running, most) = (running.clone(), Arc::clone(&most));
                    let task = move || {
                        for _ in 0..5 {
                            let (running, most) = (running.clone(), Arc::clone(&most));
                            let leaf = upgraded(&weak).spawn(move || {
                                running.add();
                                let now = running.get();
                                let mut most = most.lock().unwrap();
                                *most = now.max(*most);
                                drop(most);
                                thread::yield_now();
                                running.subtract();
                            });
                            leaf.unwrap().result().unwrap();
                        }
                    };
                    pool.spawn(task).unwrap()
                })
                .collect();
            for one in outer {
                one.result().unwrap();
            }
            assert!(*most.lock().unwrap() <= workers);
        });
    }
}

fn descend(pool: &ThreadPoolExecutor, depth: u32) -> Result<u32, TaskError> {
    let Some(below) = depth.checked_sub(1) else {
        return Ok(0);
    };
    let mut deepest = Ok(0);
    pool.scope(|scope| {
        let inner = scope.spawn(|| descend(pool, below)).unwrap();
        deepest = inner.result().and_then(|deepest| deepest);
    });
    Ok(deepest? + 1)
}

/// Submits tasks that nothing inside waits for, so that the scope itself waits for them.
fn descend_without_asking(pool: &ThreadPoolExecutor, depth: u32, deepest: &Counter) {
    if depth > 0 {
        pool.scope(|scope| {
            let inner = || descend_without_asking(pool, depth - 1, deepest);
            drop(scope.spawn(inner).unwrap());
        });
        deepest.add();
    }
}

#[test]
fn scopes_may_be_nested_deeply() {
    for workers in [1, 3] {
        within_limit(move || {
            let pool = pool(workers);
            assert_eq!(descend(&pool, 300).unwrap(), 300);
            let deepest = Counter::new();
            descend_without_asking(&pool, 300, &deepest);
            assert_eq!(deepest.get(), 300);
        });
    }
}

#[test]
fn spare_workers_end_after_their_time_and_with_the_pool() {
    within_limit(|| {
        let builder = ThreadPoolExecutor::builder().max_workers(1);
        let pool = Arc::new(builder.keep_alive(SHORT).build().unwrap());
        for _ in 0..10 {
            let weak = Arc::downgrade(&pool);
            let outer = pool.spawn(move || upgraded(&weak).spawn(|| 1).unwrap().result().unwrap());
            assert_eq!(outer.unwrap().result().unwrap(), 1);
            eventually("the workers end", || pool.workers() == 0);
        }
        pool.shutdown(Shutdown::Wait);
    });
}

#[test]
fn a_spare_worker_may_become_a_regular_one() {
    within_limit(|| {
        let builder = ThreadPoolExecutor::builder().max_workers(2);
        let pool = Arc::new(builder.build().unwrap());
        // One worker waits; the other could not have been needed before.
        let weak = Arc::downgrade(&pool);
        let all_run = Arc::new(Barrier::new(2));
        let outer: Vec<_> = (0..2)
            .map(|_| {
                let (weak, all_run) = (Weak::clone(&weak), Arc::clone(&all_run));
                let task = move || {
                    all_run.wait();
                    upgraded(&weak).spawn(|| 1).unwrap().result().unwrap()
                };
                pool.spawn(task).unwrap()
            })
            .collect();
        for one in outer {
            assert_eq!(one.result().unwrap(), 1);
        }
        let futures: Vec<_> = (0..100).map(|n| pool.spawn(move || n).unwrap()).collect();
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
        pool.shutdown(Shutdown::Wait);
        assert_eq!(pool.workers(), 0);
    });
}

#[test]
fn a_pool_that_a_task_drops_may_need_the_pool_of_the_task() {
    within_limit(|| {
        let pool_a = Arc::new(pool(1));
        let weak = Arc::downgrade(&pool_a);
        let outer = pool_a.spawn(move || {
            let behind = upgraded(&weak).spawn(|| 1).unwrap();
            let inside = pool(1);
            let waits = inside.spawn(move || behind.result()).unwrap();
            drop(inside);
            waits.result().unwrap().unwrap()
        });
        assert_eq!(outer.unwrap().result().unwrap(), 1);
    });
}

#[test]
fn of_two_tasks_that_shut_each_others_pools_down_one_does_not_wait() {
    within_limit(|| {
        for _ in 0..20 {
            let (a, b) = (Arc::new(pool(1)), Arc::new(pool(1)));
            let both_run = Arc::new(Barrier::new(2));
            let shut_down = |own: &Arc<ThreadPoolExecutor>, other: &Arc<ThreadPoolExecutor>| {
                let (other, both_run) = (Arc::downgrade(other), Arc::clone(&both_run));
                let task = move || {
                    both_run.wait();
                    let other = upgraded(&other);
                    other.shutdown(Shutdown::Wait);
                };
                own.spawn(task).unwrap()
            };
            let futures = [shut_down(&a, &b), shut_down(&b, &a)];
            for future in futures {
                future.result().unwrap();
            }
        }
    });
}

#[test]
fn a_task_that_waits_for_one_that_shuts_its_pool_down_gets_the_error() {
    within_limit(|| {
        for _ in 0..20 {
            let (a, b) = (Arc::new(pool(1)), Arc::new(pool(1)));
            let (weak, go) = (Arc::downgrade(&a), Gate::new());
            let opened = go.clone();
            let ends = b
                .spawn(move || {
                    opened.wait();
                    upgraded(&weak).shutdown(Shutdown::Wait);
                })
                .unwrap();
            let waits = a.spawn(move || ends.exception()).unwrap();
            go.open();
            let error = waits.result().unwrap();
            assert!(matches!(error, Some(TaskError::Deadlock(_))), "{error:?}");
        }
    });
}

#[test]
fn two_bounded_pools_whose_tasks_submit_to_each_other() {
    within_limit(|| {
        let bounded = || {
            let builder = ThreadPoolExecutor::builder().max_workers(1).max_pending(1);
            Arc::new(builder.build().unwrap())
        };
        let (a, b) = (bounded(), bounded());
        let both_run = Arc::new(Barrier::new(2));
        let submit = |own: &Arc<ThreadPoolExecutor>, other: &Arc<ThreadPoolExecutor>| {
            let (other, both_run) = (Arc::downgrade(other), Arc::clone(&both_run));
            let task = move || {
                both_run.wait();
                for _ in 0..10 {
                    drop(upgraded(&other).spawn(|| ()).unwrap());
                }
            };
            own.spawn(task).unwrap()
        };
        let futures = [submit(&a, &b), submit(&b, &a)];
        for future in futures {
            future.result().unwrap();
        }
    });
}

/// Checks that the last handle may be dropped when a thread ends, which cannot wait for itself.
#[test]
fn a_thread_local_of_a_worker_may_hold_the_last_handle_of_its_pool() {
    thread_local! {
        static POOL: RefCell<Option<Arc<ThreadPoolExecutor>>> = const { RefCell::new(None) };
    }
    struct Tell(mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    thread_local! {
        static LATER: RefCell<Option<Tell>> = const { RefCell::new(None) };
    }
    within_limit(|| {
        let (sender, receiver) = mpsc::channel();
        let pool = Arc::new(pool(1));
        let theirs = Arc::clone(&pool);
        let keeps = pool.spawn(move || {
            LATER.set(Some(Tell(sender)));
            POOL.set(Some(theirs));
        });
        keeps.unwrap().result().unwrap();
        pool.shutdown(Shutdown::NoWait);
        drop(pool);
        receiver.recv_timeout(LONG).unwrap();
    });
}

/// Checks that a waker that blocks comes after the threads that wait for the same future.
#[test]
fn dropping_an_iterator_does_not_wait_for_a_waker_that_waits_for_the_dropping_thread() {
    struct Locks {
        lock: Mutex<()>,
        begun: Gate,
    }
    impl Wake for Locks {
        fn wake(self: Arc<Self>) {
            self.begun.open();
            drop(self.lock.lock().unwrap());
        }
    }
    within_limit(|| {
        for _ in 0..50 {
            let locks = Arc::new(Locks {
                lock: Mutex::new(()),
                begun: Gate::new(),
            });
            let (promise, mut future) = promise();
            let waker = Arc::clone(&locks).into();
            let poll = std::pin::Pin::new(&mut future);
            let polled = std::future::Future::poll(poll, &mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            let futures = as_completed([&future]);
            let held = locks.lock.lock().unwrap();
            let sets = thread::spawn(move || promise.set_result(1).unwrap());
            locks.begun.wait();
            drop(futures);
            drop(held);
            sets.join().unwrap();
        }
    });
}

/// Searching each future among all the others would take minutes.
#[test]
fn the_same_future_many_times_is_let_go_quickly() {
    within_limit(|| {
        let (_promise, never) = promise::<()>();
        let (promise, soon) = promise();
        promise.set_result(1).unwrap();
        let futures = || (0..300_000).map(|_| &never as &dyn Waitable);
        drop(as_completed(futures()));
        let all = futures().chain([&soon as &dyn Waitable]);
        assert_eq!(wait(all, None, FirstCompleted).done.len(), 1);
        let late = wait(futures(), Some(Duration::from_millis(1)), FirstCompleted);
        assert!(late.done.is_empty());
    });
}
