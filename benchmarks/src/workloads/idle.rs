//! (j) The cost of an idle pool.

use std::thread;
use std::time::Duration;

use super::WORKERS;
use crate::child::Child;
use crate::command_line::Settings;
use crate::contestants::{StdThread, every_pool};
use crate::harness::{Contestant, Sample, measure};
use crate::pool::Pool;
use crate::process::{context_switches, processor_seconds};
use crate::report::figure;
use crate::section::{Section, Table, Target};

/// The time between the last task and the beginning of the measurement, as a worker may look for more work
/// for a while.
const REST: Duration = Duration::from_millis(200);

pub(crate) fn run(settings: &Settings) -> Section {
    let milliseconds = if settings.quick { 300 } else { 2_000 };
    let mut contestants = every_pool!(P => Contestant::of::<P>(move || {
        Child::Idle { pool: P::NAME.to_owned(), milliseconds }.start()
    }));
    contestants.push(Contestant::unable(StdThread::NAME));
    let columns = ["wake-ups", "CPU ms"];
    // Three are enough for what should be zero.
    let table = Table::new(&columns, measure(settings.rounds.min(3), contestants)).ratio(None);

    let ours = table.ours(0);
    let measured = format!(
        "{} (at most {} in a round)",
        figure(ours.median),
        figure(ours.highest)
    );
    let targets = vec![Target::at_most(
        "no wake-up in an idle pool",
        ours.highest,
        0.0,
        measured,
    )];
    let section = Section::shown(
        format!("A pool that idles for {milliseconds} ms"),
        "In a process of its own, a pool runs a thousand tasks and rests for 200 ms. Then the context switches of \
         all threads but the main one are counted, voluntary and involuntary. The CPU time is that of the process, \
         whose main thread sleeps.",
        vec![table],
    );
    Section { targets, ..section }
}

/// Measures in the child process.
pub(crate) fn child<P: Pool>(milliseconds: u64) -> Sample {
    let pool = P::warm(WORKERS);
    thread::sleep(REST);
    let switches_before = context_switches();
    let processor_before = processor_seconds();
    thread::sleep(Duration::from_millis(milliseconds));
    let processor = processor_seconds() - processor_before;
    let switches = context_switches() - switches_before;
    drop(pool);
    vec![switches, processor * 1e3]
}
