//! Loom models of waits that a signal of the operating system ends. Such a wait leaves a notification behind,
//! which the next wait of its thread finds.

use crate::future::blocking::{NEVER, wait_parked};
use crate::future::promise;
use crate::future::ready::Watched;
use crate::runtime::explored;
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::thread;
use std::cell::Cell;

fn check(model: impl Fn() + Send + Sync + 'static) {
    explored::check(Some(2), model);
}

/// Returns true once, and only once: then the wait is to stop.
fn once() -> impl Fn() -> bool {
    let has_said = Cell::new(false);
    move || !has_said.replace(true)
}

/// Ends a sleep of the calling thread from another thread.
fn interrupt_this_thread() -> thread::JoinHandle<()> {
    let signal = Signal::of_this_thread();
    thread::spawn(move || signal.interrupt())
}

#[test]
fn a_wait_that_was_ended_takes_nothing_from_the_next() {
    check(|| {
        let ((first_promise, first), (promise, second)) = (promise::<u32>(), promise::<u32>());
        let system = interrupt_this_thread();
        let worker = thread::spawn(move || {
            first_promise.set_result(1).unwrap();
            promise.set_result(2).unwrap();
        });
        // Ended or not, the notification may be left.
        wait_parked(first.task().state(), None, || false, &once());
        assert!(wait_parked(second.task().state(), None, || false, NEVER));
        assert_eq!(second.result().unwrap(), 2);
        assert!(first.is_done());
        system.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn a_notification_from_before_does_not_hide_a_signal() {
    // One thread: loom tells that it would sleep for ever.
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let signal = Signal::of_this_thread();
        signal.notify();
        let handled = Cell::new(false);
        let stop = || {
            handled.set(true);
            true
        };
        // Nothing is ever sent: unless the wait asks, it stands for ever, and loom tells.
        assert!(!wait_parked(future.task().state(), None, || false, &stop));
        assert!(handled.get());
        drop(promise);
    });
}

#[test]
fn a_watch_that_was_interrupted_reports_each_future_once() {
    check(|| {
        let (promise, future) = promise::<u32>();
        let mut watched = Watched::new();
        let mut done = 0;
        // SAFETY: the future outlives it.
        unsafe { watched.add(0, [future.task()].into_iter(), |_| done += 1) };
        let signal = watched.signal();
        let system = thread::spawn(move || signal.interrupt());
        let worker = thread::spawn(move || promise.set_result(1).unwrap());
        done += usize::from(watched.next(None, || false, &once()).is_some());
        while done < 1 {
            done += usize::from(watched.next(None, || false, NEVER).is_some());
        }
        assert!(!watched.has_ready());
        system.join().unwrap();
        worker.join().unwrap();
    });
}
