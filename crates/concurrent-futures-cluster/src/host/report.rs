//! The reports of a host to the clients of its tasks.
//!
//! Each session has a *reporter*, which sends all news that there are in one message. A report with outcomes is a
//! request: its receipt permits the acknowledgement of the tasks. Without a receipt the report is sent again, and
//! without a client, the outcome goes to the store of outcomes. Only then is the task acknowledged.

#![forbid(unsafe_code)]

use super::{Host, Key};
use crate::bus::{BusError, Settle, Thing};
use crate::log;
use crate::wire::{Id, Kind, Outcome, Receipt, Report};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The number of times that a report is sent before its outcomes are stored.
const TRIES: u32 = 3;
/// The most news in one report.
const MOST: usize = 1024;
/// The most bytes of outcomes in one report: messages have a limit of a mebibyte.
const MOST_BYTES: usize = 512 * 1024;

/// One piece of news.
pub(super) enum News {
    Held(u64, u32),
    Started(u64, u32),
    Ended(Key, Outcome),
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
            tokio::spawn(work(Arc::clone(host), self.host, session, receiver));
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
    let subject = format!("cf.c.{session}");
    let mut batch = Vec::new();
    while news.recv_many(&mut batch, MOST).await > 0 {
        let empty = || Report {
            host: id,
            workers: host.workers(),
            held: Vec::new(),
            started: Vec::new(),
            ended: Vec::new(),
        };
        let mut report = empty();
        let mut keys = Vec::new();
        let mut bytes = 0;
        for one in batch.drain(..) {
            match one {
                News::Held(number, attempt) => report.held.push((number, attempt)),
                News::Started(number, attempt) => report.started.push((number, attempt)),
                News::Ended(key, outcome) => {
                    let Some(task) = host.id_of(key) else {
                        continue;
                    };
                    let length = length_of(&outcome);
                    if bytes + length > MOST_BYTES && !keys.is_empty() {
                        let full = std::mem::replace(&mut report, empty());
                        tokio::spawn(deliver(
                            Arc::clone(&host),
                            subject.clone(),
                            full,
                            std::mem::take(&mut keys),
                        ));
                        bytes = 0;
                    }
                    bytes += length;
                    report.ended.push((task.number, task.attempt, outcome));
                    keys.push(key);
                }
            }
        }
        if keys.is_empty() {
            let sealed = host
                .settings
                .seal
                .seal(Kind::Report, subject.as_bytes(), &report);
            if let Err(error) = host.bus.send(&subject, sealed).await {
                log::trouble("a report could not be sent", &error);
            }
        } else {
            tokio::spawn(deliver(Arc::clone(&host), subject.clone(), report, keys));
        }
    }
}

/// Returns about how many bytes an outcome takes.
fn length_of(outcome: &Outcome) -> usize {
    use crate::wire::Payload;
    64 + match outcome {
        Outcome::Value(Payload::Inline(bytes)) | Outcome::Failure(bytes) => bytes.len(),
        Outcome::NoFunction(text) => text.len(),
        Outcome::Value(Payload::Object { .. }) | Outcome::Returned(_) => 0,
    }
}

/// Brings outcomes to their client, or else to the store, and then acknowledges the tasks.
async fn deliver(host: Arc<Host>, subject: String, report: Report, keys: Vec<Key>) {
    let seal = &host.settings.seal;
    let sealed = seal.seal(Kind::Report, subject.as_bytes(), &report);
    for attempt in 0..TRIES {
        let limit = host.bus.lease() / 3;
        match host.bus.request(&subject, sealed.clone(), limit).await {
            Ok(answer) => match seal.open::<Receipt>(Kind::Receipt, &sealed, &answer) {
                Ok(Receipt) => return settle(&host, &keys, Settle::Done).await,
                Err(refused) => log::refused("a receipt", &refused),
            },
            Err(BusError::NoListener) if attempt > 0 => break,
            Err(error) => log::trouble("a client did not take an outcome", &error),
        }
        sleep(Duration::from_millis(20 << attempt)).await;
    }
    for ((number, attempt, outcome), key) in report.ended.into_iter().zip(keys) {
        if matches!(outcome, Outcome::Returned(_)) {
            settle(&host, &[key], Settle::Back).await;
            continue;
        }
        let alone = Report {
            host: report.host,
            workers: report.workers,
            held: Vec::new(),
            started: Vec::new(),
            ended: vec![(number, attempt, outcome)],
        };
        let sealed = seal.seal(Kind::Report, subject.as_bytes(), &alone);
        let thing = Thing::outcome(&host.settings.queue, key.0, number);
        let mut pause = Duration::from_millis(50);
        // A server that is away comes back, or this host is ended. The task is held meanwhile.
        while let Err(error) = host.bus.keep(&thing, sealed.clone()).await {
            log::trouble("an outcome could not be stored", &error);
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(2));
        }
        settle(&host, &[key], Settle::Done).await;
    }
}

async fn settle(host: &Arc<Host>, keys: &[Key], how: Settle) {
    for key in keys {
        if let Some(token) = host.settled(*key) {
            // If that is lost, the task comes again when its lease ends, and its outcome is a second one.
            let _ = host.bus.settle(&token, how).await;
        }
    }
}
