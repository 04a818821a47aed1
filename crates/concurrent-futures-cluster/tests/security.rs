//! A party that can write to the server, but has no key: it forges, changes and repeats messages.

#![cfg(unix)]

mod common;

use async_nats::{HeaderMap, Message};
use common::{LEASE, Notes, Server, clock, note, note_and_wait, wait_until};
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

/// The messages of a party without the key.
#[derive(Default)]
struct Forgery(Vec<(String, HeaderMap, Vec<u8>)>);

impl Forgery {
    /// Adds a message with any content.
    fn add(&mut self, subject: &str, headers: Option<&HeaderMap>, payload: &[u8]) {
        let headers = headers.cloned().unwrap_or_default();
        self.0.push((subject.to_owned(), headers, payload.to_vec()));
    }

    /// Adds a message that was heard, word for word.
    fn repeat(&mut self, heard: &Message) {
        self.add(&heard.subject, heard.headers.as_ref(), &heard.payload);
    }

    /// Adds copies of a message that was heard, each with another byte changed.
    fn change_each_byte(&mut self, heard: &Message, change: impl Fn(u8) -> u8) {
        for at in 0..heard.payload.len() {
            let mut changed = heard.payload.to_vec();
            changed[at] = change(changed[at]);
            self.add(&heard.subject, None, &changed);
        }
    }

    /// Sends the messages, and waits until the server has them.
    fn send(self, server: &Server) -> Test {
        server.ask(async |context| {
            let client = context.client();
            for (subject, headers, payload) in self.0 {
                client
                    .publish_with_headers(subject, headers, payload.into())
                    .await?;
            }
            client.flush().await?;
            Ok(())
        })
    }
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
    let mut forgery = Forgery::default();
    // Word for word, under another identity, without one.
    let mut other = HeaderMap::new();
    other.insert("Nats-Msg-Id", "other");
    forgery.repeat(&task);
    forgery.add(&task.subject, Some(&other), &task.payload);
    forgery.add(&task.subject, None, &task.payload);
    forgery.change_each_byte(&task, |byte| byte ^ 0x40);
    // On the subject of another priority.
    let raised = format!("{}2", &task.subject[..task.subject.len() - 1]);
    forgery.add(&raised, task.headers.as_ref(), &task.payload);
    forgery.add(&task.subject, None, &[]);
    forgery.send(&server)?;
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
    let mut forgery = Forgery::default();
    forgery.repeat(&task);
    forgery.send(&server)?;
    wait_until("the client is asked", || !ear.on("cf.q.").is_empty());
    wait_until("it is refused", || matches!(server.messages(), Ok(0)));
    cluster
        .submit(note, (notes.path(), "third".into()))?
        .result()?;
    assert_eq!(notes.named("first").len(), 1);
    Ok(())
}

#[test]
fn a_repeated_or_changed_order_runs_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let ear = Eavesdropper::new(&server);
    let notes = Notes::new();
    let (cluster, _host) = pair(&server)?;
    // A task goes to its host directly once the host has brought an outcome, and knows the server's time.
    let mut name = String::new();
    wait_until("a task goes directly", || {
        let before = ear.on("cf.t.").len();
        name = format!("direct{}", notes.named("direct").len());
        let task = cluster.submit(note, (notes.path(), name.clone()));
        task.unwrap().result().unwrap();
        ear.on("cf.t.").len() == before && !ear.on("cf.h.default.").is_empty()
    });
    let order = ear.on("cf.h.default.").pop().unwrap();
    let mut forgery = Forgery::default();
    forgery.repeat(&order);
    forgery.repeat(&order);
    forgery.change_each_byte(&order, |byte| byte ^ 0x40);
    forgery.send(&server)?;
    // An order or a task behind them.
    for last in ["last.1", "last.2"] {
        let task = cluster.submit(note, (notes.path(), last.into()))?;
        task.result()?;
    }
    assert_eq!(notes.named(&format!("{name}.")).len(), 1);
    assert_eq!(notes.named("last").len(), 2);
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
    let mut forgery = Forgery::default();
    for report in &reports {
        forgery.add(&report.subject, None, &report.payload);
        forgery.change_each_byte(report, |byte| byte.wrapping_add(1));
        // The form of a host without a key.
        let bare = [&report.payload[..1], &report.payload[33..]].concat();
        forgery.add(&report.subject, None, &bare);
    }
    // Orders without a key.
    forgery.add("cf.h.default.all", None, &[1, 2, 3]);
    forgery.send(&server)?;
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

/// Returns the time of day of a worker, in seconds.
fn time_of_day((): ()) -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn hosts_ask_about_no_task_if_the_clocks_of_client_and_host_are_wrong() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let notes = Notes::new();
    let Some(library) = clock::library(notes.path().as_ref())? else {
        return Ok(());
    };
    let library = library.to_str().ok_or("the path is no text")?;
    let ear = Eavesdropper::new(&server);
    for (ours, theirs) in [("3600", "-3600"), ("-3600", "3600")] {
        let _host = server.host_with(1, &[("LD_PRELOAD", library), (clock::AHEAD, theirs)]);
        let variables = [("LD_PRELOAD", library), (clock::AHEAD, ours)];
        let client = server.program_with("client_with_a_wrong_clock", "", &variables);
        assert!(client.wait().success());
    }
    // The last message: then all before it were heard.
    let mut last = Forgery::default();
    last.add("cf.last", None, &[]);
    last.send(&server)?;
    wait_until("all is heard", || !ear.on("cf.last").is_empty());
    assert!(ear.on("cf.t.").len() >= 2);
    assert_eq!(ear.on("cf.q.").len(), 0);
    Ok(())
}

/// The program of a test: a client, whose clock differs by two hours from that of its host. It runs only in that test's child.
#[test]
fn client_with_a_wrong_clock() -> Test {
    let (Ok(url), Ok(ahead)) = (
        std::env::var("CLUSTER_TEST_URL"),
        std::env::var(clock::AHEAD),
    ) else {
        return Ok(());
    };
    let cluster = ClusterExecutor::builder().url(url).lease(LEASE).build()?;
    let ahead: i64 = ahead.parse()?;
    for _ in 0..20 {
        let theirs = cluster.submit(time_of_day, ())?.result()?;
        let differs = time_of_day(()) - theirs;
        assert!(
            (differs - 2 * ahead).abs() < 600,
            "the clock is ahead by {differs} s"
        );
    }
    Ok(())
}
