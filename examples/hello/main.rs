//! Two tasks in a pool, and what their futures know while they run.
//!
//! After the tutorial's first use of a thread pool. Prints `false`, for the first task has just
//! begun; three seconds later `true`, for the second is done; then both results at once.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use std::error::Error;
use std::thread::sleep;

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let return_later = move |message| {
        sleep(second * 2);
        message
    };

    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    let hello = pool.submit(return_later, "hello")?;
    let world = pool.submit(return_later, "world")?;

    println!("{}", hello.done());
    sleep(second * 3);
    println!("{}", world.done());
    println!("{}", hello.result()?);
    println!("{}", world.result()?);
    Ok(())
}
