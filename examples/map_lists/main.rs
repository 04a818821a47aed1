//! `map` over two lists at once, after the tutorial's program that adds their numbers.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use std::error::Error;
use std::iter::zip;

fn add((a, b): (i32, i32)) -> String {
    format!("{a} + {b} = {}", a + b)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPoolExecutor::builder().max_workers(10).build()?;
    for result in pool.map(add, zip([1, 2, 3], [5, 6, 7]))? {
        println!("{}", result?);
    }
    Ok(())
}
