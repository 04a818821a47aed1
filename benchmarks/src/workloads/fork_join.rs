//! (k) Tasks that wait for tasks of their own pool, in an uneven tree.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::WORKERS;
use crate::command_line::Settings;
use crate::contestants::{Ours, Rayon, warm_runtime};
use crate::harness::{Contestant, Sample, measure, milliseconds};
use crate::pool::Pool;
use crate::section::{Section, Table};

/// A tree of calls: `fib(n)`, with everything below `leaf` computed in place.
#[derive(Clone, Copy)]
struct Tree {
    n: u32,
    leaf: u32,
}

/// The same number of tasks (about 10,000), with leaves of about 0.1 and 1 µs.
const TREES: [Tree; 2] = [Tree { n: 27, leaf: 9 }, Tree { n: 32, leaf: 14 }];

pub(crate) fn run(settings: &Settings) -> Section {
    let sample = |run: fn(Tree) -> Duration| {
        move || -> Sample { TREES.map(|tree| milliseconds(run(tree))).into() }
    };
    let contestants = vec![
        Contestant::ours(
            "concurrent-futures, spawn and result inside tasks",
            sample(ours),
        ),
        Contestant::peer("rayon join", sample(rayon_join)),
        Contestant::peer("tokio spawn and await", sample(tokio_tasks)),
        Contestant::shown("sequential", sample(sequential)),
    ];
    let columns = TREES.map(|tree| format!("fib({}), ms", tree.n));
    let table = Table::new(
        &columns.each_ref().map(String::as_str),
        measure(settings.rounds, contestants),
    );
    let tasks = spawned(TREES[0]);
    let speed = table
        .rows
        .iter()
        .filter(|row| row.name != "sequential")
        .map(|row| {
            let ratio =
                |column: usize| row.figures[column].median / table.rows[3].figures[column].median;
            format!("{}: {:.1} and {:.1}", row.name, ratio(0), ratio(1))
        });
    let text = format!(
        "`fib` by its definition. Each call spawns its first branch, computes the second itself and then waits for \
         the first, until the leaves are small. Both trees have {tasks} tasks, with leaves of about 0.1 µs and 1 µs. \
         The other pools deadlock here, as tasks that wait take up their workers. Ours never runs a task in place: a \
         task that waits costs a spare worker, some 10 µs. So fork-join belongs to `scope`, callbacks or rayon. No \
         target. Times the sequential time: {}.",
        speed.collect::<Vec<_>>().join("; ")
    );
    Section::shown("Fork and join of uneven tasks", text, vec![table])
}

fn sequential_fib(n: u32) -> u64 {
    // Opaque to the optimizer, which knows better ways to do this.
    let n = black_box(n);
    if n < 2 {
        u64::from(n)
    } else {
        sequential_fib(n - 1) + sequential_fib(n - 2)
    }
}

/// Returns how many tasks a tree spawns.
fn spawned(tree: Tree) -> usize {
    if tree.n < tree.leaf {
        return 0;
    }
    let branch = |by: u32| {
        spawned(Tree {
            n: tree.n - by,
            ..tree
        })
    };
    1 + branch(1) + branch(2)
}

fn timed(tree: Tree, fib: impl FnOnce() -> u64) -> Duration {
    let start = Instant::now();
    let result = fib();
    let elapsed = start.elapsed();
    assert_eq!(result, sequential_fib(tree.n));
    elapsed
}

fn sequential(tree: Tree) -> Duration {
    timed(tree, || sequential_fib(tree.n))
}

fn ours(tree: Tree) -> Duration {
    fn fib(pool: &Arc<Ours>, tree: Tree) -> u64 {
        if tree.n < tree.leaf {
            return sequential_fib(tree.n);
        }
        let first = pool.spawn({
            let pool = Arc::clone(pool);
            move || {
                fib(
                    &pool,
                    Tree {
                        n: tree.n - 1,
                        ..tree
                    },
                )
            }
        });
        let second = fib(
            pool,
            Tree {
                n: tree.n - 2,
                ..tree
            },
        );
        pool.take(first) + second
    }
    let pool = Arc::new(Ours::warm(WORKERS));
    let elapsed = timed(tree, || {
        let root = pool.spawn({
            let pool = Arc::clone(&pool);
            move || fib(&pool, tree)
        });
        pool.take(root)
    });
    // The pool must not end inside one of its own workers.
    while Arc::strong_count(&pool) > 1 {
        thread::yield_now();
    }
    elapsed
}

fn rayon_join(tree: Tree) -> Duration {
    fn fib(tree: Tree) -> u64 {
        if tree.n < tree.leaf {
            return sequential_fib(tree.n);
        }
        let branch = |by: u32| {
            move || {
                fib(Tree {
                    n: tree.n - by,
                    ..tree
                })
            }
        };
        let (first, second) = rayon::join(branch(1), branch(2));
        first + second
    }
    let pool = Rayon::warm(WORKERS);
    timed(tree, || pool.inner().install(|| fib(tree)))
}

fn tokio_tasks(tree: Tree) -> Duration {
    fn fib(tree: Tree) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            if tree.n < tree.leaf {
                return sequential_fib(tree.n);
            }
            let first = tokio::spawn(fib(Tree {
                n: tree.n - 1,
                ..tree
            }));
            let second = fib(Tree {
                n: tree.n - 2,
                ..tree
            })
            .await;
            first.await.expect("the task returns") + second
        })
    }
    let runtime = warm_runtime(WORKERS);
    timed(tree, || {
        runtime.block_on(async { tokio::spawn(fib(tree)).await.expect("the task returns") })
    })
}
