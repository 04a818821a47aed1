//! Tests that every value is dropped exactly once, wherever its task ends.

mod common;

use common::{Counted, Counter, Gate, Hold, pool, within_limit};
use concurrent_futures::{Future, Shutdown, ThreadPoolExecutor, as_completed, promise};
use futures_lite::future::{block_on, poll_once};
use std::fmt;
use std::thread;
use std::time::Duration;

/// Random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// An error that holds a value.
struct CountedError {
    _counted: Counted,
}

impl fmt::Debug for CountedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedError")
    }
}

impl fmt::Display for CountedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error")
    }
}

impl std::error::Error for CountedError {}

/// Submits a task that captures one value, and returns another value.
fn submit(pool: &ThreadPoolExecutor, alive: &Counter, random: &mut Random) -> Future<Counted> {
    let captured = Counted::new(alive);
    let ending = random.below(6);
    let future = pool.spawn_fallible(move || match ending {
        0 => Err(CountedError { _counted: captured }),
        1 => panic!("with a captured value"),
        2 => std::panic::panic_any(captured),
        _ => Ok(captured.clone()),
    });
    let future = future.unwrap();
    for _ in 0..random.below(3) {
        let captured = Counted::new(alive);
        let panics = random.below(4) == 0;
        future.add_done_callback(move |_| {
            let _captured = captured;
            assert!(!panics, "a callback panics");
        });
    }
    future
}

/// Ends a handle in one of several ways.
fn end(mut future: Future<Counted>, alive: &Counter, random: &mut Random) {
    match random.below(8) {
        0 => drop(future),
        1 => drop(future.result()),
        2 => {
            let limit = Duration::from_micros(random.below(50));
            let first = future.result_timeout(limit);
            drop(future.result_timeout(limit));
            drop(first);
        }
        3 => {
            future.cancel();
        }
        4 => drop(block_on(poll_once(future))),
        5 => drop(block_on(future)),
        6 => {
            let captured = Counted::new(alive);
            future.add_done_callback(move |_| drop(captured));
        }
        _ => {
            let _ = future.peek();
            drop(future.exception());
        }
    }
}

fn random_program(seed: u64, alive: &Counter) {
    let mut random = Random(seed);
    let workers = 1 + usize::try_from(random.below(3)).unwrap();
    let pool = pool(workers);
    let mut futures = Vec::new();
    for _ in 0..random.below(100) {
        match random.below(10) {
            0..6 => futures.push(submit(&pool, alive, &mut random)),
            6..9 => {
                if !futures.is_empty() {
                    let index = random.below(futures.len() as u64);
                    let future = futures.swap_remove(usize::try_from(index).unwrap());
                    end(future, alive, &mut random);
                }
            }
            _ => {
                let mut completed = as_completed(futures);
                for _ in 0..random.below(5) {
                    drop(completed.next());
                }
                futures = completed.into_not_done();
            }
        }
    }
    if random.below(2) == 0 {
        pool.shutdown(common::shutdown(random.below(2) == 0, random.below(2) == 0));
    }
    if random.below(2) == 0 {
        drop(pool);
        drop(futures);
    } else {
        drop(futures);
        drop(pool);
    }
}

#[test]
fn random_programs_drop_every_value_exactly_once() {
    within_limit(|| {
        for seed in 1..300 {
            let alive = Counter::new();
            random_program(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15), &alive);
            assert_eq!(alive.get(), 0, "seed {seed}");
        }
    });
}

#[test]
fn random_programs_in_several_threads_drop_every_value_exactly_once() {
    within_limit(|| {
        let alive = Counter::new();
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                let alive = &alive;
                scope.spawn(move || {
                    for seed in 1..60 {
                        let seed = (seed << 8) | thread;
                        random_program(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), alive);
                    }
                });
            }
        });
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn map_drops_every_item_and_every_result() {
    let alive = Counter::new();
    for chunksize in [1, 3] {
        for taken in [0, 1, 7, 20] {
            let pool = pool(2);
            let items: Vec<_> = (0..20).map(|n| (n, Counted::new(&alive))).collect();
            let options = concurrent_futures::MapOptions::new().chunksize(chunksize);
            let captured = Counted::new(&alive);
            let f = move |(n, item): (u32, Counted)| {
                let _captured = &captured;
                assert!(n % 7 != 3, "one of seven panics");
                item
            };
            let results = pool.map_with(options, f, items).unwrap();
            assert_eq!(results.take(taken).count(), taken);
            drop(pool);
            assert_eq!(alive.get(), 0);
        }
    }
}

#[test]
fn the_captures_of_a_cancelled_task_are_dropped_at_once() {
    let pool = pool(1);
    let _hold = Hold::worker_of(&pool);
    let alive = Counter::new();
    let captured = Counted::new(&alive);
    let future = pool.spawn(move || drop(captured)).unwrap();
    assert_eq!(alive.get(), 1);
    future.cancel();
    assert_eq!(alive.get(), 0);
}

#[test]
fn the_captures_of_a_task_are_dropped_before_it_is_done() {
    let pool = pool(1);
    let alive = Counter::new();
    for _ in 0..200 {
        let captured = Counted::new(&alive);
        let future = pool.spawn(move || captured.clone()).unwrap();
        let value = future.result().unwrap();
        assert_eq!(alive.get(), 1);
        drop(value);
    }
}

#[test]
fn a_rejected_task_is_given_back_or_dropped() {
    let pool = pool(1);
    pool.shutdown(Shutdown::Wait);
    let alive = Counter::new();
    let captured = Counted::new(&alive);
    assert!(pool.spawn(move || drop(captured)).is_err());
    assert_eq!(alive.get(), 0);
    let captured = Counted::new(&alive);
    let rejected = pool.try_spawn(move || drop(captured)).unwrap_err();
    assert_eq!(alive.get(), 1);
    drop(rejected);
    assert_eq!(alive.get(), 0);
}

#[test]
fn a_broken_pool_drops_what_its_tasks_captured() {
    let alive = Counter::new();
    let gate = Gate::new();
    let in_worker = gate.clone();
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(move || {
            in_worker.wait();
            Err::<(), _>("no")
        })
        .build()
        .unwrap();
    let futures: Vec<_> = (0..10)
        .map(|_| {
            let captured = Counted::new(&alive);
            pool.spawn(move || captured).unwrap()
        })
        .collect();
    gate.open();
    for future in futures {
        assert!(future.result().is_err());
    }
    assert_eq!(alive.get(), 0);
}

#[test]
fn a_promise_and_its_future_drop_the_value_in_every_order() {
    let alive = Counter::new();
    for order in 0..4 {
        let (promise, future) = promise();
        match order {
            0 => {
                promise.set_result(Counted::new(&alive)).unwrap();
                drop((promise, future));
            }
            1 => {
                drop(future);
                promise.set_result(Counted::new(&alive)).unwrap();
            }
            2 => {
                promise.set_result(Counted::new(&alive)).unwrap();
                drop(future.result());
            }
            _ => {
                future.cancel();
                assert!(promise.set_result(Counted::new(&alive)).is_err());
            }
        }
        assert_eq!(alive.get(), 0);
    }
}

#[test]
fn a_pool_is_freed_when_its_last_task_is_done() {
    let alive = Counter::new();
    let in_initializer = Counted::new(&alive);
    let pool = ThreadPoolExecutor::builder()
        .max_workers(2)
        .initializer(move || {
            let _counted = &in_initializer;
        })
        .build()
        .unwrap();
    pool.spawn(|| ()).unwrap().result().unwrap();
    assert_eq!(alive.get(), 1);
    drop(pool);
    assert_eq!(alive.get(), 0);
}
