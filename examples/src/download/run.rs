//! Downloads many files: one after another, or with a pool.

use super::failure::Failure;
use super::fetch::Downloader;
use super::interrupt::Interrupt;
use super::list::Job;
use super::report::Report;
use concurrent_futures::{BuildError, Shutdown, SubmitError, ThreadPoolExecutor, as_completed};
use indicatif::{ProgressIterator, ProgressStyle};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

/// The reason why a pool could not download anything.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No pool.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The pool takes no tasks.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Downloads one file after another.
#[must_use]
pub fn one_after_another(downloader: &Downloader, jobs: &[Job]) -> Report {
    let started = Instant::now();
    let mut report = Report::default();
    for (index, job) in jobs.iter().progress_with_style(style()).enumerate() {
        match downloader.fetch(job) {
            Err(Failure::Interrupted) => {
                report.interrupted = jobs.len() - index;
                break;
            }
            outcome => report.add(job, outcome),
        }
    }
    report.elapsed = started.elapsed();
    report
}

/// Downloads as many files at the same time as the pool has workers.
///
/// When the interrupt is raised, this returns at once. Running downloads stop at the next part of an answer,
/// or with the program.
///
/// # Errors
/// If no pool can be made, or it takes no tasks.
pub fn with_pool(
    workers: usize,
    downloader: &Arc<Downloader>,
    jobs: &[Job],
    interrupt: &Interrupt,
) -> Result<Report, PoolError> {
    let started = Instant::now();
    let pool = ThreadPoolExecutor::builder()
        .max_workers(workers)
        .thread_name_prefix("download")
        .build()?;
    let mut downloads = Vec::with_capacity(jobs.len());
    for job in jobs {
        let (downloader, task) = (Arc::clone(downloader), job.clone());
        downloads.push((Some(job), pool.spawn(move || downloader.fetch(&task))?));
    }
    // One more future to wait for, so that Ctrl-C wakes us while no download is done.
    let mut completed = as_completed(downloads);
    completed.push((None, interrupt.future()));

    let mut report = Report::default();
    let completed = completed.take(jobs.len());
    for (index, (job, download)) in completed.progress_with_style(style()).enumerate() {
        let outcome = download.result().map_err(Failure::from).flatten();
        match (job, outcome) {
            (None, _) | (_, Err(Failure::Interrupted)) => {
                report.interrupted = jobs.len() - index;
                pool.shutdown(Shutdown::CancelPendingNoWait);
                // Dropping it would wait for the downloads that are running.
                mem::forget(pool);
                break;
            }
            (Some(job), outcome) => report.add(job, outcome),
        }
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Returns the style of a bar that is drawn on a terminal, and nowhere else.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
