//! Tests of tasks that wait for tasks: every task that can finish does, and a cycle is an error.

mod common;

use common::{Counter, Gate, Hold, SHORT, drift, eventually, pool, within_limit};
use concurrent_futures::{
    Deadlock, Future, TaskError, ThreadPoolExecutor, Waitable, as_completed, promise, wait,
};
use concurrent_futures::{
    ReturnWhen::{AllCompleted, FirstCompleted, FirstException},
    Shutdown,
};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

/// The error that a task got by waiting for another task.
type Waited = Option<TaskError>;

/// A future for other tasks to wait for, once it is there.
type Slot = Arc<OnceLock<Future<Waited>>>;

fn deadlock(waited: &Waited) -> Option<&Deadlock> {
    match waited {
        Some(TaskError::Deadlock(deadlock)) => Some(deadlock),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// Submits tasks that wait for each other in a cycle by `wait_for`, and returns their results. Checks that
/// each result names the tasks. The pools have a worker for each, or get spare ones.
fn cycle(
    pools: &[&ThreadPoolExecutor],
    length: usize,
    wait_for: fn(&Future<Waited>) -> Waited,
) -> Vec<Waited> {
    let slots: Vec<Slot> = (0..length).map(|_| Slot::default()).collect();
    let workers: usize = pools.iter().map(|pool| pool.max_workers()).sum();
    let (go, running) = (Gate::new(), Counter::new());
    for n in 0..length {
        let (go, next) = (go.clone(), Arc::clone(&slots[(n + 1) % length]));
        let running = running.clone();
        let task = move || {
            running.add();
            go.wait();
            wait_for(next.get().unwrap())
        };
        let future = pools[n % pools.len()].spawn(task).unwrap();
        slots[n].set(future).unwrap();
    }
    eventually("the tasks run", || running.get() >= length.min(workers));
    go.open();
    let results: Vec<_> = slots
        .iter()
        .map(|slot| {
            let future = slot.get().unwrap();
            assert!(future.exception().is_none());
            future.peek().unwrap().unwrap().clone()
        })
        .collect();
    for deadlock in results.iter().filter_map(deadlock) {
        assert_eq!(deadlock.futures().len(), length);
        for slot in &slots {
            let id = slot.get().unwrap().id();
            assert!(deadlock.futures().any(|named| named == id), "{deadlock}");
            assert!(deadlock.to_string().contains(&id.to_string()), "{deadlock}");
        }
    }
    results
}

fn count_deadlocks(results: &[Waited]) -> usize {
    results.iter().filter_map(deadlock).count()
}

/// The first example of Python's documentation, "Deadlocks can occur when".
#[test]
fn of_two_tasks_that_wait_for_each_other_one_gets_a_deadlock_error() {
    within_limit(|| {
        for _ in 0..100 {
            let results = cycle(&[&pool(2)], 2, Future::exception);
            assert_eq!(count_deadlocks(&results), 1);
        }
    });
}

/// The second example of Python's documentation.
#[test]
fn a_task_can_submit_another_to_its_pool_of_one_worker_and_wait_for_it() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let executor = Arc::clone(&pool);
        let outer = pool.spawn(move || {
            let power = executor.submit(|(n, e)| u32::pow(n, e), (5, 2)).unwrap();
            power.result().unwrap()
        });
        assert_eq!(outer.unwrap().result().unwrap(), 25);
    });
}

#[test]
fn the_message_names_the_waiting_tasks_and_their_targets() {
    within_limit(|| {
        let results = cycle(&[&pool(3)], 3, Future::exception);
        let text = results.iter().find_map(deadlock).unwrap().to_string();
        assert!(text.starts_with("waiting would never end: #"), "{text}");
        assert_eq!(text.matches(" waits for #").count(), 3, "{text}");
        assert!(text.contains("deadlock::cycle"), "{text}");
    });
}

#[test]
fn longer_cycles_and_those_through_several_pools_are_found() {
    within_limit(|| {
        for _ in 0..50 {
            assert_eq!(
                count_deadlocks(&cycle(&[&pool(3)], 3, Future::exception)),
                1
            );
            let (a, b) = (pool(1), pool(1));
            assert_eq!(count_deadlocks(&cycle(&[&a, &b], 2, Future::exception)), 1);
            let (a, b, c) = (pool(1), pool(2), pool(3));
            assert_eq!(
                count_deadlocks(&cycle(&[&a, &b, &c], 3, Future::exception)),
                1
            );
        }
    });
}

#[test]
fn a_cycle_of_more_tasks_than_workers_names_all_of_them() {
    within_limit(|| {
        for length in [2, 6] {
            let results = cycle(&[&pool(1)], length, Future::exception);
            assert_eq!(count_deadlocks(&results), 1);
        }
    });
}

#[test]
fn a_task_that_waits_for_itself_gets_a_deadlock_error() {
    within_limit(|| {
        for workers in 1..3 {
            let results = cycle(&[&pool(workers)], 1, Future::exception);
            assert_eq!(count_deadlocks(&results), 1);
        }
    });
}

#[test]
fn wait_in_a_cycle_returns_and_the_future_tells_the_cycle() {
    within_limit(|| {
        for mode in 0..3 {
            let wait_for: fn(&Future<Waited>) -> Waited = match mode {
                0 => |future| {
                    wait([future], None, AllCompleted);
                    future.exception()
                },
                1 => |future| {
                    wait([future], None, FirstCompleted);
                    future.exception()
                },
                _ => |future| {
                    wait([future], None, FirstException);
                    future.exception()
                },
            };
            for _ in 0..30 {
                assert!(count_deadlocks(&cycle(&[&pool(2)], 2, wait_for)) >= 1);
                assert!(count_deadlocks(&cycle(&[&pool(1)], 1, wait_for)) >= 1);
            }
        }
    });
}

#[test]
fn as_completed_in_a_cycle_yields_futures_that_tell_the_cycle() {
    within_limit(|| {
        for _ in 0..30 {
            let wait_for: fn(&Future<Waited>) -> Waited =
                |future| as_completed([future]).next().unwrap().exception();
            assert!(count_deadlocks(&cycle(&[&pool(2)], 2, wait_for)) >= 1);
            assert!(count_deadlocks(&cycle(&[&pool(3)], 3, wait_for)) >= 1);
        }
    });
}

#[test]
fn a_cycle_with_a_time_limit_times_out_without_an_error() {
    within_limit(|| {
        let slots: Vec<Slot> = (0..2).map(|_| Slot::default()).collect();
        let pool = pool(2);
        let go = Gate::new();
        for n in 0..2 {
            let (go, other) = (go.clone(), Arc::clone(&slots[1 - n]));
            let task = move || {
                go.wait();
                let other = other.get().unwrap();
                match n {
                    // The limit ends this wait, and with it the cycle.
                    0 => other.exception_timeout(SHORT).unwrap_or_default(),
                    _ => other.exception(),
                }
            };
            slots[n].set(pool.spawn(task).unwrap()).unwrap();
        }
        go.open();
        for slot in &slots {
            let future = slot.get().unwrap();
            assert!(future.exception().is_none());
            assert!(future.peek().unwrap().unwrap().is_none(), "{future:?}");
        }
    });
}

#[test]
fn waiting_for_a_promise_that_another_thread_keeps_is_no_deadlock() {
    within_limit(|| {
        let pool = pool(2);
        let (promises, futures): (Vec<_>, Vec<_>) = (0..2).map(|_| promise()).unzip();
        let tasks: Vec<_> = futures
            .into_iter()
            .map(|future| pool.spawn(|| future.result()).unwrap())
            .collect();
        for (n, promise) in promises.into_iter().enumerate() {
            promise.set_result(n).unwrap();
        }
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.result().unwrap().unwrap(), n);
        }
    });
}

#[test]
fn waiting_for_a_pending_task_of_a_busy_pool_is_no_deadlock() {
    within_limit(|| {
        let (busy, waiting) = (pool(1), pool(1));
        let hold = Hold::worker_of(&busy);
        let pending = busy.spawn(|| 1).unwrap();
        let waits = waiting.spawn(|| pending.result()).unwrap();
        hold.release();
        assert_eq!(waits.result().unwrap().unwrap(), 1);
    });
}

fn nest(pool: &Weak<ThreadPoolExecutor>, depth: u32) -> Result<u32, TaskError> {
    let Some(below) = depth.checked_sub(1) else {
        return Ok(0);
    };
    let weak = Weak::clone(pool);
    let executor = pool.upgrade().unwrap();
    let future = executor.spawn(move || nest(&weak, below)).unwrap();
    Ok(future.result()?? + 1)
}

#[test]
fn a_chain_of_a_thousand_nested_tasks_finishes_or_tells_a_deadlock() {
    for workers in [1, 2, 4] {
        within_limit(move || {
            let pool = Arc::new(pool(workers));
            let weak = Arc::downgrade(&pool);
            let chain = pool.spawn(move || nest(&weak, 1_000)).unwrap();
            match chain.result().unwrap() {
                Ok(depth) => assert_eq!(depth, 1_000),
                Err(error) => assert!(matches!(error, TaskError::Deadlock(_)), "{error}"),
            }
            assert_eq!(pool.spawn(|| 1).unwrap().result().unwrap(), 1);
        });
    }
}

#[test]
fn a_chain_of_forty_nested_tasks_finishes() {
    for workers in 1..=3 {
        within_limit(move || {
            let pool = Arc::new(pool(workers));
            let weak = Arc::downgrade(&pool);
            let chain = pool.spawn(move || nest(&weak, 40)).unwrap();
            assert_eq!(chain.result().unwrap().unwrap(), 40);
        });
    }
}

/// Checks that a task can wait for another task of its pool of one worker. The other task runs in a thread of
/// its own, and further tasks stay pending.
#[test]
fn a_spare_worker_runs_the_task_that_is_waited_for_and_no_other() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let weak = Arc::downgrade(&pool);
        let runs = Counter::new();
        let in_tasks = runs.clone();
        let outer = pool.spawn(move || {
            let pool = weak.upgrade().unwrap();
            let others: Vec<_> = (0..5)
                .map(|_| {
                    let runs = in_tasks.clone();
                    pool.spawn(move || runs.add()).unwrap()
                })
                .collect();
            let mut spares = Vec::new();
            for _ in 0..3 {
                let wanted = pool.spawn(thread::current).unwrap();
                spares.push(wanted.result().unwrap().id());
            }
            assert!(!spares.contains(&thread::current().id()));
            assert_eq!(spares, [spares[0]; 3], "spare workers are kept");
            assert_eq!(in_tasks.get(), 0);
            assert!(others.iter().all(|other| !other.is_done()));
        });
        outer.unwrap().result().unwrap();
        pool.shutdown(Shutdown::Wait);
        assert_eq!(runs.get(), 5);
    });
}

#[test]
fn many_tasks_that_wait_for_earlier_ones_are_no_deadlock() {
    for workers in 1..=4 {
        within_limit(move || {
            let pool = pool(workers);
            let mut futures: Vec<Arc<Future<usize>>> = Vec::new();
            for n in 0..3_000 {
                // Up to three of the last forty.
                let needed: Vec<_> = (1..=3)
                    .map(|k| 1 + n * k * 7 % 40)
                    .filter(|back| *back <= n)
                    .map(|back| Arc::clone(&futures[n - back]))
                    .collect();
                let task = move || {
                    for future in needed {
                        let error = future.exception();
                        assert!(error.is_none(), "{error:?}");
                    }
                    n
                };
                futures.push(Arc::new(pool.spawn(task).unwrap()));
            }
            for (n, future) in futures.iter().enumerate() {
                let error = future.exception();
                assert!(error.is_none(), "task {n} on {workers} workers: {error:?}");
            }
        });
    }
}

#[test]
fn tasks_of_several_pools_that_wait_for_each_others_tasks_are_no_deadlock() {
    within_limit(|| {
        let pools = [pool(1), pool(2), pool(3)];
        let mut before: Vec<Arc<Future<u32>>> = Vec::new();
        for n in 0..2_000_u32 {
            let needed = before
                .get(before.len().wrapping_sub(1 + n as usize % 10))
                .cloned();
            let task = move || {
                let error = needed.and_then(|future| future.exception());
                assert!(error.is_none(), "{error:?}");
                n
            };
            before.push(Arc::new(pools[n as usize % 3].spawn(task).unwrap()));
        }
        for future in before {
            let error = future.exception();
            assert!(error.is_none(), "{error:?}");
        }
    });
}

/// Checks that a scope which ends last in a cycle makes another wait of the cycle fail.
#[test]
fn a_scope_in_a_cycle_ends() {
    within_limit(|| {
        for round in 0..200 {
            let pool = Arc::new(pool(2));
            let slot: Slot = Arc::default();
            let (weak, own) = (Arc::downgrade(&pool), Arc::clone(&slot));
            let submitted = Gate::new();
            let set = submitted.clone();
            let outer = pool.spawn(move || {
                set.wait();
                let pool = weak.upgrade().unwrap();
                pool.scope(|scope| {
                    let started = Gate::new();
                    let inner = scope.spawn({
                        let started = started.clone();
                        || {
                            started.open();
                            drop(started);
                            own.get().unwrap().exception()
                        }
                    });
                    started.wait();
                    drift(round);
                    inner.unwrap()
                })
                .result()
                .unwrap()
            });
            slot.set(outer.unwrap()).unwrap();
            submitted.open();
            let outer = slot.get().unwrap();
            assert!(outer.exception().is_none());
            let waited = outer.peek().unwrap().unwrap();
            assert!(deadlock(waited).is_some(), "{waited:?}");
        }
    });
}

/// Checks that a future that is done already does not help a wait for the first exception.
#[test]
fn waiting_for_the_first_exception_finds_a_cycle_that_comes_to_be_meanwhile() {
    within_limit(|| {
        for round in 0..100 {
            let (pool, other) = (pool(2), pool(1));
            let hold = Arc::new(Hold::worker_of(&other));
            let slots: Vec<Slot> = (0..2).map(|_| Slot::default()).collect();
            let (go, second_runs) = (Gate::new(), Gate::new());
            let first = pool.spawn({
                let (go, second_runs) = (go.clone(), second_runs.clone());
                let (next, hold) = (Arc::clone(&slots[1]), Arc::clone(&hold));
                move || {
                    go.wait();
                    second_runs.wait();
                    let next = next.get().unwrap();
                    let futures: [&dyn Waitable; 2] = [hold.future(), next];
                    wait(futures, None, FirstException);
                    next.exception()
                }
            });
            let second = pool.spawn({
                let (go, previous) = (go.clone(), Arc::clone(&slots[0]));
                move || {
                    go.wait();
                    second_runs.open();
                    previous.get().unwrap().exception()
                }
            });
            slots[0].set(first.unwrap()).unwrap();
            slots[1].set(second.unwrap()).unwrap();
            go.open();
            drift(2 * round);
            hold.open();
            for slot in &slots {
                assert!(slot.get().unwrap().exception().is_none());
            }
        }
    });
}

#[test]
fn wait_for_a_pending_task_and_for_one_of_another_pool_that_needs_it() {
    within_limit(|| {
        for _ in 0..50 {
            let (a, b) = (Arc::new(pool(1)), Arc::new(pool(1)));
            let (in_a, in_b) = (Arc::downgrade(&a), Arc::downgrade(&b));
            let outer = a.spawn(move || {
                let pending = Arc::new(in_a.upgrade().unwrap().spawn(|| 5).unwrap());
                let needed = Arc::clone(&pending);
                let needs = in_b.upgrade().unwrap();
                let needs = needs.spawn(move || needed.exception()).unwrap();
                let both: [&dyn Waitable; 2] = [&needs, &*pending];
                let not_done = wait(both, None, AllCompleted).not_done.len();
                (not_done, needs.result().unwrap())
            });
            let (not_done, error) = outer.unwrap().result().unwrap();
            assert_eq!(not_done, 0);
            assert!(error.is_none(), "{error:?}");
        }
    });
}
