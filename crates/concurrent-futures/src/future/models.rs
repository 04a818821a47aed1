//! Loom models of the state machine and of the ready list.
//!
//! Each model runs every interleaving of a few threads, under the language's weak memory.

use crate::error::TaskError;
use crate::future::blocking::{NEVER, wait_parked};
use crate::future::ready::Watched;
use crate::future::{Future, promise};
use crate::runtime::explored;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, UnsafeCell, thread};
use crate::task::TaskRef;
use crate::task::list::{Action, Node};
use crate::task::state::{Advance, Cancel, Phase, State};
use std::ptr::NonNull;

/// Checks a model that has too many steps for all of its orders. The check tries the orders with at most two
/// preemptions, as faults usually show in these.
fn check_bounded(model: impl Fn() + Send + Sync + 'static) {
    check_bounded_by(2, model);
}

fn check_bounded_by(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    explored::check(Some(preemptions), model);
}

/// A state with an outcome beside it, as in a task. Loom reports unordered accesses to the outcome.
struct Cell {
    state: State,
    outcome: UnsafeCell<u32>,
    started: AtomicUsize,
    dropped: AtomicUsize,
}

// SAFETY: the state machine decides which thread may touch the cell; loom checks that in these models.
unsafe impl Send for Cell {}
// SAFETY: as for `Send`: the state machine decides which thread may touch the cell.
unsafe impl Sync for Cell {}

impl Cell {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: State::new(),
            outcome: UnsafeCell::new(0),
            started: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        })
    }

    /// Starts the task, stores its outcome and finishes it, as a worker does.
    fn run(&self) -> bool {
        // SAFETY: the model is the only one that uses this state.
        let started = unsafe { self.state.start() };
        if started {
            self.started.fetch_add(1, Ordering::Relaxed);
            self.finish();
        }
        started
    }

    fn finish(&self) {
        let drop_outcome = || {
            self.take();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        };
        // SAFETY: started or claimed; no other thread writes.
        unsafe {
            self.outcome.with_mut(|outcome| *outcome = 42);
            let outcome = self.outcome.with(|outcome| outcome);
            self.state.finish(outcome.cast(), drop_outcome);
        }
    }

    /// Takes the outcome of a future that is done, as a handle does.
    fn take(&self) -> u32 {
        self.outcome.with_mut(|outcome| {
            // SAFETY: the future is done, so the handle alone has the outcome; loom checks that.
            unsafe { std::mem::take(&mut *outcome) }
        })
    }
}

#[test]
fn start_against_cancel_has_one_winner() {
    explored::check(None, || {
        let cell = Cell::new();
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.run()
        });
        let dropped = std::cell::Cell::new(false);
        let cancelled = cell.state.cancel(|| dropped.set(true)) == Cancel::Now;
        assert_eq!(dropped.get(), cancelled);
        wait_parked(&cell.state, None, || false, NEVER);
        let ran = worker.join().unwrap();
        assert!(ran != cancelled);
        assert_eq!(cell.state.phase() == Phase::Cancelled, cancelled);
    });
}

#[test]
fn two_claims_have_one_winner() {
    explored::check(None, || {
        let cell = Cell::new();
        let set = |cell: &Cell| {
            // SAFETY: the model is the only one that uses this state.
            unsafe { cell.state.claim() }
                .map(|()| cell.finish())
                .is_ok()
        };
        let other = thread::spawn({
            let cell = Arc::clone(&cell);
            move || set(&cell)
        });
        let ours = set(&cell);
        assert!(other.join().unwrap() != ours);
        assert_eq!(cell.take(), 42);
    });
}

#[test]
fn finish_against_a_late_waiter() {
    explored::check(None, || {
        let cell = Cell::new();
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.run()
        });
        assert!(wait_parked(&cell.state, None, || false, NEVER));
        assert_eq!(cell.take(), 42);
        worker.join().unwrap();
    });
}

#[test]
fn finish_against_two_waiters() {
    check_bounded(|| {
        let cell = Cell::new();
        let threads = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || wait_parked(&cell.state, None, || false, NEVER))
        });
        cell.run();
        for thread in threads {
            assert!(thread.join().unwrap());
        }
    });
}

/// Waits with a deadline that has passed, as every deadline in the models: the waiter gives up at once.
fn wait_in_vain(state: &State) -> bool {
    wait_parked(state, Some(std::time::Instant::now()), || false, NEVER)
}

#[test]
fn finish_against_a_time_limit() {
    check_bounded_by(3, || {
        let cell = Cell::new();
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.run()
        });
        if !wait_in_vain(&cell.state) {
            // Nothing is lost: asked again, it is there.
            assert!(wait_parked(&cell.state, None, || false, NEVER));
        }
        assert_eq!(cell.take(), 42);
        worker.join().unwrap();
    });
}

#[test]
fn two_time_limits_against_each_other_and_finish() {
    check_bounded_by(3, || {
        let cell = Cell::new();
        let other = thread::spawn({
            let cell = Arc::clone(&cell);
            move || wait_in_vain(&cell.state)
        });
        wait_in_vain(&cell.state);
        assert!(cell.run());
        other.join().unwrap();
        assert!(cell.state.is_done());
    });
}

#[repr(C)]
struct CountingCallback {
    node: Node,
    calls: Arc<AtomicUsize>,
    expected: usize,
}

impl CountingCallback {
    /// Counts the call, and checks its place in the order and its outcome.
    ///
    /// # Safety
    /// As the state machine does it: once, with the node of a registered callback.
    unsafe fn run(node: NonNull<Node>, outcome: *const ()) {
        // SAFETY: leaked in `add`.
        let callback = unsafe { Box::from_raw(node.cast::<Self>().as_ptr()) };
        let before = callback.calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, callback.expected);
        if !outcome.is_null() {
            // SAFETY: the outcome of a `Cell`.
            assert_eq!(unsafe { *outcome.cast::<u32>() }, 42);
        }
    }

    fn add(cell: &Cell, calls: &Arc<AtomicUsize>, expected: usize) -> bool {
        let callback = Box::new(Self {
            node: Node::new(&Action::Callback(Self::run)),
            calls: Arc::clone(calls),
            expected,
        });
        let node = NonNull::from(Box::leak(callback)).cast::<Node>();
        // SAFETY: leaked.
        let added = unsafe { cell.state.register(node) };
        if !added {
            // SAFETY: not registered.
            drop(unsafe { Box::from_raw(node.cast::<Self>().as_ptr()) });
        }
        added
    }
}

#[test]
fn callbacks_added_while_finishing_run_once_in_order_before_done() {
    check_bounded_by(3, || {
        let cell = Cell::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.run()
        });
        let mut added = 0;
        for _ in 0..2 {
            added += usize::from(CountingCallback::add(&cell, &calls, added));
        }
        assert!(wait_parked(&cell.state, None, || false, NEVER));
        assert_eq!(calls.load(Ordering::Relaxed), added);
        assert_eq!(cell.take(), 42);
        worker.join().unwrap();
    });
}

#[test]
fn finishing_without_callbacks_wakes_waiters_and_keeps_callbacks() {
    explored::check(Some(3), || {
        let cell = Cell::new();
        let calls = Arc::new(AtomicUsize::new(0));
        // SAFETY: the model is the only one that uses this state.
        assert!(unsafe { cell.state.start() });
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            let calls = Arc::clone(&calls);
            move || {
                // SAFETY: started; no other thread writes.
                let finished = unsafe {
                    cell.outcome.with_mut(|outcome| *outcome = 42);
                    cell.state.finish_uncalled()
                };
                if finished {
                    assert_eq!(calls.load(Ordering::Relaxed), 0);
                } else {
                    cell.finish();
                }
            }
        });
        let added = usize::from(CountingCallback::add(&cell, &calls, 0));
        assert!(wait_parked(&cell.state, None, || false, NEVER));
        assert_eq!(calls.load(Ordering::Relaxed), added);
        assert_eq!(cell.take(), 42);
        worker.join().unwrap();
    });
}

#[test]
fn finishing_without_callbacks_against_a_waiter_that_gives_up() {
    explored::check(Some(3), || {
        let cell = Cell::new();
        // SAFETY: the model is the only one that uses this state.
        assert!(unsafe { cell.state.start() });
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            // SAFETY: started; no other thread writes.
            move || unsafe {
                cell.outcome.with_mut(|outcome| *outcome = 42);
                assert!(cell.state.finish_uncalled());
            }
        });
        if !wait_in_vain(&cell.state) {
            assert!(wait_parked(&cell.state, None, || false, NEVER));
        }
        assert_eq!(cell.take(), 42);
        worker.join().unwrap();
    });
}

#[test]
fn a_callback_added_while_cancelling_runs_once() {
    explored::check(None, || {
        let cell = Cell::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let other = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.state.cancel(|| {})
        });
        let added = CountingCallback::add(&cell, &calls, 0);
        assert!(wait_parked(&cell.state, None, || false, NEVER));
        assert_eq!(calls.load(Ordering::Relaxed), usize::from(added));
        assert_eq!(other.join().unwrap(), Cancel::Now);
    });
}

#[test]
fn the_outcome_of_a_dropped_handle_is_dropped_once() {
    explored::check(None, || {
        let cell = Cell::new();
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.run()
        });
        // SAFETY: the model is the only one that uses this state.
        if !unsafe { cell.state.flag() } {
            assert_eq!(cell.take(), 42);
            cell.dropped.fetch_add(1, Ordering::Relaxed);
        }
        worker.join().unwrap();
        assert_eq!(cell.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_last_handle_is_dropped_while_running() {
    explored::check(None, || {
        let value = Arc::new(());
        let (promise, future) = promise::<Arc<()>>();
        assert!(promise.set_running_or_notify_cancel());
        let worker = thread::spawn({
            let value = Arc::clone(&value);
            move || promise.set_result(value).unwrap()
        });
        drop(future);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

#[test]
fn a_dropped_promise_wakes_the_waiter() {
    explored::check(None, || {
        let (promise, future) = promise::<u32>();
        let worker = thread::spawn(move || drop(promise));
        assert!(matches!(future.result(), Err(TaskError::Abandoned)));
        worker.join().unwrap();
    });
}

/// Counts the wake-ups of an asynchronous task.
struct CountWakes(AtomicUsize);

impl std::task::Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn finish_against_a_poll_and_a_changed_waker() {
    explored::check(None, || {
        let (promise, mut future) = promise::<u32>();
        let worker = thread::spawn(move || promise.set_result(42).unwrap());
        let mut poll = |wakes: &Arc<CountWakes>| {
            let waker = Arc::clone(wakes).into();
            let mut context = std::task::Context::from_waker(&waker);
            std::future::Future::poll(std::pin::Pin::new(&mut future), &mut context)
        };
        let (first, second) = (
            Arc::new(CountWakes(AtomicUsize::new(0))),
            Arc::new(CountWakes(AtomicUsize::new(0))),
        );
        let mut ready = poll(&first).is_ready();
        ready = ready || poll(&second).is_ready();
        worker.join().unwrap();
        // Not ready with the second waker, that one was woken.
        assert!(ready || second.0.load(Ordering::Relaxed) == 1);
    });
}

fn promised(value: u32, promise: super::Promise<u32>) -> thread::JoinHandle<()> {
    thread::spawn(move || promise.set_result(value).unwrap())
}

fn task(future: &Future<u32>) -> &TaskRef {
    future.task()
}

#[test]
fn each_watched_future_is_reported_once() {
    check_bounded(|| {
        let (first, one) = promise();
        let (second, two) = promise();
        let mut watched = Watched::new();
        let mut done = Vec::new();
        let thread = promised(1, first);
        let tasks = [task(&one), task(&two)].into_iter();
        // SAFETY: the futures outlive it.
        unsafe { watched.add(0, tasks, |index| done.push(index)) };
        let other = promised(2, second);
        while done.len() < 2 {
            done.extend(watched.next(None, || false, NEVER));
        }
        done.sort_unstable();
        assert_eq!(done, [0, 1]);
        thread.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_watch_is_dropped_while_its_futures_finish() {
    check_bounded(|| {
        let (first, one) = promise();
        let (second, two) = promise();
        let mut watched = Watched::new();
        let tasks = [task(&one), task(&two)].into_iter();
        // SAFETY: the futures outlive it.
        unsafe { watched.add(0, tasks, |_| {}) };
        let thread = promised(1, first);
        let other = promised(2, second);
        drop(watched);
        thread.join().unwrap();
        other.join().unwrap();
        assert!(one.is_done() && two.is_done());
    });
}

// Frontends with an order of their own: done first, then notifications.

impl Cell {
    /// Writes the outcome and makes the future done, also if it is flagged. Returns whether it was flagged.
    fn advance_to_finished(&self) -> bool {
        // SAFETY: the model is the only one that uses this state.
        unsafe { self.state.claim() }.unwrap();
        // SAFETY: claimed; no other thread writes.
        unsafe {
            self.outcome.with_mut(|outcome| *outcome = 42);
            let from = [Phase::Setting];
            match self.state.advance(&from, Phase::Finished, false) {
                Advance::Done => false,
                Advance::Flagged => {
                    let advance = self.state.advance(&from, Phase::Finished, true);
                    assert_eq!(advance, Advance::Done);
                    true
                }
                Advance::Other(phase) => panic!("{phase:?}"),
            }
        }
    }
}

#[test]
fn a_flag_set_before_the_finish_is_noticed() {
    explored::check(None, || {
        let cell = Cell::new();
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.advance_to_finished()
        });
        // SAFETY: the model is the only one that uses this state.
        let flagged = unsafe { cell.state.flag() };
        assert!(wait_parked(&cell.state, None, || false, NEVER));
        assert_eq!(cell.take(), 42);
        assert_eq!(worker.join().unwrap(), flagged);
    });
}

#[test]
fn advancing_wakes_a_waiter_and_has_one_winner_against_cancelling() {
    check_bounded(|| {
        let cell = Cell::new();
        let other = thread::spawn({
            let cell = Arc::clone(&cell);
            // SAFETY: any thread may cancel a pending future.
            move || unsafe {
                cell.state
                    .advance(&[Phase::Pending], Phase::Cancelled, true)
            }
        });
        // SAFETY: the model is the only one that uses this state.
        let started = unsafe { cell.state.start() };
        if started {
            cell.advance_to_finished();
        } else {
            assert!(wait_parked(&cell.state, None, || false, NEVER));
        }
        assert_eq!(other.join().unwrap() == Advance::Done, !started);
    });
}

#[test]
fn a_cancellation_is_noticed_once_by_the_thread_that_flagged_it() {
    explored::check(None, || {
        let cell = Cell::new();
        assert_eq!(cell.state.cancel(|| {}), Cancel::Now);
        let worker = thread::spawn({
            let cell = Arc::clone(&cell);
            // SAFETY: it is done before and after.
            move || unsafe {
                cell.state
                    .advance(&[Phase::Cancelled], Phase::Notified, false)
            }
        });
        // SAFETY: the model is the only one that uses this state.
        let flagged = unsafe { cell.state.flag() };
        let expected = if flagged {
            Advance::Flagged
        } else {
            Advance::Done
        };
        assert_eq!(worker.join().unwrap(), expected);
    });
}
