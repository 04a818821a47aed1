//! Submits two tasks of two seconds, and asks their futures whether they are done.
//!
//! The first answer comes at once, the second three seconds later. Then both results are there.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use std::error::Error;
use std::thread::sleep;

fn main() -> Result<(), Box<dyn Error>> {
    let second = examples::second::from_command_line();
    let say_later = move |word| {
        sleep(second * 2);
        word
    };

    let pool = ThreadPoolExecutor::builder().max_workers(2).build()?;
    let hello = pool.submit(say_later, "hello")?;
    let world = pool.submit(say_later, "world")?;
    println!("hello is done: {}", hello.is_done());
    sleep(second * 3);
    println!("world is done: {}", world.is_done());
    println!("{}", hello.result()?);
    println!("{}", world.result()?);
    Ok(())
}
