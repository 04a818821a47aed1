//! One after another against threads and processes: sums up 1 to 10,000,000 for ten numbers.
//!
//! After the tutorial's first program, whose task is there only to take time: each number from
//! 1 to 10 is multiplied by the sum.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{ProcessPoolExecutor, ThreadPoolExecutor};
use std::error::Error;
use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::Instant;

const NUMBERS: RangeInclusive<u64> = 1..=10;

#[derive(Parser)]
struct Arguments {
    /// The last summand.
    #[arg(default_value = "10000000", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    last: u64,
}

fn evaluate(number: u64, last: u64) -> u64 {
    let mut sum = 0;
    for summand in 1..=last {
        // A black box, or else the compiler knows the sum without adding anything up.
        sum = black_box(sum + summand);
    }
    number * sum
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let Arguments { last } = Arguments::parse();

    let start = Instant::now();
    for number in NUMBERS {
        println!("number {number}, result {}", evaluate(number, last));
    }
    println!("one after another: {:.3} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let pool = ThreadPoolExecutor::builder().max_workers(5).build()?;
    let results = pool.map(move |number| evaluate(number, last), NUMBERS)?;
    for (number, result) in NUMBERS.zip(results) {
        println!("number {number}, result {}", result?);
    }
    println!("pool of 5 threads: {:.3} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let pool = ProcessPoolExecutor::builder().max_workers(5).build()?;
    // What the function needs travels as its argument: it cannot capture.
    let items = NUMBERS.map(|number| (number, last));
    let results = pool.map(|(number, last)| evaluate(number, last), items)?;
    for (number, result) in NUMBERS.zip(results) {
        println!("number {number}, result {}", result?);
    }
    println!(
        "pool of 5 processes: {:.3} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
