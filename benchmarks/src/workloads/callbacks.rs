//! (e) A callback on every task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{
    FuturesPool, Ours, Rayon, RustyPool, Threadpool, ThreadpoolExecutor, TokioTasks, warm_runtime,
};
use crate::harness::{Contestant, Sample, measure, nanoseconds_each};
use crate::pool::Pool;
use crate::report::figure;
use crate::section::{Section, Table};

pub(crate) fn run(settings: &Settings) -> Section {
    let tasks = settings.size(100_000, 10_000);
    let sample = move |run: fn(usize) -> Duration| {
        move || -> Sample { vec![nanoseconds_each(run(tasks), tasks)] }
    };
    let mut contestants = vec![
        Contestant::ours("concurrent-futures add_done_callback", sample(ours)),
        Contestant::peer(
            "tokio spawn, a second task awaits the handle and calls",
            sample(second_task),
        ),
    ];
    contestants.extend([
        Contestant::peer(inside::<Threadpool>(), sample(call_inside::<Threadpool>)),
        Contestant::peer(inside::<RustyPool>(), sample(call_inside::<RustyPool>)),
        Contestant::peer(inside::<Rayon>(), sample(call_inside::<Rayon>)),
        Contestant::peer(inside::<TokioTasks>(), sample(call_inside::<TokioTasks>)),
        Contestant::peer(inside::<FuturesPool>(), sample(call_inside::<FuturesPool>)),
        Contestant::peer(
            inside::<ThreadpoolExecutor>(),
            sample(call_inside::<ThreadpoolExecutor>),
        ),
        Contestant::shown(
            "concurrent-futures, the task itself calls",
            sample(call_inside::<Ours>),
        ),
    ]);
    let table = Table::new(&["ns per task"], measure(settings.rounds, contestants));
    Section::compared(
        format!("{} no-ops, each with a callback", figure(tasks as f64)),
        "Each callback counts; then all results are taken, and all callbacks have run. Ours adds the callback to a future \
         that may be running or finished already. tokio's equivalent is a second task that awaits the handle. No \
         other peer can add anything to a task once it is submitted. There, the task was written to call the \
         callback itself before it returns, which costs next to nothing. These rows count as peers all the same.",
        "ns",
        table,
    )
}

fn inside<P: Pool>() -> String {
    format!("{}, the task itself calls", P::NAME)
}

/// Counts callbacks that have run.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for all callbacks. A result can be there a moment before its callbacks have run.
    fn wait_for(&self, tasks: usize) {
        while self.0.load(Ordering::Relaxed) < tasks {
            thread::yield_now();
        }
    }
}

fn ours(tasks: usize) -> Duration {
    let pool = Ours::warm(WORKERS);
    let counter = Counter::default();
    let start = Instant::now();
    let futures: Vec<_> = (0..tasks)
        .map(|_| {
            let future = pool.spawn(|| ());
            let counter = counter.clone();
            future.add_done_callback(move |_| counter.add());
            future
        })
        .collect();
    pool.take_all(futures, |()| ());
    counter.wait_for(tasks);
    start.elapsed()
}

fn second_task(tasks: usize) -> Duration {
    let runtime = warm_runtime(WORKERS);
    let counter = Counter::default();
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let first = runtime.spawn(async {});
            let counter = counter.clone();
            runtime.spawn(async move {
                first.await.expect("the task returns");
                counter.add();
            })
        })
        .collect();
    runtime.block_on(async {
        for handle in handles {
            handle.await.expect("the task returns");
        }
    });
    counter.wait_for(tasks);
    start.elapsed()
}

fn call_inside<P: Pool>(tasks: usize) -> Duration {
    let pool = P::warm(WORKERS);
    let counter = Counter::default();
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let counter = counter.clone();
            pool.spawn(move || counter.add())
        })
        .collect();
    pool.take_all(handles, |()| ());
    counter.wait_for(tasks);
    start.elapsed()
}
