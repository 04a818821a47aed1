//! Downloads files with a pool of workers.
//!
//! ```text
//! download urls.txt pictures      # a file with a URL on each line, and a folder
//! download --demo                 # 80 pictures from this machine, both ways
//! ```
//! Ends with 0 if all went well, 1 if downloads failed, 2 if they could not even begin, and
//! 130 after Ctrl-C.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

use clap::{Parser, value_parser};
use examples::download::demo;
use examples::download::fetch::{Downloader, Settings};
use examples::download::folder::Folder;
use examples::download::interrupt::Interrupt;
use examples::download::list::UrlList;
use examples::download::report::Report;
use examples::download::run::with_pool;
use examples::second::parse_seconds;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const FAILED: u8 = 1;
const NOT_STARTED: u8 = 2;
const INTERRUPTED: u8 = 130;

/// Downloads files, many at the same time.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A file with a URL on each line.
    #[arg(required_unless_present = "demo")]
    urls: Option<PathBuf>,

    /// The folder for the files.
    #[arg(required_unless_present = "demo")]
    folder: Option<PathBuf>,

    /// Downloads 80 pictures from a server of its own, first one after another.
    #[arg(long, exclusive = true)]
    demo: bool,

    /// Number of downloads that run at the same time.
    #[arg(long, value_name = "NUMBER", default_value = "20",
          value_parser = value_parser!(u16).range(1..))]
    workers: u16,

    /// Number of seconds that a server may be silent.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_timeout)]
    timeout: Duration,

    /// Number of further attempts after a failure that may be transient.
    #[arg(long, value_name = "NUMBER", default_value = "2")]
    retries: u32,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_seconds(text)? {
        Duration::ZERO => Err(String::from("must be more than 0")),
        timeout => Ok(timeout),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (&arguments.urls, &arguments.folder) {
        (Some(urls), Some(folder)) => download(urls, folder, &arguments),
        _ => compare(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("download: {error}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn download(urls: &Path, folder: &Path, arguments: &Arguments) -> Result<u8, Box<dyn Error>> {
    let list =
        fs::read(urls).map_err(|error| format!("cannot read {}: {error}", urls.display()))?;
    let UrlList { jobs, invalid } = UrlList::parse(&list);
    let settings = Settings {
        workers: usize::from(arguments.workers),
        timeout: arguments.timeout,
        retries: arguments.retries,
        backoff: Duration::from_millis(200),
    };
    let interrupt = Interrupt::on_ctrl_c()?;
    let folder = Folder::open(folder)
        .map_err(|error| format!("cannot write to {}: {error}", folder.display()))?;
    let downloader = Arc::new(Downloader::new(&folder, settings, &interrupt));

    let mut report = with_pool(settings.workers, &downloader, &jobs, &interrupt)?;
    for line in invalid {
        report.add_invalid(line);
    }
    println!("{report}");
    Ok(exit_code(&report))
}

fn exit_code(report: &Report) -> u8 {
    if report.interrupted > 0 {
        INTERRUPTED
    } else if report.failures.is_empty() {
        0
    } else {
        FAILED
    }
}

fn compare() -> Result<u8, Box<dyn Error>> {
    let comparison = demo::compare(&Interrupt::on_ctrl_c()?)?;
    if comparison.interrupted() {
        return Ok(INTERRUPTED);
    }
    println!("{comparison}");
    Ok(if comparison.is_as_expected() {
        0
    } else {
        FAILED
    })
}
