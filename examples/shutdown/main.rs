//! Shuts a pool down before its tasks are done: once `shutdown` waits for them, once it does not.
//!
//! Two workers need three seconds for five tasks of a second each. All tasks run in both cases.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{Shutdown, ThreadPoolExecutor};
use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

fn measure(mode: Shutdown, second: Duration) -> Result<(), Box<dyn Error>> {
    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    let start = Instant::now();
    for number in 0..5 {
        let work = move |number| {
            println!("task {number} runs");
            sleep(second);
        };
        // A task runs though its future is dropped.
        drop(pool.submit(work, number)?);
    }
    pool.shutdown(mode);
    println!("shutdown took {:.3} s", start.elapsed().as_secs_f64());
    // Dropping the pool waits for its tasks in both cases.
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    println!("with waiting:");
    measure(Shutdown::Wait, second)?;
    println!("without waiting:");
    measure(Shutdown::NoWait, second)
}
