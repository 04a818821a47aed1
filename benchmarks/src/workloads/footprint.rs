//! (i) The memory of pending futures.

use std::hint::black_box;
use std::sync::Arc;

use crate::allocator::{self, Live};
use crate::child::Child;
use crate::command_line::Settings;
use crate::contestants::{StdThread, every_pool};
use crate::gate::Gate;
use crate::harness::{Contestant, Sample, measure};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table, Target};

const LIMIT: f64 = 160.0;
/// The captures of the second kind of closure.
type Captured = [u64; 3];

pub(crate) fn run(settings: &Settings) -> Section {
    let tasks = settings.size(100_000, 10_000);
    let mut contestants = every_pool!(P => Contestant::of::<P>(move || {
        Child::Footprint { pool: P::NAME.to_owned(), tasks }.start()
    }));
    contestants.push(Contestant::unable(StdThread::NAME));
    let columns = [
        "captures nothing: usable",
        "requested",
        "captures 24 bytes: usable",
        "requested",
        "of which the handle",
    ];
    // The counts hardly differ from run to run.
    let table = Table::new(&columns, measure(settings.rounds.min(3), contestants));

    let targets = [(0, "captures nothing"), (2, "captures 24 bytes")].map(|(column, closure)| {
        let (usable, requested) = (table.ours(column).median, table.ours(column + 1).median);
        let measured = format!(
            "{} bytes usable, {} requested",
            figure(usable),
            figure(requested)
        );
        Target::at_most(
            format!("{closure}: at most 160 bytes beyond the closure"),
            usable,
            LIMIT,
            measured,
        )
    });
    let section = Section::shown(
        "Bytes of a pending future, beyond its closure",
        format!(
            "The only worker of a pool is held up; then {} tasks are submitted. The growth of the allocated memory is \
             measured, in a process of its own with a counting allocator. The size of the handle is added, and that of \
             the closure subtracted. Requested: the bytes that the program asked for. Usable: the bytes that the \
             allocator set aside, which the targets are for. Queues that grow by doubling count with their final size.",
            figure(tasks as f64)
        ),
        vec![table],
    );
    Section {
        targets: targets.into(),
        ..section
    }
}

/// Measures in the child process.
pub(crate) fn child<P: Pool>(tasks: usize) -> Sample {
    allocator::start_counting();
    let handle = size_of::<P::Handle<()>>() as f64;
    let captured = size_of::<Captured>() as f64;
    let each = |live: Live, closure: f64| {
        [live.usable, live.requested].map(|bytes| bytes as f64 / tasks as f64 + handle - closure)
    };
    let data = black_box(Captured::default());
    let nothing = each(growth::<P, _>(tasks, || ()), 0.0);
    let something = each(
        growth::<P, _>(tasks, move || {
            black_box(data);
        }),
        captured,
    );
    [&nothing[..], &something[..], &[handle]].concat()
}

/// Returns the memory of the pending tasks, without the `Vec` that holds the handles.
fn growth<P: Pool, F: Fn() + Copy + Send + 'static>(tasks: usize, task: F) -> Live {
    let pool = P::warm(1);
    let gate = Arc::new(Gate::default());
    let (running, is_running) = oneshot::channel();
    let held_up = pool.spawn({
        let gate = Arc::clone(&gate);
        move || {
            drop(running.send(()));
            gate.pass();
        }
    });
    is_running.recv().expect("the task sends");
    let mut handles = Vec::with_capacity(tasks);

    let before = allocator::live();
    handles.extend((0..tasks).map(|_| pool.spawn(task)));
    let growth = allocator::live().since(before);

    gate.open();
    pool.take(held_up);
    pool.take_all(handles, |()| ());
    growth
}
