//! The reports of a host to the clients of its tasks.
//!
//! Each session has a *reporter*, which sends all news that there are in one message. A report with outcomes is a
//! request: its receipt permits the acknowledgement of the tasks. Without a receipt the report is sent again, and
//! without a client, the outcome goes to the store of outcomes. Only then is the task acknowledged. A client that was cut
//! off may have the outcome, or get it from another host. So the host tells it of the stored one until there is a receipt,
//! or a minute and a half have passed. Before that receipt, the client removes the stored outcome.
//!
//! The outcomes of kept sessions go another way; see `kept.rs`.
//!
//! The news that a task is held, or has started, wait for a moment. Most tasks are done by then, and their outcome says
//! it all. Only the count of the hosts that a task has taken along relies on them. So the start of a task that was lost
//! before, or must not run twice, is confirmed by its client before the task runs.

#![forbid(unsafe_code)]

use super::state::Host;
use crate::bus::{BusError, StoreKey};
use crate::log;
use crate::wire::{Id, Kind, Outcome, Receipt, Report, Run, TaskId, TaskPart, Why};
use bytes::Bytes;
use concurrent_futures::engine::recording_clock;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The number of times that a report is sent before its outcomes are stored.
const TRIES: u32 = 3;
/// The time that news without an outcome wait for it.
const MOMENT: Duration = Duration::from_millis(1);
/// The number of reports without a receipt from which on outcomes wait for more of them, and the longest such wait.
const FLIGHTS: usize = 2;
const LONGEST_WAIT: Duration = Duration::from_millis(5);
/// The pauses after which a client is told again of an outcome that was stored.
const TELLINGS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// The most news in one report.
const MOST: usize = 1024;
/// The most bytes of outcomes in one report: messages have a limit of a mebibyte.
const MOST_BYTES: usize = 512 * 1024;

/// One piece of news.
pub(super) enum News {
    Held(TaskId),
    Started(TaskId),
    Ended(TaskId, Outcome, Option<Run>),
    /// The answer to a client that has sent a task directly, and where it goes: the host has the task.
    Taken(String, Bytes),
}

/// The tasks of which the client is to be told that they are held, or have started.
#[derive(Default)]
struct Pending {
    tasks: HashMap<u64, (u32, Stage)>,
    /// The answers that go together with the next outcome, and where they go. One message more would wake the server and
    /// the client once more.
    answers: Vec<(String, Bytes)>,
    /// When the client is to be told.
    due: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Started,
}

impl Pending {
    fn add(&mut self, task: TaskId, stage: Stage) {
        let told = self
            .tasks
            .entry(task.number)
            .or_insert((task.attempt, stage));
        // One that has started is held as well. News of a former attempt may come later than those of the next one.
        if told.0 < task.attempt || told.0 == task.attempt && stage == Stage::Started {
            *told = (task.attempt, stage);
        }
        self.due.get_or_insert_with(|| Instant::now() + MOMENT);
    }

    fn add_answer(&mut self, reply: String, answer: Bytes) {
        self.answers.push((reply, answer));
        self.due.get_or_insert_with(|| Instant::now() + MOMENT);
    }

    /// Removes a task that has ended.
    fn remove(&mut self, task: TaskId) {
        let is_told = |told: &(u32, Stage)| told.0 <= task.attempt;
        if self.tasks.get(&task.number).is_some_and(is_told) {
            self.tasks.remove(&task.number);
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Moves all tasks into a report.
    fn move_into(&mut self, report: &mut Report) {
        self.due = None;
        for (number, (attempt, stage)) in self.tasks.drain() {
            match stage {
                Stage::Held => report.held.push((number, attempt)),
                Stage::Started => report.started.push((number, attempt)),
            }
        }
    }
}

/// The reporters of a host.
pub(super) struct Reporters {
    host: Id,
    sessions: Mutex<HashMap<Id, (mpsc::UnboundedSender<News>, Instant)>>,
}

impl Reporters {
    pub(super) fn new(host: Id) -> Self {
        Self {
            host,
            sessions: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, (mpsc::UnboundedSender<News>, Instant)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the client of a session something.
    pub(super) fn tell(&self, host: &Arc<Host>, session: Id, news: News) {
        let mut sessions = self.lock();
        let (sender, used) = sessions.entry(session).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            host.spawn(work(Arc::clone(host), self.host, session, receiver));
            (sender, Instant::now())
        });
        *used = Instant::now();
        // The receiver lives as long as the sender.
        let _ = sender.send(news);
    }

    /// Ends reporters that had nothing to do for some time.
    pub(super) fn forget_idle(&self, time: Duration) {
        self.lock().retain(|_, (_, used)| used.elapsed() < time);
    }
}

/// Reports to one session, as long as there is a sender.
async fn work(host: Arc<Host>, id: Id, session: Id, mut news: mpsc::UnboundedReceiver<News>) {
    let mut batch = Vec::new();
    let mut pending = Pending::default();
    let flights = Arc::new(Semaphore::new(FLIGHTS));
    loop {
        let due = pending.due;
        let is_over = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            count = news.recv_many(&mut batch, MOST) => if count == 0 { break },
            () = is_over => {}
        }
        let mut flight = None;
        let has_ended = batch.iter().any(|one| matches!(one, News::Ended(..)));
        if has_ended {
            // While some reports have no receipt yet, further outcomes go together.
            let wait = timeout(LONGEST_WAIT, Arc::clone(&flights).acquire_owned());
            // The semaphore is never closed.
            flight = wait.await.ok().and_then(Result::ok);
            while batch.len() < MOST
                && let Ok(one) = news.try_recv()
            {
                batch.push(one);
            }
        }
        let mut outcomes = Outcomes::new(&host, session, id);
        outcomes.flight = flight;
        for one in batch.drain(..) {
            match one {
                News::Held(task) => pending.add(task, Stage::Held),
                News::Started(task) => pending.add(task, Stage::Started),
                News::Taken(reply, answer) => pending.add_answer(reply, answer),
                News::Ended(task, outcome, run) => {
                    pending.remove(task);
                    outcomes.add(task, outcome, run);
                }
            }
        }
        let is_due = pending.is_due();
        if has_ended {
            outcomes.answers = mem::take(&mut pending.answers);
        } else if is_due {
            answer_all(&host, pending.answers.drain(..)).await;
        }
        if is_due {
            pending.move_into(&mut outcomes.report);
        } else if pending.tasks.is_empty() && pending.answers.is_empty() {
            pending.due = None;
        }
        outcomes.send().await;
    }
}

/// Tells clients that their direct tasks were taken.
async fn answer_all(host: &Host, answers: impl IntoIterator<Item = (String, Bytes)>) {
    for (reply, answer) in answers {
        // A client without it publishes the task as well.
        let _ = host.bus.send(&reply, answer).await;
    }
}

/// A report that is being made.
struct Outcomes<'a> {
    host: &'a Arc<Host>,
    session: Id,
    report: Report,
    bytes: usize,
    /// The answers that go out with the report: without a pause in between, so that the server reads both at once.
    answers: Vec<(String, Bytes)>,
    /// Held until there is a receipt.
    flight: Option<OwnedSemaphorePermit>,
}

impl<'a> Outcomes<'a> {
    fn new(host: &'a Arc<Host>, session: Id, id: Id) -> Self {
        Self {
            host,
            session,
            report: Report {
                host: id,
                machine: host.settings.machine.clone(),
                pid: std::process::id(),
                clock: recording_clock(),
                workers: host.workers(),
                pace: host.pace(),
                held: Vec::new(),
                started: Vec::new(),
                ended: Vec::new(),
                runs: Vec::new(),
                parts: Vec::new(),
                may_be_stored: false,
            },
            bytes: 0,
            answers: Vec::new(),
            flight: None,
        }
    }

    /// Adds an outcome. Sends those that are there before, if they do not fit into one message.
    fn add(&mut self, task: TaskId, outcome: Outcome, run: Option<Run>) {
        let length = length_of(&outcome);
        if self.bytes + length > MOST_BYTES && !self.report.ended.is_empty() {
            let next = Self::new(self.host, self.session, self.report.host);
            mem::replace(self, next).deliver();
        }
        self.bytes += length;
        self.report.ended.push((task.number, task.attempt, outcome));
        self.report.runs.extend(run);
    }

    /// Sends what there is.
    async fn send(self) {
        if !self.report.ended.is_empty() {
            self.deliver();
        } else if !self.report.held.is_empty() || !self.report.started.is_empty() {
            let seal = &self.host.settings.seal;
            let subject = subject_of(self.session);
            let sealed = seal.seal(Kind::Report, subject.as_bytes(), &self.report);
            if let Err(error) = self.host.bus.send(&subject, sealed).await {
                log::trouble("a report could not be sent", &error);
            }
        }
    }

    fn deliver(self) {
        let host = Arc::clone(self.host);
        self.host.spawn(async move {
            answer_all(&host, self.answers).await;
            deliver(host, self.session, self.report, self.flight).await;
        });
    }
}

/// Returns the subject of the reports to a session.
fn subject_of(session: Id) -> String {
    format!("cf.c.{session}")
}

/// Returns about how many bytes an outcome takes.
fn length_of(outcome: &Outcome) -> usize {
    use crate::wire::Payload;
    64 + match outcome {
        Outcome::Value(Payload::Inline(bytes)) | Outcome::Failure(bytes) => bytes.len(),
        Outcome::NoFunction(text) | Outcome::NoStore(text) => text.len(),
        Outcome::Value(Payload::Object { .. } | Payload::Elsewhere { .. })
        | Outcome::Returned(_)
        | Outcome::HostLost
        | Outcome::Poison(_) => 0,
    }
}

/// Tells a client that a task starts, and waits for its receipt. Returns false if the client does not answer, or does
/// not wait for the task.
pub(super) async fn confirm_start(host: &Arc<Host>, task: TaskId) -> bool {
    let receipt = confirm(host, task).await;
    receipt.is_some_and(|receipt| receipt.unwanted.is_empty())
}

/// Tells a client that a task starts. Returns its receipt; none if the client does not answer.
pub(super) async fn confirm(host: &Arc<Host>, task: TaskId) -> Option<Receipt> {
    let subject = subject_of(task.session);
    let mut start = Outcomes::new(host, task.session, host.id);
    start.report.started.push((task.number, task.attempt));
    host.receipt(&subject, &start.report).await
}

/// Tells a client a part of a result, and waits for its receipt. Returns false if the client does not answer.
pub(super) async fn confirm_part(host: &Arc<Host>, session: Id, part: TaskPart) -> bool {
    let mut report = Outcomes::new(host, session, host.id).report;
    report.parts.push(part);
    host.receipt(&subject_of(session), &report).await.is_some()
}

impl Host {
    /// Sends a report until there is a receipt. None if the client does not answer.
    pub(super) async fn receipt(&self, subject: &str, report: &Report) -> Option<Receipt> {
        let seal = &self.settings.seal;
        let sealed = seal.seal(Kind::Report, subject.as_bytes(), report);
        for attempt in 0..TRIES {
            let limit = self.bus.lease() / 3;
            match self.bus.request(subject, sealed.clone(), limit).await {
                Ok(answer) => match seal.open::<Receipt>(Kind::Receipt, &sealed, &answer) {
                    Ok(receipt) => return Some(receipt),
                    Err(refused) => log::refused("a receipt", &refused),
                },
                Err(BusError::NoListener) if attempt > 0 => break,
                Err(error) => log::trouble("a client did not take a report", &error),
            }
            sleep(Duration::from_millis(20 << attempt)).await;
        }
        None
    }
}

/// Brings outcomes to their client, or else to the store, and then acknowledges the tasks.
async fn deliver(
    host: Arc<Host>,
    session: Id,
    report: Report,
    flight: Option<OwnedSemaphorePermit>,
) {
    if host.is_kept(session) {
        return host.deliver_kept(session, report, flight).await;
    }
    let subject = subject_of(session);
    let is_received = host.receipt(&subject, &report).await.is_some();
    drop(flight);
    if is_received {
        return settle(&host, session, &report.ended, false).await;
    }
    let seal = &host.settings.seal;
    let Report { ended, runs, .. } = report;
    for (number, attempt, outcome) in ended {
        let ended = [(number, attempt, outcome)];
        let [(.., outcome)] = &ended;
        if let Outcome::Returned(why) = outcome {
            // Another host may run it. Else the task goes: its client, if it comes back, submits it again.
            let goes_back = matches!(why, Why::Drained | Why::Ended | Why::Busy);
            settle(&host, session, &ended, goes_back).await;
            continue;
        }
        let alone = Report {
            ended: ended.into(),
            runs: of_task(&runs, number),
            may_be_stored: true,
            ..Outcomes::new(&host, session, report.host).report
        };
        let sealed = seal.seal(Kind::Report, subject.as_bytes(), &alone);
        let store_key = StoreKey::outcome(&host.settings.queue, session, number);
        let mut pause = Duration::from_millis(50);
        // A server that is away comes back, or this host is ended. The task is held meanwhile.
        while let Err(error) = host.bus.keep(&store_key, sealed.clone()).await {
            log::trouble("an outcome could not be stored", &error);
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(2));
            // A server without room gets some by the acknowledgement of tasks. So the client is asked again.
            if host.receipt(&subject, &alone).await.is_some() {
                break;
            }
        }
        settle(&host, session, &alone.ended, false).await;
        // An outcome may be stored although the answer to that was lost.
        host.spawn(tell_of_stored(Arc::clone(&host), subject.clone(), alone));
    }
}

/// Returns the runs of one task.
pub(super) fn of_task(runs: &[Run], number: u64) -> Vec<Run> {
    let runs = runs.iter().filter(|run| run.number == number);
    runs.copied().collect()
}

/// Tells a client of an outcome that may be stored. A client that was cut off may have taken the outcome, and looks for it no
/// more. So it removes what was stored, when it hears of that.
async fn tell_of_stored(host: Arc<Host>, subject: String, report: Report) {
    let mut pauses = TELLINGS.into_iter();
    while host.receipt(&subject, &report).await.is_none() {
        // Then the client has ended, for all that is known here.
        let Some(pause) = pauses.next() else { return };
        sleep(pause).await;
    }
}

/// Settles tasks whose client has their outcomes, or which go back.
async fn settle(host: &Arc<Host>, session: Id, ended: &[(u64, u32, Outcome)], goes_back: bool) {
    let settled = ended.iter().filter_map(|(number, attempt, outcome)| {
        let task = TaskId {
            session,
            number: *number,
            attempt: *attempt,
        };
        let is_returned = matches!(outcome, Outcome::Returned(_));
        host.settled(task, is_returned, goes_back)
    });
    // All at once: the next attempts of tasks that were given back may come at any time.
    let parcels: Vec<_> = settled.collect();
    for (token, how) in parcels {
        // If that is lost, the task comes again when its lease ends, and its outcome is a second one.
        let _ = host.bus.settle(&token, how).await;
    }
}
