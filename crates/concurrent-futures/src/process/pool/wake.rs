//! The threads of this process that are awake to receive replies.
//!
//! # Protocol
//! The protocol runs under the pool's lock. The streams' flags are its other half, see `channel/ring.rs`.
//!
//! The supervisor receives replies unless it sleeps. So do *helpers*, threads that wait for a future. While there
//! is a helper, the supervisor does not spin: three spinning threads on two CPUs would keep the worker from its
//! CPU.
//!
//! The flags ask workers for wake-ups if the supervisor sleeps and there is no helper. The thread that brings
//! this about sets the flags, *then* looks once more. A reply that came before wakes no thread, but that look
//! finds it. A wake-up goes to the supervisor; a superfluous wake-up does no harm.
//!
//! One helper may nap: it sleeps on the flag of the one worker that has tasks, for a short time. A thread that
//! changes what the nap relies on (a task for another worker, a second helper) ends the nap.
//!
//! Work that only the supervisor can do is noted as a *change*, and rings if the supervisor sleeps. The
//! supervisor falls asleep only if nothing has changed since it looked.
//!
//! # Invariants
//! 1. While the supervisor sleeps without helpers, all flags are set, and each stream was looked at since.
//! 2. A change is followed by a look of the supervisor.

#![forbid(unsafe_code)]

use crate::process::channel::FutexPark;
use std::mem;
use std::sync::Arc;

/// The streams of all workers.
pub(crate) trait Streams {
    /// Tells workers whether to wake the supervisor when something happens.
    fn set_asleep(&self, asleep: bool);

    /// Returns whether there is something to receive or to write.
    fn has_work(&self) -> bool;
}

/// The wake-up that a change requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum MustWake {
    /// The supervisor sleeps, and is to be woken by its bell.
    Needed,
    /// The supervisor is awake, or about to be.
    NotNeeded,
}

#[derive(Debug, Default)]
pub(crate) struct WakeState {
    helpers: usize,
    /// The nap of the only helper, until its worker replies.
    nap: Option<Arc<FutexPark>>,
    supervisor_sleeps: bool,
    /// Whether the supervisor has not looked since it was to be woken.
    changed: bool,
}

impl WakeState {
    /// Notes that there is something for the supervisor to do.
    pub(crate) fn change(&mut self) -> MustWake {
        self.changed = true;
        if mem::take(&mut self.supervisor_sleeps) {
            MustWake::Needed
        } else {
            MustWake::NotNeeded
        }
    }

    /// Notes that the supervisor begins to look.
    pub(crate) fn look(&mut self) {
        self.changed = false;
    }

    /// Puts the supervisor to sleep. Returns false if it must look again instead.
    #[must_use]
    pub(crate) fn fall_asleep(&mut self, streams: &impl Streams) -> bool {
        if self.changed {
            return false;
        }
        self.supervisor_sleeps = true;
        if self.helpers == 0 {
            streams.set_asleep(true);
            // Once more: a reply that came before has woken no thread.
            if streams.has_work() {
                self.wake_up(streams);
                return false;
            }
        }
        true
    }

    /// Notes that the supervisor was woken.
    pub(crate) fn wake_up(&mut self, streams: &impl Streams) {
        self.supervisor_sleeps = false;
        if self.helpers == 0 {
            streams.set_asleep(false);
        }
    }

    /// Returns whether workers are to wake the supervisor.
    pub(crate) fn needs_wake_ups(&self) -> bool {
        self.supervisor_sleeps && self.helpers == 0
    }

    /// Counts a helper, which begins to receive: workers need not wake the supervisor.
    pub(crate) fn enter(&mut self, streams: &impl Streams) {
        self.end_nap();
        if self.needs_wake_ups() {
            streams.set_asleep(false);
        }
        self.helpers += 1;
    }

    /// Uncounts a helper, which ends.
    pub(crate) fn leave(&mut self, streams: &impl Streams) -> MustWake {
        self.helpers -= 1;
        if self.needs_wake_ups() {
            streams.set_asleep(true);
            // Once more: a reply that came before has woken no thread.
            if streams.has_work() {
                return self.change();
            }
        }
        MustWake::NotNeeded
    }

    /// Returns whether there is a helper.
    pub(crate) fn has_helper(&self) -> bool {
        self.helpers > 0
    }

    /// Returns whether a helper may nap. (While a helper is there, the supervisor leaves the flags alone. If
    /// the supervisor receives the reply, the worker has ended the nap with it.)
    pub(crate) fn lets_nap(&self) -> bool {
        self.helpers == 1
    }

    /// Notes that a helper naps. (The helper has looked once more after the nap was prepared.)
    pub(crate) fn begin_nap(&mut self, nap: FutexPark) -> Arc<FutexPark> {
        let nap = Arc::new(nap);
        self.nap = Some(Arc::clone(&nap));
        nap
    }

    /// Ends the nap, if there is one.
    pub(crate) fn end_nap(&mut self) {
        if let Some(nap) = self.nap.take() {
            nap.end();
        }
    }
}
