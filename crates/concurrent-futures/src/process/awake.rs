//! Who of this process is awake to receive what workers send.
//!
//! # Protocol
//! All of it is under the pool's lock; the streams' flags are the other half, see
//! `channel/ring.rs`.
//!
//! The supervisor receives, unless it sleeps; so do *helpers*, threads that wait for a
//! future. If there is one, the supervisor has no reason to wait awake: three who do on two
//! CPUs would keep the worker from its. The flags ask workers for wake-ups if the supervisor sleeps and there is no helper:
//! whoever makes that so sets them, *then* looks once more, and what came before wakes nobody
//! but is seen by that look. A wake-up goes to the supervisor; one too many does no harm.
//!
//! One helper may nap: it sleeps on the flag of the one worker that has tasks, for a short
//! time. Whoever changes what it relies on (a task for another worker, a second helper) ends
//! the nap.
//!
//! Whatever the supervisor alone can do is noted as a *change*, and rings if it sleeps. It
//! falls asleep only if nothing has changed since it looked.
//!
//! # Invariants
//! 1. While the supervisor sleeps without helpers, all flags are set, and each was looked at
//!    since.
//! 2. A change is followed by a look of the supervisor.

#![forbid(unsafe_code)]

use super::channel::Nap;
use std::mem;
use std::sync::Arc;

/// The streams of all workers.
pub(super) trait Streams {
    /// Has workers wake the supervisor when something happens, or not.
    fn set_asleep(&self, asleep: bool);

    /// Whether there is something to receive or to write.
    fn has_work(&self) -> bool;
}

/// What the supervisor has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Ring {
    /// It sleeps, and is to be woken by its bell.
    Needed,
    /// It is awake, or about to be.
    NotNeeded,
}

#[derive(Debug, Default)]
pub(super) struct Awake {
    helpers: usize,
    /// The only helper naps, until its worker answers.
    nap: Option<Arc<Nap>>,
    supervisor_sleeps: bool,
    /// Whether the supervisor has not looked since it was to be woken.
    changed: bool,
}

impl Awake {
    /// There is something for the supervisor to do.
    pub(super) fn change(&mut self) -> Ring {
        self.changed = true;
        if mem::take(&mut self.supervisor_sleeps) {
            Ring::Needed
        } else {
            Ring::NotNeeded
        }
    }

    /// The supervisor begins to look.
    pub(super) fn look(&mut self) {
        self.changed = false;
    }

    /// The supervisor is about to sleep. False if it must look again instead.
    #[must_use]
    pub(super) fn fall_asleep(&mut self, streams: &impl Streams) -> bool {
        if self.changed {
            return false;
        }
        self.supervisor_sleeps = true;
        if self.helpers == 0 {
            streams.set_asleep(true);
            // Once more: what came before wakes nobody.
            if streams.has_work() {
                self.wake_up(streams);
                return false;
            }
        }
        true
    }

    /// The supervisor was woken.
    pub(super) fn wake_up(&mut self, streams: &impl Streams) {
        self.supervisor_sleeps = false;
        if self.helpers == 0 {
            streams.set_asleep(false);
        }
    }

    /// Whether workers are to wake the supervisor.
    pub(super) fn needs_wake_ups(&self) -> bool {
        self.supervisor_sleeps && self.helpers == 0
    }

    /// A helper begins to receive: workers need not wake anybody.
    pub(super) fn enter(&mut self, streams: &impl Streams) {
        self.end_nap();
        if self.needs_wake_ups() {
            streams.set_asleep(false);
        }
        self.helpers += 1;
    }

    /// A helper ends.
    pub(super) fn leave(&mut self, streams: &impl Streams) -> Ring {
        self.helpers -= 1;
        if self.needs_wake_ups() {
            streams.set_asleep(true);
            // Once more: what came before wakes nobody.
            if streams.has_work() {
                return self.change();
            }
        }
        Ring::NotNeeded
    }

    /// Whether there is a helper.
    pub(super) fn has_helper(&self) -> bool {
        self.helpers > 0
    }

    /// Whether a helper may nap. (While there is one, the supervisor leaves the flags alone.
    /// Should it receive the answer, the nap has ended with that: the worker ends it.)
    pub(super) fn lets_nap(&self) -> bool {
        self.helpers == 1
    }

    /// A helper naps. (It has looked once more after the nap was prepared.)
    pub(super) fn begin_nap(&mut self, nap: Nap) -> Arc<Nap> {
        let nap = Arc::new(nap);
        self.nap = Some(Arc::clone(&nap));
        nap
    }

    /// Ends the nap, if there is one.
    pub(super) fn end_nap(&mut self) {
        if let Some(nap) = self.nap.take() {
            nap.end();
        }
    }
}
