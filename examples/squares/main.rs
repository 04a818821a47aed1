//! Squares eleven numbers, each in one to three seconds, and prints the process of each task.
//!
//! `--threads` takes a pool of threads: only the executor's name changes. `--map` takes `map` in
//! the place of `submit` and `result`.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, Future, ProcessPoolExecutor, Shutdown, ThreadPoolExecutor};
use examples::second::parse_seconds;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::process;
use std::thread::sleep;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    /// Takes threads instead of processes.
    #[arg(long)]
    threads: bool,
    /// Takes `map` instead of `submit`.
    #[arg(long)]
    map: bool,
    /// Number of seconds that a second of the program lasts.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    second: Duration,
}

fn square((number, second): (u32, Duration)) -> u32 {
    println!("process {} squares {number}", process::id());
    // One to three seconds, by the random seed of a new hasher.
    let seconds = match RandomState::new().hash_one(number) % 3 {
        0 => 1,
        1 => 2,
        _ => 3,
    };
    sleep(second * seconds);
    number * number
}

fn square_all(pool: &impl Executor, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let tasks = (0..11).map(|number| (number, arguments.second));
    let mut results = Vec::new();
    if arguments.map {
        let squares = pool.map(square, tasks)?;
        pool.shutdown(Shutdown::Wait);
        results.extend(squares);
    } else {
        let futures = tasks.map(|task| pool.submit(square, task));
        let futures = futures.collect::<Result<Vec<_>, _>>()?;
        pool.shutdown(Shutdown::Wait);
        results.extend(futures.into_iter().map(Future::result));
    }
    println!("the pool is shut down");
    for result in results {
        println!("{}", result?);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let arguments = Arguments::parse();
    if arguments.threads {
        let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
        square_all(&pool, &arguments)
    } else {
        let pool = ProcessPoolExecutor::builder().max_workers(3).build()?;
        square_all(&pool, &arguments)
    }
}
