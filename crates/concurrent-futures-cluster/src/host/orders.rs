//! The orders of clients: to run a task, to give it up, or to end it.

#![forbid(unsafe_code)]

use super::report::News;
use super::state::Host;
use crate::bus::{Note, Notes};
use crate::log;
use crate::wire::{Answer, Id, Kind, Order, Outcome, TaskId, What, Why};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

impl Host {
    /// Obeys the orders that come on a subject.
    pub(super) async fn listen(self: Arc<Self>, subject: String, mut notes: Notes) {
        let is_own = subject == self.subject();
        while let Some(note) = notes.recv().await {
            let opened =
                self.settings
                    .seal
                    .open::<Order>(Kind::Order, subject.as_bytes(), &note.payload);
            let (task, what) = match opened {
                Ok(Order::Task { task, what }) => (task, what),
                Ok(Order::Run {
                    environment,
                    priority,
                    parcel,
                }) => {
                    // At once: an order about a task of the parcel may be the next one.
                    let session = parcel.id.session;
                    match self.take_directly(&environment, priority, parcel) {
                        Some(Answer::Taken) => self.answer_later(session, note),
                        Some(answer) => self.answer(note, answer).await,
                        None => {}
                    }
                    continue;
                }
                Err(refused) => {
                    log::refused("an order", &refused);
                    continue;
                }
            };
            let host = Arc::clone(&self);
            self.spawn(async move {
                let answer = host.obey(task, what).await;
                // A host that was not meant says nothing, so that the answer is that of the one which was.
                if is_own || answer != Answer::Unknown {
                    host.answer(note, answer).await;
                }
            });
        }
    }

    /// Lets the answer that a parcel was taken go together with its outcome, if that comes at once.
    fn answer_later(self: &Arc<Self>, session: Id, note: Note) {
        if let Some(reply) = note.reply {
            let seal = &self.settings.seal;
            let sealed = seal.seal(Kind::Answer, &note.payload, &Answer::Taken);
            self.report(session, News::Taken(reply, sealed));
        }
    }

    async fn answer(&self, note: Note, answer: Answer) {
        let Some(reply) = note.reply else { return };
        let seal = &self.settings.seal;
        let sealed = seal.seal(Kind::Answer, &note.payload, &answer);
        // A client without an answer leaves the task running, or publishes it. The effect of the order is reported as
        // well: by the outcome, or by a report that the task is held, or given back.
        let _ = self.bus.send(&reply, sealed).await;
    }

    async fn obey(self: &Arc<Self>, task: TaskId, what: What) -> Answer {
        loop {
            if let Some(answer) = self.try_to_obey(task, what).await {
                return answer;
            }
        }
    }

    /// Obeys an order. None if the task has come back from the pool meanwhile.
    async fn try_to_obey(self: &Arc<Self>, id: TaskId, what: What) -> Option<Answer> {
        let key = (id.session, id.number);
        let orders = {
            let mut state = self.lock();
            let held = state.held.get_mut(&key).filter(|held| held.id == id);
            let Some(held) = held else {
                let until = Instant::now() + 2 * self.bus.lease();
                state.recalled.insert(id, until);
                return Some(Answer::Unknown);
            };
            if held.task.take().is_some() {
                held.is_returned = true;
                state.leave_ready(key);
                None
            } else if let Some(orders) = &held.orders {
                Some(orders.clone())
            } else {
                // It is being given back.
                return Some(Answer::GivenUp);
            }
        };
        let Some(orders) = orders else {
            // Reported, too, as the answer may be lost.
            self.report(
                id.session,
                News::Ended(id, Outcome::Returned(Why::Recalled), None),
            );
            self.wake();
            return Some(Answer::GivenUp);
        };
        let (sender, answer) = oneshot::channel();
        if orders.send((what, sender)).is_ok()
            && let Ok(answer) = answer.await
        {
            return Some(answer);
        }
        // The task ended meanwhile: with an outcome, or without having begun.
        let state = self.lock();
        match state.held.get(&key).filter(|held| held.id == id) {
            Some(held) if held.is_returned => Some(Answer::GivenUp),
            Some(held) if held.task.is_some() => None,
            _ => Some(Answer::Runs),
        }
    }
}
