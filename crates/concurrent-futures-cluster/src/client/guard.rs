//! The asynchronous tasks of a client, and the effect of a panic there.
//!
//! A panic is a defect: of this crate, or of a frontend's [`Sink`](super::Sink). The rest of the client cannot know which
//! tasks the part had in hand. So the client *breaks*: it logs the panic, and fails all its tasks, and those that are
//! submitted later. No future waits for a part that is gone. Hosts still get receipts, so that they acknowledge what
//! they have.

#![forbid(unsafe_code)]

use super::{Arrived, Client, Entry, failed};
use crate::error::{ClientPanicked, TaskName};
use crate::log;
use concurrent_futures::TaskError;
use futures_util::FutureExt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl Client {
    /// Starts a part of the client's work: an asynchronous task of its own. `part` continues "the part of the client that".
    pub(super) fn spawn(
        self: &Arc<Self>,
        part: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        tokio::spawn(Arc::clone(self).guarded(part, work));
    }

    /// Does a part of the client's work. A panic there breaks the client.
    pub(super) async fn guarded(
        self: Arc<Self>,
        part: &'static str,
        work: impl Future<Output = ()>,
    ) {
        if let Err(payload) = AssertUnwindSafe(work).catch_unwind().await {
            self.break_by(part, log::text_of_panic(payload));
        }
    }

    /// Fails all tasks, and those to come, as a part of the client has panicked.
    fn break_by(&self, part: &'static str, message: String) {
        let error = ClientPanicked {
            task: TaskName::default(),
            part,
            message,
        };
        log::panicked(&error);
        // The first one counts.
        let error = self.lock().broken.get_or_insert(error).clone();
        self.fail_all(&failed(error));
    }

    /// Gives the future of a task an error. A panic of its frontend is logged, and other tasks go on.
    pub(super) fn fail(entry: Entry, error: TaskError) {
        let failing = || entry.complete(Arrived::Error(error), None);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(failing)) {
            let message = log::text_of_panic(payload);
            log::panicked(&format!("the future of a failed task: {message}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::control_tests::{LEASE, TASK, client_of, report, sealed, wait_until};
    use super::super::{Arrived, Client, ClusterOptions, Sink, Submission};
    use crate::bus::Bus;
    use crate::memory::Server;
    use crate::wire::{Call, Id, Outcome, Payload};
    use std::sync::{Arc, Mutex};

    /// A future that notes its end, and may panic.
    struct Noted {
        ends: Arc<Mutex<Vec<String>>>,
        panics_at_start: bool,
        panics_at_end: bool,
    }

    impl Sink for Noted {
        fn start(&self) -> bool {
            assert!(!self.panics_at_start, "no luck");
            true
        }

        fn cancel(self: Box<Self>) {}

        fn complete(self: Box<Self>, arrived: Arrived) {
            let text = match arrived {
                Arrived::Error(error) => error.to_string(),
                other => format!("{other:?}"),
            };
            self.ends.lock().unwrap().push(text);
            assert!(!self.panics_at_end, "no luck");
        }
    }

    fn submit(
        client: &Client,
        number: u64,
        ends: &Arc<Mutex<Vec<String>>>,
        (panics_at_start, panics_at_end): (bool, bool),
    ) {
        let sink = Noted {
            ends: Arc::clone(ends),
            panics_at_start,
            panics_at_end,
        };
        let call = Call::Opaque(Vec::new());
        let submission = Submission::single(call, "x".into(), ClusterOptions::new());
        client.submit(number, submission, Box::new(sink), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_part_fails_all_tasks_and_those_to_come() {
        let server = Server::new(1, 0, 0, LEASE);
        let client = client_of(&server.connect(), None).await;
        let ends = Arc::default();
        // The end of the first one panics, too.
        submit(&client, 1, &ends, (false, true));
        submit(&client, 2, &ends, (false, false));
        submit(&client, 3, &ends, (true, false));
        wait_until(|| ends.lock().unwrap().len() == 3).await;
        submit(&client, 4, &ends, (false, false));
        assert_eq!(client.unfinished(), 0);
        let ends = ends.lock().unwrap();
        assert_eq!(ends.len(), 4);
        for end in &*ends {
            let why = "that publishes tasks has panicked: no luck";
            assert!(end.contains(why), "{end}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_a_panic_still_answers_to_hosts() {
        let server = Server::new(1, 0, 0, LEASE);
        let client = client_of(&server.connect(), None).await;
        let ends = Arc::default();
        submit(&client, TASK, &ends, (false, true));
        submit(&client, TASK + 1, &ends, (false, false));
        wait_until(|| server.tasks() == 2).await;
        let hosts = server.connect();
        let host = Id::random().unwrap();
        let mut ended = report(host, TASK, 1, true);
        let value = Outcome::Value(Payload::Inline("v".into()));
        ended.ended.push((TASK, 1, value));
        let (subject, ended) = sealed(&client, &ended);
        // The first report has no receipt, as it was not taken to its end.
        assert!(hosts.request(&subject, ended.clone(), LEASE).await.is_err());
        assert_eq!(client.unfinished(), 0);
        let ends = ends.lock().unwrap().clone();
        assert!(ends[0].starts_with("Value"), "{ends:?}");
        let why = "that receives reports has panicked: no luck";
        assert!(ends.len() == 2 && ends[1].contains(why), "{ends:?}");
        assert!(hosts.request(&subject, ended, LEASE).await.is_ok());
    }
}
