//! Loads pages in parallel; a callback parses each as soon as it is there, into a file.
//!
//! After the tutorial's program with `get_page` and `parse_page`, which appends a line for each
//! page to `db.txt`. The pages come from this machine.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{TaskError, ThreadPoolExecutor};
use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

#[derive(Parser)]
struct Arguments {
    /// The file to append to.
    #[arg(default_value = "db.txt")]
    file: PathBuf,
}

struct Page {
    url: String,
    text: String,
}

fn get_page(url: String) -> Result<Page, ureq::Error> {
    println!("<{}> get {url}", thread_name());
    let request = ureq::get(&url).config().proxy(None).build();
    let text = request.call()?.body_mut().read_to_string()?;
    Ok(Page { url, text })
}

/// Runs in the worker that got the page.
fn parse_page(page: Result<&Page, &TaskError>, file: &Path) -> Result<(), Box<dyn Error>> {
    let Page { url, text } = page.map_err(Clone::clone)?;
    println!("<{}> parse {url}", thread_name());
    // Written at once, so that the lines of different workers don't mix.
    let line = format!("url:<{url}> size:[{}]\n", text.chars().count());
    open(file)?.write_all(line.as_bytes())?;
    Ok(())
}

fn open(file: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(file)
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { file } = Arguments::parse();
    open(&file)?;
    let server = examples::pages::serve()?;

    let pool = ThreadPoolExecutor::builder()
        .max_workers(3)
        .thread_name_prefix("worker")
        .build()?;
    for number in 1..=5 {
        let file = file.clone();
        pool.submit_fallible(get_page, server.url(&format!("/page/{number}")))?
            .add_done_callback(move |page| {
                if let Err(error) = parse_page(page, &file) {
                    println!("page {number}: {error}");
                }
            });
    }
    // Before the server is: dropping it waits for all pages and their callbacks.
    drop(pool);
    Ok(())
}
