//! Tasks that come from their client directly; the client's side has the protocol (`client/direct.rs`).

#![forbid(unsafe_code)]

use super::arrival::is_old;
use super::hold::Arrival;
use super::state::{Host, Source};
use crate::bus::PRIORITIES;
use crate::log;
use crate::wire::{Answer, Parcel};
use std::collections::VecDeque;
use std::sync::Arc;

impl Host {
    /// Reads the server's clock, and again whenever the time may have changed.
    pub(super) async fn keep_time(self: Arc<Self>) {
        let lane = self.lane(Source {
            priority: 0,
            kept: None,
        });
        self.clock.read(&*self.bus, &lane).await;
        self.clock.keep(&*self.bus, &lane).await;
    }

    /// Takes a parcel if a worker is free for its tasks, and holds them like those of the server. Returns no answer to a
    /// second order with the parcel: the client might hear that one first.
    pub(super) fn take_directly(
        self: &Arc<Self>,
        environment: &str,
        priority: u8,
        parcel: Parcel,
    ) -> Option<Answer> {
        let is_ours = environment == self.settings.environment && priority < PRIORITIES;
        // A kept task is for all clients of its session, which look for it on the server.
        if !is_ours || parcel.tasks.iter().any(|task| task.terms.kept.is_some()) {
            return Some(Answer::Refused);
        }
        let now = self.clock.now();
        if now == 0 || is_old(&parcel, now) {
            // Or the time is wrong, or not known.
            self.clock.doubt();
            return Some(Answer::Refused);
        }
        // A refused one is remembered, too, as another host may run it.
        if self.note_seen(parcel.id) {
            log::replayed(&parcel.id);
            return None;
        }
        let has_worker = {
            let state = self.lock();
            let ready: usize = state.ready.iter().map(VecDeque::len).sum();
            let held = state.running + ready + parcel.tasks.len();
            !state.draining && held <= self.slots(&state)
        };
        if !has_worker {
            return Some(Answer::Refused);
        }
        let arrival = Arrival {
            token: None,
            deliveries: 1,
        };
        self.hold(priority, parcel, arrival);
        Some(Answer::Taken)
    }
}
