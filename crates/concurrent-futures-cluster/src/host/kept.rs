//! Tasks of kept sessions, whose client may have ended.
//!
//! Their outcome goes to the store first, and then to the client if there is one. The first outcome in the store is that
//! of the task: a host that comes second reports the stored one. The stores decide as a client would:
//!
//! - A task is *open* if it has a record and no outcome.
//! - A run that must be known claims a *mark*: the first free number, beside the outcomes. Of two hosts, one gets it. A
//!   run that ends in order without an outcome has a second mark, which says so. The other marks are those of lost
//!   hosts. When there are too many, the next host stores that as the task's outcome.
//!
//! The server's own count of deliveries does not help: it begins anew with the server.

#![forbid(unsafe_code)]

use super::report;
use super::state::{Host, Key, Source};
use crate::bus::kept::{WAITING, kept_of, news_of};
use crate::bus::{BusError, Settle, StoreKey};
use crate::log;
use crate::wire::{
    Id, KeptTerms, Kind, Mark, OnHostLoss, Outcome, Parcel, Report, TaskId, Terms, Why, random,
};
use bytes::Bytes;
use concurrent_futures::engine::recording_clock;
use futures_util::future::join_all;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

/// The time between two looks for the stores of kept sessions.
const LOOK: Duration = Duration::from_secs(20);
/// The pause before a lane that has failed is asked again.
const AFTER_TROUBLE: Duration = Duration::from_millis(50);

/// The next step of the run of a kept task.
enum Claimed {
    /// The run has this mark.
    Run(u32),
    /// The number of hosts that were lost while they ran the task.
    Lost(u32),
}

impl Host {
    /// Returns the queue that has the stores of a task.
    pub(super) fn stores_of(&self, kept: Option<KeptTerms>) -> String {
        match kept {
            None => self.settings.queue.clone(),
            Some(_) => kept_of(&self.settings.queue),
        }
    }

    /// Looks for the stores of kept sessions: at the start, after each new connection, when a client says so, and now and
    /// then. Hears of tasks that wait as well: the server may have lost the requests for them.
    pub(super) async fn look_for_kept(self: Arc<Self>) {
        let mut connections = self.bus.connections();
        let mut news = None;
        let mut doubts = self.kept_doubt.subscribe();
        let mut next_look = Instant::now();
        let mut next_doubt = Instant::now();
        loop {
            if news.is_none() {
                let listened = self.bus.listen(&news_of(&self.settings.queue)).await;
                news = listened
                    .inspect_err(|error| log::trouble("a host cannot hear of sessions", error))
                    .ok();
            }
            if next_look <= Instant::now() {
                connections.mark_unchanged();
                doubts.mark_unchanged();
                next_look = self.look_once().await;
            }
            let told = async {
                match &mut news {
                    Some(news) => news.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                note = told => match note {
                    None => {
                        news = None;
                        sleep(AFTER_TROUBLE).await;
                    }
                    Some(note) if note.payload == WAITING => {
                        // Not for each of many clients.
                        if next_doubt <= Instant::now() {
                            next_doubt = Instant::now() + self.bus.lease();
                            self.requests_doubt.send_replace(());
                        }
                    }
                    Some(_) => next_look = Instant::now(),
                },
                _ = connections.changed() => next_look = Instant::now(),
                _ = doubts.changed() => {
                    sleep(AFTER_TROUBLE).await;
                    next_look = Instant::now();
                }
                () = sleep_until(next_look) => {}
            }
        }
    }

    /// Looks for the stores of kept sessions. Returns when to look again.
    async fn look_once(&self) -> Instant {
        let mut pause = LOOK;
        match self.bus.has_kept(&self.settings.queue).await {
            Ok(true) => {
                self.kept_is_there.send_replace(true);
            }
            Ok(false) => {
                self.lock().may_have_kept = Default::default();
                self.wake();
            }
            Err(error) => {
                log::trouble("a host could not look for sessions", &error);
                pause = Duration::from_secs(1);
            }
        }
        Instant::now() + pause
    }

    /// Asks for kept tasks of a priority and a rank, as long as there are stores of kept sessions.
    pub(super) async fn pull_kept(self: Arc<Self>, priority: u8, rank: u8) {
        let mut is_there = self.kept_is_there.subscribe();
        let source = Source {
            priority,
            kept: Some(rank),
        };
        loop {
            // The sender is part of the host.
            let _ = is_there.wait_for(|is_there| *is_there).await;
            self.set_empty(source, false);
            if let Err(error) = self.pull_from_one_supply(source).await {
                self.set_empty(source, false);
                log::trouble("a host could not ask for tasks of sessions", &error);
            }
            // They are gone, or the connection is.
            self.kept_is_there.send_replace(false);
            self.kept_doubt.send_replace(());
        }
    }

    /// Returns whether a task has a record and no outcome, however long the answer takes.
    pub(super) async fn is_open(&self, session: Id, number: u64) -> bool {
        let queue = kept_of(&self.settings.queue);
        let (record, outcome) = (
            StoreKey::record(&queue, session, number),
            StoreKey::outcome(&queue, session, number),
        );
        let look = || async {
            Ok(self.bus.fetch(&record).await?.is_some()
                && self.bus.fetch(&outcome).await?.is_none())
        };
        patiently("a task of a session could not be looked at", look).await
    }

    /// Returns the numbers of the tasks of a parcel that are open.
    pub(super) async fn open_kept(&self, parcel: &Parcel) -> Vec<u64> {
        let mut open = Vec::new();
        for task in &parcel.tasks {
            if self.is_open(parcel.id.session, task.number).await {
                open.push(task.number);
            }
        }
        open
    }

    /// Makes the run of a kept task known, before it begins.
    ///
    /// # Errors
    /// The outcome of the task if it is not to run.
    pub(super) async fn begin_kept(
        self: &Arc<Self>,
        id: TaskId,
        terms: &Terms,
        kept: KeptTerms,
    ) -> Result<(), Outcome> {
        let store_key = StoreKey::outcome(&self.stores_of(Some(kept)), id.session, id.number);
        let what = "the outcome of a task could not be looked for";
        let stored = patiently(what, || self.bus.fetch(&store_key)).await;
        let subject = format!("cf.c.{}", id.session);
        let seal = &self.settings.seal;
        let stored = stored.and_then(|frame| seal.stored_in(&subject, id.number, &frame));
        // A host has ended between the outcome and the acknowledgement.
        if let Some((_, outcome)) = stored {
            return Err(outcome);
        }
        let is_wanted = match report::confirm(self, id).await {
            Some(receipt) => receipt.unwanted.is_empty(),
            None => self.is_open(id.session, id.number).await,
        };
        if !is_wanted {
            return Err(Outcome::Returned(Why::Recalled));
        }
        let Ok(nonce) = random() else {
            return Err(Outcome::Returned(Why::Busy));
        };
        let mark = Mark {
            host: self.id,
            nonce,
        };
        let claim = || self.claim_run(id, terms, kept, mark);
        match patiently("the run of a task could not be marked", claim).await {
            Claimed::Run(run) => {
                if let Some(held) = self.lock().held.get_mut(&(id.session, id.number)) {
                    held.run = Some(run);
                }
                Ok(())
            }
            Claimed::Lost(_) if kept.on_host_loss == OnHostLoss::Fail => Err(Outcome::HostLost),
            Claimed::Lost(lost) => Err(Outcome::Poison(lost)),
        }
    }

    async fn claim_run(
        &self,
        id: TaskId,
        terms: &Terms,
        kept: KeptTerms,
        mark: Mark,
    ) -> Result<Claimed, BusError> {
        let most = match kept.on_host_loss {
            OnHostLoss::Fail => 1,
            OnHostLoss::Rerun => terms.deliveries.max(1),
        };
        let queue = kept_of(&self.settings.queue);
        let seal = &self.settings.seal;
        let mut lost = 0;
        let mut run = 1;
        loop {
            let ours = StoreKey::mark(&queue, id.session, id.number, run, false);
            let place = format!("{}.{}.{run}", id.session, id.number);
            let sealed = seal.seal(Kind::Mark, place.as_bytes(), &mark);
            if self.bus.keep_for(&ours, sealed, kept.age).await? {
                return Ok(Claimed::Run(run));
            }
            let found = self.bus.fetch(&ours).await?;
            let found = found
                .and_then(|frame| seal.open::<Mark>(Kind::Mark, place.as_bytes(), &frame).ok());
            // The answer to an earlier try was lost.
            if found == Some(mark) {
                return Ok(Claimed::Run(run));
            }
            let back = StoreKey::mark(&queue, id.session, id.number, run, true);
            if self.bus.fetch(&back).await?.is_none() {
                lost += 1;
            }
            if lost >= most {
                return Ok(Claimed::Lost(lost));
            }
            run += 1;
        }
    }

    /// Notes that the run of a task has ended in order, so that the host does not count as lost.
    async fn give_run_back(&self, key: Key, why: Why) {
        let (run, kept) = {
            let state = self.lock();
            let Some(held) = state.held.get(&key) else {
                return;
            };
            (held.run, held.kept)
        };
        let (Some(run), Some(kept)) = (run, kept) else {
            return;
        };
        // It has begun, and must not run twice.
        if why == Why::Ended && kept.on_host_loss == OnHostLoss::Fail {
            return;
        }
        let queue = kept_of(&self.settings.queue);
        let back = StoreKey::mark(&queue, key.0, key.1, run, true);
        if let Err(error) = self.bus.keep_for(&back, Bytes::new(), kept.age).await {
            log::trouble("the end of a run could not be marked", &error);
        }
    }

    /// Stores the outcome of a kept task. Returns the one that is stored.
    async fn store_outcome(
        &self,
        subject: &str,
        report: &Report,
        ended: (u64, u32, Outcome),
        key: Key,
        kept: KeptTerms,
    ) -> (u64, u32, Outcome) {
        let (number, attempt, outcome) = ended;
        if let Outcome::Returned(why) = outcome {
            self.give_run_back(key, why).await;
            return (number, attempt, outcome);
        }
        let seal = &self.settings.seal;
        let alone = Report {
            held: Vec::new(),
            started: Vec::new(),
            ended: vec![(number, attempt, outcome.clone())],
            runs: report::of_task(&report.runs, number),
            parts: Vec::new(),
            ..report.clone()
        };
        let sealed = seal.seal(Kind::Report, subject.as_bytes(), &alone);
        let store_key = StoreKey::outcome(&kept_of(&self.settings.queue), key.0, number);
        // A server that is away comes back, or this host is ended. The task is held meanwhile.
        let store = || async {
            let (outcome, age) = (sealed.clone(), kept.age);
            if self.bus.keep_for(&store_key, outcome, age).await? {
                return Ok(None);
            }
            self.bus.fetch(&store_key).await
        };
        let stored = patiently("the outcome of a task could not be stored", store).await;
        match stored.and_then(|frame| seal.stored_in(subject, number, &frame)) {
            Some((attempt, outcome)) => (number, attempt, outcome),
            None => (number, attempt, outcome),
        }
    }

    /// Stores the outcomes of kept tasks, and tells the client if there is one. Then the tasks are acknowledged.
    pub(super) async fn deliver_kept(
        &self,
        session: Id,
        mut report: Report,
        flight: Option<OwnedSemaphorePermit>,
    ) {
        let subject = format!("cf.c.{session}");
        let ended = std::mem::take(&mut report.ended);
        let stored = ended.into_iter().map(|ended| {
            let (subject, report) = (&subject, &report);
            let key = (session, ended.0);
            let kept = self.lock().held.get(&key).and_then(|held| held.kept);
            async move {
                match kept {
                    Some(kept) => self.store_outcome(subject, report, ended, key, kept).await,
                    // Another attempt was settled, with an outcome.
                    None => ended,
                }
            }
        });
        report.ended = join_all(stored).await;
        report.clock = recording_clock();
        let is_told = self.receipt(&subject, &report).await.is_some();
        drop(flight);
        let mut settled = Vec::new();
        for (number, attempt, outcome) in report.ended {
            let how = match outcome {
                Outcome::Returned(why) if why.is_to_server() => Some(Settle::Back),
                // Without a client, nothing changes before the lease ends.
                Outcome::Returned(Why::NoObject) if !is_told => None,
                // It has an outcome, or its record is gone, or the client submits it again.
                _ => Some(Settle::Done),
            };
            let task = TaskId {
                session,
                number,
                attempt,
            };
            let is_returned = matches!(outcome, Outcome::Returned(_));
            let parcel = self.settled(task, is_returned, how == Some(Settle::Back));
            if let (Some((token, _)), Some(how)) = (parcel, how) {
                settled.push((token, how));
            }
        }
        for (token, how) in settled {
            // If that is lost, the task comes again when its lease ends, and its outcome is a second one.
            let _ = self.bus.settle(&token, how).await;
        }
    }
}

/// Repeats a call of the server until it succeeds.
async fn patiently<T, F>(what: &str, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) => log::trouble(what, &error),
        }
        sleep(pause).await;
        pause = (2 * pause).min(Duration::from_secs(2));
    }
}
