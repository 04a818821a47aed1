//! (a) Submit many no-ops, then take all results.

use std::time::Instant;

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{StdThread, every_pool};
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table, Target};

const LIMIT: f64 = 250.0;

pub(crate) fn run(settings: &Settings) -> Section {
    let tasks = settings.size(1_000_000, 50_000);
    let mut contestants = every_pool!(P => Contestant::of::<P>(move || sample::<P>(tasks)));
    contestants.push(Contestant::unable(StdThread::NAME));
    let columns = ["ns per task", "of which submitting"];
    let table = Table::new(&columns, measure(settings.rounds, contestants));

    let ours = table.ours(0).median;
    let limit = Target::at_most(
        "at most 250 ns per task",
        ours,
        LIMIT,
        format!("{} ns", figure(ours)),
    );
    let mut section = Section::compared(
        format!(
            "Submit {} no-ops, then take all results",
            figure(tasks as f64)
        ),
        "One thread submits all tasks and keeps their handles in a `Vec`; then it takes the results in that order. \
         `std::thread::spawn` cannot start that many threads.",
        "ns",
        table,
    );
    section.targets.push(limit);
    section
}

fn sample<P: Pool>(tasks: usize) -> Sample {
    let pool = P::warm(WORKERS);
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks).map(|_| pool.spawn(|| ())).collect();
    let submitted = start.elapsed();
    pool.take_all(handles, |()| ());
    let taken = start.elapsed();
    vec![
        nanoseconds_each(taken, tasks),
        nanoseconds_each(submitted, tasks),
    ]
}
