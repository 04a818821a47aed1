//! The settings of a recording.

#![forbid(unsafe_code)]

use crate::recording::handle::Recording;
use std::io;
use std::path::Path;

/// The number of records that each thread keeps by default.
const RECORDS: usize = 1 << 20;

/// The settings of a [`Recording`].
///
/// # Examples
/// ```
/// use concurrent_futures::RecordingOptions;
///
/// let recording = RecordingOptions::new().records_per_thread(10_000).start();
/// recording.stop();
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing until `start` is called"]
pub struct RecordingOptions {
    pub(super) records: usize,
    pub(super) argument_length: usize,
    pub(super) has_all_pools: bool,
}

impl Default for RecordingOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordingOptions {
    /// Makes the options of [`Recording::start`].
    ///
    /// # Examples
    /// See [`RecordingOptions`].
    pub fn new() -> Self {
        Self {
            records: RECORDS,
            argument_length: 0,
            has_all_pools: true,
        }
    }

    /// Sets the number of records that each thread keeps: the oldest are dropped, and counted. A record has
    /// 32 bytes; that of a failed task, of a wait or of a worker process has 96. By default a thread keeps 1,048,576 records; the least is 1, and the most 2³².
    ///
    /// A recording that begins while another runs has the other's number.
    ///
    /// # Examples
    /// See [`RecordingOptions`].
    pub fn records_per_thread(mut self, records: usize) -> Self {
        self.records = records.clamp(1, 1 << 32);
        self
    }

    /// Records only the pools that were built with this recording; see
    /// [`ThreadPoolExecutorBuilder::recording`](crate::ThreadPoolExecutorBuilder::recording).
    ///
    /// # Examples
    /// See [`ThreadPoolExecutorBuilder::recording`](crate::ThreadPoolExecutorBuilder::recording).
    pub fn only_named_pools(mut self) -> Self {
        self.has_all_pools = false;
        self
    }

    /// Sets the length, in characters, up to which other frontends show arguments.
    #[doc(hidden)]
    pub fn argument_length(mut self, length: usize) -> Self {
        self.argument_length = length;
        self
    }

    /// Starts a recording.
    ///
    /// # Examples
    /// See [`RecordingOptions`].
    pub fn start(self) -> Recording {
        Recording::begin(self)
    }

    /// Starts a recording whose file grows while the program runs, instead of dropping the oldest records.
    ///
    /// A thread writes what is new twenty times a second. So the file of a program that was killed lacks the end only,
    /// and [`Recording::open`] reads it. Records are dropped, and counted, only if the disk is slower than the program
    /// for longer than the [buffers](Self::records_per_thread) last.
    ///
    /// A disk that gets full ends the recording, and [`Recording::error`] returns the error.
    /// The repository's `docs/recording.md` describes the format.
    ///
    /// # Errors
    /// Those of the file system, and of starting a thread.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Recording, RecordingOptions, ThreadPoolExecutor};
    ///
    /// # let folder = std::env::temp_dir().join(format!("cf-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let path = folder.join("run.recording");
    /// let recording = RecordingOptions::new().start_to_file(&path)?;
    /// ThreadPoolExecutor::new()?.spawn(|| ())?.result()?;
    /// recording.stop();
    /// assert!(recording.error().is_none());
    ///
    /// Recording::open(&path)?.save(folder.join("run.html"))?;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_to_file(self, path: impl AsRef<Path>) -> io::Result<Recording> {
        Recording::begin_to_file(self, path.as_ref())
    }
}
