//! The tables of a recording: each run of a task is a row.

#![forbid(unsafe_code)]

use crate::recording::record::{Kind, Record, RunOutcome};
use crate::recording::session::{PoolInfo, WorkerInfo};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The records of a recording, with the tables that they refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) records: Vec<Record>,
    /// The tasks that threads were running at the end.
    pub(crate) current: Vec<Record>,
    pub(crate) strings: Vec<Arc<str>>,
    pub(crate) pools: Vec<PoolInfo>,
    pub(crate) workers: Vec<WorkerInfo>,
    pub(crate) dropped: u64,
    /// The beginning and the end, in nanoseconds of the clock.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// Seconds since 1970 at the beginning.
    pub(crate) started: f64,
    pub(crate) is_finished: bool,
    /// The program, and the number of its process.
    pub(crate) program: String,
    pub(crate) pid: u32,
}

impl Raw {
    /// Leaves out running tasks that have ended meanwhile, workers of other times, and pools other than `only`.
    pub(crate) fn settle(&mut self, only: Option<&HashSet<u32>>) {
        let key = |record: &Record| (record.task, record.start);
        let running: HashSet<_> = self.current.iter().map(key).collect();
        let runs = self.records.iter();
        let runs = runs.filter(|record| record.kind == Kind::Run).map(key);
        let over: HashSet<_> = runs.filter(|key| running.contains(key)).collect();
        self.current.retain(|current| !over.contains(&key(current)));
        let (began, ended) = (self.began, self.ended);
        self.workers.retain(|worker| {
            !is_over(worker, began) && worker.start.is_none_or(|start| start <= ended)
        });
        if let Some(pools) = only {
            self.pools.retain(|pool| pools.contains(&pool.number));
            self.workers.retain(|worker| pools.contains(&worker.pool));
            let ours = self.records.iter();
            let ours = ours.filter(|record| pools.contains(&record.pool));
            let tasks: HashSet<u64> = ours.map(|record| record.task).collect();
            self.records.retain(|record| tasks.contains(&record.task));
            self.current.retain(|current| pools.contains(&current.pool));
        }
    }
}

/// Returns whether a worker has ended before a recording began.
pub(super) fn is_over(worker: &WorkerInfo, began: u64) -> bool {
    worker.end.is_some_and(|(moment, _)| moment < began)
}

/// One run of a task, or a task that never ran. Times are nanoseconds since the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) task: u32,
    /// Whether no earlier row has the task.
    pub(crate) is_first: bool,
    pub(crate) submit: f64,
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) name: u32,
    pub(crate) label: u32,
    pub(crate) arguments: u32,
    pub(crate) outcome: RunOutcome,
    pub(crate) error: u32,
    /// The index of the pool plus 1.
    pub(crate) pool: u32,
    /// The index of the worker plus 1.
    pub(crate) worker: u32,
    pub(crate) parent: u32,
    pub(crate) items: u32,
    pub(crate) attempt: u8,
    pub(crate) sent: u32,
    pub(crate) received: u32,
    pub(crate) pickling: f32,
}

/// A wait of a task.
#[derive(Clone, Debug)]
pub(crate) struct WaitRow {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) waiter: u32,
    pub(crate) awaited: u32,
}

/// A recording as tables.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) rows: Vec<Row>,
    pub(crate) waits: Vec<WaitRow>,
    pub(crate) raw: Raw,
}

/// The records of a task apart from its runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Task {
    pub(super) number: u32,
    pub(super) submit: Option<Record>,
    pub(super) end: Option<Box<Record>>,
    pub(super) pickle: Option<Box<Record>>,
    pub(super) retries: Vec<u64>,
    pub(super) has_run: bool,
    /// The number of the task that submitted it, once that was looked up.
    pub(super) parent: Option<u32>,
}

/// The tasks by the numbers of their futures.
#[derive(Debug, Default)]
pub(super) struct Tasks(pub(super) HashMap<u64, Task>);

impl Tasks {
    pub(super) fn of(&mut self, future: u64) -> &mut Task {
        let number = u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX);
        self.0.entry(future).or_insert_with(|| Task {
            number,
            ..Task::default()
        })
    }

    pub(super) fn number(&self, future: u64) -> u32 {
        self.0.get(&future).map_or(0, |task| task.number)
    }
}

/// The nanoseconds from one moment to another.
pub(super) fn since(began: u64, moment: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a day has fewer nanoseconds than 2^53"
    )]
    if moment >= began {
        (moment - began) as f64
    } else {
        -((began - moment) as f64)
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Snapshot {
    pub(crate) fn new(raw: Raw) -> Self {
        let mut tasks = Tasks::default();
        let mut runs = Vec::new();
        let mut waits = Vec::new();
        let mut submits: Vec<&Record> = raw.records.iter().collect();
        // Tasks are numbered in the order of submission.
        submits.retain(|record| record.kind == Kind::Submit);
        submits.sort_by_key(|record| record.start);
        for record in submits {
            tasks.of(record.task).submit = Some(*record);
        }
        for record in &raw.records {
            match record.kind {
                Kind::Submit => {}
                Kind::Run => {
                    tasks.of(record.task).has_run = true;
                    runs.push(*record);
                }
                Kind::Cancel | Kind::Reject => {
                    tasks.of(record.task).end = Some(Box::new(*record));
                }
                Kind::Retry => tasks.of(record.task).retries.push(record.start),
                Kind::Pickle => tasks.of(record.task).pickle = Some(Box::new(*record)),
                Kind::Wait => waits.push((*record, true)),
            }
        }
        for record in &raw.current {
            tasks.of(record.task).has_run = true;
            runs.push(running(record));
            if record.kind == Kind::Wait {
                waits.push((*record, false));
            }
        }
        runs.sort_by_key(|run| run.start);
        let indices = Indices::new(&raw);
        let mut rows: Vec<Row> = Vec::with_capacity(runs.len());
        let mut seen = vec![false; tasks.0.len() + 1];
        for run in runs {
            let task = &tasks.0[&run.task];
            let mut row = row(&raw, &indices, &tasks, task, Some(&run));
            row.is_first = !std::mem::replace(&mut seen[task.number as usize], true);
            rows.push(row);
        }
        let mut others: Vec<&Task> = tasks.0.values().filter(|task| !task.has_run).collect();
        others.sort_by_key(|task| task.number);
        rows.extend(
            others
                .into_iter()
                .map(|task| row(&raw, &indices, &tasks, task, None)),
        );
        let waits = waits
            .into_iter()
            .map(|(wait, is_over)| wait_row(raw.began, &tasks, &wait, is_over));
        Self {
            rows,
            waits: waits.collect(),
            raw,
        }
    }

    /// Returns the name of a row: its label or function.
    pub(crate) fn name(&self, row: &Row) -> &str {
        let index = if row.label == 0 { row.name } else { row.label };
        match self.text(index) {
            "" => "task",
            name => name,
        }
    }

    pub(crate) fn text(&self, index: u32) -> &str {
        let strings = &self.raw.strings;
        strings.get(index as usize).map_or("", |text| text)
    }
}

/// Returns the run of a task that is running, by the record of a lane's current task.
pub(super) fn running(current: &Record) -> Record {
    Record {
        end: 0,
        kind: Kind::Run,
        outcome: RunOutcome::Running,
        items: 1,
        ..*current
    }
}

/// Returns the row of a wait: one that is over, or that of a lane's current task.
pub(super) fn wait_row(began: u64, tasks: &Tasks, wait: &Record, is_over: bool) -> WaitRow {
    let (start, end) = if is_over {
        (wait.start, since(began, wait.end))
    } else {
        (wait.end, f64::NAN)
    };
    WaitRow {
        start: since(began, start),
        end,
        waiter: tasks.number(wait.task),
        awaited: tasks.number(wait.items),
    }
}

/// The places of pools and workers, by their numbers.
pub(super) struct Indices {
    pools: HashMap<u32, u32>,
    workers: HashMap<u32, u32>,
}

impl Indices {
    pub(super) fn new(raw: &Raw) -> Self {
        let count = |index: usize| narrow(index as u64 + 1);
        let pools = raw.pools.iter().enumerate();
        let workers = raw.workers.iter().enumerate();
        Self {
            pools: pools.map(|(at, pool)| (pool.number, count(at))).collect(),
            workers: workers
                .map(|(at, worker)| (worker.number, count(at)))
                .collect(),
        }
    }
}

pub(super) fn row(
    raw: &Raw,
    indices: &Indices,
    tasks: &Tasks,
    task: &Task,
    run: Option<&Record>,
) -> Row {
    let submit = task.submit.as_ref();
    let end = task.end.as_deref();
    let time = |moment: u64| since(raw.began, moment);
    let place = run.or(submit);
    let pool = place.map_or(0, |record| record.pool);
    let name = run.map_or(0, |run| run.name);
    let name = if name == 0 {
        submit.map_or(0, |submit| submit.name)
    } else {
        name
    };
    let attempts = run.map_or(0, |run| {
        let before = task.retries.iter().filter(|retry| **retry <= run.start);
        before.count()
    });
    #[expect(clippy::cast_possible_truncation, reason = "a rounded time")]
    let pickling = task
        .pickle
        .as_ref()
        .map_or(0.0, |pickle| since(pickle.start, pickle.end) as f32);
    let outcome = match (run, end) {
        (Some(run), _) => run.outcome,
        (None, Some(end)) => end.outcome,
        (None, None) => RunOutcome::Pending,
    };
    let ended = match (run, end) {
        (Some(run), _) => (run.outcome != RunOutcome::Running).then_some(run.end),
        (None, Some(end)) => Some(end.start),
        (None, None) => None,
    };
    let sent = run.map_or(0, |run| run.sent);
    // The stamps of two threads may be in the other order, by some hundredths of a microsecond.
    let start = run.map(|run| run.start.max(submit.map_or(0, |submit| submit.start)));
    Row {
        task: task.number,
        is_first: true,
        submit: submit.map_or(f64::NAN, |submit| time(submit.start)),
        start: start.map_or(f64::NAN, time),
        end: ended.map_or(f64::NAN, |end| time(end.max(start.unwrap_or(0)))),
        name,
        label: submit.map_or(0, |submit| submit.text),
        arguments: submit.map_or(0, |submit| submit.arguments),
        outcome,
        error: run.or(end).map_or(0, |record| record.text),
        pool: indices.pools.get(&pool).copied().unwrap_or(0),
        worker: run
            .and_then(|run| indices.workers.get(&run.worker).copied())
            .unwrap_or(0),
        parent: task
            .parent
            .unwrap_or_else(|| submit.map_or(0, |submit| tasks.number(submit.end))),
        items: run.map_or(1, |run| narrow(run.items)),
        attempt: u8::try_from(attempts).unwrap_or(u8::MAX),
        sent: if sent == 0 {
            task.pickle.as_ref().map_or(0, |pickle| pickle.sent)
        } else {
            sent
        },
        received: run.map_or(0, |run| run.received),
        pickling,
    }
}
