//! Multiplies the numbers 1 to 10 by the sum of 1 to 10,000,000, in three ways.
//!
//! Each task adds the sum up anew, to have something to compute. An argument is another last
//! summand.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// The last summand.
    #[arg(default_value = "10000000", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    last: u64,
}

/// One task: a factor, and the last summand.
type Task = (u64, u64);

fn multiply((factor, last): Task) -> u64 {
    // A black box keeps the compiler from replacing the loop by a formula.
    factor * (1..=last).fold(0, |sum, summand| black_box(sum + summand))
}

fn measure(
    way: &str,
    tasks: &[Task],
    run: impl FnOnce(Vec<Task>) -> Result<Vec<u64>, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    for ((factor, _), product) in tasks.iter().zip(run(tasks.to_vec())?) {
        println!("{factor} times the sum: {product}");
    }
    println!("{way}: {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs the tasks with threads or processes, which take the same calls.
fn with_pool(pool: &impl Executor, tasks: Vec<Task>) -> Result<Vec<u64>, Box<dyn Error>> {
    Ok(pool.map(multiply, tasks)?.collect::<Result<_, _>>()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let Arguments { last } = Arguments::parse();
    let tasks: Vec<Task> = (1..=10).map(|factor| (factor, last)).collect();

    measure("one after another", &tasks, |tasks| {
        Ok(tasks.into_iter().map(multiply).collect())
    })?;
    let threads = ThreadPoolExecutor::builder().max_workers(5).build()?;
    measure("5 threads", &tasks, |tasks| with_pool(&threads, tasks))?;
    let processes = ProcessPoolExecutor::builder().max_workers(5).build()?;
    measure("5 processes", &tasks, |tasks| with_pool(&processes, tasks))
}
