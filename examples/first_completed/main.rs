//! Waits until the first of three tasks is done, and prints which are and which are not.
//!
//! After the tutorial's program with `wait(FIRST_COMPLETED)`. When the program ends, the pool
//! is dropped, which waits for the other two.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, wait};
use std::error::Error;
use std::thread::sleep;

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let work = move |times| {
        sleep(second * times);
        println!("Get-- {times}");
        times
    };

    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    let mut futures = Vec::new();
    for times in [3, 1, 2] {
        futures.push(pool.submit(work, times)?);
    }
    let divided = wait(futures, None, ReturnWhen::FirstCompleted);
    println!("done: {:?}", divided.done);
    println!("not done: {:?}", divided.not_done);
    println!("main");
    Ok(())
}
