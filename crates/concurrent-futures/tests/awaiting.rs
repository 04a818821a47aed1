//! Tests of futures under asynchronous runtimes.

mod common;

use common::{Counted, Counter, Hold, LONG, SHORT, pool, within_limit};
use concurrent_futures::{
    Future, ReturnWhen, Shutdown, TaskError, ThreadPoolExecutor, promise, wait,
};
use futures_lite::future::{block_on, or, poll_once};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// Counts the wake-ups of a waker.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll_with<T>(future: &mut Future<T>, waker: &Arc<Wakes>) -> Poll<Result<T, TaskError>> {
    let waker = Waker::from(Arc::clone(waker));
    Future::poll_pinned(Pin::new(future), &mut Context::from_waker(&waker))
}

/// Calls the `poll` of the trait `Future`, which the type's own methods hide otherwise.
trait PollPinned: std::future::Future {
    fn poll_pinned(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll(context)
    }
}

impl<F: std::future::Future> PollPinned for F {}

async fn many(pool: &ThreadPoolExecutor) {
    for n in 0..300_u64 {
        assert_eq!(pool.submit(|n| n * 2, n).unwrap().await.unwrap(), n * 2);
    }
    let futures: Vec<_> = (0..300_u64)
        .map(|n| pool.spawn(move || n).unwrap())
        .collect();
    let mut sum = 0;
    for future in futures {
        sum += future.await.unwrap();
    }
    assert_eq!(sum, 300 * 299 / 2);
}

#[test]
fn a_future_can_be_awaited_under_block_on() {
    block_on(many(&pool(2)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_future_can_be_awaited_on_tokios_current_thread() {
    many(&pool(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_can_be_awaited_by_many_of_tokios_tasks() {
    let pool = Arc::new(pool(2));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { many(&pool).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn errors_arrive_by_await() {
    let pool = pool(1);
    block_on(async {
        let panicked = pool.spawn(|| panic!("in a task")).unwrap();
        assert!(matches!(panicked.await, Err(TaskError::Panicked(_))));
        let failed = pool.submit_fallible(str::parse::<u8>, "x").unwrap();
        assert!(matches!(failed.await, Err(TaskError::Failed(_))));
        let (_promise, cancelled) = promise::<()>();
        cancelled.cancel();
        assert!(matches!(cancelled.await, Err(TaskError::Cancelled)));
        let (dropped, abandoned) = promise::<()>();
        drop(dropped);
        assert!(matches!(abandoned.await, Err(TaskError::Abandoned)));
    });
}

#[test]
fn a_finished_future_is_ready_at_once() {
    let (promise, future) = promise();
    promise.set_result(3).unwrap();
    let ready = block_on(poll_once(future)).unwrap();
    assert_eq!(ready.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_passes_drops_the_future_and_the_task_goes_on() {
    let pool = pool(1);
    let hold = Hold::worker_of(&pool);
    let runs = Counter::new();
    let future = pool
        .spawn({
            let runs = runs.clone();
            move || runs.add()
        })
        .unwrap();
    assert!(tokio::time::timeout(SHORT, future).await.is_err());
    hold.release();
    pool.shutdown(Shutdown::Wait);
    assert_eq!(runs.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_can_be_polled_again_after_select_gave_up_on_it() {
    let (promise, mut future) = promise();
    for _ in 0..3 {
        tokio::select! {
            _ = &mut future => panic!("nobody has set it"),
            () = tokio::time::sleep(SHORT) => {}
        }
    }
    // On another task, hence with another waker.
    let awaiting = tokio::spawn(future);
    tokio::task::yield_now().await;
    promise.set_result("late").unwrap();
    assert_eq!(awaiting.await.unwrap().unwrap(), "late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn select_with_tiny_limits_loses_no_result() {
    let pool = pool(2);
    for n in 0..300_u64 {
        let mut future = pool.spawn(move || n).unwrap();
        let value = loop {
            tokio::select! {
                biased;
                value = &mut future => break value.unwrap(),
                () = tokio::task::yield_now() => {}
                () = tokio::time::sleep(Duration::from_micros(n % 50)) => {}
            }
        };
        assert_eq!(value, n);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn dropping_awaited_futures_as_they_finish_hurts_nobody() {
    let pool = pool(2);
    for n in 0..2_000_u32 {
        let future = pool.spawn(move || vec![n; 3]).unwrap();
        if let Some(value) = poll_once(future).await {
            assert_eq!(value.unwrap(), [n; 3]);
        }
    }
}

#[test]
fn only_the_last_waker_is_woken_once() {
    let (promise, mut future) = promise();
    let (first, second) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    assert!(poll_with(&mut future, &first).is_pending());
    assert!(poll_with(&mut future, &first).is_pending());
    assert!(poll_with(&mut future, &second).is_pending());
    promise.set_result(1).unwrap();
    assert_eq!((first.count(), second.count()), (0, 1));
    assert!(matches!(
        poll_with(&mut future, &second),
        Poll::Ready(Ok(1))
    ));
    assert!(matches!(
        poll_with(&mut future, &second),
        Poll::Ready(Err(TaskError::Taken))
    ));
    assert_eq!(second.count(), 1);
}

#[test]
fn cancelling_wakes() {
    let (_promise, mut future) = promise::<()>();
    let wakes = Arc::<Wakes>::default();
    assert!(poll_with(&mut future, &wakes).is_pending());
    assert!(future.cancel());
    assert_eq!(wakes.count(), 1);
    let polled = poll_with(&mut future, &wakes);
    assert!(matches!(polled, Poll::Ready(Err(TaskError::Cancelled))));
}

#[test]
fn a_dropped_future_lets_its_waker_go() {
    let wakes = Arc::<Wakes>::default();
    let (promise, mut future) = promise();
    assert!(poll_with(&mut future, &wakes).is_pending());
    assert_eq!(Arc::strong_count(&wakes), 2);
    drop(future);
    assert_eq!(Arc::strong_count(&wakes), 1);
    promise.set_result(1).unwrap();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_future_can_be_awaited_after_waiting_with_a_limit_and_the_other_way_round() {
    let (promise, mut future) = promise();
    let wakes = Arc::<Wakes>::default();
    assert!(matches!(
        future.result_timeout(SHORT),
        Err(TaskError::Timeout)
    ));
    assert!(poll_with(&mut future, &wakes).is_pending());
    assert!(matches!(
        future.result_timeout(SHORT),
        Err(TaskError::Timeout)
    ));
    promise.set_result(1).unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(future.result().unwrap(), 1);
}

#[test]
fn the_first_of_two_wins_and_the_other_is_left_alone() {
    let (first, future) = promise();
    let (_second, mut never) = promise();
    first.set_result(1).unwrap();
    let winner = block_on(or(future, pin!(&mut never)));
    assert_eq!(winner.unwrap(), 1);
    assert!(!never.is_done());
}

#[test]
fn callbacks_run_before_the_waker() {
    let (promise, mut future) = promise();
    let wakes = Arc::<Wakes>::default();
    assert!(poll_with(&mut future, &wakes).is_pending());
    let (sender, seen) = std::sync::mpsc::channel();
    let in_callback = Arc::clone(&wakes);
    future.add_done_callback(move |_| sender.send(in_callback.count()).unwrap());
    promise.set_result(()).unwrap();
    assert_eq!(common::receive(&seen), 0);
    assert_eq!(wakes.count(), 1);
}

#[test]
fn polling_with_ever_other_wakers_while_the_task_finishes_misses_no_wake_up() {
    for _ in 0..500 {
        let (promise, mut future) = promise();
        let setter = thread::spawn(move || promise.set_result(1).unwrap());
        let wakers: Vec<_> = (0..20).map(|_| Arc::<Wakes>::default()).collect();
        let mut last = None;
        for waker in &wakers {
            match poll_with(&mut future, waker) {
                Poll::Pending => last = Some(waker),
                Poll::Ready(value) => {
                    assert_eq!(value.unwrap(), 1);
                    last = None;
                    break;
                }
            }
        }
        if let Some(waker) = last {
            common::eventually("a wake-up", || waker.count() == 1);
            assert_eq!(future.result().unwrap(), 1);
        }
        setter.join().unwrap();
    }
}

/// A waker that panics. It is foreign code, which must not cost a worker.
struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

#[test]
fn a_panicking_waker_costs_neither_the_worker_nor_other_waiters() {
    // Forgotten, since dropping a pool that has lost a worker may hang.
    let pool = std::mem::ManuallyDrop::new(pool(1));
    let hold = Hold::worker_of(&pool);
    let mut future = pool.spawn(|| 1).unwrap();
    let waker = Waker::from(Arc::new(PanickingWaker));
    let polled = Future::poll_pinned(Pin::new(&mut future), &mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    hold.release();
    assert_eq!(future.result_timeout(LONG).unwrap(), 1);
    let mut next = pool.spawn(|| 2).unwrap();
    assert_eq!(next.result_timeout(Duration::from_secs(10)).unwrap(), 2);
}

/// A waker that takes a lock.
struct Locking {
    lock: Mutex<()>,
    woken: AtomicBool,
}

impl Wake for Locking {
    fn wake(self: Arc<Self>) {
        drop(self.lock.lock().unwrap());
        self.woken.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_may_wait_for_a_thread_that_waits_for_the_same_future() {
    within_limit(|| {
        let locking = Arc::new(Locking {
            lock: Mutex::new(()),
            woken: AtomicBool::new(false),
        });
        let (promise, mut future) = promise();
        let waker = Waker::from(Arc::clone(&locking));
        let pending = Pin::new(&mut future).poll_pinned(&mut Context::from_waker(&waker));
        assert!(pending.is_pending());
        // With a callback, those who wait are told in the order in which they came.
        future.add_done_callback(|_| {});
        let held = locking.lock.lock().unwrap();
        let setter = thread::spawn(move || promise.set_result(1).unwrap());
        let divided = wait([&future], None, ReturnWhen::AllCompleted);
        assert_eq!(divided.done.len(), 1);
        drop(held);
        setter.join().unwrap();
        assert!(locking.woken.load(Ordering::Relaxed));
    });
}

#[test]
fn a_waker_that_panics_when_it_is_dropped_does_not_keep_the_outcome() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a waker panics");
        }
    }
    let alive = Counter::new();
    let (promise, mut future) = promise();
    {
        let waker = Waker::from(Arc::new(Bomb));
        assert!(
            Pin::new(&mut future)
                .poll_pinned(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    drop(future);
    promise.set_result(Counted::new(&alive)).unwrap();
    assert_eq!(alive.get(), 0);
}
