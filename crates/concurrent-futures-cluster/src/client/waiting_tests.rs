//! Tests of the tasks that were never published.

use super::control_tests::{LEASE, client_of, wait_until};
use super::waiting::{BLOCK, Waiting, WaitingQueue};
use super::{Argument, Arrived, CallKind, Client, ClusterOptions, Sink, Submission};
use crate::memory::{Memory, Random, Server};
use crate::wire::Call;
use concurrent_futures::TaskError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Nothing;

impl Sink for Nothing {
    fn start(&self) -> bool {
        true
    }

    fn cancel(self: Box<Self>) {}

    fn complete(self: Box<Self>, _: Arrived) {}
}

fn waiting(number: u64) -> Waiting {
    let call = Call::Opaque(Vec::new());
    Waiting {
        number,
        kind: Arc::new(CallKind::new(call, ClusterOptions::new(), "")),
        argument: Argument::from(number.to_le_bytes().to_vec()),
        sink: Box::new(Nothing),
        permit: None,
    }
}

fn number_of(task: Option<Waiting>) -> Option<u64> {
    task.map(|task| task.number)
}

#[test]
fn a_waiting_task_takes_64_bytes() {
    assert_eq!(size_of::<Option<Waiting>>(), 64);
}

/// Does to a queue what it does to a list, by a seed. Makes the numbers of tasks from a count and a random number.
fn compare_with_list(seed: u64, make_number: impl Fn(u64, u64) -> u64) {
    let mut random = Random(seed);
    let mut queue = WaitingQueue::default();
    let mut list: Vec<u64> = Vec::new();
    let mut gone: Vec<u64> = Vec::new();
    let mut count = 0;
    for step in 0..6000 {
        // It grows for some time, and shrinks then.
        let grows = step / 1000 % 2 == 0;
        match random.below(if grows { 10 } else { 25 }) {
            0..8 => {
                count += 1;
                let number = make_number(count, random.below(64));
                queue.push(waiting(number));
                list.push(number);
            }
            8 => {
                let first = (!list.is_empty()).then(|| list.remove(0));
                assert_eq!(queue.first().map(|task| task.number), first);
                assert_eq!(number_of(queue.pop()), first);
                gone.extend(first);
            }
            _ if list.is_empty() => {}
            _ => {
                let place = usize::try_from(random.below(list.len() as u64)).unwrap();
                let number = list.remove(place);
                assert!(queue.contains(number));
                assert_eq!(number_of(queue.remove(number)), Some(number));
                gone.push(number);
            }
        }
        assert_eq!(queue.len(), list.len());
        assert_eq!(queue.is_empty(), list.is_empty());
        if let Some(number) = gone.last() {
            assert!(!queue.contains(*number));
        }
        if step % 500 == 0 {
            assert!(queue.numbers().eq(list.iter().copied()));
        }
    }
    for number in gone {
        assert!(queue.remove(number).is_none());
    }
    let left: Vec<u64> = queue.into_iter().map(|task| task.number).collect();
    assert_eq!(left, list);
}

#[test]
fn the_queue_keeps_the_order_of_submissions_whatever_the_numbers_are() {
    for seed in 0..5 {
        compare_with_list(seed, |count, _| count);
        // Those of futures of one process, some of which are not of this client.
        compare_with_list(seed, |count, random| 100 * count + random);
        // Those of several threads, which take numbers in blocks.
        compare_with_list(seed, |count, _| 4096 - count % 4096 + 8192 * (count / 4096));
        compare_with_list(seed, |count, random| {
            64 * ((random % 3) * 10_000 + count) + random
        });
    }
}

#[test]
fn the_memory_of_tasks_that_have_left_is_freed() {
    let mut queue = WaitingQueue::default();
    let many = 100 * BLOCK as u64;
    let in_use = |queue: &WaitingQueue| queue.places();
    for number in 0..many {
        queue.push(waiting(number));
    }
    assert_eq!(in_use(&queue), 100 * BLOCK);
    // In the middle, from the beginning, and from the end.
    for number in many / 4..many / 2 {
        assert!(queue.remove(number).is_some());
    }
    assert_eq!(in_use(&queue), 75 * BLOCK);
    for _ in 0..many / 4 {
        queue.pop();
    }
    assert_eq!(in_use(&queue), 50 * BLOCK);
    for number in (many / 2..many).rev() {
        assert!(queue.remove(number).is_some());
    }
    assert!(queue.is_empty() && in_use(&queue) <= BLOCK);
    // The queue is as good as a new one.
    queue.push(waiting(3));
    assert!(queue.contains(3) && !queue.contains(many - 1));
}

/// A future that notes its end, and may be cancelled by its holder.
struct Noted {
    number: u64,
    ends: Ends,
    is_cancelled: Arc<AtomicBool>,
}

pub(super) type Ends = Arc<Mutex<Vec<(u64, String)>>>;

impl Sink for Noted {
    fn start(&self) -> bool {
        !self.is_cancelled.load(Ordering::SeqCst)
    }

    fn cancel(self: Box<Self>) {
        let mut ends = self.ends.lock().unwrap();
        ends.push((self.number, "cancelled".into()));
    }

    fn complete(self: Box<Self>, arrived: Arrived) {
        let text = match arrived {
            Arrived::Error(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        self.ends.lock().unwrap().push((self.number, text));
    }
}

/// Submits a task. Its future is cancelled if the flag becomes true before the task is published.
pub(super) fn submit(client: &Client, number: u64, ends: &Ends) -> Arc<AtomicBool> {
    submit_long(client, number, 8, ends)
}

/// Submits a task as [`submit`] does, with an argument of this length.
pub(super) fn submit_long(
    client: &Client,
    number: u64,
    length: usize,
    ends: &Ends,
) -> Arc<AtomicBool> {
    let is_cancelled = Arc::default();
    let sink = Noted {
        number,
        ends: Arc::clone(ends),
        is_cancelled: Arc::clone(&is_cancelled),
    };
    let call = Call::Opaque(Vec::new());
    let submission = Submission::single(call, vec![7; length].into(), ClusterOptions::new());
    client.submit(number, submission, Box::new(sink), None);
    is_cancelled
}

/// Starts a client with more tasks than the server has room for. Returns the numbers of those that wait with the client.
async fn client_with_many(bus: &Arc<Memory>, ends: &Ends) -> (Arc<Client>, Vec<u64>) {
    let client = client_of(bus, None).await;
    for number in 1..=1000 {
        submit(&client, number, ends);
    }
    // As many as the server has room for, as no host has reported.
    wait_until(|| client.lock().waiting.len() == 744).await;
    let waiting = client.lock().waiting.numbers().collect();
    (client, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_waiting_task_in_the_middle_is_cancelled_and_the_others_keep_their_order() {
    let server = Server::new(1, 0, 0, LEASE);
    let ends = Ends::default();
    let (client, waiting) = client_with_many(&server.connect(), &ends).await;
    assert!(waiting.iter().copied().eq(257..=1000));
    assert!(!client.has_begun(500));
    client.cancel(500).await.unwrap().cancel();
    assert_eq!(*ends.lock().unwrap(), [(500, "cancelled".into())]);
    // It is done now: a second cancellation comes too late.
    assert!(client.cancel(500).await.is_none());
    // One whose future was cancelled as long as it was pending.
    client.forget(600);
    assert_eq!(client.unfinished(), 998);
    // An outcome that comes early counts, whatever the place of the task is.
    client.complete(700, Arrived::Value("early".into()), None);
    assert_eq!(client.unfinished(), 997);
    let left: Vec<u64> = client.lock().waiting.numbers().collect();
    let expected = (257..=1000).filter(|number| ![500, 600, 700].contains(number));
    assert!(left.into_iter().eq(expected));
}

#[tokio::test(start_paused = true)]
async fn all_waiting_tasks_are_cancelled_together() {
    let server = Server::new(1, 0, 0, LEASE);
    let ends = Ends::default();
    let (client, _) = client_with_many(&server.connect(), &ends).await;
    let sinks = Arc::clone(&client).cancel_all().await;
    assert_eq!((sinks.len(), client.unfinished()), (1000, 0));
    client.wait_until_idle();
    for sink in sinks {
        sink.cancel();
    }
    let mut ends = std::mem::take(&mut *ends.lock().unwrap());
    ends.sort_unstable();
    let expected = (1..=1000).map(|number| (number, "cancelled".to_owned()));
    assert!(ends.into_iter().eq(expected));
}

#[tokio::test(start_paused = true)]
async fn waiting_tasks_fail_with_the_others_when_a_client_is_abandoned() {
    let server = Server::new(1, 0, 0, LEASE);
    let ends = Ends::default();
    let (client, waiting) = client_with_many(&server.connect(), &ends).await;
    client.abandon();
    assert_eq!(client.unfinished(), 0);
    client.wait_until_idle();
    let ends = ends.lock().unwrap();
    let abandoned = TaskError::Abandoned.to_string();
    assert!(ends.len() == 1000 && ends.iter().all(|(_, end)| *end == abandoned));
    // In their order.
    let last: Vec<u64> = ends.iter().skip(256).map(|(number, _)| *number).collect();
    assert_eq!(last, waiting);
}
