//! Recordings: which worker ran which task when, and where time was lost.
//!
//! | file | contents |
//! |---|---|
//! | `recorder.rs` | the switch, and what the engine calls at events |
//! | `lane.rs` | the buffer of a thread, with its protocol |
//! | `session.rs` | the lanes and tables while something is recorded |
//! | `record.rs` | the records |
//! | `snapshot.rs` | records as rows: runs of tasks, and waits |
//! | `columns.rs`, `chrome.rs` | the formats, which `docs/recording.md` describes |
//!
//! # Invariants
//! 1. A program runs as it would without a recording: no event waits, fails or calls foreign code.
//! 2. The record of a run is there before its future is done. So a recording that is stopped after all futures
//!    are done has all runs.
//! 3. A recording reads records that were written between its beginning and its end, and counts those that were
//!    overwritten.

#![forbid(unsafe_code)]

#[cfg(feature = "recording")]
mod chrome;
#[cfg(feature = "recording")]
mod columns;
#[cfg(feature = "recording")]
mod file;
mod lane;
#[cfg(all(test, loom_models))]
mod models;
#[cfg(all(feature = "process", unix))]
pub(crate) mod processes;
pub(crate) mod record;
pub(crate) mod recorder;
pub(crate) mod session;
#[cfg(feature = "recording")]
mod snapshot;

pub use recorder::with_label;

#[cfg(feature = "recording")]
pub use own::{Recording, RecordingOptions, set_program};

#[cfg(feature = "recording")]
mod own {
    use crate::page;
    use crate::recording::record::{Kind, Record};
    use crate::recording::session::{Entry, Session};
    use crate::recording::snapshot::{Raw, Snapshot};
    use crate::recording::{chrome, columns, file, recorder};
    use crate::runtime::os::clock::now;
    use std::collections::HashSet;
    use std::fmt;
    use std::io::{self, Write};
    use std::path::Path;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::SystemTime;

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
        records: usize,
        argument_length: usize,
        has_all_pools: bool,
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
        /// 64 bytes. By default a thread keeps 1,048,576 records; the least is 1, and the most 2³².
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
            let session = recorder::join(self.records);
            let length = self.argument_length as u64;
            session.argument_length.fetch_max(length, Ordering::Relaxed);
            let heads = session.lanes().iter().map(Mark::of).collect();
            let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Recording(Arc::new(Inner {
                heads,
                began: now(),
                started: started.map_or(0.0, |started| started.as_secs_f64()),
                has_all_pools: self.has_all_pools,
                state: Mutex::new(State {
                    session: Some(session),
                    pools: HashSet::new(),
                    last: None,
                }),
            }))
        }
    }

    /// The place where a recording begins in a lane.
    #[derive(Debug)]
    struct Mark {
        entry: Arc<Entry>,
        head: u64,
    }

    impl Mark {
        fn of(entry: &Arc<Entry>) -> Self {
            Self {
                entry: Arc::clone(entry),
                head: entry.lane.head(),
            }
        }
    }

    #[derive(Debug)]
    struct State {
        /// The session, until the recording is stopped.
        session: Option<Arc<Session>>,
        /// The pools that were built with the recording.
        pools: HashSet<u32>,
        /// The records, once the recording is stopped.
        last: Option<Raw>,
    }

    struct Inner {
        heads: Vec<Mark>,
        began: u64,
        started: f64,
        has_all_pools: bool,
        state: Mutex<State>,
    }

    impl Inner {
        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Reads what was recorded so far.
        fn read(&self, session: &Session, pools: &HashSet<u32>, is_finished: bool) -> Raw {
            let mut raw = Raw {
                began: self.began,
                started: self.started,
                is_finished,
                ..Raw::default()
            };
            let lanes: Vec<Arc<Entry>> = session.lanes().clone();
            let mut words = Vec::new();
            for entry in &lanes {
                // First, as a task that ends meanwhile has its run among the records.
                let current = (0..4).find_map(|_| entry.lane.current());
                let is_same = |mark: &&Mark| Arc::ptr_eq(&mark.entry, entry);
                let from = self.heads.iter().find(is_same).map_or(0, |mark| mark.head);
                raw.dropped += entry.lane.read_from(from, &mut words).dropped;
                raw.records.extend(words.iter().filter_map(Record::decode));
                words.clear();
                let current = current.and_then(|current| Record::decode(&current));
                raw.current.extend(current);
            }
            raw.ended = now();
            {
                let tables = session.tables();
                raw.strings.clone_from(&tables.strings);
                raw.pools.clone_from(&tables.pools);
                raw.workers.clone_from(&tables.workers);
            }
            let (began, ended) = (self.began, raw.ended);
            let key = |record: &Record| (record.task, record.start);
            let running: HashSet<_> = raw.current.iter().map(key).collect();
            let runs = raw.records.iter().filter(|record| record.kind == Kind::Run);
            let over: HashSet<_> = runs.map(key).filter(|key| running.contains(key)).collect();
            raw.current.retain(|current| !over.contains(&key(current)));
            raw.workers.retain(|worker| {
                let is_over = worker.end.is_some_and(|(moment, _)| moment < began);
                !is_over && worker.start.is_none_or(|start| start <= ended)
            });
            if !self.has_all_pools {
                raw.pools.retain(|pool| pools.contains(&pool.number));
                raw.workers.retain(|worker| pools.contains(&worker.pool));
                keep_pools(&mut raw.records, pools);
                raw.current.retain(|current| pools.contains(&current.pool));
            }
            raw
        }

        fn raw(&self) -> Raw {
            let state = self.state();
            match (&state.last, &state.session) {
                (Some(last), _) => last.clone(),
                (None, Some(session)) => self.read(session, &state.pools, false),
                (None, None) => Raw::default(),
            }
        }
    }

    /// Keeps the records of the tasks of some pools.
    fn keep_pools(records: &mut Vec<Record>, pools: &HashSet<u32>) {
        let ours = records.iter().filter(|record| pools.contains(&record.pool));
        let tasks: HashSet<u64> = ours.map(|record| record.task).collect();
        records.retain(|record| tasks.contains(&record.task));
    }

    impl Drop for Inner {
        fn drop(&mut self) {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(session) = state.session.take() {
                recorder::leave(&session);
            }
        }
    }

    /// A recording of the tasks of this process's pools, from its start until it is stopped or dropped.
    ///
    /// A recording shows which worker ran which task when: for a timeline in a browser, or in
    /// [Perfetto](https://ui.perfetto.dev). A task costs about a tenth of a microsecond more meanwhile. Several
    /// recordings may run at once. The child of a fork records nothing.
    ///
    /// Clones are handles of the same recording.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Recording, ThreadPoolExecutor};
    ///
    /// let recording = Recording::start();
    /// let pool = ThreadPoolExecutor::new()?;
    /// for square in pool.map(|n: u64| n * n, 0..10)? {
    ///     square?;
    /// }
    /// recording.stop();
    /// let mut trace = Vec::new();
    /// recording.write_trace(&mut trace)?; // or `save("trace.json")`
    /// assert!(String::from_utf8(trace)?.contains("\"ph\":\"X\""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Clone)]
    pub struct Recording(Arc<Inner>);

    impl Recording {
        /// Starts a recording of all pools, with the default [`RecordingOptions`].
        ///
        /// # Examples
        /// See [`Recording`].
        #[must_use = "the recording ends when it is dropped"]
        pub fn start() -> Self {
            RecordingOptions::new().start()
        }

        /// Stops the recording. A second call has no effect.
        ///
        /// # Examples
        /// See [`Recording`].
        pub fn stop(&self) {
            let mut state = self.0.state();
            let Some(session) = state.session.take() else {
                return;
            };
            let is_ours = recorder::is_running(&session);
            // In the child of a fork, the locks of the parent's session may never be free.
            state.last = Some(if is_ours {
                self.0.read(&session, &state.pools, true)
            } else {
                Raw::default()
            });
            recorder::leave(&session);
        }

        /// Returns whether the recording goes on: it was not stopped, and this process is no fork of the one
        /// that started it.
        ///
        /// # Examples
        /// ```
        /// use concurrent_futures::Recording;
        ///
        /// let recording = Recording::start();
        /// assert!(recording.is_running());
        /// recording.stop();
        /// assert!(!recording.is_running());
        /// ```
        #[must_use]
        pub fn is_running(&self) -> bool {
            let state = self.0.state();
            state.session.as_deref().is_some_and(recorder::is_running)
        }

        pub(crate) fn add_pool(&self, number: u32) {
            self.0.state().pools.insert(number);
        }

        fn snapshot(&self) -> Snapshot {
            if self.0.state().session.is_some() && !self.is_running() {
                self.stop();
            }
            Snapshot::new(self.0.raw())
        }

        /// Writes the recording in Chrome's trace event format, which Perfetto reads. A recording that is
        /// running is written as it is now.
        ///
        /// # Errors
        /// Those of the writer.
        ///
        /// # Examples
        /// See [`Recording`].
        pub fn write_trace(&self, mut out: impl Write) -> io::Result<()> {
            chrome::write(&self.snapshot(), &program(), &mut out)
        }

        /// Writes the recording as one JSON document of columns, for other tools. The repository's
        /// `docs/recording.md` describes it.
        ///
        /// # Errors
        /// Those of the writer.
        ///
        /// # Examples
        /// ```
        /// use concurrent_futures::{Recording, ThreadPoolExecutor};
        ///
        /// let recording = Recording::start();
        /// ThreadPoolExecutor::new()?.spawn(|| ())?.result()?;
        /// recording.stop();
        /// let mut columns = Vec::new();
        /// recording.write_columns(&mut columns)?;
        /// let columns: serde_json::Value = serde_json::from_slice(&columns)?;
        /// assert_eq!(columns["finished"], true);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn write_columns(&self, mut out: impl Write) -> io::Result<()> {
            columns::write(&self.snapshot(), &program(), &mut out)
        }

        /// Saves the recording to a file. The end of the file's name tells the format:
        ///
        /// | end | format |
        /// |---|---|
        /// | `.html` | a page for browsers, which needs no network |
        /// | `.columns.json` | columns, for other tools |
        /// | `.json` | Chrome's trace event format, for Perfetto |
        ///
        /// The file is there as a whole or not at all.
        ///
        /// # Errors
        /// Those of the file system; `InvalidInput` for another ending.
        ///
        /// # Examples
        /// ```
        /// use concurrent_futures::Recording;
        ///
        /// let recording = Recording::start();
        /// let path = std::env::temp_dir().join(format!("{}.json", std::process::id()));
        /// recording.save(&path)?;
        /// # std::fs::remove_file(path)?;
        /// # Ok::<(), std::io::Error>(())
        /// ```
        pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
            let path = path.as_ref();
            let name = path.to_string_lossy();
            if name.ends_with(".html") {
                file::save(path, |out| {
                    page::write(out, None, |out| self.write_columns(out))
                })
            } else if name.ends_with(".columns.json") {
                file::save(path, |out| self.write_columns(out))
            } else if name.ends_with(".json") {
                file::save(path, |out| self.write_trace(out))
            } else {
                let text = format!("{} does not end with .json or .html", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }

    impl fmt::Debug for Recording {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Recording")
                .field("is_running", &self.is_running())
                .finish_non_exhaustive()
        }
    }

    /// The name of the program, where a frontend knows it.
    static PROGRAM: Mutex<Option<String>> = Mutex::new(None);

    /// Sets the name of the program that recordings show; by default it is that of the executable.
    #[allow(dead_code, unreachable_pub, reason = "other frontends use it")]
    pub fn set_program(name: String) {
        let mut program = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
        *program = Some(name);
    }

    /// Returns the name of this program.
    fn program() -> String {
        let program = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
        program.clone().unwrap_or_else(executable)
    }

    /// Returns the name of this program's executable.
    fn executable() -> String {
        let first = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&first).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}
