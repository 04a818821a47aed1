//! Loads three pages with `map`, which yields them in the order of their addresses.
//!
//! The first page that cannot be loaded ends the program. The pages come from this machine.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ThreadPoolExecutor;
use examples::pages;
use std::error::Error;

const PATHS: [&str; 3] = ["/page/1", "/page/2", "/page/3"];

fn main() -> Result<(), Box<dyn Error>> {
    let server = pages::serve()?;
    let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    let urls = PATHS.map(|path| server.url(path));
    for (path, page) in PATHS.iter().zip(pool.map(pages::load, urls)?) {
        println!("{path} has {} bytes", page??.len());
    }
    Ok(())
}
