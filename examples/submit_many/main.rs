//! Submits a task for each of many addresses, to threads and then to processes.
//!
//! Nothing is downloaded: a task prints its address and sleeps for a second.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, ProcessPoolExecutor, Shutdown, ThreadPoolExecutor};
use examples::second::parse_seconds;
use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Arguments {
    /// Number of addresses.
    #[arg(default_value = "20")]
    count: usize,
    /// Number of seconds that a second of the program lasts.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    second: Duration,
}

fn visit((address, duration): (String, Duration)) {
    println!("{address}");
    sleep(duration);
}

fn visit_all(
    name: &str,
    pool: &impl Executor,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    for number in 0..arguments.count {
        let address = format!("http://127.0.0.1/list?from={number}");
        // A task runs though its future is dropped.
        drop(pool.submit(visit, (address, arguments.second))?);
    }
    pool.shutdown(Shutdown::Wait);
    println!("{name}: {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let arguments = Arguments::parse();
    let threads = ThreadPoolExecutor::builder().max_workers(5).build()?;
    visit_all("ThreadPoolExecutor", &threads, &arguments)?;
    let processes = ProcessPoolExecutor::builder().max_workers(5).build()?;
    visit_all("ProcessPoolExecutor", &processes, &arguments)
}
