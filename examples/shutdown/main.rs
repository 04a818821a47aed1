//! Shuts a pool down with and without waiting for its tasks.
//!
//! After the tutorial's program: five tasks of a second each on two workers cost three seconds
//! with waiting, and nothing without. The tasks are finished in both cases.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use std::error::Error;
use std::thread::sleep;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    for wait in [true, false] {
        println!("shutdown, wait: {wait}");
        let start = Instant::now();
        let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
        for number in 0..5 {
            let task = move |number| {
                println!("name task-{number}");
                sleep(second);
            };
            // Nobody needs the future; dropping it does not cancel the task.
            drop(pool.submit(task, number)?);
        }
        pool.shutdown(wait, false);
        println!("cost: {:.3} s", start.elapsed().as_secs_f64());
        // Here the pool is dropped, which waits in any case.
    }
    Ok(())
}
