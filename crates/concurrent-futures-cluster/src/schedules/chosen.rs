//! Schedules whose events are chosen, and not random.

use super::LEASE;
use super::clients::Scene;
use super::parties::{
    Book, LONG, LONG_TIME, PANIC, argument_of, start_client, start_host, submit_to, value_of,
    wait_until,
};
use crate::error::ClusterError;
use crate::memory::{Random, Server};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The time in which something is done that waits for no lease and no answer that is overdue: they take longer.
const SOON: Duration = Duration::from_millis(1500);

#[tokio::test(start_paused = true)]
async fn short_tasks_of_a_burst_share_messages() {
    let scene = Scene::with(1, Random(1), (0, 0), true).await;
    let arguments: Vec<_> = (0..3000).map(|number| argument_of(number, 5)).collect();
    for (number, argument) in (0..).zip(&arguments) {
        scene.submit(number, argument.clone());
    }
    scene.finish().await;
    scene.check(&arguments);
    let pushed = scene.server.pushed();
    assert!(pushed < 1500, "{pushed} messages for 3,000 tasks");
}

/// Hosts without a free worker give tasks back again and again. Wherever a task is on its way, it is cancelled, and
/// those that are left find a new host.
#[tokio::test(start_paused = true)]
async fn a_task_that_comes_back_again_and_again_is_cancelled_or_runs_soon() {
    for seed in 1..=10 {
        let mut scene = Scene::with(seed, Random(seed), (0, 0), true).await;
        // From now on, hosts take more tasks than they have workers for.
        scene.submit_all(0..300);
        wait_until("they are done", || scene.client.unfinished() == 0).await;
        let long = LONG..LONG + 6;
        scene.submit_all(long.clone());
        scene.wait_until_begun(long).await;
        scene.submit_all(300..340);
        for number in (300..340).step_by(2) {
            let pause = scene.random.below(100);
            sleep(Duration::from_millis(pause)).await;
            let cancelled = timeout(SOON, scene.client.cancel(number)).await;
            match cancelled {
                Ok(Some(sink)) => sink.cancel(),
                Ok(None) => panic!("seed {seed}: {number} is not cancelled"),
                Err(error) => panic!("seed {seed}: the cancellation of {number}: {error}"),
            }
        }
        let _host = start_host(&scene.server, &scene.book, seed, true);
        // Before any of the others has a free worker.
        let begun = scene.wait_until_begun((301..340).step_by(2));
        assert!(timeout(LONG_TIME / 2, begun).await.is_ok(), "seed {seed}");
        let seen = scene.book.lock().unwrap();
        assert!(
            (300..340)
                .step_by(2)
                .all(|number| !seen.begun.contains_key(&number))
        );
    }
}

/// The server has dropped all requests for tasks, and no host knows. Each has its next one only when the time of those has
/// passed, unless the client of a task that waits tells it.
#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_lost_requests_runs_after_its_lease() {
    for seed in 1..=20 {
        let scene = Scene::with(seed, Random(seed), (0, 0), true).await;
        scene.submit_all(0..3);
        wait_until("they are done", || scene.client.unfinished() == 0).await;
        scene.server.lose_requests();
        scene.submit_all(3..4);
        let begun = scene.wait_until_begun(3..4);
        assert!(timeout(3 * LEASE, begun).await.is_ok(), "seed {seed}");
    }
}

/// A program that has started a host sees it in the list of hosts at once.
#[tokio::test(start_paused = true)]
async fn a_host_that_has_started_is_in_the_registry() {
    for seed in 1..=100 {
        let (server, book) = (Server::new(seed, 0, 0, LEASE), Book::default());
        let mut first = start_host(&server, &book, seed, true);
        (&mut first.is_ready).await.unwrap();
        assert_eq!(server.hosts(), 1, "seed {seed}");
        let mut second = start_host(&server, &book, seed + 1, true);
        (&mut second.is_ready).await.unwrap();
        assert_eq!(server.hosts(), 2, "seed {seed}");
    }
}

/// A host whose first message to the registry is lost has started as well, and is there later.
#[tokio::test(start_paused = true)]
async fn a_host_starts_while_the_registry_does_not_answer() {
    let (server, book) = (Server::new(1, 1000, 0, LEASE), Book::default());
    let mut host = start_host(&server, &book, 1, true);
    let start = timeout(SOON, &mut host.is_ready).await;
    start.unwrap().unwrap();
    assert_eq!(server.hosts(), 0);
    server.calm();
    wait_until("the host is in the registry", || server.hosts() == 1).await;
}

/// A request of a host ends while the host is busy. So it does not know any more that there is no urgent task.
#[tokio::test(start_paused = true)]
async fn no_task_begins_before_an_urgent_one_when_the_requests_of_a_host_have_ended() {
    for seed in 1..=20 {
        let (server, book) = (Server::new(seed, 0, 0, LEASE), Book::default());
        let clients = [
            start_client(&server, 0).await,
            start_client(&server, 2).await,
        ];
        let _host = start_host(&server, &book, seed, true);
        let submit = |priority: usize, number| {
            submit_to(&clients[priority], &book, number, argument_of(number, 5));
        };
        submit(0, LONG);
        submit(0, LONG + 1);
        let has_begun = |count| book.lock().unwrap().order.len() == count;
        wait_until("the workers are busy", || has_begun(2)).await;
        sleep(LONG_TIME.saturating_sub(Duration::from_secs(5))).await;
        for number in 0..4 {
            submit(0, number);
            submit(1, 10 + number);
        }
        wait_until("all have begun", || has_begun(10)).await;
        let order = book.lock().unwrap().order.clone();
        assert!(
            order[2..6].iter().all(|number| *number >= 10),
            "{seed}: {order:?}"
        );
    }
}

/// A client that waits for each task has one at a time.
#[tokio::test(start_paused = true)]
async fn a_lone_task_takes_no_place_on_the_server_unless_its_host_has_no_worker_for_it() {
    let (server, book) = (Server::new(1, 0, 0, LEASE), Book::default());
    let client = start_client(&server, 1).await;
    let _host = start_host(&server, &book, 1, true);
    let run = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            submit_to(&client, &book, number, argument_of(number, 5));
            wait_until("it is done", || client.unfinished() == 0).await;
        }
        server.pushed()
    };
    let before = run(0..10).await;
    // The host did not know the server's time at first.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(run(10..100).await, before);
    let other = start_client(&server, 1).await;
    for number in 0..2 {
        submit_to(&other, &book, LONG + number, argument_of(LONG + number, 5));
    }
    let has_begun = || book.lock().unwrap().begun.contains_key(&(LONG + 1));
    wait_until("the workers are busy", has_begun).await;
    let before = server.pushed();
    let _another = start_host(&server, &book, 2, true);
    assert!(run(100..101).await > before);
    assert_ne!(other.unfinished(), 0);
}

/// A part of a host is gone. Without it, tasks would come, and never run.
#[tokio::test(start_paused = true)]
async fn a_host_with_a_panic_ends_and_its_tasks_run_elsewhere() {
    let (server, book) = (Server::new(1, 0, 0, LEASE), Book::default());
    let client = start_client(&server, 1).await;
    let host = start_host(&server, &book, 1, true);
    let numbers = [0, 1, PANIC, 2, 3];
    for number in numbers {
        submit_to(&client, &book, number, argument_of(number, 5));
    }
    let ended = host.task.await.unwrap();
    let Err(ClusterError::Panicked(message)) = &ended else {
        panic!("{ended:?}");
    };
    assert_eq!(message, "no luck");
    let other = start_host(&server, &book, 2, true);
    wait_until("they are done", || client.unfinished() == 0).await;
    let seen = book.lock().unwrap();
    for number in numbers {
        let expected = value_of(&argument_of(number, 5));
        assert_eq!(seen.outcomes[&number], [Ok(expected)]);
    }
    assert!(!other.task.is_finished());
}

/// The server's clock is an hour ahead, or behind, or is set while a client works.
#[tokio::test(start_paused = true)]
async fn hosts_ask_about_no_task_whatever_the_clocks_show() {
    const HOUR: u64 = 3_600_000;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ours = u64::try_from(since.unwrap().as_millis()).unwrap();
    for clock in [ours, ours + HOUR, ours - HOUR] {
        let (server, book) = (Server::new(1, 0, 0, LEASE), Book::default());
        server.set_clock(clock);
        let client = start_client(&server, 1).await;
        let _host = start_host(&server, &book, 1, true);
        let run = async |numbers: std::ops::Range<u64>| {
            for number in numbers {
                submit_to(&client, &book, number, argument_of(number, 5));
            }
            wait_until("they are done", || client.unfinished() == 0).await;
            server.questions()
        };
        assert_eq!(run(0..100).await, 0);
        sleep(Duration::from_secs(1000)).await;
        assert_eq!(run(100..200).await, 0);
        // The host asks about a task, as a burst comes from the server. So the client learns that the server has another clock.
        server.set_clock(clock + 2 * HOUR);
        assert_ne!(run(200..202).await, 0);
        sleep(Duration::from_secs(1)).await;
        let asked = server.questions();
        assert_eq!(run(202..300).await, asked);
    }
}
