//! Adds the numbers of two lists, pair by pair: `zip` makes one iterator of both.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use std::error::Error;
use std::iter::zip;

fn addition((left, right): (i32, i32)) -> String {
    format!("{left} + {right} = {}", left + right)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPoolExecutor::builder().max_workers(10).build()?;
    for line in pool.map(addition, zip([1, 2, 3], [5, 6, 7]))? {
        println!("{}", line?);
    }
    Ok(())
}
