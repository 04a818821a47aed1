//! Tests of `map`, its options, and `map_buffered`.

mod common;

use common::{Counter, Gate, Hold, LONG, SHORT, pool, within_limit};
use concurrent_futures::{MapOptions, Shutdown, SubmitError, TaskError};
use std::cell::Cell;
use std::iter::zip;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn results_come_in_the_order_of_the_items_whatever_finishes_first() {
    let pool = pool(3);
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    let in_tasks = gates.clone();
    let results = pool
        .map(
            move |n: usize| {
                // Each waits for the next, so that the last finishes first.
                if let Some(next) = in_tasks.get(n + 1) {
                    next.wait();
                }
                in_tasks[n].open();
                n
            },
            0..3,
        )
        .unwrap();
    assert_eq!(results.collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 2]);
}

#[test]
fn several_iterables_are_zipped_and_the_shortest_ends() {
    let pool = pool(2);
    let powers = pool
        .map(|(n, e)| u32::pow(n, e), zip([2, 3, 4], [3, 2]))
        .unwrap();
    assert_eq!(powers.len(), 2);
    assert_eq!(powers.collect::<Result<Vec<_>, _>>().unwrap(), [8, 9]);
    let three = zip(["a", "b"], zip([1, 2], [true, false]));
    let texts = pool.map(|(s, (n, b))| format!("{s}{n}{b}"), three).unwrap();
    assert_eq!(
        texts.collect::<Result<Vec<_>, _>>().unwrap(),
        ["a1true", "b2false"]
    );
}

#[test]
fn all_items_are_submitted_at_once() {
    let pool = pool(1);
    let runs = Counter::new();
    let in_tasks = runs.clone();
    let results = pool.map(move |_: u32| in_tasks.add(), 0..20).unwrap();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 20);
    assert_eq!(results.map(Result::unwrap).sum::<usize>(), 210);
}

#[test]
fn the_items_are_consumed_before_map_returns() {
    let pool = pool(1);
    let consumed = Cell::new(0);
    let items = (0..10_u32).inspect(|_| consumed.set(consumed.get() + 1));
    let results = pool.map(|n: u32| n, items).unwrap();
    assert_eq!(consumed.get(), 10);
    assert_eq!(results.count(), 10);
}

#[test]
fn an_error_is_in_its_place_and_the_others_are_not_affected() {
    let pool = pool(2);
    let divide = |n: u32| {
        assert!(n != 2, "no division by {n}");
        12 / n
    };
    for chunksize in [1, 2, 10] {
        let options = MapOptions::new().chunksize(chunksize);
        let results: Vec<_> = pool.map_with(options, divide, 1..5).unwrap().collect();
        assert_eq!(results.len(), 4);
        for (n, result) in (1..).zip(results) {
            match result {
                Ok(value) => assert_eq!(value, 12 / n),
                Err(TaskError::Panicked(panic)) => {
                    assert_eq!((n, panic.message()), (2, "no division by 2"));
                    assert_eq!(panic.location().unwrap().file, file!());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn map_over_no_items_yields_nothing() {
    let pool = pool(1);
    assert_eq!(pool.map(|n: u8| n, []).unwrap().len(), 0);
    let options = MapOptions::new().chunksize(3);
    assert_eq!(pool.map_with(options, |n: u8| n, []).unwrap().count(), 0);
    assert_eq!(pool.map_buffered(3, |n: u8| n, []).unwrap().count(), 0);
    assert_eq!(pool.workers(), 0);
}

#[test]
fn a_time_limit_that_passes_is_the_last_item_and_cancels_the_rest() {
    for chunksize in [1, 3] {
        let pool = pool(1);
        let hold = Hold::worker_of(&pool);
        let runs = Counter::new();
        let in_tasks = runs.clone();
        let options = MapOptions::new().timeout(SHORT).chunksize(chunksize);
        let mut results = pool
            .map_with(options, move |_: u32| in_tasks.add(), 0..10)
            .unwrap();
        assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
        assert!(results.next().is_none());
        assert_eq!(results.len(), 0);
        hold.release();
        drop(results);
        pool.shutdown(Shutdown::Wait);
        assert_eq!(
            runs.get(),
            0,
            "tasks ran after the timeout, chunksize {chunksize}"
        );
    }
}

#[test]
fn futures_done_in_time_are_yielded_before_the_timeout() {
    for chunksize in [1, 2] {
        let pool = pool(1);
        let gate = Gate::new();
        let in_tasks = gate.clone();
        let stop_at = move |n: u32| {
            if n == 4 {
                in_tasks.wait();
            }
            n
        };
        let options = MapOptions::new().chunksize(chunksize);
        let results = pool.map_with(options, stop_at, 0..10).unwrap();
        let mut results = results.timeout(Duration::from_millis(300));
        // Fewer on a machine that is too slow for the limit.
        let values: Vec<_> = results.by_ref().map_while(Result::ok).collect();
        assert!([0, 1, 2, 3].starts_with(&values), "{values:?}");
        assert!(results.next().is_none());
        gate.open();
    }
}

#[test]
fn results_that_are_there_are_yielded_though_the_time_has_passed() {
    let pool = pool(1);
    for chunksize in [1, 2] {
        let options = MapOptions::new()
            .timeout(Duration::ZERO)
            .chunksize(chunksize);
        let done = Gate::new();
        let in_tasks = done.clone();
        let f = move |n: u32| {
            if n == 2 {
                in_tasks.open();
            }
            n
        };
        let results = pool.map_with(options, f, 0..3).unwrap();
        done.wait();
        // The queue is in order, so that all are done when this one is.
        pool.spawn(|| ()).unwrap().result().unwrap();
        assert_eq!(results.collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 2]);
    }
}

#[test]
fn a_huge_time_limit_is_none() {
    let pool = pool(1);
    let results = pool.map(|n: u8| n, [1, 2]).unwrap().timeout(Duration::MAX);
    assert_eq!(results.map(Result::unwrap).sum::<u8>(), 3);
    let options = MapOptions::new().timeout(Duration::MAX);
    assert_eq!(
        pool.map_with(options, |n: u8| n, [1, 2]).unwrap().count(),
        2
    );
    let results = pool.map_buffered(1, |n: u8| n, [1, 2]).unwrap();
    assert_eq!(results.timeout(Duration::MAX).count(), 2);
}

#[test]
fn dropping_the_iterator_cancels_tasks_that_have_not_started() {
    for chunksize in [1, 4] {
        let pool = pool(1);
        let hold = Hold::worker_of(&pool);
        let runs = Counter::new();
        let in_tasks = runs.clone();
        let options = MapOptions::new().chunksize(chunksize);
        let results = pool
            .map_with(options, move |_: u32| in_tasks.add(), 0..50)
            .unwrap();
        drop(results);
        hold.release();
        pool.shutdown(Shutdown::Wait);
        assert_eq!(runs.get(), 0);
    }
}

#[test]
fn stopping_halfway_cancels_the_rest() {
    let pool = pool(1);
    let gate = Gate::new();
    let runs = Counter::new();
    let (in_tasks, in_gate) = (runs.clone(), gate.clone());
    let results = pool
        .map(
            move |n: u32| {
                if n == 5 {
                    in_gate.wait();
                }
                in_tasks.add();
                n
            },
            0..100,
        )
        .unwrap();
    assert_eq!(results.take(5).map(Result::unwrap).sum::<u32>(), 10);
    gate.open();
    pool.shutdown(Shutdown::Wait);
    // The five, and perhaps the one that had started.
    assert!(runs.get() <= 6);
}

#[test]
fn the_iterators_know_their_lengths() {
    let pool = pool(2);
    for chunksize in [1, 3, 100] {
        let options = MapOptions::new().chunksize(chunksize);
        let mut results = pool.map_with(options, |n: u32| n, 0..10).unwrap();
        for left in (0..10).rev() {
            results.next().unwrap().unwrap();
            assert_eq!(results.len(), left);
            assert_eq!(results.size_hint(), (left, Some(left)));
        }
        assert!(results.next().is_none());
        assert!(results.next().is_none());
    }
    let mut results = pool.map_buffered(3, |n: usize| n, vec![0; 10]).unwrap();
    assert_eq!(results.len(), 10);
    for left in (0..10).rev() {
        results.next().unwrap().unwrap();
        assert_eq!(results.len(), left);
    }
    assert!(results.next().is_none());
    let endless = pool.map_buffered(3, |n: usize| n, 0..).unwrap();
    assert_eq!(endless.size_hint().1, None);
}

#[test]
fn chunks_run_their_items_one_after_the_other_in_one_task() {
    let pool = pool(3);
    let options = MapOptions::new().chunksize(5);
    let threads = pool
        .map_with(options, |_: u32| std::thread::current().id(), 0..20)
        .unwrap();
    let threads: Vec<_> = threads.map(Result::unwrap).collect();
    for chunk in threads.chunks(5) {
        assert!(chunk.iter().all(|id| *id == chunk[0]));
    }
}

#[test]
fn a_chunk_that_is_never_run_fails_all_its_items() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let options = MapOptions::new().chunksize(4);
    let results = pool.map_with(options, |n: u32| n, 0..10).unwrap();
    pool.shutdown(Shutdown::CancelPendingNoWait);
    assert_eq!(results.len(), 10);
    let results: Vec<_> = results.collect();
    assert_eq!(results.len(), 10);
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(TaskError::Cancelled)))
    );
    hold.release();
}

#[test]
fn a_submission_that_fails_midway_leaves_nothing_pending() {
    for chunksize in [1, 2] {
        let pool = pool(1);
        let hold = Hold::worker_of(&pool);
        let runs = Counter::new();
        let in_tasks = runs.clone();
        let items = (0..10_u32).inspect(|n| {
            if *n == 6 {
                pool.shutdown(Shutdown::NoWait);
            }
        });
        let options = MapOptions::new().chunksize(chunksize);
        let refused = pool.map_with(options, move |_| in_tasks.add(), items);
        assert!(matches!(refused, Err(SubmitError::Shutdown)));
        hold.release();
        pool.shutdown(Shutdown::Wait);
        assert_eq!(runs.get(), 0);
    }
}

#[test]
fn map_buffered_stays_within_its_buffer() {
    let pool = pool(2);
    let consumed = Cell::new(0_usize);
    let items = (0_u64..).inspect(|_| consumed.set(consumed.get() + 1));
    let mut squares = pool.map_buffered(5, |n: u64| n * n, items).unwrap();
    assert_eq!(consumed.get(), 5);
    for n in 0..1_000_usize {
        assert_eq!(squares.next().unwrap().unwrap(), (n * n) as u64);
        assert!(
            consumed.get() <= n + 1 + 5,
            "{} consumed, {n} yielded",
            consumed.get()
        );
    }
    drop(squares);
    assert!(consumed.get() <= 1_005);
}

#[test]
fn a_buffer_of_zero_or_one_works_and_a_huge_one_too() {
    let pool = pool(2);
    for buffersize in [0, 1, 7, 1_000, usize::MAX] {
        let results = pool.map_buffered(buffersize, |n: u32| n, 0..100).unwrap();
        let results: Result<Vec<_>, _> = results.collect();
        assert_eq!(results.unwrap(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn dropping_map_buffered_cancels_tasks_that_have_not_started() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    let in_tasks = runs.clone();
    drop(
        pool.map_buffered(10, move |_: u32| in_tasks.add(), 0..)
            .unwrap(),
    );
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 0);
}

#[test]
fn map_buffered_ends_at_its_time_limit_and_cancels() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    let in_tasks = runs.clone();
    let results = pool
        .map_buffered(10, move |_: u32| in_tasks.add(), 0..)
        .unwrap();
    let mut results = results.timeout(SHORT);
    assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    assert!(results.next().is_none());
    assert!(results.next().is_none());
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 0);
}

#[test]
fn map_buffered_yields_submitted_results_after_shutdown_and_then_the_error() {
    let pool = pool(1);
    let mut results = pool.map_buffered(3, |n: u32| n, 0..10).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    pool.shutdown(Shutdown::NoWait);
    for n in 1..4 {
        assert_eq!(results.next().unwrap().unwrap(), n);
    }
    let last = results.next();
    assert!(matches!(
        last,
        Some(Err(TaskError::Rejected(SubmitError::Shutdown)))
    ));
    assert!(results.next().is_none());
}

#[test]
fn map_buffered_on_a_pool_that_was_shut_down_is_an_error() {
    let pool = pool(1);
    pool.shutdown(Shutdown::Wait);
    let refused = pool.map_buffered(3, |n: u32| n, 0..10);
    assert!(matches!(refused, Err(SubmitError::Shutdown)));
}

#[test]
fn errors_of_map_buffered_are_in_their_places() {
    let pool = pool(2);
    let results = pool.map_buffered(
        2,
        |n: u32| {
            assert!(!n.is_multiple_of(3), "a third");
            n
        },
        0..10,
    );
    for (n, result) in (0..).zip(results.unwrap()) {
        assert_eq!(result.ok(), (n % 3 != 0).then_some(n));
    }
}

#[test]
fn map_inside_a_task_of_a_pool_with_one_worker_finishes() {
    within_limit(|| {
        let pool = Arc::new(pool(1));
        let weak = Arc::downgrade(&pool);
        let sum = pool.spawn(move || {
            let pool = weak.upgrade().unwrap();
            let plain = pool.map(|n: u32| n, 0..50).unwrap();
            let plain: u32 = plain.map(Result::unwrap).sum();
            let options = MapOptions::new().chunksize(7);
            let chunks = pool.map_with(options, |n: u32| n, 0..50).unwrap();
            let chunks: u32 = chunks.map(Result::unwrap).sum();
            let buffered = pool.map_buffered(4, |n: u32| n, 0..50).unwrap();
            plain + chunks + buffered.map(Result::unwrap).sum::<u32>()
        });
        assert_eq!(sum.unwrap().result().unwrap(), 3 * 1_225);
    });
}

#[cfg(feature = "process")]
#[test]
fn the_generic_interface_has_the_same_map() {
    use concurrent_futures::Executor;

    fn all(executor: &impl Executor) -> u32 {
        let options = MapOptions::new().chunksize(3);
        let chunks = executor.map_with(options, |n: u32| n, 0..10).unwrap();
        executor
            .map(|n: u32| n, 0..10)
            .unwrap()
            .chain(chunks)
            .map(Result::unwrap)
            .sum()
    }
    assert_eq!(all(&pool(2)), 90);
}

#[test]
fn a_time_limit_is_counted_from_the_call_of_map() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let results = pool.map(|n: u32| n, 0..3).unwrap();
    let _ = hold.future().exception_timeout(SHORT);
    let mut results = results.timeout(SHORT);
    let started = std::time::Instant::now();
    assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    assert!(started.elapsed() < LONG);
}
