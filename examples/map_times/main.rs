//! Shows with time stamps how `map` returns at once and its iterator blocks for each result.
//!
//! Three workers run six tasks. Task 0 ends at once, and each other one sleeps a second longer
//! than the one before. A column for each task keeps the lines apart.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use jiff::Zoned;
use std::error::Error;
use std::thread::sleep;

fn stamp(text: &str, column: u32) {
    let indent = " ".repeat(12 * column as usize);
    println!("{} {indent}{text}", Zoned::now().strftime("%H:%M:%S"));
}

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let task = move |number: u32| {
        stamp(&format!("task {number} sleeps"), number);
        sleep(second * number);
        stamp(&format!("task {number} ends"), number);
        10 * number
    };

    let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    stamp("submit", 0);
    let results = pool.map(task, 0..6)?;
    stamp("all submitted", 0);
    for (number, result) in results.enumerate() {
        stamp(&format!("result {number} is {}", result?), 0);
    }
    Ok(())
}
