//! The updates of a live page: each has the events since the one before.
//!
//! # Protocol
//! A row is sent for good as soon as all records of its task have been read. The record of a submission is there
//! before that of a run, but in the lane of another thread, which may have been read before. So the follower reads
//! all lanes twice: the second time finds the submissions of all runs that the first has found. The runs that only the
//! second time finds are open rows, and sent for good with the next update.
//!
//! The follower remembers tasks, as a task may have several runs. When the tasks are too many, the follower begins
//! anew: with a whole document of the events that are still in the lanes.

#![forbid(unsafe_code)]

use crate::recording::columns::{self, Sent};
use crate::recording::cursor::Cursor;
use crate::recording::handle::{Followed, Recording, program};
use crate::recording::record::{Kind, Record};
use crate::recording::session::Session;
use crate::recording::snapshot::{self, Indices, Raw, Row, Tasks, WaitRow};
use crate::runtime::os::clock::now;
use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

/// The largest number of tasks that a follower remembers by default.
const MOST: usize = 1 << 18;

/// The rows of an update.
#[derive(Debug, Default)]
struct Rows {
    tasks: Vec<Row>,
    waits: Vec<WaitRow>,
}

/// The state of a page.
#[derive(Debug)]
struct State {
    session: Arc<Session>,
    cursor: Cursor,
    /// The tables, without records.
    raw: Raw,
    tasks: Tasks,
    /// Tasks that have not begun.
    pending: HashSet<u64>,
    /// The events of tasks whose submission may not have been read.
    held: Vec<Record>,
    sent: Sent,
    is_begun: bool,
}

impl State {
    fn new(followed: Followed) -> Self {
        Self {
            session: followed.session,
            cursor: followed.cursor,
            raw: Raw {
                began: followed.began,
                started: followed.started,
                pid: std::process::id(),
                ..Raw::default()
            },
            tasks: Tasks::default(),
            pending: HashSet::new(),
            held: Vec::new(),
            sent: Sent::default(),
            is_begun: false,
        }
    }

    /// Reads on. Returns the records, and the tasks that threads are running.
    fn read(&mut self) -> (Vec<Record>, Vec<Record>) {
        let (mut records, mut current) = (Vec::new(), Vec::new());
        let dropped = &mut self.raw.dropped;
        self.cursor.read(&self.session, |reading| {
            *dropped += reading.dropped;
            records.extend(reading.records.iter().filter_map(Record::decode));
            let words = reading.current;
            current.extend(words.and_then(|words| Record::decode(&words)));
        });
        (records, current)
    }

    /// Takes what tells of tasks before their runs.
    fn prepare(&mut self, records: &[Record]) {
        let mut submits: Vec<&Record> = records.iter().collect();
        submits.retain(|record| record.kind == Kind::Submit);
        submits.sort_by_key(|record| record.start);
        for record in submits {
            let parent = match record.end {
                0 => 0,
                parent => self.tasks.of(parent).number,
            };
            let task = self.tasks.of(record.task);
            task.submit = Some(*record);
            task.parent = Some(parent);
            if !task.has_run && task.end.is_none() {
                self.pending.insert(record.task);
            }
        }
        for record in records {
            match record.kind {
                Kind::Retry => self.tasks.of(record.task).retries.push(record.start),
                Kind::Pickle => self.tasks.of(record.task).pickle = Some(Box::new(*record)),
                _ => {}
            }
        }
    }

    /// Adds the rows of these events. Some of them may change if they are not the last ones.
    fn add(&mut self, events: &[Record], rows: &mut Rows) {
        let indices = Indices::new(&self.raw);
        for event in events {
            match event.kind {
                Kind::Run => {
                    let task = self.tasks.of(event.task);
                    let is_first = !std::mem::replace(&mut task.has_run, true);
                    self.pending.remove(&event.task);
                    rows.tasks
                        .extend(self.row(&indices, event.task, Some(event), is_first));
                }
                Kind::Cancel | Kind::Reject => {
                    let task = self.tasks.of(event.task);
                    if task.has_run || task.end.is_some() {
                        continue;
                    }
                    task.end = Some(Box::new(*event));
                    self.pending.remove(&event.task);
                    rows.tasks
                        .extend(self.row(&indices, event.task, None, true));
                }
                Kind::Wait => {
                    let wait = snapshot::wait_row(self.raw.began, &self.tasks, event, true);
                    rows.waits.push(wait);
                }
                Kind::Submit | Kind::Retry | Kind::Pickle => {}
            }
        }
    }

    fn row(
        &self,
        indices: &Indices,
        task: u64,
        run: Option<&Record>,
        is_first: bool,
    ) -> Option<Row> {
        let task = self.tasks.0.get(&task)?;
        let row = snapshot::row(&self.raw, indices, &self.tasks, task, run);
        Some(Row { is_first, ..row })
    }

    /// Returns the rows that may change: tasks that are running or pending, and events whose submission may be missing.
    fn open(&self, current: &[Record]) -> Rows {
        let indices = Indices::new(&self.raw);
        let key = |record: &Record| (record.task, record.start);
        let held = self.held.iter();
        let held = held.filter(|record| record.kind == Kind::Run);
        let over: HashSet<_> = held.clone().map(key).collect();
        let current = current
            .iter()
            .filter(|current| !over.contains(&key(current)));
        let running: Vec<Record> = current.clone().map(snapshot::running).collect();
        let mut rows = Rows::default();
        let mut begun = HashSet::new();
        for run in held.chain(&running) {
            begun.insert(run.task);
            rows.tasks
                .extend(self.row(&indices, run.task, Some(run), false));
        }
        let pending = self.pending.difference(&begun);
        rows.tasks
            .extend(pending.filter_map(|task| self.row(&indices, *task, None, true)));
        let waits = current.filter(|current| current.kind == Kind::Wait);
        let row = |wait| snapshot::wait_row(self.raw.began, &self.tasks, wait, false);
        rows.waits = waits.map(row).collect();
        rows
    }

    fn read_tables(&mut self) {
        let tables = self.session.tables();
        let known = self.raw.strings.len();
        self.raw.strings.extend_from_slice(&tables.strings[known..]);
        self.raw.pools.clone_from(&tables.pools);
        let began = self.raw.began;
        // Those that are left out stay out: the places of the others do not change.
        let is_shown = |worker: &&_| !snapshot::is_over(worker, began);
        self.raw.workers = tables.workers.iter().filter(is_shown).cloned().collect();
    }

    fn write(&mut self, is_last: bool, out: &mut dyn Write) -> io::Result<()> {
        let (first, _) = self.read();
        let (second, current) = self.read();
        self.raw.ended = now();
        self.raw.is_finished = is_last;
        self.read_tables();
        self.prepare(&first);
        self.prepare(&second);
        let is_event =
            |record: &Record| !matches!(record.kind, Kind::Submit | Kind::Retry | Kind::Pickle);
        let mut events = std::mem::take(&mut self.held);
        events.extend(first.into_iter().filter(is_event));
        let second = second.into_iter().filter(is_event);
        if is_last {
            events.extend(second);
        } else {
            self.held = second.collect();
        }
        events.sort_by_key(|event| event.start);
        // Their numbers are needed for rows.
        for current in &current {
            self.tasks.of(current.task);
        }
        let mut rows = Rows::default();
        self.add(&events, &mut rows);
        let open = self.open(&current);
        let sent = self.is_begun.then_some(self.sent);
        columns::write_update(
            &self.raw,
            sent,
            (&rows.tasks, &rows.waits),
            (&open.tasks, &open.waits),
            out,
        )?;
        self.is_begun = true;
        self.sent.tasks += rows.tasks.len();
        self.sent.waits += rows.waits.len();
        self.sent.strings = self.raw.strings.len();
        Ok(())
    }
}

/// The updates of one live page.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "other frontends use it")]
pub struct Follower {
    recording: Recording,
    state: Option<State>,
    most: usize,
    is_over: bool,
}

impl Follower {
    /// Follows a recording from its beginning. Remembers so many tasks at most.
    #[allow(unreachable_pub, reason = "other frontends use it")]
    #[must_use]
    pub fn new(recording: &Recording, most: Option<usize>) -> Self {
        Self {
            most: most.unwrap_or(MOST),
            recording: recording.clone(),
            state: recording.followed().map(State::new),
            is_over: false,
        }
    }

    /// Writes the first document, or an update with what has happened since. Returns whether the recording goes on.
    ///
    /// # Errors
    /// Those of the writer. The follower is of no use then.
    #[allow(unreachable_pub, reason = "other frontends use it")]
    pub fn write(&mut self, out: &mut dyn Write) -> io::Result<bool> {
        // Before the lanes are read, so that the last update has the end.
        self.is_over |= !self.recording.is_running();
        if self
            .state
            .as_ref()
            .is_some_and(|state| state.tasks.0.len() > self.most)
        {
            self.state = self.recording.followed().map(State::new);
        }
        match &mut self.state {
            Some(state) => {
                state.raw.program = program();
                state.write(self.is_over, out)?;
            }
            None => self.recording.write_columns(out)?,
        }
        Ok(!self.is_over)
    }
}
