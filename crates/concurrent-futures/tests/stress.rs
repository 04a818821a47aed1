//! A test that mixes all calls at random, from several threads.
//!
//! `CONCURRENT_FUTURES_STRESS` is how long to go on, in seconds; by default short enough
//! for every day. `CONCURRENT_FUTURES_SEED` makes another mix.

mod common;

use common::{Counted, Counter, LONG};
use concurrent_futures::{
    Future, MapOptions, ReturnWhen, Shutdown, TaskError, ThreadPoolExecutor, as_completed, promise,
    wait,
};
use futures_lite::future::{block_on, poll_once};
use std::env;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The default seconds of a run.
const SECONDS: usize = 2;

/// The number of threads that submit.
const THREADS: u64 = 4;

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |value| value.parse().expect(name))
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).unwrap() % bound
    }

    fn limit(&mut self) -> Duration {
        Duration::from_micros(self.below(100) as u64)
    }
}

/// The state that all threads share.
#[derive(Clone)]
struct Shared {
    pools: Arc<[Arc<ThreadPoolExecutor>]>,
    /// Number of accepted tasks of `submit`, of which each is run or cancelled.
    accepted: Counter,
    run: Counter,
    cancelled: Counter,
    alive: Counter,
}

type Value = (usize, Counted);

impl Shared {
    fn new() -> Self {
        let builder = ThreadPoolExecutor::builder;
        let pools = [
            builder().max_workers(1),
            builder().max_workers(4),
            builder().max_workers(2).max_pending(8),
            builder()
                .max_workers(3)
                .keep_alive(Duration::from_micros(50)),
        ];
        Self {
            pools: pools.map(|pool| Arc::new(pool.build().unwrap())).into(),
            accepted: Counter::new(),
            run: Counter::new(),
            cancelled: Counter::new(),
            alive: Counter::new(),
        }
    }

    fn pool(&self, random: &mut Random) -> &Arc<ThreadPoolExecutor> {
        &self.pools[random.below(self.pools.len())]
    }

    /// Submits a counted task that returns its number.
    fn submit(&self, pool: &ThreadPoolExecutor, number: usize) -> Option<Future<Value>> {
        let (run, value) = (self.run.clone(), Counted::new(&self.alive));
        let future = pool.spawn(move || {
            run.add();
            (number, value)
        });
        let future = future.ok()?;
        self.accepted.add();
        Some(future)
    }

    fn batch(&self, pool: &ThreadPoolExecutor, count: usize) -> Vec<Future<Value>> {
        (0..count).filter_map(|n| self.submit(pool, n)).collect()
    }

    /// Cancels a future, and counts the cancellation if it succeeded.
    fn cancel(&self, future: &Future<Value>) {
        let was_cancelled = future.is_cancelled();
        if future.cancel() && !was_cancelled {
            self.cancelled.add();
        }
    }

    fn check(future: Future<Value>, number: usize) {
        let cancelled = future.is_cancelled();
        match future.result() {
            Ok((value, _)) => assert_eq!(value, number),
            Err(TaskError::Cancelled) => assert!(cancelled),
            Err(error) => panic!("{error}"),
        }
    }

    fn check_all(futures: Vec<Future<Value>>) {
        for (number, future) in futures.into_iter().enumerate() {
            Self::check(future, number);
        }
    }

    fn step(&self, random: &mut Random) {
        let pool = self.pool(random);
        let count = random.below(40);
        match random.below(14) {
            0 => {
                for _ in 0..count {
                    let future = self.submit(pool, count).unwrap();
                    Self::check(future, count);
                }
            }
            1 => {
                let futures = self.batch(pool, count);
                for _ in 0..random.below(count + 1) {
                    self.cancel(&futures[random.below(count)]);
                }
                Self::check_all(futures);
            }
            2 => {
                for (number, mut future) in self.batch(pool, count).into_iter().enumerate() {
                    let limit = random.limit();
                    let value = loop {
                        match future.result_timeout(limit) {
                            Err(TaskError::Timeout) => {}
                            other => break other.unwrap(),
                        }
                    };
                    assert_eq!(value.0, number);
                }
            }
            3 => self.as_completed(pool, count, random),
            4 => self.wait(pool, count, random),
            5 => Self::scope(pool, count),
            6 => Self::map(pool, count, random),
            7 => {
                let depth = random.below(5);
                let weak = Arc::downgrade(pool);
                let sum = pool.spawn(move || tree(&weak, depth)).unwrap();
                assert_eq!(sum.result().unwrap(), 1 << depth);
            }
            8 => self.callbacks(pool, count, random),
            9 => self.short_life(random),
            10 => self.awaiting(pool, count, random),
            11 => {
                // From one pool to the next, never around.
                let [first, second] = [&self.pools[0], &self.pools[1]];
                let (second, this) = (Arc::downgrade(second), self.clone());
                let outer = first.spawn(move || {
                    let second = second.upgrade().unwrap();
                    Self::check_all(this.batch(&second, count));
                });
                outer.unwrap().result().unwrap();
            }
            12 => {
                let (promise, future) = promise();
                let value = Counted::new(&self.alive);
                let set = pool
                    .spawn(move || promise.set_result((count, value)).is_ok())
                    .unwrap();
                let cancelled = count.is_multiple_of(3) && future.cancel();
                Self::check(future, count);
                assert_ne!(set.result().unwrap(), cancelled);
            }
            _ => drop(self.batch(pool, count)),
        }
    }

    fn as_completed(&self, pool: &ThreadPoolExecutor, count: usize, random: &mut Random) {
        let futures = self.batch(pool, count).into_iter().enumerate();
        let mut completed = as_completed(futures);
        let wanted = random.below(count + 1);
        for (number, future) in completed.by_ref().take(wanted) {
            assert!(future.is_done());
            Self::check(future, number);
        }
        if random.below(3) == 0 {
            return;
        }
        let mut completed = completed.timeout(random.limit());
        for next in completed.by_ref() {
            match next {
                Ok((number, future)) => Self::check(future, number),
                Err(error) => assert!(error.unfinished() > 0),
            }
        }
        for (number, future) in completed.into_not_done() {
            Self::check(future, number);
        }
    }

    fn wait(&self, pool: &ThreadPoolExecutor, count: usize, random: &mut Random) {
        let other = self.pool(random);
        let mut futures = self.batch(pool, count);
        futures.extend(self.batch(other, count));
        let mode = match random.below(3) {
            0 => ReturnWhen::AllCompleted,
            1 => ReturnWhen::FirstCompleted,
            _ => ReturnWhen::FirstException,
        };
        let limit = (random.below(2) == 0).then(|| random.limit());
        let divided = wait(&futures, limit, mode);
        assert_eq!(divided.done.len() + divided.not_done.len(), futures.len());
        if limit.is_none() {
            let all = divided.not_done.is_empty();
            assert!(all || mode == ReturnWhen::FirstCompleted && !divided.done.is_empty());
        }
        let second = futures.split_off(count);
        Self::check_all(futures);
        Self::check_all(second);
    }

    fn scope(pool: &ThreadPoolExecutor, count: usize) {
        let sum = AtomicUsize::new(0);
        pool.scope(|scope| {
            for n in 0..count {
                let sum = &sum;
                let task = scope.spawn(move || {
                    drop(scope.spawn(|| sum.fetch_add(1, Ordering::Relaxed)).unwrap());
                    sum.fetch_add(n, Ordering::Relaxed);
                });
                drop(task.unwrap());
            }
        });
        assert_eq!(sum.into_inner(), count * (count + 1) / 2);
    }

    fn map(pool: &ThreadPoolExecutor, count: usize, random: &mut Random) {
        let taken = random.below(count + 1);
        let expected: Vec<_> = (0..taken).map(|n| n * n).collect();
        let square = |n: usize| n * n;
        let options = MapOptions::new().chunksize(random.below(6));
        let results = pool.map_with(options, square, 0..count).unwrap();
        assert_eq!(results.len(), count);
        let results: Result<Vec<_>, _> = results.take(taken).collect();
        assert_eq!(results.unwrap(), expected);
        let results = pool.map_buffered(1 + random.below(8), square, 0..).unwrap();
        let results: Result<Vec<_>, _> = results.take(taken).collect();
        assert_eq!(results.unwrap(), expected);
        let limited = pool.map(square, 0..count).unwrap().timeout(random.limit());
        let mut results: Vec<_> = limited.collect();
        if let Some(Err(TaskError::Timeout)) = results.last() {
            results.pop();
        }
        for (n, result) in results.into_iter().enumerate() {
            assert_eq!(result.unwrap(), n * n);
        }
    }

    fn callbacks(&self, pool: &ThreadPoolExecutor, count: usize, random: &mut Random) {
        let calls = Counter::new();
        let futures = self.batch(pool, count);
        for future in &futures {
            for _ in 0..3 {
                let (calls, captured) = (calls.clone(), Counted::new(&self.alive));
                future.add_done_callback(move |_| {
                    drop(captured);
                    calls.add();
                });
            }
            if random.below(4) == 0 {
                self.cancel(future);
            }
        }
        Self::check_all(futures);
        assert_eq!(calls.get(), 3 * count);
    }

    /// Shuts a pool down while other threads submit to it.
    fn short_life(&self, random: &mut Random) {
        let pool = common::pool(1 + random.below(3));
        let count = 1 + random.below(30);
        let (wait_for, cancel) = (random.below(2) == 0, random.below(2) == 0);
        let futures = thread::scope(|scope| {
            let submitting = scope.spawn(|| self.batch(&pool, count));
            for _ in 0..random.below(200) {
                std::hint::spin_loop();
            }
            pool.shutdown(common::shutdown(wait_for, cancel));
            submitting.join().unwrap()
        });
        if random.below(2) == 0 {
            drop(pool);
            assert!(futures.iter().all(Future::is_done));
        }
        for mut future in futures {
            match future.result_timeout(LONG) {
                Ok(_) => {}
                Err(TaskError::Cancelled) => {
                    assert!(cancel);
                    self.cancelled.add();
                }
                Err(error) => panic!("{error} after shutdown({wait_for}, {cancel})"),
            }
        }
    }

    fn awaiting(&self, pool: &ThreadPoolExecutor, count: usize, random: &mut Random) {
        for (number, mut future) in self.batch(pool, count).into_iter().enumerate() {
            let value = match random.below(3) {
                0 => block_on(future),
                1 => match block_on(poll_once(&mut future)) {
                    Some(value) => value,
                    None => future.result(),
                },
                _ => {
                    // Given up, perhaps as it finishes.
                    drop(block_on(poll_once(future)));
                    continue;
                }
            };
            assert_eq!(value.unwrap().0, number);
        }
    }
}

/// Returns the number of leaves of a tree of tasks that wait for their children.
fn tree(pool: &Weak<ThreadPoolExecutor>, depth: usize) -> usize {
    let Some(below) = depth.checked_sub(1) else {
        return 1;
    };
    let executor = pool.upgrade().unwrap();
    let children = [0, 1].map(|_| {
        let weak = Weak::clone(pool);
        executor.spawn(move || tree(&weak, below)).unwrap()
    });
    children
        .into_iter()
        .map(|child| child.result().unwrap())
        .sum()
}

#[test]
fn a_random_mix_from_several_threads_loses_nothing() {
    let seconds = setting("CONCURRENT_FUTURES_STRESS", SECONDS) as u64;
    let end = Instant::now() + Duration::from_secs(seconds);
    let seed = setting("CONCURRENT_FUTURES_SEED", 1) as u64;
    let shared = Shared::new();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random::new(seed * THREADS + thread);
                while Instant::now() < end {
                    shared.step(&mut random);
                }
            });
        }
    });
    let Shared {
        pools,
        accepted,
        run,
        cancelled,
        alive,
    } = shared;
    for pool in pools.iter() {
        pool.shutdown(Shutdown::Wait);
        assert_eq!(pool.workers(), 0);
    }
    assert_eq!(
        run.get() + cancelled.get(),
        accepted.get(),
        "tasks were lost or doubled"
    );
    assert_eq!(alive.get(), 0, "values were lost or doubled");
    assert!(run.get() > 0);
    if env::var_os("CONCURRENT_FUTURES_STRESS").is_some() {
        let (run, cancelled) = (run.get(), cancelled.get());
        // Without `eprintln`, which the test harness would keep to itself.
        writeln!(
            io::stderr(),
            "{run} tasks run, {cancelled} cancelled, in {seconds} s"
        )
        .unwrap();
    }
}
