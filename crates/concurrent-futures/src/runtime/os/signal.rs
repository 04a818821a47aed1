//! A wake-up for one thread.
//!
//! # Protocol
//! [`Signal::notify`] leaves a notification, which [`Signal::wait`] takes, whichever comes first.
//! One thread at a time waits. Notifications do not add up. Where the system has futexes the
//! signal is one word; elsewhere the signal is a flag with a lock.
//!
//! A thread uses its own signal for one wait after the other. A time limit, or a signal of the operating
//! system, may end a wait before its notification comes. So the waiting thread may find a notification from
//! before, and must look at what it waits for after each.
//!
//! # Invariant
//! Taking a notification takes it by a read-modify-write with Acquire. So of two notifications
//! that come close together, the waiting thread either sees all that happened before the second,
//! or the second is still there. (A plain store instead loses the second: it overwrites the
//! notification without having read it.)
//!
//! # Signals of the operating system
//! A sleep in [`Signal::wait_once`] also ends when the operating system delivers a signal to the
//! thread, so that a language runtime can run its handler. A signal that is delivered right before
//! the sleep ends no sleep. For that, a thread [glances](glancing): its sleeps end early now and
//! then, after twice the time of the last.

#![forbid(unsafe_code)]

use crate::runtime::sync::{Arc, thread_local};
use std::cell::Cell;
use std::time::{Duration, Instant};

#[cfg(all(target_os = "linux", not(portable_backend)))]
pub(crate) use by_futex::Signal;
#[cfg(not(all(target_os = "linux", not(portable_backend))))]
pub(crate) use by_lock::Signal;

/// The result of a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The thread was notified, and has taken the notification.
    Notified,
    /// The deadline has passed.
    Expired,
    /// A signal of the operating system came, or the sleep ended spuriously.
    Early,
}

impl Signal {
    /// Waits for `notify` or the deadline, and takes the notification. Returns false
    /// when the deadline passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            match self.wait_once(deadline) {
                Woken::Notified => return true,
                Woken::Expired => return false,
                Woken::Early => {}
            }
        }
    }

    /// Returns the signal of the calling thread, which serves one wait after the other. A notification from
    /// an earlier wait may be left in it.
    pub(crate) fn of_this_thread() -> Arc<Self> {
        thread_local! {
            static SIGNAL: Arc<Signal> = Arc::new(Signal::new());
        }
        SIGNAL
            .try_with(Arc::clone)
            .unwrap_or_else(|_| Arc::new(Self::new()))
    }
}

/// The time after which the first sleep of a glancing thread ends early.
const FIRST_GLANCE: Duration = Duration::from_millis(10);

std::thread_local! {
    /// The time after which the next sleep of the calling thread ends early.
    static GLANCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Calls `wait` on a thread that *glances*: its sleeps end early now and then.
pub fn glancing<R>(wait: impl FnOnce() -> R) -> R {
    struct Restore(Option<Duration>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GLANCE.set(self.0);
        }
    }
    let _restore = Restore(GLANCE.replace(Some(FIRST_GLANCE)));
    wait()
}

#[cfg(any(all(target_os = "linux", not(portable_backend)), loom_models))]
mod by_futex {
    use super::{GLANCE, Woken};
    use crate::runtime::os::futex::{Futex, Scope, Slept};
    use crate::runtime::sync::atomic::Ordering;
    use crate::runtime::sync::time_left;
    use std::time::{Duration, Instant};

    /// The longest sleep of a glancing thread.
    const LAST_GLANCE: Duration = Duration::from_secs(1);

    const EMPTY: u32 = 0;
    const NOTIFIED: u32 = 1;
    const WAITING: u32 = 2;

    #[derive(Debug)]
    pub(crate) struct Signal(Futex);

    impl Signal {
        pub(crate) fn new() -> Self {
            Self(Futex::new(EMPTY))
        }

        pub(crate) fn notify(&self) {
            // ORDERING: Release, so that the thread that takes the notification sees what came
            // before it.
            if self.0.word().swap(NOTIFIED, Ordering::Release) == WAITING {
                self.0.wake(Scope::Process);
            }
        }

        /// Waits for `notify` or the deadline, or returns early.
        pub(crate) fn wait_once(&self, deadline: Option<Instant>) -> Woken {
            let word = self.0.word();
            // ORDERING: Relaxed: a thread that finds a notification takes it below.
            let parked =
                word.compare_exchange(EMPTY, WAITING, Ordering::Relaxed, Ordering::Relaxed);
            if parked.is_err() {
                // ORDERING: Acquire pairs with the Release in `notify`; see the invariant.
                word.swap(EMPTY, Ordering::Acquire);
                return Woken::Notified;
            }
            let expired = self.sleep(deadline);
            // ORDERING: Acquire pairs with the Release of the notification.
            match word.swap(EMPTY, Ordering::Acquire) {
                NOTIFIED => Woken::Notified,
                _ if expired => Woken::Expired,
                _ => Woken::Early,
            }
        }

        /// Sleeps until the word changes or the deadline passes, or returns early. Returns whether the
        /// deadline has passed.
        fn sleep(&self, deadline: Option<Instant>) -> bool {
            let left = match deadline.map(time_left) {
                Some(None) => return true,
                left => left.flatten(),
            };
            let glance = GLANCE
                .get()
                .filter(|glance| left.is_none_or(|left| *glance < left));
            let slept = self.0.sleep(WAITING, glance.or(left), Scope::Process);
            if slept == Slept::Woken {
                return false;
            }
            if let Some(glance) = glance {
                GLANCE.set(Some((2 * glance).min(LAST_GLANCE)));
            }
            glance.is_none()
        }

        /// Ends a sleep early.
        #[cfg(loom_models)]
        pub(crate) fn interrupt(&self) {
            self.0.interrupt();
        }
    }
}

#[cfg(any(not(target_os = "linux"), portable_backend, loom_models))]
mod by_lock {
    use super::{GLANCE, Woken};
    use crate::runtime::sync::{Mutex, lock, time_left};
    #[cfg(loom_models)]
    use loom::sync::Condvar;
    #[cfg(not(loom_models))]
    use std::sync::Condvar;
    use std::sync::PoisonError;
    use std::time::{Duration, Instant};

    /// The time for which a signal of the operating system may go unnoticed by a glancing thread, as it ends no
    /// sleep on this system.
    const LAST_GLANCE: Duration = Duration::from_millis(50);

    #[derive(Debug)]
    pub(crate) struct Signal {
        set: Mutex<bool>,
        changed: Condvar,
    }

    impl Signal {
        pub(crate) fn new() -> Self {
            Self {
                set: Mutex::new(false),
                changed: Condvar::new(),
            }
        }

        pub(crate) fn notify(&self) {
            *lock(&self.set) = true;
            self.changed.notify_one();
        }

        /// Waits for `notify` or the deadline, or returns early.
        pub(crate) fn wait_once(&self, deadline: Option<Instant>) -> Woken {
            let mut set = lock(&self.set);
            if !*set {
                let left = match deadline.map(time_left) {
                    Some(None) => return Woken::Expired,
                    left => left.flatten(),
                };
                // Only a thread that handles signals looks for them. All others sleep on: an idle pool takes no CPU
                // time.
                let glance = GLANCE.get().map(|_| LAST_GLANCE);
                set = match left.into_iter().chain(glance).min() {
                    None => self
                        .changed
                        .wait(set)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(left) => {
                        let waited = self.changed.wait_timeout(set, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
            if std::mem::take(&mut *set) {
                Woken::Notified
            } else {
                Woken::Early
            }
        }

        /// Ends a sleep early.
        #[cfg(loom_models)]
        pub(crate) fn interrupt(&self) {
            // Under the lock: between the look at the flag and the sleep there is no signal.
            let set = lock(&self.set);
            self.changed.notify_one();
            drop(set);
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn only_a_glancing_thread_wakes_before_its_notification() {
        // Longer than any first glance.
        const LONGER: Duration = Duration::from_millis(200);
        let signal = Arc::new(Signal::new());
        let waiting = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.wait_once(None)
        });
        thread::sleep(LONGER);
        signal.notify();
        assert_eq!(waiting.join().unwrap(), Woken::Notified);
        assert_eq!(glancing(|| signal.wait_once(None)), Woken::Early);
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use super::Woken;
    use crate::runtime::explored;
    use crate::runtime::sync::atomic::{AtomicBool, Ordering};
    use crate::runtime::sync::{Arc, thread};

    /// Checks a model in all orders with at most three preemptions.
    fn check_bounded(model: impl Fn() + Send + Sync + 'static) {
        explored::check(Some(3), model);
    }

    /// A flag that is set before a notification. The flag orders no memory by itself: only a taken
    /// notification shows that it was set.
    struct Message<S> {
        signal: S,
        sent: AtomicBool,
    }

    /// Defines the same models for each variant of the signal.
    macro_rules! models {
        ($variant:ident) => {
            mod $variant {
                use super::super::$variant::Signal;
                use super::{
                    Arc, AtomicBool, Message, Ordering, Woken, check_bounded, explored, thread,
                };

                impl Message<Signal> {
                    fn new() -> Arc<Self> {
                        Arc::new(Self {
                            signal: Signal::new(),
                            sent: AtomicBool::new(false),
                        })
                    }

                    fn send(&self) {
                        self.sent.store(true, Ordering::Relaxed);
                        self.signal.notify();
                    }

                    /// Waits for the flag. Returns the number of sleeps.
                    fn receive(&self) -> usize {
                        let mut turns = 0;
                        while !self.sent.load(Ordering::Relaxed) {
                            self.signal.wait_once(None);
                            turns += 1;
                        }
                        turns
                    }
                }

                /// Calls `f` with the message in another thread.
                fn beside(
                    message: &Arc<Message<Signal>>,
                    f: fn(&Message<Signal>),
                ) -> thread::JoinHandle<()> {
                    let message = Arc::clone(message);
                    thread::spawn(move || f(&message))
                }

                #[test]
                fn a_notification_wakes_the_waiting_thread() {
                    explored::check(None, || {
                        let message = Message::new();
                        let sender = beside(&message, Message::send);
                        assert!(message.receive() <= 1);
                        sender.join().unwrap();
                    });
                }

                #[test]
                fn a_notification_from_before_hides_none_that_comes_later() {
                    explored::check(None, || {
                        let message = Message::new();
                        message.signal.notify();
                        let sender = beside(&message, Message::send);
                        assert!(message.receive() <= 2);
                        sender.join().unwrap();
                    });
                }

                #[test]
                fn a_notification_that_comes_beside_another_is_not_lost() {
                    check_bounded(|| {
                        let message = Message::new();
                        let other = beside(&message, |message| message.signal.notify());
                        let sender = beside(&message, Message::send);
                        message.receive();
                        other.join().unwrap();
                        sender.join().unwrap();
                    });
                }

                #[test]
                fn a_signal_of_the_system_that_ends_the_sleep_loses_no_notification() {
                    check_bounded(|| {
                        let message = Message::new();
                        message.signal.notify();
                        let system = beside(&message, |message| message.signal.interrupt());
                        let sender = beside(&message, Message::send);
                        message.receive();
                        system.join().unwrap();
                        sender.join().unwrap();
                    });
                }

                #[test]
                fn a_wait_whose_time_is_over_leaves_the_notification_to_the_next() {
                    explored::check(None, || {
                        let message = Message::new();
                        let sender = beside(&message, Message::send);
                        // In models, every deadline has passed.
                        let first = message.signal.wait_once(Some(std::time::Instant::now()));
                        assert_ne!(first, Woken::Early);
                        message.receive();
                        sender.join().unwrap();
                    });
                }
            }
        };
    }

    models!(by_futex);
    models!(by_lock);
}
