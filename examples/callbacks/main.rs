//! Loads pages in parallel; a callback parses each as soon as it is there, into a file.
//!
//! After the tutorial's program with `get_page` and `parse_page`, which appends a line for each
//! page to `db.txt`. The pages come from this machine.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, ProcessPoolExecutor, TaskError, ThreadPoolExecutor};
use serde::{Deserialize, Serialize};
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
    /// Load the pages in worker processes; they are parsed in this one all the same.
    #[arg(long)]
    processes: bool,
}

#[derive(Serialize, Deserialize)]
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

/// Runs in the thread that got the page, or in the one that received it from a process.
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

/// Loads all pages by threads or processes: that makes no difference here.
fn load_all(
    executor: &impl Executor,
    urls: impl Iterator<Item = String>,
    file: &Path,
) -> Result<(), Box<dyn Error>> {
    for url in urls {
        let file = file.to_owned();
        executor
            .submit_fallible(get_page, url.clone())?
            .add_done_callback(move |page| {
                if let Err(error) = parse_page(page, &file) {
                    println!("{url}: {error}");
                }
            });
    }
    // Waits for all pages and their callbacks.
    executor.shutdown(true, false);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let Arguments { file, processes } = Arguments::parse();
    open(&file)?;
    let server = examples::pages::serve()?;
    let urls = (1..=5).map(|number| server.url(&format!("/page/{number}")));

    if processes {
        let pool = ProcessPoolExecutor::builder().max_workers(3).build()?;
        load_all(&pool, urls, &file)
    } else {
        let pool = ThreadPoolExecutor::builder()
            .max_workers(3)
            .thread_name_prefix("worker")
            .build()?;
        load_all(&pool, urls, &file)
    }
}
