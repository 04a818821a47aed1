//! Downloads one URL into a file, all of it or nothing.

use super::failure::Failure;
use super::folder::Folder;
use super::interrupt::Interrupt;
use super::list::Job;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use ureq::{Agent, Body};
use url::{Host, Url};

/// The settings of all downloads.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of downloads that run at the same time, and of connections that are kept.
    pub workers: usize,
    /// Time that the server may be silent: while connecting, and before any part of an answer.
    pub timeout: Duration,
    /// Number of further attempts after a failure that may be transient.
    pub retries: u32,
    /// Pause before the first further attempt; each next pause is twice as long.
    pub backoff: Duration,
}

/// A complete file.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved {
    /// Name of the file in the folder.
    pub name: String,
    /// Length of the file in bytes.
    pub bytes: u64,
}

/// Downloads files into a folder.
#[derive(Debug)]
pub struct Downloader {
    agent: Agent,
    settings: Settings,
    folder: PathBuf,
    unfinished: PathBuf,
    interrupt: Interrupt,
}

impl Downloader {
    /// Makes a downloader into a folder, which has to outlive the downloads, but not the downloader.
    #[must_use]
    pub fn new(folder: &Folder, settings: Settings, interrupt: &Interrupt) -> Self {
        let timeout = Some(settings.timeout);
        let agent = Agent::config_builder()
            .user_agent(concat!("download/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_idle_connections(settings.workers)
            .max_idle_connections_per_host(settings.workers)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .build()
            .new_agent();
        Self {
            agent,
            settings,
            folder: folder.path().to_owned(),
            unfinished: folder.unfinished().to_owned(),
            interrupt: interrupt.clone(),
        }
    }

    /// Downloads one file, and tries again if that may help. A file that was there before is
    /// replaced.
    ///
    /// # Errors
    /// The failure of the last try; there is no file then, or the one of before.
    pub fn fetch(&self, job: &Job) -> Result<Saved, Failure> {
        let mut pause = self.settings.backoff;
        for _ in 0..self.settings.retries {
            match self.try_fetch(job) {
                Err(failure) if failure.is_transient() => {
                    thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                result => return result,
            }
        }
        self.try_fetch(job)
    }

    fn try_fetch(&self, job: &Job) -> Result<Saved, Failure> {
        self.check_interrupt()?;
        let mut request = self.agent.get(job.url.as_str());
        if is_loopback(&job.url) {
            request = request.config().proxy(None).build();
        }
        let response = request.call()?;
        if !response.status().is_success() {
            return Err(Failure::Status(response.status()));
        }
        self.check_interrupt()?;
        let unfinished = self.unfinished.join(&job.name);
        let result = self
            .save(response.into_body(), &unfinished)
            .and_then(|bytes| {
                let complete = self.folder.join(&job.name);
                fs::rename(&unfinished, complete).map_err(Failure::Write)?;
                Ok(bytes)
            });
        if result.is_err() {
            // It may not be there: it is why there is an error, or Ctrl-C has removed it.
            let _ = fs::remove_file(&unfinished);
        }
        result.map(|bytes| Saved {
            name: job.name.clone(),
            bytes,
        })
    }

    fn save(&self, body: Body, path: &Path) -> Result<u64, Failure> {
        let expected = body.content_length();
        let mut reader = body.into_reader();
        let mut file = File::create(path).map_err(Failure::Write)?;
        let mut chunk = [0; 16 * 1024];
        let mut received = 0;
        let end = loop {
            match reader.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    file.write_all(&chunk[..length]).map_err(Failure::Write)?;
                    received += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(ureq::Error::from(error)),
            }
            self.check_interrupt()?;
        };
        match (end, expected) {
            (Ok(()), Some(expected)) if received != expected => {
                Err(Failure::BrokeOff { received, expected })
            }
            (Ok(()), _) => Ok(received),
            (Err(error), Some(expected)) if is_end_of_stream(&error) => {
                Err(Failure::BrokeOff { received, expected })
            }
            (Err(error), _) => Err(Failure::Request(error)),
        }
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        if self.interrupt.raised() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }
}

/// Returns whether a URL leads to this machine, whose servers no proxy can reach.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(domain)) => domain == "localhost",
        None => false,
    }
}

fn is_end_of_stream(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}
