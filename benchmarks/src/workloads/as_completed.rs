//! (d) Results in the order in which they finish.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use concurrent_futures::as_completed;
use futures::StreamExt;
use futures::executor::block_on;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{
    FuturesPool, Ours, Rayon, Threadpool, TokioBlocking, TokioTasks, warm_runtime,
};
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::pool::{Awaitable, Pool};
use crate::report::figure;
use crate::section::{Section, Table};

pub(crate) fn run(settings: &Settings) -> Section {
    let tasks = settings.size(100_000, 10_000);
    let sample = move |run: fn(usize) -> Duration| {
        move || -> Sample { vec![nanoseconds_each(run(tasks), tasks)] }
    };
    let contestants = vec![
        Contestant::ours("concurrent-futures as_completed", sample(ours)),
        Contestant::peer(
            "threadpool, tasks send (index, result) to one mpsc channel",
            sample(threadpool_channel),
        ),
        Contestant::peer(
            "rayon spawn, tasks send (index, result) to one mpsc channel",
            sample(rayon_channel),
        ),
        Contestant::peer("tokio spawn, JoinSet", sample(join_set)),
        Contestant::peer("tokio spawn_blocking, JoinSet", sample(blocking_join_set)),
        Contestant::peer(
            "tokio spawn, FuturesUnordered",
            sample(unordered::<TokioTasks>),
        ),
        Contestant::peer(
            "tokio spawn_blocking, FuturesUnordered",
            sample(unordered::<TokioBlocking>),
        ),
        Contestant::peer(
            "futures ThreadPool, FuturesUnordered",
            sample(unordered::<FuturesPool>),
        ),
        Contestant::shown(
            "concurrent-futures, awaited in FuturesUnordered",
            sample(unordered::<Ours>),
        ),
    ];
    let table = Table::new(&["ns per task"], measure(settings.rounds, contestants));
    Section::compared(
        format!("as_completed over {} no-ops", figure(tasks as f64)),
        "One thread submits all tasks, then takes the results in the order in which they finish; each result names \
         its task. Ours, `FuturesUnordered` and `JoinSet` work on handles that exist already. With a channel there \
         is no handle. The task was written to send its own result, so it cannot be cancelled, asked for its state \
         or waited for on its own. Users of these pools write such tasks, so the channel counts as a peer.",
        "ns",
        table,
    )
}

/// Counts results, and checks in the end that each came once.
struct Seen {
    count: usize,
    sum: usize,
}

impl Seen {
    fn new() -> Self {
        Self { count: 0, sum: 0 }
    }

    fn add(&mut self, index: usize) {
        self.count += 1;
        self.sum += index;
    }

    fn check(&self, tasks: usize) {
        assert_eq!(
            (self.count, self.sum),
            (tasks, tasks * (tasks - 1) / 2),
            "each result once"
        );
    }
}

fn ours(tasks: usize) -> Duration {
    let pool = Ours::warm(WORKERS);
    let mut seen = Seen::new();
    let start = Instant::now();
    let futures: Vec<_> = (0..tasks).map(|index| pool.spawn(move || index)).collect();
    for future in as_completed(futures) {
        seen.add(future.result().expect("the task returns"));
    }
    let elapsed = start.elapsed();
    seen.check(tasks);
    elapsed
}

fn threadpool_channel(tasks: usize) -> Duration {
    let pool = Threadpool::warm(WORKERS);
    channel(tasks, |index, sender| {
        pool.inner().execute(move || send(&sender, index));
    })
}

fn rayon_channel(tasks: usize) -> Duration {
    let pool = Rayon::warm(WORKERS);
    channel(tasks, |index, sender| {
        pool.inner().spawn(move || send(&sender, index));
    })
}

/// Sends the result of a task, which is `()`.
fn send(sender: &mpsc::Sender<(usize, ())>, index: usize) {
    sender
        .send((index, ()))
        .expect("somebody receives until all have sent");
}

fn channel(tasks: usize, submit: impl Fn(usize, mpsc::Sender<(usize, ())>)) -> Duration {
    let mut seen = Seen::new();
    let start = Instant::now();
    let (sender, receiver) = mpsc::channel();
    for index in 0..tasks {
        submit(index, sender.clone());
    }
    drop(sender);
    for (index, ()) in receiver {
        seen.add(index);
    }
    let elapsed = start.elapsed();
    seen.check(tasks);
    elapsed
}

fn join_set(tasks: usize) -> Duration {
    joined(tasks, |set, index, runtime| {
        set.spawn_on(async move { index }, runtime);
    })
}

fn blocking_join_set(tasks: usize) -> Duration {
    joined(tasks, |set, index, runtime| {
        set.spawn_blocking_on(move || index, runtime);
    })
}

fn joined(tasks: usize, submit: impl Fn(&mut JoinSet<usize>, usize, &Handle)) -> Duration {
    let runtime = warm_runtime(WORKERS);
    let mut seen = Seen::new();
    let start = Instant::now();
    let mut set = JoinSet::new();
    for index in 0..tasks {
        submit(&mut set, index, runtime.handle());
    }
    runtime.block_on(async {
        while let Some(result) = set.join_next().await {
            seen.add(result.expect("the task returns"));
        }
    });
    let elapsed = start.elapsed();
    seen.check(tasks);
    elapsed
}

/// Takes results from a `FuturesUnordered`, outside the runtime's `block_on`, which interrupts a future after
/// every 128 results.
fn unordered<P: Pool>(tasks: usize) -> Duration
where
    P::Handle<usize>: Awaitable<usize>,
{
    let pool = P::warm(WORKERS);
    let mut seen = Seen::new();
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks).map(|index| pool.spawn(move || index)).collect();
    let mut stream: FuturesUnordered<_> = handles.into_iter().collect();
    block_on(async {
        while let Some(result) = stream.next().await {
            seen.add(P::Handle::<usize>::value(result));
        }
    });
    let elapsed = start.elapsed();
    seen.check(tasks);
    elapsed
}
