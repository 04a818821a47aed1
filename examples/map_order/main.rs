//! Shows the order of results: that of the tasks with `map`, that of their ends with
//! `as_completed`.
//!
//! Two workers sleep for 3, 1 and 2 seconds. A task prints its end, the main thread each arrival.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ThreadPoolExecutor, as_completed};
use std::error::Error;
use std::thread::sleep;

const DURATIONS: [u32; 3] = [3, 1, 2];

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let nap = move |seconds| {
        sleep(second * seconds);
        println!("end of {seconds} s");
        seconds
    };
    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;

    println!("map:");
    for seconds in pool.map(nap, DURATIONS)? {
        println!("arrival of {} s", seconds?);
    }

    println!("as_completed:");
    let mut naps = Vec::new();
    for seconds in DURATIONS {
        naps.push(pool.submit(nap, seconds)?);
    }
    for future in as_completed(naps) {
        println!("arrival of {} s", future.result()?);
    }
    Ok(())
}
