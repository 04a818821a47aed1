//! A recording in Chrome's trace event format, for Perfetto and `chrome://tracing`.
//!
//! A pool is a process of the trace, and a worker a thread. Thread 0 of each pool has the tasks that never ran.

#![forbid(unsafe_code)]

use crate::recording::record::RunOutcome;
use crate::recording::session::WorkerEnd;
use crate::recording::snapshot::{Row, Snapshot};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// The number of tasks up to which each task's time in the queue is an event of its own.
const QUEUED: usize = 100_000;
/// The number of points of a counter, at most.
const POINTS: usize = 2000;

/// Writes a recording as a trace.
pub(crate) fn write(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":")?;
    let other = json!({
        "program": snapshot.raw.program,
        "pid": snapshot.raw.pid,
        "started": snapshot.raw.started,
        "dropped": snapshot.raw.dropped,
    });
    serde_json::to_writer(&mut *out, &other)?;
    write!(out, ",\"traceEvents\":[")?;
    let mut events = Events {
        out,
        is_first: true,
    };
    write_names(snapshot, &mut events)?;
    let has_queue = snapshot.rows.len() <= QUEUED;
    for row in &snapshot.rows {
        write_row(snapshot, row, has_queue, &mut events)?;
    }
    write_arrows(snapshot, &mut events)?;
    write_counters(snapshot, &mut events)?;
    writeln!(events.out, "\n]}}")
}

struct Events<'a> {
    out: &'a mut dyn Write,
    is_first: bool,
}

impl Events<'_> {
    fn push(&mut self, event: &Value) -> io::Result<()> {
        let before: &[u8] = if self.is_first { b"\n" } else { b",\n" };
        self.is_first = false;
        self.out.write_all(before)?;
        serde_json::to_writer(&mut *self.out, event)?;
        Ok(())
    }
}

/// Returns microseconds for nanoseconds.
fn micros(nanoseconds: f64) -> f64 {
    nanoseconds / 1000.0
}

fn write_names(snapshot: &Snapshot, events: &mut Events<'_>) -> io::Result<()> {
    let raw = &snapshot.raw;
    for (index, pool) in raw.pools.iter().enumerate() {
        let name = json!({"name": pool.name});
        events.push(&json!({
            "ph": "M", "name": "process_name", "pid": index + 1, "tid": 0, "args": name,
        }))?;
        events.push(&json!({
            "ph": "M", "name": "thread_name", "pid": index + 1, "tid": 0,
            "args": {"name": "never started"},
        }))?;
    }
    for (index, worker) in raw.workers.iter().enumerate() {
        let pool = raw.pools.iter().position(|pool| pool.number == worker.pool);
        let pid = pool.map_or(0, |pool| pool + 1);
        events.push(&json!({
            "ph": "M", "name": "thread_name", "pid": pid, "tid": index + 1,
            "args": {"name": worker.name},
        }))?;
        let Some((moment, end)) = worker.end else {
            continue;
        };
        let text = match end {
            WorkerEnd::Plain => "ended".to_owned(),
            WorkerEnd::Code(code) => format!("exited with code {code}"),
            WorkerEnd::Signal(signal) => format!("killed by signal {signal}"),
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a day has fewer nanoseconds than 2^53"
        )]
        let moment = moment.saturating_sub(raw.began) as f64;
        events.push(&json!({
            "ph": "i", "name": text, "cat": "worker", "s": "t", "pid": pid, "tid": index + 1,
            "ts": micros(moment),
        }))?;
    }
    Ok(())
}

fn arguments(snapshot: &Snapshot, row: &Row) -> Value {
    let mut arguments = Map::new();
    let mut add = |name: &str, value: Value| drop(arguments.insert(name.to_owned(), value));
    add("task", row.task.into());
    add("outcome", row.outcome.name().into());
    if row.label != 0 {
        add("function", snapshot.text(row.name).into());
    }
    for (name, index) in [("error", row.error), ("arguments", row.arguments)] {
        if index != 0 {
            add(name, snapshot.text(index).into());
        }
    }
    let queued = row.start - row.submit;
    if queued.is_finite() {
        add("queued_us", micros(queued).into());
    }
    let numbers = [
        ("parent", row.parent),
        ("sent_bytes", row.sent),
        ("received_bytes", row.received),
        ("attempt", row.attempt.into()),
        ("items", if row.items == 1 { 0 } else { row.items }),
    ];
    for (name, number) in numbers {
        if number != 0 {
            add(name, number.into());
        }
    }
    arguments.into()
}

fn write_row(
    snapshot: &Snapshot,
    row: &Row,
    has_queue: bool,
    events: &mut Events<'_>,
) -> io::Result<()> {
    let name = snapshot.name(row);
    let (pid, tid) = (row.pool, row.worker);
    let args = arguments(snapshot, row);
    if row.start.is_finite() {
        let ts = micros(row.start);
        if row.end.is_finite() {
            // Clocks of workers never go back, but numbers are rounded.
            let dur = micros((row.end - row.start).max(0.0));
            events.push(&json!({
                "ph": "X", "name": name, "cat": "task", "pid": pid, "tid": tid, "ts": ts,
                "dur": dur, "args": args,
            }))?;
        } else {
            events.push(&json!({
                "ph": "B", "name": name, "cat": "task", "pid": pid, "tid": tid, "ts": ts,
                "args": args,
            }))?;
        }
    } else if row.end.is_finite() {
        let what = match row.outcome {
            RunOutcome::Cancelled => "cancelled",
            _ => "failed",
        };
        events.push(&json!({
            "ph": "i", "name": format!("{what}: {name}"), "cat": "task", "s": "t", "pid": pid,
            "tid": 0, "ts": micros(row.end), "args": args,
        }))?;
    }
    let left = if row.start.is_finite() {
        row.start
    } else {
        row.end
    };
    if has_queue && row.is_first && row.submit.is_finite() {
        let id = format!("{pid}.{}", row.task);
        events.push(&json!({
            "ph": "b", "name": name, "cat": "queue", "id": id, "pid": pid, "tid": 0,
            "ts": micros(row.submit),
        }))?;
        if left.is_finite() {
            events.push(&json!({
                "ph": "e", "name": name, "cat": "queue", "id": id, "pid": pid, "tid": 0,
                "ts": micros(left.max(row.submit)),
            }))?;
        }
    }
    Ok(())
}

/// Writes an arrow for each wait, from the end of the awaited task.
fn write_arrows(snapshot: &Snapshot, events: &mut Events<'_>) -> io::Result<()> {
    if snapshot.waits.is_empty() {
        return Ok(());
    }
    let runs = snapshot.rows.iter().filter(|row| row.start.is_finite());
    let last: HashMap<u32, &Row> = runs.map(|row| (row.task, row)).collect();
    for (number, wait) in snapshot.waits.iter().enumerate() {
        let (Some(from), Some(to)) = (last.get(&wait.awaited), last.get(&wait.waiter)) else {
            continue;
        };
        if !(from.end.is_finite() && wait.end.is_finite()) {
            continue;
        }
        let arrow = |phase: &str, row: &Row, moment: f64| {
            let mut arrow = json!({
                "ph": phase, "name": "waited for", "cat": "wait", "id": number + 1,
                "pid": row.pool, "tid": row.worker, "ts": micros(moment),
            });
            if phase == "f" {
                arrow["bp"] = "e".into();
            }
            arrow
        };
        events.push(&arrow("s", from, from.end.min(wait.end)))?;
        events.push(&arrow("f", to, wait.end))?;
    }
    Ok(())
}

/// Writes the numbers of pending and running tasks of each pool.
fn write_counters(snapshot: &Snapshot, events: &mut Events<'_>) -> io::Result<()> {
    for pool in 1..=snapshot.raw.pools.len() {
        let mut steps: Vec<(f64, i32, i32)> = Vec::new();
        for row in snapshot.rows.iter().filter(|row| row.pool as usize == pool) {
            let left = if row.start.is_finite() {
                row.start
            } else {
                row.end
            };
            if row.is_first && row.submit.is_finite() {
                steps.push((row.submit, 1, 0));
                if left.is_finite() {
                    steps.push((left, -1, 0));
                }
            }
            if row.start.is_finite() {
                steps.push((row.start, 0, 1));
                if row.end.is_finite() {
                    steps.push((row.end, 0, -1));
                }
            }
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let every = steps.len().div_ceil(POINTS).max(1);
        let (mut pending, mut running) = (0, 0);
        for (index, (moment, more_pending, more_running)) in steps.iter().enumerate() {
            pending += more_pending;
            running += more_running;
            if index % every == every - 1 || index + 1 == steps.len() {
                events.push(&json!({
                    "ph": "C", "name": "tasks", "pid": pool, "tid": 0, "ts": micros(*moment),
                    "args": {"pending": pending.max(0), "running": running.max(0)},
                }))?;
            }
        }
    }
    Ok(())
}
