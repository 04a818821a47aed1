//! Loads five pages in parallel; a callback writes a line for each into a file as it arrives.
//!
//! The pages come from this machine. With `--processes`, worker processes load them, and the
//! callbacks still run in this process.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use clap::Parser;
use concurrent_futures::{Executor, ProcessPoolExecutor, Shutdown, TaskError, ThreadPoolExecutor};
use examples::pages;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

#[derive(Parser)]
struct Arguments {
    /// The file to append to.
    #[arg(default_value = "pages.txt")]
    file: PathBuf,
    /// Loads the pages in worker processes.
    #[arg(long)]
    processes: bool,
}

fn load(url: String) -> Result<String, ureq::Error> {
    println!("process {} loads {url}", process::id());
    pages::load(url)
}

fn record(url: &str, page: Result<&String, &TaskError>, file: &Path) -> Result<(), Box<dyn Error>> {
    let length = page.map_err(Clone::clone)?.chars().count();
    println!("process {} records {url}", process::id());
    // One write for the whole line, so that lines of different threads don't mix.
    let line = format!("{url} has {length} characters\n");
    open(file)?.write_all(line.as_bytes())?;
    Ok(())
}

fn open(file: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(file)
}

/// Loads all pages with threads or processes, which take the same calls.
fn load_all(pool: &impl Executor, urls: &[String], file: &Path) -> Result<(), Box<dyn Error>> {
    for url in urls {
        let (url, file) = (url.clone(), file.to_owned());
        let page = pool.submit_fallible(load, url.clone())?;
        page.add_done_callback(move |page| {
            if let Err(error) = record(&url, page, &file) {
                println!("{url}: {error}");
            }
        });
    }
    // Waits for all tasks and their callbacks.
    pool.shutdown(Shutdown::Wait);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here
    let Arguments { file, processes } = Arguments::parse();
    open(&file)?; // an error before any work
    let server = pages::serve()?;
    let urls: Vec<_> = (1..=5).map(|n| server.url(&format!("/page/{n}"))).collect();

    if processes {
        let pool = ProcessPoolExecutor::builder().max_workers(3).build()?;
        load_all(&pool, &urls, &file)
    } else {
        let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
        load_all(&pool, &urls, &file)
    }
}
