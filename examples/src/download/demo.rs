//! Downloads 80 pictures from loopback twice, one after another and with a pool, and compares.

use super::failure::Failure;
use super::fetch::{Downloader, Settings};
use super::folder::Folder;
use super::gallery::{self, Fault};
use super::interrupt::Interrupt;
use super::list::{Job, UrlList};
use super::report::Report;
use super::run::{PoolError, one_after_another, with_pool};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::StatusCode;

const LATENCY: Duration = Duration::from_millis(50);

const SETTINGS: Settings = Settings {
    workers: 20,
    timeout: Duration::from_secs(10),
    retries: 1,
    backoff: Duration::from_millis(20),
};

/// The reason why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// No server, or no folder.
    #[error("cannot start the demonstration: {0}")]
    Io(#[from] io::Error),
    /// No pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Both ways to download, compared.
#[derive(Debug)]
pub struct Comparison {
    one_after_another: Report,
    with_pool: Report,
    unexpected: Vec<String>,
}

impl Comparison {
    /// Returns whether Ctrl-C has ended the comparison.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.one_after_another.interrupted + self.with_pool.interrupted > 0
    }

    /// Returns whether exactly the expected downloads failed, and all files are as expected.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.unexpected.is_empty()
    }
}

/// Downloads the [`gallery`] both ways, into two folders that are removed in the end.
///
/// # Errors
/// If there is no server, no folder or no pool; downloads that fail are no error, but part of
/// the comparison.
pub fn compare(interrupt: &Interrupt) -> Result<Comparison, DemoError> {
    let server = gallery::serve(LATENCY)?;
    let urls = (0..gallery::COUNT).map(|number| server.url(&gallery::path(number)) + "\n");
    let UrlList { jobs, .. } = UrlList::parse(urls.collect::<String>().as_bytes());
    let mut unexpected = Vec::new();

    let place = tempfile::tempdir()?;
    let folder = Folder::open(place.path().join("one after another"))?;
    let downloader = Downloader::new(&folder, SETTINGS, interrupt);
    let first = one_after_another(&downloader, &jobs);
    check(&first, &jobs, folder.path(), &mut unexpected);

    let folder = Folder::open(place.path().join("with a pool"))?;
    let downloader = Arc::new(Downloader::new(&folder, SETTINGS, interrupt));
    let second = with_pool(SETTINGS.workers, &downloader, &jobs, interrupt)?;
    check(&second, &jobs, folder.path(), &mut unexpected);

    Ok(Comparison {
        one_after_another: first,
        with_pool: second,
        unexpected,
    })
}

/// Compares what was downloaded with what the server has.
fn check(report: &Report, jobs: &[Job], folder: &Path, unexpected: &mut Vec<String>) {
    for (number, job) in jobs.iter().enumerate() {
        let failure = report
            .failures
            .iter()
            .find(|(url, _)| url == job.url.as_str());
        let failure = failure.map(|(_, failure)| failure);
        let failed_as_expected = match gallery::fault(number) {
            Fault::None | Fault::EveryOther => failure.is_none(),
            Fault::Missing => {
                matches!(failure, Some(Failure::Status(StatusCode::NOT_FOUND)))
            }
            Fault::BreaksOff => matches!(failure, Some(Failure::BrokeOff { .. })),
        };
        let file = fs::read(folder.join(gallery::name(number))).ok();
        let wanted = failure.is_none().then(|| gallery::picture(number));
        if !failed_as_expected || file.as_deref() != wanted.as_deref() {
            unexpected.push(job.url.to_string());
        }
    }
}

/// Writes a table, the failures, and the expected failures.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = format!("pool of {} workers", SETTINGS.workers);
        let [before, after] = [&self.one_after_another, &self.with_pool];
        let ratio = before.elapsed.as_secs_f64() / after.elapsed.as_secs_f64();
        writeln!(f, "{}", Report::header())?;
        writeln!(f, "{}", before.row("one after another"))?;
        writeln!(f, "{}", after.row(&pool))?;
        writeln!(f, "{:20} {ratio:>38.1}", "times as fast")?;
        writeln!(f)?;
        for line in after.failure_lines() {
            writeln!(f, "{line}")?;
        }
        if self.is_as_expected() {
            return f.write_str("all as it should be: these failures the server was told to make");
        }
        f.write_str("NOT as it should be:")?;
        self.unexpected
            .iter()
            .try_for_each(|url| write!(f, " {url}"))
    }
}
