//! (f) The cost of one call of `wait` that finds some future done.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concurrent_futures::{DoneAndNotDone, Future, ReturnWhen, wait};

use crate::command_line::Settings;
use crate::contestants::Ours;
use crate::gate::Gate;
use crate::harness::{Contestant, Sample, measure};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Table, Target};

/// The futures that are done among those given to a call.
#[derive(Clone, Copy)]
enum Done {
    /// The last one only.
    One,
    /// Every second one.
    Half,
}

const CASES: [(usize, Done); 4] = [
    (2_000, Done::One),
    (2_000, Done::Half),
    (20_000, Done::One),
    (20_000, Done::Half),
];
const COLUMNS: [&str; 4] = [
    "one done of 2,000, µs",
    "half done of 2,000, µs",
    "one done of 20,000, µs",
    "half done of 20,000, µs",
];
/// Factor by which two equal figures may differ, as the machine is noisy.
const NOISE: f64 = 1.05;

/// Splits futures into those that are done, and the rest.
type Split = fn(Vec<Future<()>>) -> DoneAndNotDone<Future<()>>;

pub(crate) fn table(settings: &Settings) -> Table {
    let calls = settings.size(100, 10);
    let sample = move |split: Split| {
        move || -> Sample {
            CASES
                .iter()
                .map(|&(futures, done)| microseconds_a_call(split, futures, done, calls))
                .collect()
        }
    };
    let contestants = vec![
        Contestant::ours("concurrent-futures wait(FirstCompleted)", sample(by_wait)),
        Contestant::shown(
            "`partition` of the same `Vec` by `done()`",
            sample(by_partition),
        ),
    ];
    Table::new(&COLUMNS, measure(settings.rounds, contestants)).ratio(Some(2)).caption(
        "**One call that finds something done**, against building what it returns: two vectors, by asking each future \
         whether it is done.",
    )
}

pub(crate) fn targets(table: &Table) -> impl Iterator<Item = Target> {
    (0..COLUMNS.len()).map(|column| {
        let (ours, build) = (
            table.rows[0].figures[column].median,
            table.rows[1].figures[column].median,
        );
        let measured = format!(
            "{} µs; building {} µs (× {:.2})",
            figure(ours),
            figure(build),
            build / ours
        );
        let promise = format!(
            "{}: wait costs no more than building (within 5 %)",
            COLUMNS[column]
        );
        Target::at_most(promise, ours, NOISE * build, measured)
    })
}

fn by_wait(futures: Vec<Future<()>>) -> DoneAndNotDone<Future<()>> {
    wait(futures, None, ReturnWhen::FirstCompleted)
}

fn by_partition(futures: Vec<Future<()>>) -> DoneAndNotDone<Future<()>> {
    let (done, not_done) = futures.into_iter().partition(Future::is_done);
    DoneAndNotDone { done, not_done }
}

fn microseconds_a_call(split: Split, count: usize, done: Done, calls: usize) -> f64 {
    let pool = Ours::warm(1);
    let gate = Arc::new(Gate::default());
    let finished = match done {
        Done::One => 1,
        Done::Half => count / 2,
    };
    let mut futures = DoneAndNotDone {
        done: (0..finished).map(|_| pool.spawn(|| ())).collect(),
        not_done: (finished..count)
            .map(|_| {
                let gate = Arc::clone(&gate);
                pool.spawn(move || gate.pass())
            })
            .collect(),
    };
    while !futures.done.iter().all(Future::is_done) {
        std::thread::yield_now();
    }

    let mut elapsed = Duration::ZERO;
    for _ in 0..calls {
        let all = arrange(futures);
        let start = Instant::now();
        futures = black_box(split(black_box(all)));
        elapsed += start.elapsed();
        assert_eq!(futures.done.len(), finished);
    }
    gate.open();
    elapsed.as_secs_f64() * 1e6 / calls as f64
}

/// Puts the futures into the order of the case again: done and not done by turns, as long as there are both.
/// If only one future is done, it comes last.
fn arrange(futures: DoneAndNotDone<Future<()>>) -> Vec<Future<()>> {
    let DoneAndNotDone { done, not_done } = futures;
    let mut all = Vec::with_capacity(done.len() + not_done.len());
    let mut done = done.into_iter().rev();
    let rest = not_done.len() - done.len().min(not_done.len());
    for (index, future) in not_done.into_iter().enumerate() {
        all.push(future);
        if index >= rest {
            all.extend(done.next());
        }
    }
    all.extend(done);
    all
}
