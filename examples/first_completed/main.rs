//! Blocks until the first of three tasks is done, and prints all futures in two groups.
//!
//! Two workers sleep for 3, 1 and 2 seconds. The end of `main` drops the pool, which waits for
//! the other tasks.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, wait};
use std::error::Error;
use std::thread::sleep;

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let nap = move |seconds| {
        sleep(second * seconds);
        println!("end of {seconds} s");
        seconds
    };

    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    let mut naps = Vec::new();
    for seconds in [3, 1, 2] {
        naps.push(pool.submit(nap, seconds)?);
    }
    let groups = wait(naps, None, ReturnWhen::FirstCompleted);
    for future in groups.done {
        println!("done: {future:?}");
    }
    for future in groups.not_done {
        println!("not done: {future:?}");
    }
    Ok(())
}
