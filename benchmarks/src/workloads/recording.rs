//! (m) The cost of a recording, for each task.

use std::sync::mpsc;
use std::time::Instant;

use concurrent_futures::{RecordingOptions, ThreadPoolExecutor};

use crate::command_line::Settings;
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::report::figure;
use crate::section::{Section, Table, Target};

/// The tasks that are submitted together, few enough for the caches.
const BATCH: usize = 1_000;

/// The most nanoseconds that a recording may cost a task.
const LIMIT: f64 = 150.0;

pub(crate) fn run(settings: &Settings) -> Section {
    let pairs = settings.size(41, 3);
    let batches = settings.size(50, 2);
    let ours = Contestant::ours("concurrent-futures", move || sample(pairs, batches));
    let columns = ["ns per task", "while recording", "difference"];
    let table = Table::new(&columns, measure(settings.rounds, vec![ours])).ratio(None);
    let cost = table.ours(2).median;
    let target = Target::at_most(
        format!("recording costs at most {} ns a task", figure(LIMIT)),
        cost,
        LIMIT,
        format!("{} ns", figure(cost)),
    );
    let section = Section::shown(
        "The cost of a recording",
        format!(
            "The worker of a pool is held up while {BATCH} no-ops are submitted. Then it runs them. Once all have \
             run, the thread that has submitted takes the results. So no work is done at the same time. Turns of {} \
             tasks, with a recording and without, follow each other. A round's figure is the median over {pairs} \
             pairs of turns, and of the differences within the pairs.",
            BATCH * batches
        ),
        vec![table],
    );
    Section {
        targets: vec![target],
        ..section
    }
}

fn sample(pairs: usize, batches: usize) -> Sample {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .build()
        .expect("a pool of one worker");
    let turn = || {
        let start = Instant::now();
        for _ in 0..batches {
            run_batch(&pool);
        }
        nanoseconds_each(start.elapsed(), batches * BATCH)
    };
    turn();
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..pairs {
        let without = turn();
        let recording = RecordingOptions::new().start();
        let with = turn();
        drop(recording);
        for (samples, value) in samples.iter_mut().zip([without, with, with - without]) {
            samples.push(value);
        }
    }
    samples.into_iter().map(median).collect()
}

fn run_batch(pool: &ThreadPoolExecutor) {
    let (release, gate) = mpsc::channel::<()>();
    let held = pool.spawn(move || gate.recv().is_err());
    let tasks: Vec<_> = (0..BATCH)
        .map(|number| pool.spawn(move || number))
        .collect();
    let last = pool.spawn(|| ());
    drop(release);
    // The only worker takes this one last. Until then, this thread sleeps: it would keep up with the worker otherwise,
    // which would wake it again and again.
    assert!(last.expect("the pool is open").result().is_ok());
    let held = held.expect("the pool is open");
    assert_eq!(held.result().ok(), Some(true));
    for (number, task) in tasks.into_iter().enumerate() {
        let task = task.expect("the pool is open");
        assert_eq!(task.result().ok(), Some(number));
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
