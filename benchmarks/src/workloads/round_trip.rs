//! (b) Submit one no-op and take its result, again and again.

use std::time::{Duration, Instant};

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{StdThread, every_pool};
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::pool::Pool;
use crate::process::processor_seconds;
use crate::section::{Section, Table};

pub(crate) fn run(settings: &Settings) -> Section {
    let trips = settings.size(20_000, 1_000);
    let mut contestants = every_pool!(P => Contestant::of::<P>(move || sample::<P>(trips)));
    contestants.push(Contestant::of::<StdThread>(move || {
        sample::<StdThread>(trips)
    }));
    let columns = ["ns per round trip", "CPU ns per round trip"];
    let table = Table::new(&columns, measure(settings.rounds, contestants));
    Section::compared(
        "Round trip, one at a time",
        "One thread submits a no-op and waits for its result before it submits the next. The CPU time, of all threads \
         of the process, shows which pools wait by spinning. Spinning is fast on a machine with nothing else to do.",
        "ns",
        table,
    )
}

fn sample<P: Pool>(trips: usize) -> Sample {
    let pool = P::warm(WORKERS);
    let processor = processor_seconds();
    let start = Instant::now();
    for _ in 0..trips {
        pool.take(pool.spawn(|| ()));
    }
    let elapsed = start.elapsed();
    let processor = Duration::from_secs_f64(processor_seconds() - processor);
    vec![
        nanoseconds_each(elapsed, trips),
        nanoseconds_each(processor, trips),
    ]
}
