//! (g) Eight threads submit at once.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{StdThread, every_pool};
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table};

const SUBMITTERS: usize = 8;

pub(crate) fn run(settings: &Settings) -> Section {
    let tasks = settings.size(50_000, 5_000);
    let mut contestants = every_pool!(P => Contestant::of::<P>(move || sample::<P>(tasks)));
    contestants.push(Contestant::unable(StdThread::NAME));
    let table = Table::new(&["ns per task"], measure(settings.rounds, contestants));
    Section::compared(
        format!(
            "{SUBMITTERS} threads submit {} no-ops each",
            figure(tasks as f64)
        ),
        "All begin at once; each submits all its tasks, then takes all its results. The time is that from the beginning \
         until the last thread is through, divided by the number of all tasks.",
        "ns",
        table,
    )
}

fn sample<P: Pool>(tasks: usize) -> Sample {
    let pool = P::warm(WORKERS);
    let begin = Barrier::new(SUBMITTERS + 1);
    let elapsed = thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    let handles: Vec<_> = (0..tasks).map(|_| pool.spawn(|| ())).collect();
                    pool.take_all(handles, |()| ());
                })
            })
            .collect();
        // Before the barrier: behind it, the submitters might be well on their way before this thread runs.
        let start = Instant::now();
        begin.wait();
        for submitter in submitters {
            submitter.join().expect("no task panics");
        }
        start.elapsed()
    });
    vec![nanoseconds_each(elapsed, SUBMITTERS * tasks)]
}
