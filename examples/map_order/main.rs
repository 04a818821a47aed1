//! In which order results come: from `map` in the order of its items, from `as_completed` the
//! first finished first.
//!
//! After the tutorial's two programs that print `Get--` at the end of a task, and `Done--` when
//! its result arrives.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ThreadPoolExecutor, as_completed};
use std::error::Error;
use std::thread::sleep;

const TIMES: [u32; 3] = [3, 1, 2];

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let work = move |times| {
        sleep(second * times);
        println!("Get-- {times}");
        times
    };
    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;

    println!("map");
    for times in pool.map(work, TIMES)? {
        println!("Done-- {}", times?);
    }

    println!("as_completed");
    let mut futures = Vec::new();
    for times in TIMES {
        futures.push(pool.submit(work, times)?);
    }
    for future in as_completed(futures) {
        println!("Done-- {}", future.result()?);
    }
    Ok(())
}
