//! The wait of one thread until others have made room.
//!
//! # Protocol
//! The waiting thread sets `is_wanted`, and looks whether there is room. If there is none, it waits for the signal, and
//! looks again. A thread that makes room does so first, and looks at `is_wanted` then. If that is set, the thread
//! notifies the signal.
//!
//! # Invariant
//! Between the write and the read of either thread is a fence. So one of the two sees what the other has written: the
//! waiting thread sees the room, or is notified. A notification that comes before the wait stays in the signal.

#![forbid(unsafe_code)]

use crate::runtime::os::signal::Signal;
use crate::runtime::sync::atomic::{AtomicBool, Ordering, fence};

/// Departures of tasks, for which one thread at a time waits.
#[derive(Debug)]
pub struct Departures {
    is_wanted: AtomicBool,
    signal: Signal,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            is_wanted: AtomicBool::new(false),
            signal: Signal::new(),
        }
    }
}

impl Departures {
    /// Notes that the calling thread has made room.
    pub fn note(&self) {
        fence(Ordering::SeqCst);
        // ORDERING: Relaxed, here and below: the fences order the flag.
        if self.is_wanted.load(Ordering::Relaxed) {
            self.signal.notify();
        }
    }

    /// Waits until there is room, as `has_room` says. One thread at a time waits.
    pub fn wait_for_room(&self, has_room: impl Fn() -> bool) {
        if has_room() {
            return;
        }
        self.is_wanted.store(true, Ordering::Relaxed);
        loop {
            fence(Ordering::SeqCst);
            if has_room() {
                break;
            }
            self.signal.wait(None);
        }
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use super::*;
    use crate::runtime::explored;
    use crate::runtime::sync::atomic::AtomicUsize;
    use crate::runtime::sync::{Arc, thread};

    /// A thread waits until so many tasks are left, of as many as there are other threads.
    fn waits_for_others(leaving: usize, most_left: usize) {
        let departures = Arc::new(Departures::default());
        let left = Arc::new(AtomicUsize::new(leaving));
        let others: Vec<_> = (0..leaving)
            .map(|_| {
                let (departures, left) = (Arc::clone(&departures), Arc::clone(&left));
                thread::spawn(move || {
                    left.fetch_sub(1, Ordering::Relaxed);
                    departures.note();
                })
            })
            .collect();
        departures.wait_for_room(|| left.load(Ordering::Relaxed) <= most_left);
        // Another wait may find the notification of the one before.
        departures.wait_for_room(|| left.load(Ordering::Relaxed) == 0);
        for other in others {
            other.join().unwrap();
        }
    }

    #[test]
    fn a_thread_that_waits_for_room_sees_it_or_is_woken() {
        explored::check(None, || waits_for_others(1, 0));
    }

    #[test]
    fn a_thread_waits_for_room_again_and_again() {
        explored::check(Some(3), || waits_for_others(2, 1));
    }
}
