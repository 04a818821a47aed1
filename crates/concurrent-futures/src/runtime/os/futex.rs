//! A futex: a word on which threads sleep.
//!
//! # Contract
//! [`Futex::sleep`] compares the word and begins to sleep in one step. A thread that changes the word and
//! then calls [`Futex::wake`] is either seen by the comparison, or wakes the sleeper. The system orders both
//! calls as if each were made under a lock of the word.
//!
//! A sleep may also end early: when a signal of the operating system is delivered to the thread,
//! or for no reason.
//!
//! # Words that processes share
//! Some systems have no sleep on these, and some sandboxes refuse it. [`is_shared`] tells. A thread that sleeps all the
//! same is woken at once. Both sides of a channel may have found out differently: naps end after a short time anyway.
//!
//! Models replace the two system calls, and nothing else: a lock stands for the system's, and a
//! condition variable for its list of sleepers. Time does not pass in models.

#![forbid(unsafe_code)]

use crate::runtime::sync::atomic::AtomicU32;
use std::time::Duration;

/// The threads that may use the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The threads of this process.
    Process,
    /// The threads of all processes that map the memory of the word.
    Memory,
}

/// The result of a sleep.
#[cfg_attr(
    loom_models,
    expect(dead_code, reason = "time does not pass in models")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The word had another value, or the sleeper was woken, or the system ended the sleep early.
    Woken,
    /// The time is over.
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

/// Returns whether threads can sleep on a word that processes share.
#[cfg(feature = "process")]
pub(crate) fn is_shared() -> bool {
    #[cfg(all(target_os = "linux", not(loom_models)))]
    return !crate::runtime::os::backend::is_portable() && !system::is_refused();
    #[cfg(not(all(target_os = "linux", not(loom_models))))]
    return cfg!(loom_models);
}

#[cfg(all(target_os = "linux", not(loom_models)))]
mod system {
    use super::{Duration, Futex, Scope, Slept};
    use rustix::{
        io::Errno,
        thread::{Timespec, futex},
    };
    use std::sync::atomic::{AtomicBool, Ordering};

    impl Futex {
        /// Sleeps while the word has this value, until the thread is woken or the time is over.
        pub(crate) fn sleep(&self, value: u32, limit: Option<Duration>, scope: Scope) -> Slept {
            // A limit that the system cannot tell is none.
            let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
            match futex::wait(&self.word, scope.flags(), value, limit.as_ref()) {
                Err(Errno::TIMEDOUT) => Slept::Expired,
                // The word has another value, or a signal came.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Slept::Woken,
                Err(error) => {
                    scope.note_refusal(error);
                    Slept::Woken
                }
            }
        }

        /// Wakes one thread that sleeps on the word.
        pub(crate) fn wake(&self, scope: Scope) {
            if let Err(error) = futex::wake(&self.word, scope.flags(), 1) {
                scope.note_refusal(error);
            }
        }
    }

    /// Whether the system has refused a call for a word that processes share.
    static IS_REFUSED: AtomicBool = AtomicBool::new(false);

    #[cfg(feature = "process")]
    pub(super) fn is_refused() -> bool {
        // ORDERING: Relaxed, here and below: a hint.
        IS_REFUSED.load(Ordering::Relaxed)
    }

    impl Scope {
        fn flags(self) -> futex::Flags {
            match self {
                Self::Process => futex::Flags::PRIVATE,
                Self::Memory => futex::Flags::empty(),
            }
        }

        fn note_refusal(self, error: Errno) {
            if self == Self::Memory && !IS_REFUSED.swap(true, Ordering::Relaxed) {
                #[cfg(feature = "process")]
                crate::runtime::os::fallback::note(crate::runtime::os::fallback::Job::Naps, &error);
                #[cfg(not(feature = "process"))]
                let _ = error;
            }
        }
    }
}

/// Words on which no thread sleeps, as [`is_shared`] says so, and threads of one process sleep in another way.
#[cfg(not(any(target_os = "linux", loom_models)))]
impl Futex {
    pub(crate) fn sleep(&self, _: u32, _: Option<Duration>, _: Scope) -> Slept {
        Slept::Woken
    }

    pub(crate) fn wake(&self, _: Scope) {}
}

#[cfg(loom_models)]
mod model {
    use super::{Duration, Futex, Scope, Slept};
    use crate::runtime::sync::atomic::Ordering;
    use crate::runtime::sync::{Mutex, lock};
    use loom::sync::Condvar;
    use std::sync::PoisonError;

    /// The threads that sleep on a word, as the system lists them under its lock.
    #[derive(Debug)]
    pub(crate) struct Sleepers(Mutex<()>, Condvar);

    impl Sleepers {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(()), Condvar::new())
        }
    }

    impl Futex {
        pub(crate) fn sleep(&self, value: u32, _: Option<Duration>, _: Scope) -> Slept {
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
