//! (c) Results in the order of the inputs.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{Ours, Rayon, StdThread, every_pool};
use crate::harness::{Contestant, Role, Sample, measure, nanoseconds_each};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table};

pub(crate) fn run(settings: &Settings) -> Section {
    let items = settings.size(100_000, 10_000);
    let mut contestants = every_pool!(P => if P::ROLE == Role::Ours {
        Contestant::ours("concurrent-futures map", move || map(items))
    } else {
        Contestant::of::<P>(move || submit_and_collect::<P>(items))
    });
    contestants.push(Contestant::unable(StdThread::NAME));
    contestants.push(Contestant::shown("rayon par_iter", move || split(items)));
    let table = Table::new(&["ns per item"], measure(settings.rounds, contestants));
    Section::compared(
        format!("Map over {} items, results in order", figure(items as f64)),
        "The function returns its argument; the results are collected into a `Vec`. Ours is `map`, one task for each \
         item. The peers have no such call, so they submit all and collect in order. The parallel iterator of rayon \
         does something else. It splits the range into a few large pieces, and has neither a task nor a handle for \
         an item.",
        "ns",
        table,
    )
}

fn map(items: usize) -> Sample {
    let pool = Ours::warm(WORKERS);
    let start = Instant::now();
    let results = pool
        .executor()
        .map(black_box::<usize>, 0..items)
        .expect("the pool is open");
    let results: Vec<usize> = results
        .map(|result| result.expect("the task returns"))
        .collect();
    let elapsed = start.elapsed();
    check(&results, items);
    vec![nanoseconds_each(elapsed, items)]
}

fn submit_and_collect<P: Pool>(items: usize) -> Sample {
    let pool = P::warm(WORKERS);
    let start = Instant::now();
    let handles: Vec<_> = (0..items)
        .map(|item| pool.spawn(move || black_box(item)))
        .collect();
    let mut results = Vec::with_capacity(items);
    pool.take_all(handles, |result| results.push(result));
    let elapsed = start.elapsed();
    check(&results, items);
    vec![nanoseconds_each(elapsed, items)]
}

fn split(items: usize) -> Sample {
    let pool = Rayon::warm(WORKERS);
    let start = Instant::now();
    let results: Vec<usize> = pool
        .inner()
        .install(|| (0..items).into_par_iter().map(black_box).collect());
    let elapsed = start.elapsed();
    check(&results, items);
    vec![nanoseconds_each(elapsed, items)]
}

fn check(results: &[usize], items: usize) {
    assert!(
        results.iter().copied().eq(0..items),
        "results in the order of the inputs"
    );
}
