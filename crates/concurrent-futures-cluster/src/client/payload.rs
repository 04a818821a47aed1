//! Payloads that are too long for a message: arguments that were stored, and values that are fetched.

#![forbid(unsafe_code)]

use super::{Arrived, Client, Entry, Stage};
use crate::bus::{INLINE, StoreKey};
use crate::log;
use crate::wire::hash_of_payload;
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
            let length = entry.request.argument.len() as u64;
            // Another task may have the same argument.
            let is_shared = self.lock().entries.values().any(|other| {
                // One without a hash is not stored yet.
                other.request.hash.get() == Some(entry.request.hash())
            });
            if !is_shared {
                self.discard(self.object(entry.request.hash(), length));
            }
        }
    }

    /// Names the object of a payload.
    pub(super) fn object(&self, hash: &[u8; 32], length: u64) -> StoreKey {
        StoreKey::object(&self.lane.queue, self.session, hash, length)
    }

    /// Removes a payload that is not needed any more. Those of kept sessions go by their age.
    fn discard(self: &Arc<Self>, store_key: StoreKey) {
        if self.settings.kept.is_some() {
            return;
        }
        tokio::spawn(Arc::clone(self).remove_stored(store_key));
    }

    /// Removes a stored value, also if the connection breaks meanwhile.
    pub(super) async fn remove_stored(self: Arc<Self>, store_key: StoreKey) {
        let mut pauses = REMOVALS.into_iter();
        while let Err(error) = self.bus.forget(&store_key).await {
            log::trouble("a stored value could not be removed", &error);
            // Without further tries, it goes by its age.
            let Some(pause) = pauses.next() else { return };
            sleep(pause).await;
        }
    }

    /// Fetches a part of the value of a task from the stream of payloads. The value has it as well.
    pub(super) fn fetch_part(
        self: &Arc<Self>,
        number: u64,
        first: u64,
        wanted: [u8; 32],
        length: u64,
    ) {
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let store_key = client.object(&wanted, length);
            for attempt in 0..4_u32 {
                match client.bus.fetch(&store_key).await {
                    Ok(Some(bytes))
                        if bytes.len() as u64 == length && hash_of_payload(&bytes) == wanted =>
                    {
                        if let Some(entry) = client.lock().entries.get(&number) {
                            entry.sink.take_part(first, bytes);
                        }
                        break;
                    }
                    Ok(_) => break,
                    Err(error) => log::trouble("a part of a value could not be fetched", &error),
                }
                sleep(Duration::from_millis(50 << attempt)).await;
            }
            client.discard(store_key);
        });
    }

    /// Fetches the value of a task from the stream of payloads, and completes it.
    pub(super) fn fetch(self: &Arc<Self>, number: u64, wanted: [u8; 32], length: u64) {
        {
            let mut state = self.lock();
            let Some(entry) = state.entries.get_mut(&number) else {
                drop(state);
                // A second outcome. If another task has the same value, and did not fetch it yet, it runs again.
                self.discard(self.object(&wanted, length));
                return;
            };
            if entry.stage == Stage::Fetching {
                return;
            }
            state.set_stage(number, Stage::Fetching);
        }
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let store_key = client.object(&wanted, length);
            for attempt in 0..4_u32 {
                match client.bus.fetch(&store_key).await {
                    Ok(Some(bytes))
                        if bytes.len() as u64 == length && hash_of_payload(&bytes) == wanted =>
                    {
                        let removed = client.remove(&mut client.lock(), number);
                        if let Some(entry) = removed {
                            client.clean_up(&entry);
                            entry.sink.complete(Arrived::Value(bytes));
                        }
                        client.discard(store_key);
                        return;
                    }
                    Ok(_) => break,
                    Err(error) => log::trouble("a value could not be fetched", &error),
                }
                sleep(Duration::from_millis(50 << attempt)).await;
            }
            // The server lost it: the task runs again. The first outcome in the store would stay.
            if client.settings.kept.is_some() {
                let store_key = StoreKey::outcome(&client.lane.queue, client.session, number);
                Arc::clone(&client).remove_stored(store_key).await;
            }
            client.submit_again(number);
        });
    }
}
