//! The part of the seam to the server that kept sessions need: tasks, records and outcomes on disk, and one owner.
//!
//! The tasks of a kept session outlive their client. Each has a *record* on the server: all that a later client must
//! know to get the outcome, and to submit the task again. The stores of a queue's kept sessions are those of a queue
//! with another name; see [`kept_of`].

#![forbid(unsafe_code)]

use super::{Lane, Later, StoreKey};
use crate::wire::{Id, hash};
use bytes::Bytes;
use std::time::Duration;

/// The end of the name of the part of a queue that has kept sessions. No queue of a program has such a name.
const END: &str = "+kept";
/// The time for which payloads stay longer than the records and the outcomes that name them.
pub(crate) const SLACK: Duration = Duration::from_secs(600);

/// The number of ranks of kept tasks.
///
/// All tasks of a session are on the server, and the server delivers those of a lane in their order. So a session with many
/// tasks would keep all later ones waiting. The rank tells how many tasks of its own session are before a task: few,
/// some, or many. Hosts ask for tasks of all ranks, and take them as they come. So a session waits for the first tasks of
/// the others, and shares the hosts with their many.
pub(crate) const RANKS: u8 = 3;

/// Returns the name of the part of a queue that has kept sessions.
pub(crate) fn kept_of(queue: &str) -> String {
    format!("{queue}{END}")
}

/// Returns the queue of whose kept part this is the name.
pub(crate) fn queue_of(name: &str) -> Option<&str> {
    name.strip_suffix(END)
}

/// Returns the identity of a kept session on the wire.
pub(crate) fn session_of(queue: &str, name: &str) -> Id {
    Id::of(&hash(
        format!("concurrent-futures session {queue} {name}").as_bytes(),
    ))
}

/// The news that a task waits.
pub(crate) const WAITING: &[u8] = b"waiting";

/// Returns the subject on which hosts of a queue are told that there are kept sessions, or tasks that wait.
pub(crate) fn news_of(queue: &str) -> String {
    format!("cf.n.{queue}")
}

/// A task of a kept session, by its place among the tasks of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeptTask {
    pub(crate) session: Id,
    pub(crate) number: u64,
}

impl KeptTask {
    /// Returns the subject of the task, which is its own.
    pub(crate) fn subject(self, lane: &Lane) -> String {
        format!("{}.{}.{}", lane.subject(), self.session, self.number)
    }
}

/// The newest message of a task on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) frame: Bytes,
}

/// The kinds of messages that a session has one of for each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Records,
    Outcomes,
}

/// The effect of a claim to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The claim holds for one lease. The next one names this number.
    Ours(u64),
    /// The session has another claim: its number, and its content.
    Theirs(u64, Bytes),
    /// The named claim has ended, and no other one is there.
    Free,
}

/// The calls of the server for kept sessions. Queues are named without the end that stands for their kept part.
pub(crate) trait KeptBus: Send + Sync + 'static {
    /// Makes the stores of a queue that are not there, with so many copies each. Returns whether there were any.
    fn ensure_kept<'a>(&'a self, queue: &'a str, replicas: usize) -> Later<'a, bool>;

    /// Returns whether a queue has stores of kept sessions.
    fn has_kept<'a>(&'a self, queue: &'a str) -> Later<'a, bool>;

    /// Publishes an attempt of a task, once for each `id`, for some time. It replaces older ones. Returns its number on
    /// the server.
    fn push_kept<'a>(
        &'a self,
        lane: &'a Lane,
        task: KeptTask,
        id: &'a str,
        frame: Bytes,
        age: Duration,
    ) -> Later<'a, u64>;

    /// Returns the newest attempt of a task, also if a host has it.
    fn find<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, Option<Found>>;

    /// Removes all attempts of a task.
    fn remove_kept<'a>(&'a self, lane: &'a Lane, task: KeptTask) -> Later<'a, ()>;

    /// Keeps a value for some time. Returns false if there is one that stays.
    fn keep_for<'a>(
        &'a self,
        store_key: &'a StoreKey,
        content: Bytes,
        age: Duration,
    ) -> Later<'a, bool>;

    /// Returns the numbers of the tasks that have a record, or an outcome, in their order.
    fn numbers<'a>(&'a self, queue: &'a str, session: Id, what: Listed) -> Later<'a, Vec<u64>>;

    /// Claims a session for a lease, or renews the claim of the number `last`. Zero stands for none.
    fn claim<'a>(
        &'a self,
        queue: &'a str,
        session: Id,
        owner: Bytes,
        last: u64,
    ) -> Later<'a, Claimed>;

    /// Ends the claim of the number `last`.
    fn release<'a>(&'a self, queue: &'a str, session: Id, last: u64) -> Later<'a, ()>;

    /// Removes all that a session has.
    fn discard<'a>(&'a self, queue: &'a str, session: Id) -> Later<'a, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_an_identity_of_its_own_in_each_queue() {
        let ids = [("q", "s"), ("q", "t"), ("r", "s")].map(|(queue, name)| session_of(queue, name));
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert_eq!(session_of("q", "s"), ids[0]);
        assert_eq!(queue_of(&kept_of("q")), Some("q"));
        assert_eq!(queue_of("q"), None);
    }
}
