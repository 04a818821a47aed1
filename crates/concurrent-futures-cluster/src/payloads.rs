//! Payloads that are too long for a message: in the server's stream of payloads, or in an object store.

#![forbid(unsafe_code)]

use crate::bus::{Bus, BusError, INLINE, StoreKey};
use crate::error::ObjectStoreError;
use crate::objects::{Name, Objects};
use crate::wire::{Id, Payload, hash_of_payload};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The reason why a payload cannot be stored, or fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Store(#[from] ObjectStoreError),
}

/// The payloads of the tasks of a client, or of a host.
pub(crate) struct Payloads {
    bus: Arc<dyn Bus>,
    objects: Option<Arc<Objects>>,
}

impl Payloads {
    pub(crate) fn new(bus: Arc<dyn Bus>, objects: Option<Arc<Objects>>) -> Self {
        Self { bus, objects }
    }

    /// Makes the payload of bytes, whose hash is computed only if it is needed.
    pub(crate) fn of(&self, bytes: &Bytes, hash: impl FnOnce() -> [u8; 32]) -> Payload {
        let length = bytes.len() as u64;
        if bytes.len() <= INLINE {
            Payload::Inline(bytes.clone())
        } else if self
            .objects
            .as_ref()
            .is_some_and(|objects| objects.takes(length))
        {
            Payload::Elsewhere {
                hash: hash(),
                length,
            }
        } else {
            Payload::Object {
                hash: hash(),
                length,
            }
        }
    }

    fn objects(&self, length: u64) -> Result<&Objects, ObjectStoreError> {
        self.objects
            .as_deref()
            .ok_or_else(|| ObjectStoreError::none(length))
    }

    /// Stores the bytes of a payload, for some time if there is one.
    pub(crate) async fn keep(
        &self,
        queue: &str,
        session: Id,
        payload: &Payload,
        bytes: Bytes,
        age: Option<Duration>,
    ) -> Result<(), PayloadError> {
        match payload {
            Payload::Inline(_) => {}
            Payload::Object { hash, length } => {
                let store_key = StoreKey::object(queue, session, hash, *length);
                match age {
                    None => self.bus.keep(&store_key, bytes).await?,
                    Some(age) => self.bus.keep_for(&store_key, bytes, age).await?,
                };
            }
            Payload::Elsewhere { hash, length } => {
                let name = name(queue, session, hash);
                self.objects(*length)?.put(&name, bytes).await?;
            }
        }
        Ok(())
    }

    /// Fetches the bytes of a payload; none if they are lost, or others are in their place.
    pub(crate) async fn fetch(
        &self,
        queue: &str,
        session: Id,
        payload: &Payload,
    ) -> Result<Option<Bytes>, PayloadError> {
        let (wanted, length, found) = match payload {
            Payload::Inline(bytes) => return Ok(Some(bytes.clone())),
            Payload::Object { hash, length } => {
                let store_key = StoreKey::object(queue, session, hash, *length);
                (hash, *length, self.bus.fetch(&store_key).await?)
            }
            Payload::Elsewhere { hash, length } => {
                let name = name(queue, session, hash);
                (
                    hash,
                    *length,
                    self.objects(*length)?.get(&name, *length).await?,
                )
            }
        };
        let is_right =
            |bytes: &Bytes| bytes.len() as u64 == length && hash_of_payload(bytes) == *wanted;
        Ok(found.filter(is_right))
    }

    /// Removes a payload that was stored.
    pub(crate) async fn forget(
        &self,
        queue: &str,
        session: Id,
        payload: &Payload,
    ) -> Result<(), PayloadError> {
        match payload {
            Payload::Inline(_) => {}
            Payload::Object { hash, length } => {
                let store_key = StoreKey::object(queue, session, hash, *length);
                self.bus.forget(&store_key).await?;
            }
            Payload::Elsewhere { hash, length } => {
                let name = name(queue, session, hash);
                self.objects(*length)?.delete(&name).await?;
            }
        }
        Ok(())
    }

    /// Removes the objects of a kept session; those on the server are removed with it.
    pub(crate) async fn forget_all(
        &self,
        queue: &str,
        session: Id,
    ) -> Result<(), ObjectStoreError> {
        match &self.objects {
            Some(objects) => objects.delete_all(queue, session).await,
            None => Ok(()),
        }
    }
}

fn name(queue: &str, session: Id, hash: &[u8; 32]) -> Name {
    Name {
        queue: queue.to_owned(),
        session,
        hash: *hash,
    }
}
