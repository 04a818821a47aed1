//! (h) Many workers: a thousand short sleeps on a hundred of them.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::command_line::Settings;
use crate::contestants::{StdThread, TokioTasks, every_pool};
use crate::harness::{Contestant, measure, milliseconds};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table, Target};

const WORKERS: usize = 100;
const TASKS: usize = 1_000;
const SLEEP: Duration = Duration::from_millis(10);
const IDEAL: f64 = 100.0;
const LIMIT: f64 = 1.03 * IDEAL;

pub(crate) fn run(settings: &Settings) -> Section {
    let mut contestants = every_pool!(P => if P::NAME == TokioTasks::NAME {
        Contestant::unable(P::NAME)
    } else {
        Contestant::of::<P>(|| vec![warm::<P>(), cold::<P>()])
    });
    let threads = || vec![warm::<StdThread>(), cold::<StdThread>()];
    contestants.push(Contestant::shown(
        "std::thread::spawn, 1,000 threads at once",
        threads,
    ));
    contestants.push(Contestant::shown(
        "the floor: 100 threads of ten sleeps each",
        || vec![warm_floor(), cold_floor()],
    ));
    let table = Table::new(
        &["warm, ms", "cold, ms"],
        measure(settings.rounds, contestants),
    );

    let targets = [0, 1].map(|column| {
        let ours = table.ours(column).median;
        let promise = format!(
            "{}: within 3 % of {} ms",
            table.columns[column],
            figure(IDEAL)
        );
        Target::at_most(promise, ours, LIMIT, format!("{ours:.1} ms"))
    });
    let section = Section::shown(
        "1,000 sleeps of 10 ms on 100 workers",
        "Ideal: 100 ms. Warm: every worker has already run a task. Cold: the time includes building the pool, with \
         its threads. A task of `tokio spawn` must not block. A thread for each task is no pool of 100 workers: it \
         needs one sleep, not ten. The floor has no pool and no queue: it shows the cost of sleeps and threads alone.",
        vec![table],
    );
    Section {
        targets: targets.into(),
        ..section
    }
}

fn warm<P: Pool>() -> f64 {
    let pool = P::new(WORKERS);
    // No task passes before all workers are there.
    let barrier = Arc::new(Barrier::new(WORKERS));
    let handles = (0..WORKERS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            pool.spawn(move || barrier.wait())
        })
        .collect();
    pool.take_all(handles, drop);
    let start = Instant::now();
    sleep_all(&pool);
    milliseconds(start.elapsed())
}

fn cold<P: Pool>() -> f64 {
    let start = Instant::now();
    let pool = P::new(WORKERS);
    sleep_all(&pool);
    milliseconds(start.elapsed())
}

/// A hundred threads that are waiting already, until the last has slept ten times.
fn warm_floor() -> f64 {
    let barrier = Arc::new(Barrier::new(WORKERS + 1));
    let threads: Vec<_> = (0..WORKERS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                ten_sleeps();
                Instant::now()
            })
        })
        .collect();
    barrier.wait();
    let start = Instant::now();
    // A thread that only sleeps does not panic.
    let ends = threads.into_iter().flat_map(thread::JoinHandle::join);
    milliseconds(ends.max().map_or(Duration::ZERO, |end| end - start))
}

/// Measures the floor together with the threads' start and end.
fn cold_floor() -> f64 {
    let start = Instant::now();
    let threads: Vec<_> = (0..WORKERS).map(|_| thread::spawn(ten_sleeps)).collect();
    for thread in threads {
        let _ = thread.join();
    }
    milliseconds(start.elapsed())
}

fn ten_sleeps() {
    (0..TASKS / WORKERS).for_each(|_| thread::sleep(SLEEP));
}

fn sleep_all<P: Pool>(pool: &P) {
    let handles = (0..TASKS)
        .map(|_| pool.spawn(|| thread::sleep(SLEEP)))
        .collect();
    pool.take_all(handles, |()| ());
}
