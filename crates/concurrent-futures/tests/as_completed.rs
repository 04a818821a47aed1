//! Tests of `as_completed`.

mod common;

use common::{Counter, Hold, LONG, SHORT, pool, within_limit};
use concurrent_futures::{Future, Promise, Shutdown, Waitable, as_completed, promise};
use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

fn promises(count: usize) -> (Vec<Promise<usize>>, Vec<Future<usize>>) {
    (0..count).map(|_| promise()).unzip()
}

fn sum<'a>(futures: impl Iterator<Item = &'a Future<usize>>) -> usize {
    futures.map(|future| *future.peek().unwrap().unwrap()).sum()
}

#[test]
fn those_that_are_done_already_come_first_in_the_order_given() {
    let (promises, futures) = promises(5);
    for n in [4, 1, 3] {
        promises[n].set_result(n).unwrap();
    }
    let mut completed = as_completed(&futures);
    for n in [1, 3, 4] {
        assert_eq!(completed.next(), Some(&futures[n]));
    }
    promises[2].set_result(2).unwrap();
    assert_eq!(completed.next(), Some(&futures[2]));
    assert_eq!(completed.into_not_done(), [&futures[0]]);
}

#[test]
fn the_others_come_in_the_order_in_which_they_finish() {
    let (promises, futures) = promises(6);
    let mut completed = as_completed(&futures);
    for n in [3, 0, 5] {
        promises[n].set_result(n).unwrap();
        assert_eq!(completed.next(), Some(&futures[n]));
    }
    let order = [4, 2, 1];
    for n in order {
        promises[n].set_result(n).unwrap();
    }
    for n in order {
        assert_eq!(completed.next(), Some(&futures[n]));
    }
    assert_eq!(completed.next(), None);
    assert_eq!(completed.next(), None);
}

#[test]
fn it_waits_for_the_next() {
    let pool = pool(2);
    let holds = Hold::all_workers_of(&pool);
    let mut completed = as_completed(holds.iter().map(Hold::future));
    holds[1].open();
    assert_eq!(completed.next(), Some(holds[1].future()));
    holds[0].open();
    assert_eq!(completed.next(), Some(holds[0].future()));
    assert_eq!(completed.next(), None);
}

#[test]
fn every_future_is_yielded_once_while_all_finish() {
    let pool = pool(2);
    for _ in 0..200 {
        let futures: Vec<_> = (0..30).map(|n| pool.spawn(move || n).unwrap()).collect();
        let ids: HashSet<_> = futures.iter().map(Future::id).collect();
        let mut seen = HashSet::new();
        for future in as_completed(futures) {
            assert!(future.is_done());
            assert!(seen.insert(future.id()));
        }
        assert_eq!(seen, ids);
    }
}

#[test]
fn it_knows_how_many_are_left() {
    let (promises, futures) = promises(3);
    let mut completed = as_completed(futures);
    for left in [2, 1, 0] {
        promises[left].set_result(1).unwrap();
        drop(completed.next().unwrap());
        assert_eq!(completed.len(), left);
        assert_eq!(completed.size_hint(), (left, Some(left)));
    }
    assert_eq!(as_completed(Vec::<Future<u8>>::new()).len(), 0);
    assert!(as_completed(Vec::<Future<u8>>::new()).next().is_none());
}

#[test]
fn futures_can_be_added_while_it_runs() {
    let pool = pool(2);
    let mut completed = as_completed([pool.spawn(|| 200_u32).unwrap()]);
    let mut sum = 0;
    while let Some(future) = completed.next() {
        let n = future.result().unwrap();
        sum += 1;
        if n > 0 {
            completed.push(pool.spawn(move || n - 1).unwrap());
            assert_eq!(completed.len(), 1);
        }
    }
    assert_eq!(sum, 201);
    // Also after the end.
    let (promise, future) = promise();
    promise.set_result(7).unwrap();
    completed.push(future);
    assert_eq!(completed.next().unwrap().result().unwrap(), 7);
    assert!(completed.next().is_none());
}

#[test]
fn keys_come_back_with_their_futures() {
    let pool = pool(2);
    let futures: Vec<_> = (0..20_u32)
        .map(|n| (n, pool.spawn(move || n * n).unwrap()))
        .collect();
    for (n, square) in as_completed(futures) {
        assert_eq!(square.result().unwrap(), n * n);
    }
}

#[test]
fn futures_of_different_executors_and_types_can_be_mixed() {
    let (pool_a, pool_b) = (pool(1), pool(1));
    let (promise, promised) = promise();
    promise.set_result(1.5).unwrap();
    let mixed: Vec<Box<dyn Waitable>> = vec![
        Box::new(pool_a.spawn(|| 1).unwrap()),
        Box::new(pool_b.spawn(|| "b").unwrap()),
        Box::new(("key", promised)),
    ];
    assert_eq!(as_completed(mixed).count(), 3);
}

#[test]
fn the_same_future_twice_comes_twice() {
    let (promise, future) = promise();
    let mut completed = as_completed([&future, &future]);
    promise.set_result(1).unwrap();
    assert_eq!(completed.next(), Some(&future));
    assert_eq!(completed.next(), Some(&future));
    assert_eq!(completed.next(), None);
    assert_eq!(as_completed([&future, &future]).count(), 2);
}

#[test]
fn a_cancelled_future_is_completed() {
    let (_promise, future) = promise::<u8>();
    let mut completed = as_completed([&future]);
    future.cancel();
    assert!(completed.next().unwrap().is_cancelled());
}

#[test]
fn a_time_limit_that_passes_is_one_error_and_the_end() {
    let (promises, futures) = promises(5);
    promises[1].set_result(1).unwrap();
    promises[2].set_result(2).unwrap();
    let mut completed = as_completed(futures).timeout(SHORT);
    assert_eq!(completed.next().unwrap().unwrap().result().unwrap(), 1);
    assert_eq!(completed.next().unwrap().unwrap().result().unwrap(), 2);
    let error = completed.next().unwrap().unwrap_err();
    assert_eq!((error.unfinished(), error.total()), (3, 5));
    assert!(completed.next().is_none());
    assert!(completed.next().is_none());

    let not_done = completed.into_not_done();
    for (n, promise) in promises.iter().enumerate() {
        let _ = promise.set_result(n);
    }
    let mut values: Vec<_> = as_completed(not_done)
        .map(|f| f.result().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, [0, 3, 4]);
}

#[test]
fn a_time_limit_of_zero_yields_the_done_futures() {
    let (promises, futures) = promises(2);
    promises[1].set_result(1).unwrap();
    let mut completed = as_completed(&futures).timeout(Duration::ZERO);
    assert_eq!(completed.next().unwrap().unwrap(), &futures[1]);
    assert!(completed.next().unwrap().is_err());
    assert!(completed.next().is_none());
}

#[test]
fn a_time_limit_that_suffices_changes_nothing() {
    let pool = pool(2);
    for limit in [LONG, Duration::MAX] {
        let futures: Vec<_> = (0..50).map(|n| pool.spawn(move || n).unwrap()).collect();
        let completed = as_completed(&futures).timeout(limit);
        assert_eq!(sum(completed.map(Result::unwrap)), 1_225);
    }
}

#[test]
fn time_limits_that_race_with_the_futures_lose_none() {
    let pool = pool(2);
    for round in 0..300 {
        let mut left: Vec<_> = (0..10).map(|n| pool.spawn(move || n).unwrap()).collect();
        let mut values = Vec::new();
        while !left.is_empty() {
            let mut completed = as_completed(left).timeout(Duration::from_micros(round % 40));
            for future in completed.by_ref() {
                let Ok(future) = future else { break };
                values.push(future.result().unwrap());
            }
            left = completed.into_not_done();
        }
        values.sort_unstable();
        assert_eq!(values, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn dropping_the_iterator_while_futures_finish_is_safe() {
    let pool = pool(2);
    let runs = Counter::new();
    for round in 0..500 {
        let futures: Vec<_> = (0..10)
            .map(|_| {
                let runs = runs.clone();
                pool.spawn(move || runs.add()).unwrap()
            })
            .collect();
        let mut completed = as_completed(futures);
        for _ in 0..round % 10 {
            drop(completed.next());
        }
        drop(completed);
    }
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 5_000);
}

#[test]
fn giving_up_early_returns_the_rest_in_order() {
    let (promises, futures) = promises(4);
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    let mut completed = as_completed(futures);
    promises[1].set_result(1).unwrap();
    drop(completed.next());
    promises[3].set_result(3).unwrap();
    let rest: Vec<_> = completed.into_not_done().iter().map(Future::id).collect();
    assert_eq!(rest, [ids[0], ids[2], ids[3]]);
}

#[test]
fn two_iterators_over_the_same_futures_both_get_all() {
    let pool = pool(2);
    for _ in 0..100 {
        let futures: Vec<_> = (0..20).map(|n| pool.spawn(move || n).unwrap()).collect();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(sum(as_completed(&futures)), 190));
            }
        });
    }
}

#[test]
fn it_can_move_to_another_thread_halfway() {
    let (promises, futures) = promises(2);
    let mut completed = as_completed(futures);
    promises[0].set_result(0).unwrap();
    assert_eq!(completed.next().unwrap().result().unwrap(), 0);
    let rest = thread::spawn(move || completed.map(|f| f.result().unwrap()).sum::<usize>());
    promises[1].set_result(5).unwrap();
    assert_eq!(rest.join().unwrap(), 5);
}

#[test]
fn callbacks_have_run_when_a_future_comes() {
    let pool = pool(2);
    for _ in 0..200 {
        let calls = Counter::new();
        let future = pool.spawn(thread::yield_now).unwrap();
        let in_callback = calls.clone();
        future.add_done_callback(move |_| {
            in_callback.add();
        });
        drop(as_completed([future]).next());
        assert_eq!(calls.get(), 1);
    }
}

#[test]
fn as_completed_inside_a_task_of_a_pool_with_one_worker_finishes() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let weak = Arc::downgrade(&pool);
        let total = pool.spawn(move || {
            let pool = weak.upgrade().unwrap();
            let futures: Vec<_> = (0..50).map(|n| pool.spawn(move || n).unwrap()).collect();
            as_completed(futures)
                .map(|f| f.result().unwrap())
                .sum::<usize>()
        });
        assert_eq!(total.unwrap().result().unwrap(), 1_225);
    });
}

#[test]
fn debug_shows_how_many_are_left() {
    let (_promises, futures) = promises(2);
    let completed = as_completed(&futures);
    assert_eq!(format!("{completed:?}"), "AsCompleted { left: 2, .. }");
}
