//! Runs contestants in turns, and takes medians.

use std::thread;
use std::time::Duration;

use crate::pool::Pool;

/// The role of a contestant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The engine of this repository.
    Ours,
    /// A pool that ours is compared with.
    Peer,
    /// A row for context: it does something else, so targets leave it out.
    Shown,
}

/// One run of a contestant: a figure for each column of its table.
pub(crate) type Sample = Vec<f64>;

/// A future row: its name and its function.
pub(crate) struct Contestant {
    name: String,
    role: Role,
    /// None for a contestant that cannot do the workload.
    run: Option<Box<dyn FnMut() -> Sample>>,
}

impl Contestant {
    pub(crate) fn new(
        name: impl Into<String>,
        role: Role,
        run: impl FnMut() -> Sample + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            role,
            run: Some(Box::new(run)),
        }
    }

    /// Makes a contestant of a pool, under its own name.
    pub(crate) fn of<P: Pool>(run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(P::NAME, P::ROLE, run)
    }

    pub(crate) fn ours(name: impl Into<String>, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Role::Ours, run)
    }

    pub(crate) fn peer(name: impl Into<String>, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Role::Peer, run)
    }

    pub(crate) fn shown(name: impl Into<String>, run: impl FnMut() -> Sample + 'static) -> Self {
        Self::new(name, Role::Shown, run)
    }

    /// Makes a contestant that cannot do the workload.
    pub(crate) fn unable(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            role: Role::Shown,
            run: None,
        }
    }
}

/// The results of all rounds for one column of one contestant.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Figure {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (last, middle) = (samples.len() - 1, samples.len() / 2);
        let median = if samples.len() % 2 == 1 {
            samples[middle]
        } else {
            f64::midpoint(samples[middle - 1], samples[middle])
        };
        Self {
            median,
            lowest: samples[0],
            highest: samples[last],
        }
    }
}

/// One row of a table: a figure for each column, or none at all.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) figures: Vec<Figure>,
}

/// Runs every contestant once in each round.
///
/// Each round starts with the next contestant, and every second round goes backwards. So no contestant always
/// runs first, or always after the same other contestant.
pub(crate) fn measure(rounds: usize, mut contestants: Vec<Contestant>) -> Vec<Row> {
    let count = contestants.len();
    let mut samples: Vec<Vec<Sample>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..count {
            let step = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let index = (round + step) % count;
            if let Some(run) = &mut contestants[index].run {
                settle();
                samples[index].push(run());
            }
        }
        eprint!(".");
    }
    contestants
        .into_iter()
        .zip(samples)
        .map(|(contestant, samples)| row(contestant, &samples))
        .collect()
}

fn row(contestant: Contestant, samples: &[Sample]) -> Row {
    let columns = samples.first().map_or(0, Vec::len);
    let figures = (0..columns)
        .map(|column| Figure::of(samples.iter().map(|sample| sample[column]).collect()))
        .collect();
    Row {
        name: contestant.name,
        role: contestant.role,
        figures,
    }
}

/// Lets the previous contestant's threads end, and gives its memory back. So each contestant starts with as
/// little as every other contestant.
fn settle() {
    thread::sleep(Duration::from_millis(5));
    // SAFETY: it takes no pointer, and glibc allows it at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Nanoseconds for each of `count` tasks.
pub(crate) fn nanoseconds_each(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_secs_f64() * 1e9 / count as f64
}

/// Returns the time in milliseconds.
pub(crate) fn milliseconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e3
}
