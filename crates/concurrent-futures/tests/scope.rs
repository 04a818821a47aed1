//! Tests of scopes, whose tasks borrow.

mod common;

use common::{Counted, Counter, Gate, Hold, pool, within_limit};
use concurrent_futures::{Shutdown, SubmitError, TaskError, ThreadPoolExecutor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn tasks_may_borrow_and_change_values_of_the_caller() {
    let pool = pool(2);
    let mut numbers = vec![1, 2, 3];
    let factor = 10;
    pool.scope(|scope| {
        for number in &mut numbers {
            drop(scope.spawn(|| *number *= factor).unwrap());
        }
    });
    assert_eq!(numbers, [10, 20, 30]);
}

#[test]
fn results_may_borrow_too() {
    let pool = pool(2);
    let text = String::from("one two three");
    let longest: &str = pool.scope(|scope| {
        let words: Vec<_> = text
            .split(' ')
            .map(|word| scope.spawn(move || word).unwrap())
            .collect();
        let words = words.into_iter().map(|word| word.result().unwrap());
        words.max_by_key(|word| word.len()).unwrap()
    });
    assert_eq!(longest, "three");
}

#[test]
fn a_scope_ends_after_all_its_tasks() {
    let pool = pool(3);
    for _ in 0..200 {
        let ended = AtomicUsize::new(0);
        pool.scope(|scope| {
            for _ in 0..10 {
                drop(scope.spawn(|| {
                    std::thread::yield_now();
                    ended.fetch_add(1, Ordering::Relaxed);
                }));
            }
        });
        assert_eq!(ended.load(Ordering::Relaxed), 10);
    }
}

#[test]
fn the_scope_returns_what_its_closure_returns() {
    let pool = pool(1);
    let sum = pool.scope(|scope| {
        let a = scope.spawn(|| 1).unwrap();
        let b = scope.spawn_fallible(|| "2".parse::<i32>()).unwrap();
        a.result().unwrap() + b.result().unwrap()
    });
    assert_eq!(sum, 3);
    assert_eq!(pool.scope(|_| 5), 5);
}

#[test]
fn tasks_can_submit_to_their_scope() {
    let pool = pool(1);
    let count = AtomicUsize::new(0);
    pool.scope(|scope| {
        let count = &count;
        let task = scope.spawn(move || {
            for _ in 0..10 {
                let task = scope.spawn(move || count.fetch_add(1, Ordering::Relaxed));
                drop(task.unwrap());
            }
        });
        drop(task.unwrap());
    });
    assert_eq!(count.load(Ordering::Relaxed), 10);
}

fn sum(pool: &ThreadPoolExecutor, numbers: &[u64]) -> u64 {
    if numbers.len() < 4 {
        return numbers.iter().sum();
    }
    let (left, right) = numbers.split_at(numbers.len() / 2);
    pool.scope(|scope| {
        let left = scope.spawn(|| sum(pool, left)).unwrap();
        let right = scope.spawn(|| sum(pool, right)).unwrap();
        left.result().unwrap() + right.result().unwrap()
    })
}

#[test]
fn nested_scopes_finish_on_one_worker_and_on_several() {
    for workers in 1..=3 {
        let total = within_limit(move || {
            let numbers: Vec<u64> = (1..=500).collect();
            sum(&pool(workers), &numbers)
        });
        assert_eq!(total, 500 * 501 / 2);
    }
}

#[test]
fn a_panicking_task_fails_its_future_only() {
    let pool = pool(2);
    let fine = AtomicUsize::new(0);
    pool.scope(|scope| {
        let panics = scope.spawn(|| panic!("borrowing {}", fine.load(Ordering::Relaxed)));
        let panics: concurrent_futures::Future<()> = panics.unwrap();
        drop(
            scope
                .spawn(|| fine.fetch_add(1, Ordering::Relaxed))
                .unwrap(),
        );
        assert!(matches!(panics.result(), Err(TaskError::Panicked(_))));
    });
    assert_eq!(fine.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panicking_scope_still_waits_for_its_tasks() {
    let pool = pool(2);
    let gate = Gate::new();
    let ended = AtomicUsize::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            for _ in 0..4 {
                drop(scope.spawn(|| {
                    gate.wait();
                    ended.fetch_add(1, Ordering::Relaxed);
                }));
            }
            gate.open();
            panic!("the closure of the scope panics");
        });
    }));
    let panic = result.unwrap_err();
    assert_eq!(ended.load(Ordering::Relaxed), 4);
    let message = panic.downcast_ref::<&str>().unwrap();
    assert_eq!(*message, "the closure of the scope panics");
}

/// A value that uses its borrow when it is dropped.
struct Touches<'a>(&'a Mutex<Vec<&'static str>>, &'static str);

impl Drop for Touches<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

#[test]
fn a_value_whose_handle_was_dropped_is_dropped_before_the_scope_ends() {
    let pool = pool(2);
    for round in 0..500 {
        let dropped = Mutex::new(Vec::new());
        pool.scope(|scope| {
            let future = scope.spawn(|| Touches(&dropped, "value")).unwrap();
            if round % 2 == 0 {
                drop(future);
            } else {
                // While the task finishes, perhaps.
                std::thread::yield_now();
                drop(future);
            }
        });
        assert_eq!(*dropped.lock().unwrap(), ["value"]);
    }
}

#[test]
fn the_closure_of_a_cancelled_task_is_dropped_before_the_scope_ends() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let dropped = Mutex::new(Vec::new());
    pool.scope(|scope| {
        let captured = Touches(&dropped, "closure");
        let future = scope.spawn(move || drop(captured)).unwrap();
        assert!(future.cancel());
        assert_eq!(*dropped.lock().unwrap(), ["closure"]);
    });
    hold.release();
    assert_eq!(dropped.lock().unwrap().len(), 1);
}

#[test]
fn cancelling_from_another_thread_lets_no_closure_outlive_the_scope() {
    let (pool, canceller) = (pool(2), pool(2));
    for _ in 0..300 {
        let dropped = Mutex::new(Vec::new());
        canceller.scope(|outer| {
            pool.scope(|scope| {
                for _ in 0..4 {
                    let captured = Touches(&dropped, "closure");
                    let future = scope.spawn(move || drop(captured)).unwrap();
                    drop(outer.spawn(move || future.cancel()).unwrap());
                }
            });
            assert_eq!(dropped.lock().unwrap().len(), 4);
        });
    }
}

#[test]
fn values_that_the_scope_gives_out_live_on() {
    let pool = pool(1);
    let alive = Counter::new();
    let future = pool.scope(|scope| scope.spawn(|| Counted::new(&alive)).unwrap());
    assert!(future.is_done());
    assert_eq!(alive.get(), 1);
    drop(future.result().unwrap());
    assert_eq!(alive.get(), 0);
}

#[test]
fn shutting_down_with_cancellation_ends_a_scope() {
    within_limit(|| {
        let pool = pool(1);
        let ran = AtomicUsize::new(0);
        let gate = Gate::new();
        pool.scope(|scope| {
            let started = Gate::new();
            let running = scope.spawn({
                let (gate, started) = (gate.clone(), started.clone());
                move || {
                    started.open();
                    gate.wait();
                }
            });
            started.wait();
            for _ in 0..10 {
                drop(scope.spawn(|| ran.fetch_add(1, Ordering::Relaxed)).unwrap());
            }
            pool.shutdown(Shutdown::CancelPendingNoWait);
            gate.open();
            running.unwrap().result().unwrap();
        });
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_scope_of_a_pool_that_was_shut_down_refuses() {
    let pool = pool(1);
    pool.shutdown(Shutdown::Wait);
    let borrowed = 5;
    pool.scope(|scope| {
        let refused = scope.spawn(|| borrowed + 1);
        assert!(matches!(refused, Err(SubmitError::Shutdown)));
        let refused = scope.spawn_fallible(|| Ok::<_, std::io::Error>(&borrowed));
        assert!(matches!(refused, Err(SubmitError::Shutdown)));
    });
}

#[test]
fn a_bounded_pool_has_scopes_larger_than_its_bound() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(2)
        .max_pending(1)
        .build()
        .unwrap();
    let count = AtomicUsize::new(0);
    pool.scope(|scope| {
        for _ in 0..100 {
            drop(
                scope
                    .spawn(|| count.fetch_add(1, Ordering::Relaxed))
                    .unwrap(),
            );
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 100);
}

#[test]
fn many_tasks_in_one_scope() {
    let pool = pool(2);
    let count = AtomicUsize::new(0);
    pool.scope(|scope| {
        for _ in 0..20_000 {
            drop(
                scope
                    .spawn(|| count.fetch_add(1, Ordering::Relaxed))
                    .unwrap(),
            );
        }
        assert!(format!("{scope:?}").starts_with("Scope"));
    });
    assert_eq!(count.load(Ordering::Relaxed), 20_000);
}
