//! The roles of a server's configuration: clients and hosts may use the subjects that they need, and no others.

#![forbid(unsafe_code)]

use crate::access::is_queue_name;
use crate::bus::kept::kept_of;
use crate::error::ClusterError;
use std::fmt::Write;

/// The subjects under which answers come, by role. A party of one role cannot listen to the answers of the other one.
pub(crate) const CLIENT_INBOX: &str = "cf.i.client";
pub(crate) const HOST_INBOX: &str = "cf.i.host";

/// The inbox of observers.
pub(crate) const OBSERVER_INBOX: &str = "cf.i.observer";

/// A role of parties that log in to a server.
///
/// The subjects are those that the role needs, and no others. A client cannot take tasks, listen to them, or write
/// itself into the registry of hosts. A host cannot submit tasks, or give orders to other hosts. An observer can look
/// at the states of streams and at the registry of hosts, and nothing else.
///
/// # Examples
/// ```
/// use concurrent_futures_cluster::ClusterRole;
///
/// let subjects = ClusterRole::Observer.publishes("images");
/// assert!(subjects.contains(&String::from("$JS.API.STREAM.INFO.cf-tasks-images")));
/// assert!(ClusterRole::Observer.publishes("images").iter().all(|subject| subject.starts_with("$JS.API.")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterRole {
    /// Submits tasks: an executor.
    Client,
    /// Runs tasks.
    Host,
    /// Looks: `concurrent-futures top`.
    Observer,
}

impl ClusterRole {
    /// Returns the subjects of a queue that the role writes to: for tools that make credentials.
    #[must_use]
    pub fn publishes(self, queue: &str) -> Vec<String> {
        match self {
            Self::Client => of_clients(queue).publish,
            Self::Host => of_hosts(queue).publish,
            Self::Observer => of_observers(queue).publish,
        }
    }

    /// Returns the subjects of a queue that the role listens to: for tools that make credentials.
    #[must_use]
    pub fn subscribes(self, queue: &str) -> Vec<String> {
        match self {
            Self::Client => of_clients(queue).subscribe,
            Self::Host => of_hosts(queue).subscribe,
            Self::Observer => of_observers(queue).subscribe,
        }
    }

    /// Returns whether the role answers to messages of other parties: it may write to the subject of a reply.
    #[must_use]
    pub fn answers(self) -> bool {
        self != Self::Observer
    }
}

/// Returns the part of a server's configuration that permits clients and hosts of a queue the subjects that they need.
/// Each role logs in with an `NKey`, whose public part is given here.
///
/// The seeds belong into `CONCURRENT_FUTURES_NKEY` of clients, and of hosts. [`ClusterRole`] says which role may do
/// which things.
///
/// # Errors
/// [`ClusterError::QueueName`], and [`ClusterError::PublicKey`], when a text is no public key of a user.
///
/// # Examples
/// ```
/// let client = "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6";
/// let host = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
/// let part = concurrent_futures_cluster::authorization("images", client, host)?;
/// assert!(part.starts_with("authorization {"));
/// # Ok::<(), concurrent_futures_cluster::ClusterError>(())
/// ```
pub fn authorization(queue: &str, client: &str, host: &str) -> Result<String, ClusterError> {
    authorization_of(
        queue,
        &[(ClusterRole::Client, client), (ClusterRole::Host, host)],
    )
}

/// Returns the part of a server's configuration as [`authorization`] does, for any number of parties.
///
/// # Errors
/// As for [`authorization`].
///
/// # Examples
/// ```
/// use concurrent_futures_cluster::{ClusterRole, authorization_of};
///
/// let key = "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6";
/// let part = authorization_of("images", &[(ClusterRole::Observer, key)])?;
/// assert!(part.contains(key));
/// # Ok::<(), concurrent_futures_cluster::ClusterError>(())
/// ```
pub fn authorization_of(
    queue: &str,
    parties: &[(ClusterRole, &str)],
) -> Result<String, ClusterError> {
    if !is_queue_name(queue) {
        return Err(ClusterError::QueueName(queue.to_owned()));
    }
    // The server's own limit, two seconds, is short for a busy machine that is to sign.
    let mut text = String::from("authorization {\n  timeout: 20\n  users: [\n");
    for (role, key) in parties {
        let is_key = key.len() == 56
            && key.starts_with('U')
            && key
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte));
        if !is_key {
            return Err(ClusterError::PublicKey((*key).to_owned()));
        }
        let answers = if role.answers() {
            "        allow_responses: { max: 2, expires: \"1m\" }\n"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "    {{\n      nkey: \"{key}\"\n      permissions: {{\n        publish: {{ allow: [{}] }}\n        \
             subscribe: {{ allow: [{}] }}\n{answers}      }}\n    }}\n",
            list(&role.publishes(queue)),
            list(&role.subscribes(queue)),
        );
    }
    text.push_str("  ]\n}\n");
    Ok(text)
}

/// The subjects of a role.
struct Role {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects
        .iter()
        .map(|subject| format!("\"{subject}\""))
        .collect();
    quoted.join(", ")
}

/// Returns the names of the streams of a queue.
fn stores(queue: &str) -> [String; 4] {
    [
        format!("cf-tasks-{queue}"),
        format!("cf-outcomes-{queue}"),
        format!("cf-payloads-{queue}"),
        format!("KV_cf-hosts-{queue}"),
    ]
}

/// Returns the names of the streams of a queue's kept sessions.
fn kept_stores(queue: &str) -> [String; 5] {
    let kept = kept_of(queue);
    [
        format!("cf-tasks-{kept}"),
        format!("cf-records-{kept}"),
        format!("cf-outcomes-{kept}"),
        format!("cf-payloads-{kept}"),
        format!("cf-sessions-{queue}"),
    ]
}

/// Returns the calls of `JetStream` that both roles need: they make the stores that are not there.
fn calls_of_both(queue: &str) -> Vec<String> {
    let kept = kept_of(queue);
    let mut calls = vec![String::from("$JS.API.INFO")];
    for store in stores(queue) {
        calls.push(format!("$JS.API.STREAM.INFO.{store}"));
        calls.push(format!("$JS.API.STREAM.CREATE.{store}"));
    }
    calls.push(format!("$JS.API.STREAM.PURGE.cf-payloads-{queue}"));
    calls.push(format!("$JS.API.DIRECT.GET.cf-payloads-{queue}.>"));
    calls.push(format!("cf.p.{queue}.>"));
    calls.push(format!("$JS.API.STREAM.INFO.cf-tasks-{kept}"));
    calls.push(format!("$JS.API.DIRECT.GET.cf-records-{kept}.>"));
    calls.push(format!("$JS.API.DIRECT.GET.cf-outcomes-{kept}.>"));
    calls.push(format!("$JS.API.DIRECT.GET.cf-payloads-{kept}.>"));
    calls.push(format!("cf.p.{kept}.>"));
    calls
}

fn of_clients(queue: &str) -> Role {
    let mut publish = calls_of_both(queue);
    let kept = kept_of(queue);
    // A client makes the stores of kept sessions, and removes what a session has.
    for store in kept_stores(queue) {
        publish.push(format!("$JS.API.STREAM.INFO.{store}"));
        publish.push(format!("$JS.API.STREAM.CREATE.{store}"));
    }
    // The first store has the tasks, which are removed by their numbers.
    for store in kept_stores(queue).iter().skip(1) {
        publish.push(format!("$JS.API.STREAM.PURGE.{store}"));
    }
    publish.extend([
        format!("cf.t.{kept}.>"),
        format!("cf.r.{kept}.>"),
        format!("cf.s.{queue}.*"),
        format!("cf.n.{queue}"),
        format!("$JS.API.STREAM.MSG.DELETE.cf-tasks-{kept}"),
        format!("$JS.API.DIRECT.GET.cf-tasks-{kept}"),
        format!("$JS.API.DIRECT.GET.cf-tasks-{kept}.>"),
        format!("$JS.API.CONSUMER.INFO.cf-tasks-{kept}.*"),
        format!("$JS.API.DIRECT.GET.cf-sessions-{queue}.>"),
    ]);
    publish.extend([
        format!("cf.t.{queue}.>"),
        format!("cf.h.{queue}.>"),
        format!("$JS.API.STREAM.MSG.DELETE.cf-tasks-{queue}"),
        format!("$JS.API.DIRECT.GET.cf-tasks-{queue}"),
        format!("$JS.API.CONSUMER.INFO.cf-tasks-{queue}.*"),
        format!("$JS.API.DIRECT.GET.cf-outcomes-{queue}.>"),
        format!("$JS.API.STREAM.PURGE.cf-outcomes-{queue}"),
        // The registry of hosts is read.
        format!("$JS.API.DIRECT.GET.KV_cf-hosts-{queue}.>"),
        format!("$JS.API.CONSUMER.CREATE.KV_cf-hosts-{queue}"),
        format!("$JS.API.CONSUMER.INFO.KV_cf-hosts-{queue}.*"),
        format!("$JS.API.CONSUMER.DELETE.KV_cf-hosts-{queue}.*"),
    ]);
    Role {
        publish,
        subscribe: vec![
            String::from("cf.c.*"),
            String::from("cf.q.*"),
            format!("cf.w.{queue}"),
            format!("{CLIENT_INBOX}.>"),
        ],
    }
}

fn of_hosts(queue: &str) -> Role {
    let mut publish = calls_of_both(queue);
    let kept = kept_of(queue);
    publish.extend([
        format!("cf.o.{kept}.>"),
        format!("$JS.ACK.cf-tasks-{kept}.>"),
        format!("$JS.API.CONSUMER.INFO.cf-tasks-{kept}.*"),
        format!("$JS.API.CONSUMER.CREATE.cf-tasks-{kept}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.cf-tasks-{kept}.*"),
    ]);
    publish.extend([
        String::from("cf.c.*"),
        String::from("cf.q.*"),
        format!("cf.w.{queue}"),
        format!("cf.o.{queue}.>"),
        format!("$KV.cf-hosts-{queue}.>"),
        format!("$JS.ACK.cf-tasks-{queue}.>"),
        format!("$JS.API.CONSUMER.INFO.cf-tasks-{queue}.*"),
        format!("$JS.API.CONSUMER.CREATE.cf-tasks-{queue}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.cf-tasks-{queue}.*"),
    ]);
    Role {
        publish,
        subscribe: vec![
            format!("cf.h.{queue}.*"),
            format!("cf.n.{queue}"),
            format!("{HOST_INBOX}.>"),
        ],
    }
}

fn of_observers(queue: &str) -> Role {
    let kept = kept_of(queue);
    let mut publish: Vec<String> = stores(queue)
        .iter()
        .map(|store| format!("$JS.API.STREAM.INFO.{store}"))
        .collect();
    publish.extend([
        format!("$JS.API.STREAM.INFO.cf-tasks-{kept}"),
        format!("$JS.API.STREAM.INFO.cf-outcomes-{kept}"),
        format!("$JS.API.STREAM.INFO.cf-payloads-{kept}"),
        format!("$JS.API.CONSUMER.LIST.cf-tasks-{kept}"),
        format!("$JS.API.CONSUMER.LIST.cf-tasks-{queue}"),
        format!("$JS.API.DIRECT.GET.KV_cf-hosts-{queue}.>"),
    ]);
    Role {
        publish,
        subscribe: vec![format!("{OBSERVER_INBOX}.>")],
    }
}
