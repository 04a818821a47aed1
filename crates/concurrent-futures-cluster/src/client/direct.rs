//! Direct dispatch: a lone task goes to a host that is likely to be idle, without a place on the server.
//!
//! A program that waits for each task before the next one waits for messages, and those of the server's work queue are
//! most of them. So a client sends such a task to the host that has brought the last outcome, as an order. A host takes
//! the task if a worker is free for it, and refuses it otherwise. A refused task is published like any other. The answer
//! that the host has the task comes together with the outcome, or after a millisecond. The receipt of that outcome goes
//! together with the next order, or after a millisecond. So a round trip is one write each way. A client that ends
//! sends the last receipt first.
//!
//! To the protocol, a task that a host has taken is one that the server has lost after its delivery:
//! - The host reports that it has the task, and cares for its outcome, as for any other.
//! - A client that hears nothing of the task for a lease looks for an outcome, and then submits the task again, as the
//!   second attempt. No host begins a second attempt unless the client has confirmed that.
//! - A cancellation asks the host, as the client knows where the task is.
//! - A client that does not know whether its message has come publishes the task. The host may have it then, too. So a
//!   cancellation waits for a lease.
//!
//! The order is sealed for its host, and has the time of the server's clock. The host refuses a second order with the
//! same parcel, and an old one: no copy of an order runs a task.

#![forbid(unsafe_code)]

use super::publish::{Next, NextTask, SMALL};
use super::{Client, Place, State};
use crate::bus::BusError;
use crate::log;
use crate::wire::{Answer, Id, Kind, OnHostLoss, Order};
use std::time::Duration;
use tokio::time::Instant;

/// The time for which a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which tasks go by the server after a host has refused one. The host has other work.
const PAUSE: Duration = Duration::from_millis(100);

/// The end of a direct dispatch.
pub(super) enum Dispatched {
    /// The host has the task.
    Taken,
    /// The host does not have the task, and will not.
    Refused,
    /// The host may have the task.
    Unsure,
}

impl Client {
    /// Returns the host to which these tasks go directly; none if they are to be published.
    pub(super) fn direct_host(&self, state: &State, tasks: &[NextTask]) -> Option<Id> {
        let [task] = tasks else { return None };
        let host = state.direct?;
        let workers = state.hosts.get(&host)?.workers;
        let may_go = self.settings.kept.is_none()
            && task.attempt == 1
            && task.request.kind.options.on_host_loss == OnHostLoss::Rerun
            && task.request.argument.len() <= SMALL
            // Without the server's time, a host would refuse the order.
            && self.clock.now() > 0
            && state.backlog.is_empty()
            && state.waiting.is_empty()
            // Each of them may be with that host.
            && state.on_server <= workers
            && state.no_direct_before.is_none_or(|time| time <= Instant::now());
        may_go.then_some(host)
    }

    /// Sends a parcel to a host.
    pub(super) async fn dispatch(&self, host: Id, next: &Next) -> Dispatched {
        // A short argument is a part of the message, and nothing is to be stored.
        let Ok(parcel) = self.parcel(next).await else {
            return Dispatched::Refused;
        };
        let lane = &self.lane;
        let order = Order::Run {
            environment: lane.environment.clone(),
            priority: lane.priority,
            parcel,
        };
        let subject = format!("cf.h.{}.{host}", lane.queue);
        let seal = &self.settings.seal;
        let sealed = seal.seal(Kind::Order, subject.as_bytes(), &order);
        let limit = PATIENCE.min(self.bus.lease() / 3);
        // Without a pause in between, so that the server reads all at once.
        self.send_receipts().await;
        match self.bus.request(&subject, sealed.clone(), limit).await {
            Ok(answer) => match seal.open::<Answer>(Kind::Answer, &sealed, &answer) {
                Ok(Answer::Taken) => Dispatched::Taken,
                Ok(_) => Dispatched::Refused,
                Err(refused) => {
                    log::refused("the answer to an order", &refused);
                    Dispatched::Unsure
                }
            },
            Err(BusError::NoListener) => Dispatched::Refused,
            Err(error) => {
                log::trouble("a host did not answer to an order", &error);
                Dispatched::Unsure
            }
        }
    }

    /// Notes that a host has a parcel.
    pub(super) fn note_dispatched(&self, next: &Next, host: Id) {
        let place = Place {
            number: None,
            serial: next.serial,
        };
        self.note_all_placed(next, place, |entry| {
            entry.holder.get_or_insert(host);
        });
    }

    /// Lets tasks go by the server for some time.
    pub(super) fn pause_direct(&self) {
        let mut state = self.lock();
        state.direct = None;
        state.no_direct_before = Some(Instant::now() + PAUSE);
    }
}
