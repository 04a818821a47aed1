//! A party that can write to the server, but has no key: it forges, changes and repeats messages.

#![cfg(unix)]

mod common;

use async_nats::{HeaderMap, Message};
use common::{LEASE, Notes, Server, note, note_and_wait, wait_until};
use concurrent_futures_cluster::ClusterExecutor;
use futures_util::StreamExt;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

/// Hears all messages of tasks and of clients, and keeps them.
struct Eavesdropper(Arc<Mutex<Vec<Message>>>);

impl Eavesdropper {
    fn new(server: &Server) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (keep, url) = (Arc::clone(&heard), server.url());
        let (sender, ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let client = async_nats::connect(url).await?;
                let mut messages = client.subscribe("cf.>").await?;
                client.flush().await?;
                sender.send(())?;
                while let Some(message) = messages.next().await {
                    keep.lock().unwrap().push(message);
                }
                Ok::<(), Box<dyn Error + Send + Sync>>(())
            })
        });
        ready.recv().unwrap();
        Self(heard)
    }

    /// Returns the messages so far on subjects that begin with `prefix`.
    fn on(&self, prefix: &str) -> Vec<Message> {
        let heard = self.0.lock().unwrap();
        let found = heard
            .iter()
            .filter(|message| message.subject.starts_with(prefix));
        found.cloned().collect()
    }
}

/// Sends messages, and waits until the server has them.
fn send(server: &Server, messages: Vec<(String, Option<HeaderMap>, Vec<u8>)>) -> Test {
    server.ask(async |context| {
        let client = context.client();
        for (subject, headers, payload) in messages {
            let headers = headers.unwrap_or_default();
            client
                .publish_with_headers(subject, headers, payload.into())
                .await?;
        }
        client.flush().await?;
        Ok(())
    })
}

fn pair(server: &Server) -> Result<(ClusterExecutor, common::Host), Box<dyn Error + Send + Sync>> {
    let host = server.host_with(1, &[("CONCURRENT_FUTURES_KEY", "secret")]);
    let cluster = server.executor().key("secret").build()?;
    Ok((cluster, host))
}

#[test]
fn repeated_and_changed_tasks_do_not_run() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let ear = Eavesdropper::new(&server);
    let notes = Notes::new();
    let (cluster, _host) = pair(&server)?;
    cluster
        .submit(note, (notes.path(), "first".into()))?
        .result()?;
    let task = ear.on("cf.t.").remove(0);
    let subject = task.subject.to_string();
    let mut evil = Vec::new();
    // Word for word, under another identity, without one.
    let mut other = HeaderMap::new();
    other.insert("Nats-Msg-Id", "other");
    evil.push((subject.clone(), task.headers.clone(), task.payload.to_vec()));
    evil.push((subject.clone(), Some(other), task.payload.to_vec()));
    evil.push((subject.clone(), None, task.payload.to_vec()));
    // With a changed byte at each place.
    for at in 0..task.payload.len() {
        let mut changed = task.payload.to_vec();
        changed[at] ^= 0x40;
        evil.push((subject.clone(), None, changed));
    }
    // On the subject of another priority.
    let raised = format!("{}2", &subject[..subject.len() - 1]);
    evil.push((raised, task.headers.clone(), task.payload.to_vec()));
    evil.push((subject.clone(), None, Vec::new()));
    send(&server, evil)?;
    // A task behind them.
    cluster
        .submit(note, (notes.path(), "last".into()))?
        .result()?;
    wait_until("all are refused", || matches!(server.messages(), Ok(0)));
    assert_eq!(notes.named("first").len(), 1);
    assert_eq!(notes.named("last").len(), 1);
    Ok(())
}

#[test]
fn a_host_asks_about_a_task_that_it_has_had() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let ear = Eavesdropper::new(&server);
    let notes = Notes::new();
    let (cluster, _host) = pair(&server)?;
    cluster
        .submit(note, (notes.path(), "first".into()))?
        .result()?;
    let task = ear.on("cf.t.").remove(0);
    wait_until("it is acknowledged", || matches!(server.messages(), Ok(0)));
    // The server forgets the identities of tasks with their stream.
    server.delete_tasks()?;
    cluster
        .submit(note, (notes.path(), "second".into()))?
        .result()?;
    send(
        &server,
        vec![(
            task.subject.to_string(),
            task.headers,
            task.payload.to_vec(),
        )],
    )?;
    wait_until("the client is asked", || !ear.on("cf.q.").is_empty());
    wait_until("it is refused", || matches!(server.messages(), Ok(0)));
    cluster
        .submit(note, (notes.path(), "third".into()))?
        .result()?;
    assert_eq!(notes.named("first").len(), 1);
    Ok(())
}

#[test]
fn forged_and_repeated_outcomes_change_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let ear = Eavesdropper::new(&server);
    let notes = Notes::new();
    let (cluster, _host) = pair(&server)?;
    cluster
        .submit(note, (notes.path(), "first".into()))?
        .result()?;
    let running = cluster.submit(note_and_wait, (notes.path(), "run".into()))?;
    wait_until("it runs", || {
        running.is_running() && !notes.named("run").is_empty()
    });
    let reports = ear.on("cf.c.");
    assert!(!reports.is_empty());
    let subject = reports[0].subject.to_string();
    let mut evil = Vec::new();
    for report in &reports {
        evil.push((subject.clone(), None, report.payload.to_vec()));
        for at in 0..report.payload.len() {
            let mut changed = report.payload.to_vec();
            changed[at] = changed[at].wrapping_add(1);
            evil.push((subject.clone(), None, changed));
        }
        // The form of a host without a key.
        let mut bare = vec![report.payload[0]];
        bare.extend(&report.payload[33..]);
        evil.push((subject.clone(), None, bare));
    }
    // Orders without a key.
    evil.push(("cf.h.default.all".into(), None, vec![1, 2, 3]));
    send(&server, evil)?;
    // The client has read them when it has read what comes behind them.
    let behind = ClusterExecutor::builder()
        .url(server.url())
        .key("secret")
        .lease(LEASE)
        .build()?;
    assert_eq!(behind.hosts()?.len(), 1);
    assert!(!running.is_done());
    notes.write("go");
    let pid = running.result()?;
    assert_eq!(notes.named("run"), [format!("run.{pid}")]);
    Ok(())
}
