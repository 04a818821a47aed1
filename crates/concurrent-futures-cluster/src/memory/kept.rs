//! The calls of the server for kept sessions.

use super::{Memory, State, Stored};
use crate::bus::kept::{Claimed, Found, KeptBus, KeptTask, Listed, kept_of};
use crate::bus::{BusError, Lane, Later, StoreKey};
use crate::wire::Id;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

impl Memory {
    /// Makes a call of the stores of kept sessions.
    async fn call_kept<T>(&self, effect: impl FnOnce(&mut State) -> T) -> Result<T, BusError> {
        let done = self.call(|state| state.has_kept.then(|| effect(state)));
        done.await?.ok_or(BusError::NoListener)
    }
}

impl KeptBus for Memory {
    fn ensure_kept<'a>(&'a self, _: &'a str, _: usize) -> Later<'a, bool> {
        Box::pin(self.call(|state| !std::mem::replace(&mut state.has_kept, true)))
    }

    fn has_kept<'a>(&'a self, _: &'a str) -> Later<'a, bool> {
        Box::pin(self.call(|state| state.has_kept))
    }

    fn push_kept<'a>(
        &'a self,
        lane: &'a Lane,
        task: KeptTask,
        id: &'a str,
        frame: Bytes,
        _: Duration,
    ) -> Later<'a, u64> {
        Box::pin(self.call_kept(move |state| {
            if let Some(number) = state.ids.get(id) {
                return *number;
            }
            let subject = Some(task.subject(lane));
            state.tasks.retain(|_, stored| stored.subject != subject);
            let published = state.clock + self.server.age();
            let mut stored = Stored::new(lane, id, frame, published);
            stored.subject = subject;
            state.store(stored)
        }))
    }

    fn find<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, Option<Found>> {
        Box::pin(self.call_kept(move |state| {
            let subject = Some(task.subject(lane));
            let mut tasks = state.tasks.iter();
            let found = tasks.find(|(_, stored)| stored.subject == subject);
            found.map(|(number, stored)| Found {
                number: *number,
                id: stored.id.clone(),
                frame: stored.frame.clone(),
            })
        }))
    }

    fn remove_kept<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, ()> {
        Box::pin(self.call_kept(move |state| {
            let subject = Some(task.subject(lane));
            state.tasks.retain(|_, stored| stored.subject != subject);
        }))
    }

    fn keep_for<'a>(
        &'a self,
        store_key: &'a StoreKey,
        content: Bytes,
        _: Duration,
    ) -> Later<'a, bool> {
        Box::pin(self.call_kept(move |state| {
            let stays = !matches!(store_key, StoreKey::Object { .. });
            if stays && state.kept.contains_key(store_key) {
                return false;
            }
            let value = (content, Instant::now());
            state.kept.insert(store_key.clone(), value);
            true
        }))
    }

    fn numbers<'a>(&'a self, queue: &'a str, session: Id, what: Listed) -> Later<'a, Vec<u64>> {
        let prefix = format!("{session}.");
        Box::pin(self.call_kept(move |state| {
            let kept = kept_of(queue);
            let ids = state.kept.keys().filter_map(|store_key| match store_key {
                StoreKey::Record { queue, id } if what == Listed::Records => Some((queue, id)),
                StoreKey::Outcome { queue, id } if what == Listed::Outcomes => Some((queue, id)),
                _ => None,
            });
            let ids = ids.filter(|(queue, _)| **queue == kept);
            let numbers = ids.filter_map(|(_, id)| id.strip_prefix(&prefix)?.parse().ok());
            let mut numbers: Vec<u64> = numbers.collect();
            numbers.sort_unstable();
            numbers
        }))
    }

    fn claim<'a>(&'a self, _: &'a str, session: Id, owner: Bytes, last: u64) -> Later<'a, Claimed> {
        let lease = self.server.lease;
        Box::pin(self.call_kept(move |state| {
            let now = Instant::now();
            state.claims.retain(|_, (_, _, end)| *end > now);
            let found = state.claims.get(&session).cloned();
            if found.as_ref().map_or(0, |(number, ..)| *number) == last {
                state.last_claim += 1;
                let claim = (state.last_claim, owner, now + lease);
                state.claims.insert(session, claim);
                return Claimed::Ours(state.last_claim);
            }
            found.map_or(Claimed::Free, |(number, content, _)| {
                Claimed::Theirs(number, content)
            })
        }))
    }

    fn release<'a>(&'a self, _: &'a str, session: Id, last: u64) -> Later<'a, ()> {
        Box::pin(self.call_kept(move |state| {
            if state
                .claims
                .get(&session)
                .is_some_and(|claim| claim.0 <= last)
            {
                state.claims.remove(&session);
            }
        }))
    }

    fn discard<'a>(&'a self, queue: &'a str, session: Id) -> Later<'a, ()> {
        let (part, kept) = (format!(".{session}."), kept_of(queue));
        Box::pin(self.call_kept(move |state| {
            state.tasks.retain(|_, stored| {
                let subject = stored.subject.as_deref();
                !subject.is_some_and(|subject| subject.contains(&part))
            });
            state.kept.retain(|store_key, _| {
                let (StoreKey::Outcome { queue, id }
                | StoreKey::Record { queue, id }
                | StoreKey::Object {
                    queue, name: id, ..
                }) = store_key
                else {
                    return true;
                };
                *queue != kept || !id.starts_with(&part[1..])
            });
        }))
    }
}
