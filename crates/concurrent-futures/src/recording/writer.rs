//! The thread that writes a recording to its file while the program runs.
//!
//! # Protocol
//! The thread looks at the lanes every few hundredths of a second, and writes what is new. Other threads ask it to write at
//! once (`flush`) or for the last time (`finish`), by a counter under a lock. The threads that are recorded do not
//! know of it: a slow disk costs records, which are counted, and no time.
//!
//! The first error ends the writing: the thread keeps the error, tells its recording, and ends.
//!
//! The child of a fork has no such thread, and leaves all of this alone.

#![forbid(unsafe_code)]

use crate::recording::cursor::Cursor;
use crate::recording::log::{self, News};
use crate::recording::session::Session;
use crate::runtime::os::clock::now;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two looks at the lanes.
const PAUSE: Duration = Duration::from_millis(50);

/// The time after which a block is written even if nothing is new: the file tells how long the program ran.
const BEAT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Asked {
    /// The number of requests to write at once, and of those that were met.
    flushes: u64,
    flushed: u64,
    is_to_end: bool,
    has_ended: bool,
    error: Option<Arc<io::Error>>,
}

#[derive(Debug, Default)]
struct Control {
    asked: Mutex<Asked>,
    changed: Condvar,
}

impl Control {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The source of what is written.
pub(crate) struct Source {
    pub(crate) session: Arc<Session>,
    pub(crate) cursor: Cursor,
    pub(crate) began: u64,
    pub(crate) started: f64,
    /// Returns the pools that are recorded; none if all are.
    pub(crate) only: Box<dyn Fn() -> Option<Vec<u32>> + Send>,
    pub(crate) program: fn() -> String,
    /// Tells the recording that nothing more is written.
    pub(crate) fail: Box<dyn FnOnce() + Send>,
}

/// The thread that writes a recording.
#[derive(Debug)]
pub(crate) struct Writer {
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that has the thread.
    owner: u32,
}

impl Writer {
    /// Begins to write to a file.
    pub(crate) fn start(mut file: File, source: Source) -> io::Result<Self> {
        log::begin(source.began, source.started, &mut file)?;
        let control = Arc::new(Control::default());
        let own = Arc::clone(&control);
        let builder = thread::Builder::new().name("recording".to_owned());
        let thread = builder.spawn(move || run(file, source, &own))?;
        Ok(Self {
            control,
            thread: Mutex::new(Some(thread)),
            owner: std::process::id(),
        })
    }

    fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Waits until all that was recorded before is in the file, or writing has ended.
    pub(crate) fn flush(&self) {
        if !self.is_ours() {
            return;
        }
        let mut asked = self.control.asked();
        asked.flushes += 1;
        let wanted = asked.flushes;
        self.control.changed.notify_all();
        while asked.flushed < wanted && !asked.has_ended {
            asked = self
                .control
                .changed
                .wait(asked)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what there is for the last time.
    pub(crate) fn finish(&self) {
        if !self.is_ours() {
            return;
        }
        self.control.asked().is_to_end = true;
        self.control.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It panics only if a lock of the session is poisoned, which the lock of this module ignores.
            let _ = thread.join();
        }
    }

    /// Returns the error that has ended the writing.
    pub(crate) fn error(&self) -> Option<Arc<io::Error>> {
        if !self.is_ours() {
            return None;
        }
        self.control.asked().error.clone()
    }
}

/// Tells those that wait that the thread has ended, however it ends.
struct End<'a>(&'a Control);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.asked().has_ended = true;
        self.0.changed.notify_all();
    }
}

fn run(mut file: File, mut source: Source, control: &Control) {
    let _end = End(control);
    let mut place = Place::default();
    let mut last: Option<(News, Instant)> = None;
    loop {
        let (flushes, is_to_end) = {
            let asked = control.asked();
            (asked.flushes, asked.is_to_end)
        };
        let news = place.news(&mut source, is_to_end);
        let is_new = last
            .as_ref()
            .is_none_or(|(last, moment)| news.differs(last) || moment.elapsed() >= BEAT);
        if is_new || is_to_end {
            if let Err(error) = log::write(&news, &mut file) {
                control.asked().error = Some(Arc::new(error));
                (source.fail)();
                return;
            }
            last = Some((news.without_records(), Instant::now()));
        }
        let mut asked = control.asked();
        asked.flushed = flushes;
        control.changed.notify_all();
        if is_to_end {
            return;
        }
        if asked.flushes == flushes && !asked.is_to_end {
            // Early without a reason, or late: both are harmless.
            drop(control.changed.wait_timeout(asked, PAUSE));
        }
    }
}

/// The parts of a session that are in the file.
#[derive(Debug, Default)]
struct Place {
    strings: usize,
    pools: usize,
    changes: usize,
    dropped: u64,
    program: String,
}

impl Place {
    fn news(&mut self, source: &mut Source, is_finished: bool) -> News {
        let mut news = News {
            only: (source.only)(),
            is_finished,
            ..News::default()
        };
        source.cursor.read(&source.session, |reading| {
            news.records.extend_from_slice(reading.records);
            news.current.extend(reading.current);
            self.dropped += reading.dropped;
        });
        // Afterwards: records refer to the tables.
        let tables = source.session.tables();
        news.strings = tables.strings[self.strings..].to_vec();
        self.strings = tables.strings.len();
        news.pools = tables.pools[self.pools..].to_vec();
        self.pools = tables.pools.len();
        let places = tables.changes[self.changes..].iter();
        let workers = places.filter_map(|place| {
            let worker = tables.workers.get(*place)?;
            Some((*place, worker.clone()))
        });
        news.workers = workers.collect();
        self.changes = tables.changes.len();
        drop(tables);
        let program = (source.program)();
        if program != self.program {
            self.program.clone_from(&program);
            news.program = Some(program);
        }
        news.dropped = self.dropped;
        news.ended = now();
        news
    }
}

impl News {
    /// Returns whether a block with this tells more than the one before.
    fn differs(&self, before: &Self) -> bool {
        !(self.records.is_empty()
            && self.strings.is_empty()
            && self.pools.is_empty()
            && self.workers.is_empty()
            && self.program.is_none())
            || self.current != before.current
            || self.dropped != before.dropped
            || self.only != before.only
    }

    fn without_records(self) -> Self {
        Self {
            records: Vec::new(),
            ..self
        }
    }
}
