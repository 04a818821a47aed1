//! Computes and crashes in worker processes: two reasons for a process pool.
//!
//! Counts primes one after another, with threads and with processes; then runs 200 tasks of which
//! five crash their worker.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, ProcessPoolExecutor, TaskError, ThreadPoolExecutor};
use std::error::Error;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Arguments {
    /// Counts the primes up to here.
    #[arg(default_value = "4000000", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    last: u64,
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor))
}

/// Counts the primes from one number up to, but without, another.
fn count_primes((first, end): (u64, u64)) -> usize {
    (first..end).filter(|n| is_prime(*n)).count()
}

/// Returns the same work in 40 pieces.
fn pieces(last: u64) -> impl Iterator<Item = (u64, u64)> {
    let place = move |piece| (last + 1) * piece / 40;
    (0..40).map(move |piece| (place(piece), place(piece + 1)))
}

/// Counts the primes on an executor, be it one of threads or of processes.
fn count_with(executor: &impl Executor, last: u64) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    for piece in executor.map(count_primes, pieces(last))? {
        count += piece?;
    }
    Ok(count)
}

fn report(what: &str, count: usize, elapsed: Duration) {
    println!(
        "{what:<20} {count} primes in {:.3} s",
        elapsed.as_secs_f64()
    );
}

fn measure(
    what: &str,
    count: impl FnOnce() -> Result<usize, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    report(what, count()?, start.elapsed());
    Ok(())
}

/// Stands for a task of a library that crashes now and then.
fn sometimes_crashes(n: u32) -> u32 {
    if n % 40 == 7 {
        std::process::abort();
    }
    n
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let Arguments { last } = Arguments::parse();

    measure("one after another:", || {
        Ok(pieces(last).map(count_primes).sum())
    })?;
    measure("threads:", || count_with(&ThreadPoolExecutor::new()?, last))?;
    measure("processes:", || {
        count_with(&ProcessPoolExecutor::new()?, last)
    })?;

    let pool = ProcessPoolExecutor::new()?;
    let futures: Vec<_> = (0..200)
        .map(|n| pool.submit(sometimes_crashes, n))
        .collect::<Result<_, _>>()?;
    let (mut results, mut crashes) = (0, Vec::new());
    for future in futures {
        match future.result() {
            Ok(_) => results += 1,
            Err(TaskError::WorkerDied(death)) => crashes.push(death),
            Err(other) => return Err(other.into()),
        }
    }
    println!("200 tasks: {results} results, {} crashes:", crashes.len());
    for death in crashes {
        println!("  {death}");
    }
    Ok(())
}
