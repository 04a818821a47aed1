//! The experiment with `map`: who waits when, with time stamps.
//!
//! After the tutorial's program. Three workers get six tasks, of which each takes a second
//! longer than the one before. `map` returns at once; its results come in the order of the
//! tasks, and each is waited for.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use jiff::Zoned;
use std::error::Error;
use std::thread::sleep;

fn display(text: &str) {
    println!("{} {text}", Zoned::now().strftime("%H:%M:%S"));
}

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let wait = move |n: u32| {
        let indent = "\t".repeat(n as usize);
        display(&format!("{indent}wait({n}): doing nothing for {n}s..."));
        sleep(second * n);
        display(&format!("{indent}wait({n}): done."));
        n * 10
    };

    display("********** Starting **********");
    let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    let results = pool.map(wait, 0..6)?;
    display(&format!("Results: {results:?}"));
    display("Waiting for individual results:");
    for (i, result) in results.enumerate() {
        display(&format!("result {i}: {}", result?));
    }
    Ok(())
}
