//! A wake-up for one thread.
//!
//! `wait` returns after `notify`, whichever came first. Where the system has
//! futexes it is one word; elsewhere, and under loom, a flag with a lock.
//!
//! A sleep in [`Signal::wait_once`] also ends when the operating system delivers a
//! signal to the thread, so that a language runtime can run its handler.

#![forbid(unsafe_code)]

use crate::sync::Arc;
use std::time::Instant;

#[cfg(all(target_os = "linux", not(loom_models)))]
pub(crate) use futex::Signal;
#[cfg(not(all(target_os = "linux", not(loom_models))))]
pub(crate) use locked::Signal;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// By `notify`, whose notification is taken.
    Notified,
    /// The deadline has passed.
    Expired,
    /// A signal of the operating system came, or nothing at all.
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

    /// The signal of the calling thread, for what it waits for one after the other.
    /// A notification may be left in it from before.
    pub(crate) fn of_this_thread() -> Arc<Self> {
        #[cfg(not(loom_models))]
        {
            thread_local! {
                static SIGNAL: Arc<Signal> = Arc::new(Signal::new());
            }
            SIGNAL
                .try_with(Arc::clone)
                .unwrap_or_else(|_| Arc::new(Self::new()))
        }
        #[cfg(loom_models)]
        Arc::new(Self::new())
    }
}

#[cfg(all(target_os = "linux", not(loom_models)))]
mod futex {
    use super::Woken;
    use crate::sync::time_left;
    use rustix::io::Errno;
    use rustix::thread::futex;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    const EMPTY: u32 = 0;
    const NOTIFIED: u32 = 1;
    const WAITING: u32 = 2;

    #[derive(Debug)]
    pub(crate) struct Signal(AtomicU32);

    impl Signal {
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(EMPTY))
        }

        pub(crate) fn notify(&self) {
            // ORDERING: Release, so that who takes the notification sees what came
            // before it.
            if self.0.swap(NOTIFIED, Ordering::Release) == WAITING {
                // It fails for an address that is no word, which ours is.
                let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
            }
        }

        /// Waits for `notify`, the deadline, or less.
        pub(crate) fn wait_once(&self, deadline: Option<Instant>) -> Woken {
            // ORDERING: Acquire pairs with the Release in `notify`.
            if self
                .0
                .compare_exchange(EMPTY, WAITING, Ordering::Acquire, Ordering::Acquire)
                .is_err()
            {
                self.0.store(EMPTY, Ordering::Relaxed);
                return Woken::Notified;
            }
            let expired = match deadline.map(time_left) {
                Some(None) => true,
                left => {
                    let timeout = left.flatten().and_then(|left| left.try_into().ok());
                    let slept =
                        futex::wait(&self.0, futex::Flags::PRIVATE, WAITING, timeout.as_ref());
                    slept == Err(Errno::TIMEDOUT)
                }
            };
            // ORDERING: Acquire, as above.
            match self.0.swap(EMPTY, Ordering::Acquire) {
                NOTIFIED => Woken::Notified,
                _ if expired => Woken::Expired,
                _ => Woken::Early,
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", not(loom_models))))]
mod locked {
    use super::Woken;
    use crate::sync::{Mutex, lock, time_left};
    #[cfg(loom_models)]
    use loom::sync::Condvar;
    #[cfg(not(loom_models))]
    use std::sync::Condvar;
    use std::sync::PoisonError;
    use std::time::{Duration, Instant};

    /// How long a signal of the operating system may go unnoticed: there is no way to
    /// be woken by one.
    const GLANCE: Duration = Duration::from_millis(50);

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

        /// Waits for `notify`, the deadline, or less.
        pub(crate) fn wait_once(&self, deadline: Option<Instant>) -> Woken {
            let mut set = lock(&self.set);
            if !*set {
                let left = match deadline.map(time_left) {
                    Some(None) => return Woken::Expired,
                    left => left.flatten(),
                };
                set = if cfg!(loom_models) && left.is_none() {
                    // Loom has no clock.
                    self.changed
                        .wait(set)
                        .unwrap_or_else(PoisonError::into_inner)
                } else {
                    let glance = left.map_or(GLANCE, |left| left.min(GLANCE));
                    self.changed
                        .wait_timeout(set, glance)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                };
            }
            if std::mem::take(&mut *set) {
                Woken::Notified
            } else {
                Woken::Early
            }
        }
    }
}
