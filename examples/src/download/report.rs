//! The report on all downloads.

use super::failure::Failure;
use super::fetch::Saved;
use super::list::{InvalidLine, Job};
use indicatif::{HumanBytes, HumanCount};
use std::fmt;
use std::time::Duration;

/// The outcomes of some downloads.
#[derive(Debug, Default)]
pub struct Report {
    /// The complete files, in the order in which they were complete.
    pub saved: Vec<Saved>,
    /// Each failed download: its URL or line, and the reason.
    pub failures: Vec<(String, Failure)>,
    /// Number of downloads that Ctrl-C has prevented.
    pub interrupted: usize,
    /// Time that the whole run took.
    pub elapsed: Duration,
}

impl Report {
    /// Adds the outcome of one download.
    pub fn add(&mut self, job: &Job, outcome: Result<Saved, Failure>) {
        match outcome {
            Ok(saved) => self.saved.push(saved),
            Err(failure) => self.failures.push((job.url.to_string(), failure)),
        }
    }

    /// Adds a line that was no URL.
    pub fn add_invalid(&mut self, line: InvalidLine) {
        let what = format!("line {}, {:?}", line.number, line.text);
        self.failures.push((what, line.failure));
    }

    /// Returns the number of bytes of all complete files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.saved.iter().map(|saved| saved.bytes).sum()
    }

    /// Returns the names of the columns of [`row`](Self::row).
    #[must_use]
    pub fn header() -> String {
        format!(
            "{:20} {:>6} {:>11} {:>9} {:>9}",
            "", "files", "bytes", "failures", "time"
        )
    }

    /// Returns a row of a table of reports.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        format!(
            "{name:20} {:>6} {:>11} {:>9} {:>8.2}s",
            self.saved.len(),
            HumanCount(self.bytes()).to_string(),
            self.failures.len(),
            self.elapsed.as_secs_f64(),
        )
    }

    /// Returns a line for each failure.
    pub fn failure_lines(&self) -> impl Iterator<Item = String> {
        let failures = self.failures.iter();
        failures.map(|(what, failure)| format!("failed: {what}: {failure}"))
    }
}

/// Writes the last lines that the program prints.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.failure_lines() {
            writeln!(f, "{line}")?;
        }
        if self.interrupted > 0 {
            writeln!(f, "interrupted, not downloaded: {}", self.interrupted)?;
        }
        write!(
            f,
            "files: {}, bytes: {} ({}), failures: {}, time: {:.2} s",
            self.saved.len(),
            HumanCount(self.bytes()),
            HumanBytes(self.bytes()),
            self.failures.len(),
            self.elapsed.as_secs_f64(),
        )
    }
}
