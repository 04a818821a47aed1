//! Receipt: reports of hosts, their outcomes, and the tasks that they give back.

#![forbid(unsafe_code)]

use super::times::HostClock;
use super::{Arrived, Client, Power, Stage, State, failed};
use crate::bus::{Note, StoreKey};
use crate::error::{HostLost, NoFunction, ObjectStoreError, PoisonTask, TaskName};
use crate::log;
use crate::wire::{
    Id, Kind, OnHostLoss, Outcome, Payload, Question, Receipt, Report, TaskPart, Why,
};
use bytes::Bytes;
use concurrent_futures::TaskError;
use concurrent_futures::engine::recorder::RunOutcome;
use concurrent_futures::engine::{RemoteRun, recording_clock};
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The time for which the receipt of a lone task waits for the next task.
const MOMENT: Duration = Duration::from_millis(1);
/// The number of times that a task may come back without an outcome, for each permitted delivery.
const RETURNS: u32 = 4;

/// The parts of a report that the client answers to.
pub(super) struct Taken {
    /// The tasks that have started although the client does not wait for them.
    unwanted: Vec<(u64, u32)>,
    /// The tasks whose outcomes may be stored.
    stored: Vec<u64>,
    /// The number of outcomes.
    ended: usize,
}

impl State {
    /// Notes that a host has an attempt of a task, or that it has begun the task at a time of the recordings' clock.
    /// Returns whether the host runs a former attempt.
    fn note_held(&mut self, (number, attempt): (u64, u32), host: Id, begun: Option<u64>) -> bool {
        let Self { entries, hosts, .. } = self;
        let Some(entry) = entries.get_mut(&number) else {
            return false;
        };
        if attempt != entry.attempt {
            let is_former = attempt < entry.attempt && begun.is_some();
            if is_former {
                entry.past().runner = Some(host);
            }
            return is_former;
        }
        entry.seen = Instant::now();
        if entry.holder != Some(host) {
            entry.lose_holder(hosts);
            entry.holder = Some(host);
        }
        // A report may come twice. One that is leaving is not to run, and the host is told so.
        if let Some(begun) = begun
            && !entry.begun
            && entry.stage != Stage::Leaving
        {
            entry.begun = true;
            entry.run_since = begun;
            entry.starts += 1;
            entry.permit = None;
        }
        false
    }
}

impl Client {
    /// Answers a host that asks which tasks are open. It may find them old by a wrong time.
    pub(super) async fn answer(&self, subject: &str, note: Note) {
        let opened =
            self.settings
                .seal
                .open::<Question>(Kind::Question, subject.as_bytes(), &note.payload);
        if !self.is_owner() {
            return;
        }
        let question = match opened {
            Ok(question) => question,
            Err(refused) => return log::refused("a question", &refused),
        };
        let open: Vec<u64> = {
            let state = self.lock();
            let is_open = |(number, attempt): &(u64, u32)| state.is_wanted(*number, *attempt);
            let open = question.tasks.into_iter().filter(is_open);
            open.map(|(number, _)| number).collect()
        };
        self.clock.doubt();
        if let Some(reply) = note.reply {
            let sealed = self.settings.seal.seal(Kind::Answer, &note.payload, &open);
            if let Err(error) = self.bus.send(&reply, sealed).await {
                log::trouble("an answer could not be sent", &error);
            }
        }
    }

    /// Receives a report, and confirms its outcomes.
    pub(super) async fn receive(self: &Arc<Self>, subject: &str, note: Note) {
        // A client that was cut off may have lost its session.
        if !self.is_owner() {
            return;
        }
        let Some(taken) = self.take(subject, &note.payload) else {
            return;
        };
        let Taken {
            unwanted,
            stored,
            ended,
        } = taken;
        if stored.is_empty() {
            if ended == 1 && unwanted.is_empty() && self.is_idle_with_direct_host() {
                self.confirm_later(note);
            } else {
                self.confirm(note, unwanted).await;
            }
        } else {
            let client = Arc::clone(self);
            self.spawn("removes outcomes", async move {
                Arc::clone(&client).forget_outcomes(stored).await;
                client.confirm(note, unwanted).await;
            });
        }
    }

    /// Returns the receipt of a report, and where it goes; none if the host asks for none.
    fn receipt_of(&self, note: Note, unwanted: Vec<(u64, u32)>) -> Option<(String, Bytes)> {
        let reply = note.reply?;
        let seal = &self.settings.seal;
        let receipt = seal.seal(Kind::Receipt, &note.payload, &Receipt { unwanted });
        Some((reply, receipt))
    }

    /// Answers a report, if the host asks for that.
    async fn confirm(&self, note: Note, unwanted: Vec<(u64, u32)>) {
        let Some((reply, receipt)) = self.receipt_of(note, unwanted) else {
            return;
        };
        if let Err(error) = self.bus.send(&reply, receipt).await {
            log::trouble("a receipt could not be sent", &error);
        }
    }

    /// Returns whether all tasks are done, and the next one is likely to go to a host directly.
    fn is_idle_with_direct_host(&self) -> bool {
        let state = self.lock();
        self.settings.kept.is_none() && state.direct.is_some() && state.unfinished() == 0
    }

    /// Answers a report together with the next direct task, or after a moment. A program that waits for each task before the
    /// next one wakes the server and the host once less for each.
    fn confirm_later(self: &Arc<Self>, note: Note) {
        let Some(receipt) = self.receipt_of(note, Vec::new()) else {
            return;
        };
        let is_first = {
            let mut state = self.lock();
            state.receipts.push(receipt);
            !mem::replace(&mut state.are_receipts_due, true)
        };
        if is_first {
            let client = Arc::clone(self);
            self.spawn("sends receipts", async move {
                sleep(MOMENT).await;
                client.lock().are_receipts_due = false;
                client.send_receipts().await;
            });
        }
    }

    /// Sends the receipts that wait. Returns whether there were some.
    pub(super) async fn send_receipts(&self) -> bool {
        let receipts = mem::take(&mut self.lock().receipts);
        let are_there = !receipts.is_empty();
        for (reply, receipt) in receipts {
            if let Err(error) = self.bus.send(&reply, receipt).await {
                log::trouble("a receipt could not be sent", &error);
            }
        }
        are_there
    }

    /// Removes outcomes that were stored.
    async fn forget_outcomes(self: Arc<Self>, numbers: Vec<u64>) {
        for number in numbers {
            let queue = &self.settings.lane.queue;
            let store_key = StoreKey::outcome(queue, self.session, number);
            Arc::clone(&self).remove_stored(store_key).await;
        }
    }

    /// Takes what a report says. None if the message is no report.
    pub(super) fn take(self: &Arc<Self>, subject: &str, frame: &[u8]) -> Option<Taken> {
        let opened = self
            .settings
            .seal
            .open::<Report>(Kind::Report, subject.as_bytes(), frame);
        let report = match opened {
            Ok(report) => report,
            Err(refused) => {
                log::refused("a report", &refused);
                return None;
            }
        };
        let came = recording_clock();
        let mut state = self.lock();
        let now = Instant::now();
        state.host_seen = Some(now);
        let known = state.hosts.get(&report.host);
        let mut clock = known.map_or_else(HostClock::default, |host| host.clock);
        let machine: Arc<str> =
            known.map_or_else(|| report.machine.into(), |host| Arc::clone(&host.machine));
        clock.note(report.clock, came);
        let power = Power {
            workers: report.workers as usize,
            pace: report.pace,
            clock,
            seen: now,
            machine: Arc::clone(&machine),
            pid: report.pid,
        };
        state.hosts.insert(report.host, power);
        if !report.ended.is_empty() {
            state.direct = Some(report.host);
        }
        for (number, attempt) in report.held {
            state.note_held((number, attempt), report.host, None);
        }
        let begun = clock.here(report.clock);
        let mut is_former = false;
        for task in &report.started {
            is_former |= state.note_held(*task, report.host, Some(begun));
        }
        if is_former {
            // A cancellation that waits looks again.
            self.wake();
        }
        let mut unwanted = report.started;
        unwanted.retain(|(number, attempt)| !state.is_wanted(*number, *attempt));
        for TaskPart {
            number,
            first,
            payload,
        } in report.parts
        {
            // Of any attempt: what one has done is done.
            match (state.entries.get(&number), payload) {
                (Some(entry), Payload::Inline(bytes)) => entry.sink.take_part(first, bytes),
                (None, Payload::Inline(_)) => {}
                (_, payload) => self.fetch_part(number, first, payload),
            }
        }
        drop(state);
        let ended = report.ended.iter().map(|(number, ..)| *number);
        let stored = ended.filter(|_| report.may_be_stored).collect();
        let ended = report.ended.len();
        let mut runs = report.runs.into_iter().peekable();
        for (number, attempt, outcome) in report.ended {
            let run = runs.next_if(|run| run.number == number);
            let run = run.map(|run| RemoteRun {
                machine: Arc::clone(&machine),
                pid: report.pid,
                place: Some(run.place),
                start: clock.here(run.start),
                end: clock.here(run.start.saturating_add(run.took)),
            });
            self.end(number, attempt, outcome, run);
        }
        Some(Taken {
            unwanted,
            stored,
            ended,
        })
    }

    /// Accepts the outcome of a task, unless there was one.
    pub(super) fn end(
        self: &Arc<Self>,
        number: u64,
        attempt: u32,
        outcome: Outcome,
        run: Option<RemoteRun>,
    ) {
        let arrived = match outcome {
            Outcome::Value(Payload::Inline(bytes)) => Arrived::Value(bytes),
            Outcome::Value(payload) => return self.fetch(number, payload, run),
            Outcome::Failure(bytes) => Arrived::Failure(bytes),
            Outcome::NoStore(text) => Arrived::Error(failed(ObjectStoreError::told(text))),
            Outcome::NoFunction(text) => Arrived::Error(failed(NoFunction {
                task: TaskName::default(),
                why: text,
            })),
            Outcome::Returned(why) => return self.take_back(number, attempt, why, run),
            Outcome::HostLost => Arrived::Error(failed(HostLost::default())),
            Outcome::Poison(starts) => Arrived::Error(failed(PoisonTask {
                task: TaskName::default(),
                deliveries: u64::from(starts),
                starts,
            })),
        };
        self.complete(number, arrived, run);
    }

    /// Fails a task for a reason of this client. A later client of a kept session may still get its outcome.
    pub(super) fn give_up(self: &Arc<Self>, number: u64, error: TaskError) {
        if self.settings.kept.is_some() {
            self.lock().session.given_up.insert(number);
        }
        self.complete(number, Arrived::Error(error), None);
    }

    /// Completes a task, unless it is done.
    pub(super) fn complete(
        self: &Arc<Self>,
        number: u64,
        arrived: Arrived,
        run: Option<RemoteRun>,
    ) {
        let removed = {
            let mut state = self.lock();
            // Another outcome came first, and its value is on the way.
            if state
                .entries
                .get(&number)
                .is_some_and(|entry| entry.stage == Stage::Fetching)
            {
                return;
            }
            self.remove_done(&mut state, number, run.as_ref())
        };
        if let Some(entry) = removed {
            self.clean_up(&entry);
            entry.complete(arrived, run);
        }
    }

    /// Submits a task again that was on the server. A kept one is recorded again, as its record may be lost as well.
    pub(super) fn submit_again(&self, number: u64) {
        let mut state = self.lock();
        let State { entries, hosts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else {
            return;
        };
        if entry.stage.is_on_server() {
            entry.lose_holder(hosts);
            if self.settings.kept.is_some() {
                state.set_stage(number, Stage::Recording);
            } else {
                state.set_stage(number, Stage::Waiting);
                state.backlog.push_front(number);
            }
        }
        drop(state);
        self.wake();
    }

    /// Decides about a task that a host has given back, perhaps after it has ended the task's run.
    fn take_back(self: &Arc<Self>, number: u64, attempt: u32, why: Why, run: Option<RemoteRun>) {
        let error = {
            let mut state = self.lock();
            let State { entries, hosts, .. } = &mut *state;
            let Some(entry) = entries.get_mut(&number) else {
                return;
            };
            if entry.attempt != attempt {
                if let Some(past) = &mut entry.past {
                    past.runner = None;
                }
                return;
            }
            if !matches!(entry.stage, Stage::Publishing | Stage::Published(_)) {
                return;
            }
            // No host will begin this attempt, unless one has begun it.
            if why != Why::Ended
                && let Some(cancelling) = entry.cancelling.take()
                && cancelling.send(()).is_ok()
            {
                // The cancellation goes on.
                return;
            }
            if matches!(why, Why::Deliveries(_)) {
                // The host that had begun it is another one.
                entry.lose_holder(hosts);
            } else {
                entry.holder = None;
                entry.begun = false;
                if let Some(run) = run {
                    entry.note_loss(run, RunOutcome::Terminated);
                }
            }
            // The host gives a kept task back to the server, as this client may end before it could submit it again.
            if self.settings.kept.is_some() && why.is_to_server() {
                entry.seen = Instant::now();
                return;
            }
            entry.returns += 1;
            let most = self.settings.most_deliveries;
            if let Why::Deliveries(times) = why {
                entry.deliveries += times - 1;
            }
            let most_returns = RETURNS * most + 4;
            let has_run =
                why == Why::Ended || matches!(why, Why::Deliveries(_)) && entry.starts > 0;
            if has_run && entry.request.kind.options.on_host_loss == OnHostLoss::Fail {
                Some(failed(HostLost::default()))
            } else if matches!(why, Why::Deliveries(_)) && entry.starts >= most
                || entry.deliveries >= u64::from(RETURNS * most)
                || why == Why::NoObject && entry.returns > most_returns
            {
                Some(failed(PoisonTask {
                    task: TaskName::default(),
                    deliveries: entry.deliveries,
                    starts: entry.starts,
                }))
            } else {
                None
            }
        };
        match error {
            Some(error) => self.give_up(number, error),
            None => self.submit_again(number),
        }
    }
}
