//! `Recording`, which is stopped by a program, and saved.

#![forbid(unsafe_code)]

use crate::page;
use crate::recording::cursor::Cursor;
use crate::recording::options::RecordingOptions;
use crate::recording::record::Record;
use crate::recording::session::Session;
use crate::recording::snapshot::{Raw, Snapshot};
use crate::recording::writer::{Source, Writer};
use crate::recording::{chrome, columns, file, log, recorder};
use crate::runtime::os::clock::now;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

#[derive(Debug)]
struct State {
    /// The session, until the recording is stopped.
    session: Option<Arc<Session>>,
    /// The pools that were built with the recording.
    pools: HashSet<u32>,
    /// The records, once the recording is stopped.
    last: Option<Raw>,
}

impl State {
    /// Leaves the session.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            recorder::leave(&session);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file of a recording.
struct Growing {
    path: PathBuf,
    writer: Writer,
}

/// The parts of a recording that a live page follows.
pub(super) struct Followed {
    pub(super) session: Arc<Session>,
    pub(super) cursor: Cursor,
    pub(super) began: u64,
    pub(super) started: f64,
}

struct Inner {
    cursor: Cursor,
    began: u64,
    started: f64,
    has_all_pools: bool,
    state: Arc<Mutex<State>>,
    growing: Option<Growing>,
    /// The process that has the recording.
    owner: u32,
    /// The records that the child of a fork has.
    in_fork: OnceLock<InFork>,
}

/// The records that the child of a fork has: those of a recording that was stopped before the fork.
enum InFork {
    Records(Raw),
    File(PathBuf),
}

impl Inner {
    /// Returns the state. Not for the child of a fork, where another thread may have held the lock for good.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns whether this process has the recording, and is no fork of the one that has.
    fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Returns the records that the child of a fork has. No thread of the child takes the lock for longer.
    fn in_fork(&self) -> &InFork {
        self.in_fork.get_or_init(|| {
            let Ok(state) = self.state.try_lock() else {
                // The recording was about to change, or to be stopped.
                return InFork::Records(Raw::default());
            };
            match &self.growing {
                Some(growing) if state.session.is_none() => InFork::File(growing.path.clone()),
                _ => InFork::Records(state.last.clone().unwrap_or_default()),
            }
        })
    }

    /// Reads what was recorded so far.
    fn read(&self, session: &Session, pools: &HashSet<u32>, is_finished: bool) -> Raw {
        let mut raw = Raw {
            began: self.began,
            started: self.started,
            is_finished,
            program: program(),
            pid: std::process::id(),
            ..Raw::default()
        };
        self.cursor.clone().read(session, |reading| {
            raw.dropped += reading.dropped;
            let records = reading.records.iter();
            raw.records.extend(records.filter_map(Record::decode));
            let current = reading.current;
            raw.current
                .extend(current.and_then(|words| Record::decode(&words)));
        });
        raw.ended = now();
        {
            let tables = session.tables();
            raw.strings.clone_from(&tables.strings);
            raw.pools.clone_from(&tables.pools);
            raw.workers.clone_from(&tables.workers);
        }
        raw.settle((!self.has_all_pools).then_some(pools));
        raw
    }

    fn raw(&self) -> io::Result<Raw> {
        if !self.is_ours() {
            return match self.in_fork() {
                InFork::Records(records) => Ok(records.clone()),
                InFork::File(path) => open(path),
            };
        }
        let (session, pools) = {
            let state = self.state();
            if let Some(last) = &state.last {
                return Ok(last.clone());
            }
            (state.session.clone(), state.pools.clone())
        };
        if let Some(growing) = &self.growing {
            growing.writer.flush();
            return open(&growing.path);
        }
        Ok(session.map_or_else(Raw::default, |session| self.read(&session, &pools, false)))
    }

    /// Ends the recording. Keeps the records, unless no handle is left that could ask for them.
    fn stop(&self, keeps: bool) {
        // In the child of a fork, the locks of the parent's recording may never be free.
        if !self.is_ours() {
            return;
        }
        let mut state = self.state();
        let Some(session) = state.session.take() else {
            return;
        };
        match &self.growing {
            Some(growing) => {
                // The writer may be about to end by an error, for which it needs the state.
                drop(state);
                growing.writer.finish();
            }
            None if keeps => {
                let last = self.read(&session, &state.pools, true);
                state.last = Some(last);
            }
            None => {}
        }
        recorder::leave(&session);
    }
}

/// Reads the file of a recording.
fn open(path: &Path) -> io::Result<Raw> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        let text = format!("{} is no file that can be read again", path.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    log::read(&mut BufReader::with_capacity(1 << 18, file))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop(false);
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

    /// Joins the session.
    fn join(options: RecordingOptions) -> Inner {
        let session = recorder::join(options.records);
        let length = options.argument_length as u64;
        // ORDERING: Relaxed, as only the number matters.
        session.argument_length.fetch_max(length, Ordering::Relaxed);
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Inner {
            cursor: Cursor::behind(&session),
            began: now(),
            started: started.map_or(0.0, |started| started.as_secs_f64()),
            has_all_pools: options.has_all_pools,
            state: Arc::new(Mutex::new(State {
                session: Some(session),
                pools: HashSet::new(),
                last: None,
            })),
            growing: None,
            owner: std::process::id(),
            in_fork: OnceLock::new(),
        }
    }

    pub(super) fn begin(options: RecordingOptions) -> Self {
        Self(Arc::new(Self::join(options)))
    }

    pub(super) fn begin_to_file(options: RecordingOptions, path: &Path) -> io::Result<Self> {
        // The program may change its directory.
        let path = std::path::absolute(path)?;
        let file = File::create(&path)?;
        let mut inner = Self::join(options);
        let Some(session) = inner.state().session.clone() else {
            return Err(io::ErrorKind::Other.into());
        };
        let (has_all_pools, of_pools) = (inner.has_all_pools, Arc::clone(&inner.state));
        let of_failure = Arc::clone(&inner.state);
        let source = Source {
            session,
            cursor: inner.cursor.clone(),
            began: inner.began,
            started: inner.started,
            only: Box::new(move || {
                let pools = || lock(&of_pools).pools.iter().copied().collect();
                (!has_all_pools).then(pools)
            }),
            program,
            fail: Box::new(move || lock(&of_failure).end()),
        };
        let writer = Writer::start(file, source)?;
        inner.growing = Some(Growing { path, writer });
        Ok(Self(Arc::new(inner)))
    }

    /// Opens the file of a recording, to save it in other formats: also one that is running, or whose program was
    /// killed.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` if the file is damaged, or no recording.
    ///
    /// # Examples
    /// See [`RecordingOptions::start_to_file`].
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let raw = open(path.as_ref())?;
        Ok(Self(Arc::new(Inner {
            cursor: Cursor::default(),
            began: raw.began,
            started: raw.started,
            has_all_pools: true,
            state: Arc::new(Mutex::new(State {
                session: None,
                pools: HashSet::new(),
                last: Some(raw),
            })),
            growing: None,
            owner: std::process::id(),
            in_fork: OnceLock::new(),
        })))
    }

    /// Returns the error that has ended the writing of the recording's file; see
    /// [`RecordingOptions::start_to_file`].
    ///
    /// # Examples
    /// See [`RecordingOptions::start_to_file`].
    #[must_use]
    pub fn error(&self) -> Option<Arc<io::Error>> {
        let growing = self.0.growing.as_ref()?;
        growing.writer.error()
    }

    /// Stops the recording. A second call has no effect.
    ///
    /// # Examples
    /// See [`Recording`].
    pub fn stop(&self) {
        self.0.stop(true);
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
        self.0.is_ours() && self.0.state().session.is_some()
    }

    /// Returns what a live page follows; none if the recording has ended, has a file, or leaves out pools.
    pub(super) fn followed(&self) -> Option<Followed> {
        let inner = &self.0;
        if !inner.has_all_pools || inner.growing.is_some() || !inner.is_ours() {
            return None;
        }
        Some(Followed {
            session: inner.state().session.clone()?,
            cursor: inner.cursor.clone(),
            began: inner.began,
            started: inner.started,
        })
    }

    pub(crate) fn add_pool(&self, number: u32) {
        if self.0.is_ours() {
            self.0.state().pools.insert(number);
        }
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        self.0.raw().map(Snapshot::new)
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
        chrome::write(&self.snapshot()?, &mut out)
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
        columns::write(&self.snapshot()?, &mut out)
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

/// Returns the name of this program.
pub(super) fn program() -> String {
    recorder::program().unwrap_or_else(executable)
}

/// Returns the name of this program's executable.
fn executable() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
