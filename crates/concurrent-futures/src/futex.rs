//! A word on which threads sleep, by the futexes of the system.
//!
//! # Contract
//! [`Futex::sleep`] compares the word and begins to sleep in one step: a thread that changes the
//! word and then calls [`Futex::wake`] is either seen by the comparison, or wakes the sleeper. The
//! system orders both calls as if each were made under a lock of the word.
//!
//! A sleep may also end early: when a signal of the operating system is delivered to the thread,
//! or for no reason.
//!
//! Models replace the two system calls, and nothing else: a lock stands for the system's, and a
//! condition variable for its list of sleepers. Time does not pass in models.

#![forbid(unsafe_code)]

use crate::sync::atomic::AtomicU32;
use rustix::thread::Timespec;

/// Which threads may use the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of this process.
    Process,
    /// Those of all processes that map its memory.
    Memory,
}

/// How a sleep ended.
#[cfg_attr(
    loom_models,
    expect(dead_code, reason = "time does not pass in models")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The word had another value, or the sleeper was woken, or nothing happened at all.
    Woken,
    /// The time was over.
    Expired,
}

/// A word on which threads can sleep.
#[derive(Debug)]
#[cfg_attr(not(loom_models), repr(transparent))]
pub(crate) struct Futex {
    word: AtomicU32,
    #[cfg(loom_models)]
    sleepers: model::Sleepers,
}

impl Futex {
    pub(crate) fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            #[cfg(loom_models)]
            sleepers: model::Sleepers::new(),
        }
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

#[cfg(not(loom_models))]
impl Futex {
    /// Sleeps while the word has this value, until it is woken or the time is over.
    pub(crate) fn sleep(&self, value: u32, limit: Option<&Timespec>, scope: Scope) -> Slept {
        match futex::wait(&self.word, scope.flags(), value, limit) {
            Err(Errno::TIMEDOUT) => Slept::Expired,
            // An error means that the word has another value, or that a signal came.
            Ok(()) | Err(_) => Slept::Woken,
        }
    }

    /// Wakes one thread that sleeps on the word.
    pub(crate) fn wake(&self, scope: Scope) {
        // The call fails for an address that is no word, which ours is.
        let _ = futex::wake(&self.word, scope.flags(), 1);
    }
}

#[cfg(not(loom_models))]
use rustix::{io::Errno, thread::futex};

#[cfg(not(loom_models))]
impl Scope {
    fn flags(self) -> futex::Flags {
        match self {
            Self::Process => futex::Flags::PRIVATE,
            Self::Memory => futex::Flags::empty(),
        }
    }
}

#[cfg(loom_models)]
mod model {
    use super::{Futex, Scope, Slept, Timespec};
    use crate::sync::atomic::Ordering;
    use crate::sync::{Mutex, lock};
    use loom::sync::Condvar;
    use std::sync::PoisonError;

    /// The system's list of those who sleep on a word, under the system's lock.
    #[derive(Debug)]
    pub(super) struct Sleepers(Mutex<()>, Condvar);

    impl Sleepers {
        pub(super) fn new() -> Self {
            Self(Mutex::new(()), Condvar::new())
        }
    }

    impl Futex {
        pub(crate) fn sleep(&self, value: u32, _: Option<&Timespec>, _: Scope) -> Slept {
            let Sleepers(list, woken) = &self.sleepers;
            let guard = lock(list);
            // The system compares the newest value, which a plain load of loom need not be.
            if self.word.fetch_add(0, Ordering::Relaxed) == value {
                drop(woken.wait(guard).unwrap_or_else(PoisonError::into_inner));
            }
            Slept::Woken
        }

        pub(crate) fn wake(&self, _: Scope) {
            let Sleepers(list, woken) = &self.sleepers;
            let guard = lock(list);
            woken.notify_one();
            drop(guard);
        }

        /// Ends a sleep early, as a signal of the operating system does. A signal that comes
        /// before the sleep does nothing.
        pub(crate) fn interrupt(&self) {
            self.wake(Scope::Process);
        }
    }
}
