//! Kept sessions: the tasks outlive their client, and a later client finds them.
//!
//! The record of a task comes before its publication; see `record.rs`. A client that opens a session takes over what is
//! there; see `open.rs`. A session has one owner; see `owner.rs`.

#![forbid(unsafe_code)]

use super::{Client, Entry, Request, Stage, State};
use crate::bus::kept::{WAITING, news_of};
use crate::error::SessionLost;
use crate::log;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The settings of a kept session.
#[derive(Clone, Debug)]
pub(crate) struct KeptSettings {
    pub(crate) name: String,
    /// The time for which the server keeps a task, and an outcome.
    pub(crate) age: Duration,
    /// The number of copies of each stream.
    pub(crate) replicas: usize,
}

/// A task that was there when the session was opened, and has no future yet.
pub(super) struct FoundTask {
    pub(super) number: u64,
    pub(super) request: Arc<Request>,
}

/// The state of a kept session.
#[derive(Default)]
pub(super) struct Session {
    /// The tasks that are to be recorded.
    pub(super) unrecorded: VecDeque<u64>,
    /// The number of tasks that have not come to the server yet.
    pub(super) unplaced: usize,
    /// The numbers of tasks in the session, by their numbers in this process.
    pub(super) wires: HashMap<u64, u64>,
    pub(super) next: u64,
    /// When the session was opened, in milliseconds since 1970 by the server's clock.
    pub(super) opened: u64,
    /// The number of the claim, and when the client asked for its last confirmation.
    pub(super) claim: Option<(u64, Instant)>,
    /// Whether the claim had ended, so that another client may have come and gone.
    pub(super) is_doubtful: bool,
    /// Whether the tasks that were there are known.
    pub(super) is_open: bool,
    /// The reason why the session has another owner.
    pub(super) lost: Option<SessionLost>,
    pub(super) found: Vec<FoundTask>,
    /// The tasks that this client has given up. A later client may still get their outcomes.
    pub(super) given_up: HashSet<u64>,
}

impl Session {
    /// Makes the number of a task in the session.
    pub(super) fn number_for(&mut self, local: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.wires.insert(local, number);
        number
    }

    pub(super) fn is_owned(&self, lease: Duration) -> bool {
        let is_fresh = |(_, since): (u64, Instant)| since.elapsed() < lease;
        self.is_open && self.lost.is_none() && self.claim.is_some_and(is_fresh)
    }
}

impl State {
    /// Takes in a kept task.
    pub(super) fn insert_kept(&mut self, number: u64, entry: Entry, stage: Stage) {
        self.entries.insert(number, entry);
        self.session.unplaced += 1;
        self.set_stage(number, stage);
    }

    /// Moves a task to a stage, and counts it there.
    pub(super) fn set_stage(&mut self, number: u64, stage: Stage) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut entry.stage, stage);
        self.on_server += usize::from(stage.is_on_server());
        self.on_server -= usize::from(before.is_on_server());
        if stage == Stage::Recording {
            self.session.unrecorded.push_back(number);
        }
    }

    /// Returns whether the client waits for a run of this attempt.
    pub(super) fn is_wanted(&self, number: u64, attempt: u32) -> bool {
        // One that is leaving is being cancelled. If that fails, another attempt follows.
        let entry = self.entries.get(&number);
        let entry = entry.filter(|entry| entry.stage != Stage::Leaving);
        self.session.given_up.contains(&number)
            // The attempt of a task that is looked for is not known yet.
            || entry.is_some_and(|entry| entry.attempt == attempt || entry.stage == Stage::Looking)
    }
}

impl Client {
    /// Returns the number of a task in the session.
    pub(super) fn wire(&self, local: u64) -> u64 {
        if self.settings.kept.is_none() {
            return local;
        }
        // No task has the number 0.
        let state = self.lock();
        state.session.wires.get(&local).copied().unwrap_or(0)
    }

    pub(super) fn record_place(&self, number: u64) -> String {
        format!("cf.r.{}.{}.{number}", self.lane.queue, self.session)
    }

    /// Returns the name of a kept session.
    pub(crate) fn session_name(&self) -> Option<&str> {
        self.settings.kept.as_ref().map(|kept| &*kept.name)
    }

    /// Returns the time for which the server keeps a task, and its outcome.
    pub(super) fn age_of(&self, request: &Request) -> Duration {
        let found = request.found.as_ref().map(|found| found.age);
        let ours = self.settings.kept.as_ref().map(|kept| kept.age);
        found.or(ours).unwrap_or_default()
    }

    /// Makes the stores again that are gone.
    pub(super) async fn ensure_stores(&self) {
        let Some(kept) = &self.settings.kept else {
            return;
        };
        let queue = &self.settings.lane.queue;
        match self.bus.ensure_kept(queue, kept.replicas).await {
            Ok(true) => self.tell_hosts().await,
            Ok(false) => {}
            Err(error) => log::trouble("the stores of a session could not be made", &error),
        }
    }

    /// Tells hosts that the stores of kept sessions are there. A host that does not hear of them looks for them now and
    /// then.
    pub(super) async fn tell_hosts(&self) {
        self.spread(Bytes::new()).await;
    }

    /// Tells hosts that a task waits on the server.
    pub(super) async fn tell_hosts_of_waiting(&self) {
        self.spread(Bytes::from_static(WAITING)).await;
    }

    async fn spread(&self, news: Bytes) {
        let subject = news_of(&self.settings.lane.queue);
        if let Err(error) = self.bus.send(&subject, news).await {
            log::trouble("hosts could not be told of tasks", &error);
        }
    }
}
