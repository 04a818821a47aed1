//! Payloads that are too long for a message: arguments that were stored, and values that are fetched.

#![forbid(unsafe_code)]

use super::{Arrived, Client, Entry, Stage, failed};
use crate::bus::{INLINE, StoreKey};
use crate::log;
use crate::payloads::PayloadError;
use crate::wire::Payload;
use concurrent_futures::engine::RemoteRun;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The pauses after which the removal of a stored value is tried again.
const REMOVALS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

impl Client {
    /// Removes the object of an argument.
    pub(super) fn clean_up(self: &Arc<Self>, entry: &Entry) {
        // That of a kept task is for later clients as well.
        if self.settings.kept.is_none() && entry.request.argument.len() > INLINE {
            // Another task may have the same argument.
            let is_shared = self.lock().entries.values().any(|other| {
                // One without a hash is not stored yet.
                other.request.hash.get().map(Box::as_ref) == Some(entry.request.hash())
            });
            if !is_shared {
                self.discard(self.payload_of(&entry.request));
            }
        }
    }

    /// Removes a payload that is not needed any more. Those of kept sessions go by their age.
    fn discard(self: &Arc<Self>, payload: Payload) {
        if self.settings.kept.is_some() {
            return;
        }
        let client = Arc::clone(self);
        self.spawn("removes payloads", async move {
            let (queue, session) = (&client.lane.queue, client.session);
            patiently(|| client.payloads.forget(queue, session, &payload)).await;
        });
    }

    /// Removes a stored value, also if the connection breaks meanwhile.
    pub(super) async fn remove_stored(self: Arc<Self>, store_key: StoreKey) {
        patiently(|| self.bus.forget(&store_key)).await;
    }

    /// Fetches a part of the value of a task from where long payloads are. The value has it as well.
    pub(super) fn fetch_part(self: &Arc<Self>, number: u64, first: u64, payload: Payload) {
        let client = Arc::clone(self);
        self.spawn("fetches parts of values", async move {
            for attempt in 0..4_u32 {
                let (queue, session) = (&client.lane.queue, client.session);
                match client.payloads.fetch(queue, session, &payload).await {
                    Ok(Some(bytes)) => {
                        if let Some(entry) = client.lock().entries.get(&number) {
                            entry.sink.take_part(first, bytes);
                        }
                        break;
                    }
                    Ok(None) => break,
                    Err(error) => log::trouble("a part of a value could not be fetched", &error),
                }
                sleep(Duration::from_millis(50 << attempt)).await;
            }
            client.discard(payload);
        });
    }

    /// Fetches the value of a task from where long payloads are, and completes the task.
    pub(super) fn fetch(self: &Arc<Self>, number: u64, payload: Payload, run: Option<RemoteRun>) {
        {
            let mut state = self.lock();
            let Some(entry) = state.entries.get_mut(&number) else {
                drop(state);
                // A second outcome. If another task has the same value, and did not fetch it yet, it runs again.
                self.discard(payload);
                return;
            };
            if entry.stage == Stage::Fetching {
                return;
            }
            state.set_stage(number, Stage::Fetching);
        }
        let client = Arc::clone(self);
        self.spawn("fetches values", async move {
            let mut trouble = None;
            for attempt in 0..4_u32 {
                let (queue, session) = (&client.lane.queue, client.session);
                match client.payloads.fetch(queue, session, &payload).await {
                    Ok(Some(bytes)) => {
                        client.end_fetched(number, Arrived::Value(bytes), run);
                        client.discard(payload);
                        return;
                    }
                    Ok(None) => {
                        trouble = None;
                        break;
                    }
                    Err(error) => {
                        log::trouble("a value could not be fetched", &error);
                        trouble = Some(error);
                    }
                }
                sleep(Duration::from_millis(50 << attempt)).await;
            }
            // The value is there, and would be next time, too.
            if let Some(PayloadError::Store(error)) = trouble {
                return client.end_fetched(number, Arrived::Error(failed(error)), run);
            }
            // The server lost it: the task runs again. The first outcome in the store would stay.
            if client.settings.kept.is_some() {
                let store_key = StoreKey::outcome(&client.lane.queue, client.session, number);
                Arc::clone(&client).remove_stored(store_key).await;
            }
            client.submit_again(number);
        });
    }

    /// Completes a task whose value was fetched, or cannot be.
    fn end_fetched(self: &Arc<Self>, number: u64, arrived: Arrived, run: Option<RemoteRun>) {
        let removed = self.remove_done(&mut self.lock(), number, run.as_ref());
        if let Some(entry) = removed {
            self.clean_up(&entry);
            entry.complete(arrived, run);
        }
    }
}

/// Removes a stored value, and tries again some times if that fails.
async fn patiently<F, E>(remove: impl Fn() -> F)
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut pauses = REMOVALS.into_iter();
    while let Err(error) = remove().await {
        log::trouble("a stored value could not be removed", &error);
        // Without further tries, it goes by its age.
        let Some(pause) = pauses.next() else { return };
        sleep(pause).await;
    }
}
