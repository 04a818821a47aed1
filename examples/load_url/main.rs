//! Loads three pages in parallel, and reports each as soon as its outcome is known.
//!
//! One of the pages is missing: its future has the error. The pages come from this machine.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ThreadPoolExecutor, as_completed};
use examples::pages;
use std::error::Error;

const PATHS: [&str; 3] = ["/page/1", "/missing", "/page/3"];

fn main() -> Result<(), Box<dyn Error>> {
    let server = pages::serve()?;
    let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    let mut loading = Vec::new();
    for path in PATHS {
        loading.push((path, pool.submit_fallible(pages::load, server.url(path))?));
    }
    for (path, page) in as_completed(loading) {
        match page.result() {
            Ok(page) => println!("{path} has {} bytes", page.len()),
            Err(error) => println!("{path} failed: {error}"),
        }
    }
    Ok(())
}
