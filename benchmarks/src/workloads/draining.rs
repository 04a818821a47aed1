//! (f) Draining futures that are pending when the draining begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use concurrent_futures::{DoneAndNotDone, ReturnWhen, as_completed, wait};
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::select_all;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{WORKERS, wait_call};
use crate::command_line::Settings;
use crate::contestants::{FuturesPool, Ours, TokioBlocking, TokioTasks, warm_runtime};
use crate::gate::Gate;
use crate::harness::{Contestant, Sample, measure, milliseconds};
use crate::pool::{Awaitable, Pool};
use crate::report::figure;
use crate::section::{Section, Table, Target};

/// The number of tasks that may have finished, at a measured pace, before their futures were taken.
const AHEAD: usize = 16;
const COLUMNS: [&str; 4] = [
    "2,000 at full speed, ms",
    "20,000 at full speed, ms",
    "2,000 paced, ms",
    "20,000 paced, ms",
];
const SMALL: usize = 2_000;
const LARGE: usize = 20_000;
/// The growth of the time for each future, from the small number to the large one, that still counts as linear.
const LINEAR: f64 = 1.5;

pub(crate) fn run(settings: &Settings) -> Section {
    // The columns bear the sizes, so a quick run only has fewer rounds.
    let rounds = settings.rounds;
    let again = Table::new(&COLUMNS, measure(rounds, calls_that_start_anew())).ratio(Some(3)).caption(
        "**One call after the other**, each given all futures that are left. `wait` returns all that are done, \
         `select_all` returns one.",
    );
    let kept = Table::new(&COLUMNS, measure(rounds, registrations_that_are_kept()))
        .ratio(Some(1))
        .caption("**The registration is kept** until the last future is done.");
    let calls = wait_call::table(settings);

    let mut targets = Vec::new();
    for (table, call) in [(&again, "wait"), (&kept, "as_completed")] {
        targets.extend(COLUMNS.iter().enumerate().filter_map(|(column, case)| {
            let what = format!("{call}, {case}: ", case = case.trim_end_matches(", ms"));
            Target::as_fast_as_peers(table, column, "ms", &what)
        }));
    }
    targets.extend(
        [(0, "full speed"), (2, "paced")].map(|(column, pace)| linear(&kept, column, pace)),
    );
    targets.extend(wait_call::targets(&calls));
    let section = Section::shown(
        "Draining pending futures",
        format!(
            "A gate holds the tasks of a pool back, so that all futures are pending when the draining (and the time) \
             begins. At full speed, the gate opens for all at once, and the pool runs ahead of the draining \
             thread. Paced, the gate opens bit by bit, so that at most {AHEAD} tasks are done and not taken yet. The \
             calls find few futures done, and many pending. `FuturesUnordered` and `select_all` are polled outside \
             tokio's runtime, whose limit of 128 results in a row makes them slower. A `JoinSet` registers when it \
             spawns. Where the registration is kept, the paced columns mostly show whether the draining thread and a \
             worker run on one processor or on two. That changes the time several times over from round to round. \
             They distinguish linear growth from quadratic, and no more."
        ),
        vec![again, kept, calls],
    );
    Section { targets, ..section }
}

fn calls_that_start_anew() -> Vec<Contestant> {
    vec![
        Contestant::ours("concurrent-futures wait(FirstCompleted)", || {
            sample(waiting)
        }),
        Contestant::peer("futures ThreadPool, select_all", || {
            sample(selecting::<FuturesPool>)
        }),
        Contestant::peer("tokio spawn_blocking, select_all", || {
            sample(selecting::<TokioBlocking>)
        }),
        Contestant::peer("tokio spawn, select_all", || {
            sample(selecting::<TokioTasks>)
        }),
    ]
}

fn registrations_that_are_kept() -> Vec<Contestant> {
    vec![
        Contestant::ours("concurrent-futures as_completed", || sample(completing)),
        Contestant::peer("futures ThreadPool, FuturesUnordered", || {
            sample(unordered::<FuturesPool>)
        }),
        Contestant::peer("tokio spawn_blocking, FuturesUnordered", || {
            sample(unordered::<TokioBlocking>)
        }),
        Contestant::peer("tokio spawn, FuturesUnordered", || {
            sample(unordered::<TokioTasks>)
        }),
        Contestant::peer("tokio spawn_blocking, JoinSet", || {
            sample(blocking_join_set)
        }),
        Contestant::peer("tokio spawn, JoinSet", || sample(join_set)),
        Contestant::shown("concurrent-futures, awaited in FuturesUnordered", || {
            sample(unordered::<Ours>)
        }),
    ]
}

/// Growth of the time for each future in our row, from a column of the small number to that of the large one.
fn linear(table: &Table, column: usize, pace: &str) -> Target {
    let each = |column: usize, count: usize| table.ours(column).median * 1e6 / count as f64;
    let (small, large) = (each(column, SMALL), each(column + 1, LARGE));
    let growth = large / small;
    let measured = format!(
        "{} and {} ns for each future (× {growth:.2})",
        figure(small),
        figure(large)
    );
    Target::at_most(
        format!("as_completed, {pace}: grows linearly (within × {LINEAR})"),
        growth,
        LINEAR,
        measured,
    )
}

/// Measures a way to drain, at a pace of this number of futures.
fn sample(drain: fn(Pace) -> Duration) -> Sample {
    let paces = [
        Pace::full_speed(SMALL),
        Pace::full_speed(LARGE),
        Pace::measured(SMALL),
        Pace::measured(LARGE),
    ];
    paces.into_iter().map(drain).map(milliseconds).collect()
}

/// Decides when the tasks may finish.
struct Pace {
    futures: usize,
    gate: Arc<Gate>,
    /// The number of tasks that the gate is open for.
    open_for: usize,
    ahead: usize,
}

impl Pace {
    fn full_speed(futures: usize) -> Self {
        Self {
            futures,
            gate: Arc::default(),
            open_for: 0,
            ahead: futures,
        }
    }

    fn measured(futures: usize) -> Self {
        Self {
            futures,
            gate: Arc::default(),
            open_for: 0,
            ahead: AHEAD,
        }
    }

    /// Counts `taken` futures. Opens the gate further once half of the tasks that were let through are used
    /// up, as opening costs time.
    fn taken(&mut self, taken: usize) {
        if self.open_for < self.futures && self.open_for - taken <= self.ahead / 2 {
            self.open_for = taken + self.ahead;
            self.gate.open_for(self.open_for);
        }
    }

    /// Submits the tasks.
    fn submit<P: Pool>(&self, pool: &P) -> Vec<P::Handle<()>> {
        let task = || {
            let gate = Arc::clone(&self.gate);
            move || gate.pass()
        };
        (0..self.futures).map(|_| pool.spawn(task())).collect()
    }
}

fn waiting(mut pace: Pace) -> Duration {
    let pool = Ours::warm(WORKERS);
    let mut pending = pace.submit(&pool);
    let start = Instant::now();
    let mut taken = 0;
    while !pending.is_empty() {
        pace.taken(taken);
        let DoneAndNotDone { done, not_done } = wait(pending, None, ReturnWhen::FirstCompleted);
        taken += done.len();
        pool.take_all(done, |()| ());
        pending = not_done;
    }
    start.elapsed()
}

fn completing(mut pace: Pace) -> Duration {
    let pool = Ours::warm(WORKERS);
    let pending = pace.submit(&pool);
    let start = Instant::now();
    let mut futures = as_completed(pending);
    for taken in 0..pace.futures {
        pace.taken(taken);
        pool.take(futures.next().expect("as many as were given"));
    }
    start.elapsed()
}

fn selecting<P: Pool>(mut pace: Pace) -> Duration
where
    P::Handle<()>: Awaitable<()>,
{
    let pool = P::warm(WORKERS);
    let mut pending = pace.submit(&pool);
    let start = Instant::now();
    block_on(async {
        for taken in 0..pace.futures {
            pace.taken(taken);
            let (output, _, rest) = select_all(pending).await;
            P::Handle::<()>::value(output);
            pending = rest;
        }
    });
    start.elapsed()
}

fn unordered<P: Pool>(mut pace: Pace) -> Duration
where
    P::Handle<()>: Awaitable<()>,
{
    let pool = P::warm(WORKERS);
    let pending = pace.submit(&pool);
    let start = Instant::now();
    let mut stream: FuturesUnordered<_> = pending.into_iter().collect();
    block_on(async {
        for taken in 0..pace.futures {
            pace.taken(taken);
            P::Handle::<()>::value(stream.next().await.expect("as many as were given"));
        }
    });
    start.elapsed()
}

fn join_set(pace: Pace) -> Duration {
    joined(pace, |set, gate, runtime| {
        set.spawn_on(async move { gate.pass() }, runtime);
    })
}

fn blocking_join_set(pace: Pace) -> Duration {
    joined(pace, |set, gate, runtime| {
        set.spawn_blocking_on(move || gate.pass(), runtime);
    })
}

fn joined(mut pace: Pace, submit: impl Fn(&mut JoinSet<()>, Arc<Gate>, &Handle)) -> Duration {
    let runtime = warm_runtime(WORKERS);
    let mut set = JoinSet::new();
    for _ in 0..pace.futures {
        submit(&mut set, Arc::clone(&pace.gate), runtime.handle());
    }
    let start = Instant::now();
    runtime.block_on(async {
        for taken in 0..pace.futures {
            pace.taken(taken);
            set.join_next()
                .await
                .expect("as many as were spawned")
                .expect("the task returns");
        }
    });
    start.elapsed()
}
