//! The records of tasks.
//!
//! A task has a record on the server before it is published: the stage `Recording`. From then on, any client finds it.

#![forbid(unsafe_code)]

use super::publish::share;
use super::{Arrived, Client, Place, Request, Stage, State, failed};
use crate::bus::kept::{KeptTask, RANKS};
use crate::bus::{BusError, StoreKey};
use crate::log;
use crate::payloads::PayloadError;
use crate::wire::{Kind, Record};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The most records that wait for the server's confirmation.
const MOST_RECORDING: usize = 1024;

/// The unfinished tasks of a session that have the first rank, until a host has reported how long tasks take. Schedules have
/// few.
const FIRST_RANK: usize = if cfg!(test) { 4 } else { 64 };
/// The growth from one rank to the next.
const GROWTH: usize = 16;

/// Returns the rank of a task that has so many unfinished ones of its session ahead: the first rank has about a second's
/// work.
fn rank(state: &State, ahead: usize) -> u8 {
    let first = share(state.hosts.values()).unwrap_or(FIRST_RANK);
    let mut most = first;
    for rank in 0..RANKS - 1 {
        if ahead < most {
            return rank;
        }
        most = most.saturating_mul(GROWTH);
    }
    RANKS - 1
}

impl Client {
    /// Records tasks, in the order of their submission.
    pub(super) async fn record(self: Arc<Self>) {
        if self.settings.kept.is_none() {
            return std::future::pending().await;
        }
        let mut changed = self.changed.subscribe();
        let mut recording = FuturesOrdered::new();
        loop {
            while recording.len() < MOST_RECORDING {
                let Some((number, request)) = self.next_unrecorded() else {
                    break;
                };
                recording.push_back(self.record_one(number, request));
            }
            tokio::select! {
                Some(number) = recording.next() => self.note_recorded(number),
                // The sender is part of the client.
                _ = changed.changed() => {}
            }
        }
    }

    /// Takes the next task that has no record.
    fn next_unrecorded(&self) -> Option<(u64, Arc<Request>)> {
        let mut state = self.lock();
        if !self.is_owned(&state) {
            return None;
        }
        let mut cancelled = Vec::new();
        let next = loop {
            let Some(number) = state.session.unrecorded.pop_front() else {
                break None;
            };
            let Some(entry) = state.entries.get_mut(&number) else {
                continue;
            };
            if entry.stage != Stage::Recording {
                continue;
            }
            // From now on, the future runs, to the program.
            if !entry.is_started && !entry.sink.start() {
                cancelled.extend(self.remove(&mut state, number));
                continue;
            }
            entry.is_started = true;
            let request = Arc::clone(&entry.request);
            let waiting = state.session.unrecorded.len() + 1;
            let ahead = state.entries.len().saturating_sub(waiting);
            // One that is recorded again keeps its place.
            request.rank.get_or_init(|| rank(&state, ahead));
            break Some((number, request));
        };
        drop(state);
        drop(cancelled);
        next
    }

    /// Stores the record of a task, however long that takes. Returns the task's number.
    async fn record_one(self: &Arc<Self>, number: u64, request: Arc<Request>) -> u64 {
        let mut pause = Duration::from_millis(20);
        while self.is_recording(number) {
            // One that was cut off meanwhile may have lost its session.
            if self.is_owner() {
                let Err(error) = self.try_record(number, &request).await else {
                    break;
                };
                if let PayloadError::Store(error) = error {
                    self.complete(number, Arrived::Error(failed(error)), None);
                    break;
                }
                log::trouble("a task could not be recorded", &error);
                if matches!(error, PayloadError::Bus(BusError::NoListener)) {
                    self.ensure_stores().await;
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(2));
        }
        number
    }

    fn is_recording(&self, number: u64) -> bool {
        let state = self.lock();
        let entry = state.entries.get(&number);
        entry.is_some_and(|entry| entry.stage == Stage::Recording)
    }

    async fn try_record(&self, number: u64, request: &Request) -> Result<(), PayloadError> {
        let options = request.kind.options;
        let age = self.age_of(request);
        let record = Record {
            environment: self.lane.environment.clone(),
            priority: self.lane_of(request).priority,
            rank: self.lane_of(request).rank,
            call: request.kind.call.clone(),
            // Before the record, which says that it is there.
            argument: self.argument(request).await?,
            time_limit: options.time_limit,
            retries: options.retries,
            on_host_loss: options.on_host_loss,
            age,
            result: request.kind.result.to_string(),
        };
        let place = self.record_place(number);
        let sealed = self
            .settings
            .seal
            .seal(Kind::Record, place.as_bytes(), &record);
        let store_key = StoreKey::record(&self.lane.queue, self.session, number);
        // False if the record of an earlier attempt is there.
        self.bus.keep_for(&store_key, sealed, age).await?;
        Ok(())
    }

    /// Lets a task with a record be published.
    fn note_recorded(&self, number: u64) {
        let mut state = self.lock();
        let entry = state.entries.get(&number);
        if let Some(entry) = entry.filter(|entry| entry.stage == Stage::Recording) {
            if entry.attempt == 0 {
                state.backlog.push_back(number);
            } else {
                state.backlog.push_front(number);
            }
            state.set_stage(number, Stage::Waiting);
        }
        drop(state);
        self.wake();
    }

    /// Notes that a task has come to the server.
    pub(super) fn note_placed(&self, state: &mut State, number: u64, place: Place) {
        state.set_stage(number, Stage::Published(place));
        let Some(entry) = state.entries.get_mut(&number) else {
            return;
        };
        entry.seen = Instant::now();
        let was_placed = std::mem::replace(&mut entry.is_placed, true);
        if self.settings.kept.is_some() && !was_placed {
            state.session.unplaced -= 1;
            if state.session.unplaced == 0 {
                self.placed.notify_all();
            }
        }
    }

    /// Waits until all submitted tasks have records, and have come to the server, up to `limit`. Returns whether they have.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        if self.settings.kept.is_none() {
            return false;
        }
        let is_busy = |state: &mut State| state.session.unplaced > 0;
        let waited = self.placed.wait_timeout_while(self.lock(), limit, is_busy);
        let (state, timed_out) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        !timed_out.timed_out() && state.refusal().is_none()
    }

    /// Returns the number of tasks that have not come to the server yet.
    #[cfg(test)]
    pub(crate) fn unplaced(&self) -> usize {
        self.lock().session.unplaced
    }

    /// Removes a task that no host has from the server, and its record, so that no later client runs it. Returns false if
    /// that fails: the task goes on.
    pub(super) async fn remove_record(&self, number: u64) -> bool {
        /// Lets the task go on, also if the call is dropped.
        struct Leaving<'a>(&'a Client, u64);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                let is_leaving = {
                    let state = self.0.lock();
                    let entry = state.entries.get(&self.1);
                    entry.is_some_and(|entry| entry.stage == Stage::Leaving)
                };
                if is_leaving {
                    self.0.submit_again(self.1);
                }
            }
        }
        if self.settings.kept.is_none() {
            return true;
        }
        let request = {
            let mut state = self.lock();
            let Some(entry) = state.entries.get(&number) else {
                return false;
            };
            let request = Arc::clone(&entry.request);
            state.set_stage(number, Stage::Leaving);
            request
        };
        let leaving = Leaving(self, number);
        let store_key = StoreKey::record(&self.lane.queue, self.session, number);
        let task = KeptTask {
            session: self.session,
            number,
        };
        let lane = self.lane_of(&request);
        let removed = async {
            self.bus.forget(&store_key).await?;
            // A host may have given it back to the server.
            self.bus.remove_kept(&lane, task).await
        };
        match removed.await {
            Ok(()) => {
                std::mem::forget(leaving);
                true
            }
            Err(error) => {
                log::trouble("the record of a task could not be removed", &error);
                false
            }
        }
    }
}
