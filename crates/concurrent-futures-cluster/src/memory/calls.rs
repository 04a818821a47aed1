//! The calls of the server: tasks, messages and values.

use super::supply::Requests;
use super::{Memory, Stored};
use crate::bus::{Bus, BusError, Lane, Later, Notes, Settle, StoreKey, Supply, Withdrawn};
use bytes::Bytes;
use futures_util::stream::unfold;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

impl Bus for Memory {
    fn push<'a>(&'a self, lane: &'a Lane, id: &'a str, frame: Bytes) -> Later<'a, u64> {
        Box::pin(self.call(move |state| {
            if let Some(number) = state.ids.get(id) {
                return *number;
            }
            let published = state.clock + self.server.age();
            state.store(Stored::new(lane, id, frame, published))
        }))
    }

    fn supply<'a>(&'a self, lane: &'a Lane) -> Later<'a, Box<dyn Supply>> {
        let requests = Requests::new(self, lane);
        Box::pin(std::future::ready(
            Ok(Box::new(requests) as Box<dyn Supply>),
        ))
    }

    fn settle<'a>(&'a self, token: &'a str, how: Settle) -> Later<'a, ()> {
        let (server, is_cut) = (Arc::clone(&self.server), Arc::clone(&self.is_cut));
        let (number, id) = token.split_once(' ').unwrap();
        let (number, id): (u64, String) = (number.parse().unwrap(), id.to_owned());
        tokio::spawn(async move {
            if server.travel().await || is_cut.load(Ordering::SeqCst) {
                return;
            }
            let until = Instant::now() + server.lease;
            let mut state = server.lock();
            // A task of a server that was there before is another one.
            let Some(stored) = state.tasks.get_mut(&number).filter(|task| task.id == id) else {
                return;
            };
            match how {
                Settle::Done => drop(state.tasks.remove(&number)),
                Settle::Extend => stored.taken_until = Some(until),
                Settle::Back => stored.taken_until = None,
            }
            drop(state);
            server.changed.send_replace(());
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn withdraw<'a>(&'a self, lane: &'a Lane, number: u64, id: &'a str) -> Later<'a, Withdrawn> {
        Box::pin(self.call(move |state| {
            if state.tasks.get(&number).is_none_or(|task| task.id != id) {
                return Withdrawn::Gone;
            }
            let delivered = state.delivered.get(&lane.subject());
            if delivered.is_some_and(|last| *last >= number) {
                return Withdrawn::Delivered;
            }
            state.tasks.remove(&number);
            Withdrawn::Untaken
        }))
    }

    fn has<'a>(&'a self, _: &'a Lane, number: u64, id: &'a str) -> Later<'a, bool> {
        Box::pin(self.call(move |state| {
            let task = state.tasks.get(&number);
            task.is_some_and(|task| task.id == id)
        }))
    }

    fn time<'a>(&'a self, _: &'a Lane) -> Later<'a, u64> {
        Box::pin(self.call(|state| state.clock + self.server.age()))
    }

    fn send<'a>(&'a self, subject: &'a str, payload: Bytes) -> Later<'a, ()> {
        self.post(subject, &payload, None);
        Box::pin(std::future::ready(Ok(())))
    }

    fn flush(&self) -> Later<'_, ()> {
        // A message is on its way at once.
        Box::pin(std::future::ready(Ok(())))
    }

    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Bytes,
        limit: Duration,
    ) -> Later<'a, Bytes> {
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let (inbox, has_listener) = {
                let mut state = self.server.lock();
                state.next_inbox += 1;
                state.questions += u64::from(subject.starts_with("cf.q."));
                let inbox = format!("inbox.{}", state.next_inbox);
                state.inboxes.insert(inbox.clone(), sender);
                let mut listeners = state.listeners.get(subject).into_iter().flatten();
                (inbox, listeners.any(|listener| !listener.is_closed()))
            };
            if !has_listener && !self.is_cut() {
                return Err(BusError::NoListener);
            }
            self.post(subject, &payload, Some(&inbox));
            match timeout(limit, answer).await {
                Ok(Ok(answer)) if !self.is_cut() => Ok(answer),
                _ => Err(BusError::TimedOut),
            }
        })
    }

    fn listen<'a>(&'a self, subject: &'a str) -> Later<'a, Notes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.server.lock();
        let listeners = state.listeners.entry(subject.to_owned()).or_default();
        if !self.is_cut() {
            listeners.push(sender);
        }
        drop(state);
        if !self.is_cut() {
            let notes = unfold(receiver, async |mut receiver| {
                let note = receiver.recv().await?;
                Some((note, receiver))
            });
            return Box::pin(std::future::ready(Ok(Notes::new(notes))));
        }
        Box::pin(std::future::ready(Err(BusError::Closed)))
    }

    fn keep<'a>(&'a self, store_key: &'a StoreKey, content: Bytes) -> Later<'a, bool> {
        Box::pin(self.call(move |state| {
            if matches!(store_key, StoreKey::Outcome { .. }) && state.kept.contains_key(store_key) {
                return false;
            }
            state
                .kept
                .insert(store_key.clone(), (content, Instant::now()));
            true
        }))
    }

    fn fetch<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, Option<Bytes>> {
        Box::pin(self.call(move |state| {
            state
                .kept
                .get(store_key)
                .map(|(content, _)| content.clone())
        }))
    }

    fn forget<'a>(&'a self, store_key: &'a StoreKey) -> Later<'a, ()> {
        Box::pin(async move {
            let mut holds = self.server.holds_removals.subscribe();
            // The sender is part of the server.
            let _ = holds.wait_for(|holds| !holds).await;
            self.call(move |state| drop(state.kept.remove(store_key)))
                .await
        })
    }

    fn hosts<'a>(&'a self, queue: &'a str) -> Later<'a, Vec<Bytes>> {
        let ttl = 2 * self.server.lease;
        Box::pin(self.call(move |state| {
            let kept = state.kept.iter();
            let kept = kept.filter(|(store_key, (_, since))| {
                matches!(store_key, StoreKey::Host { queue: of, .. } if of == queue)
                    && since.elapsed() < ttl
            });
            kept.map(|(_, (content, _))| content.clone()).collect()
        }))
    }

    fn lease(&self) -> Duration {
        self.server.lease
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.server.connections.subscribe()
    }
}
