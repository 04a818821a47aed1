//! The columns of a recording as JSON; `docs/recording.md` describes the format.

#![forbid(unsafe_code)]

use crate::recording::session::{PoolKind, WorkerEnd};
use crate::recording::snapshot::{Raw, Row, Snapshot, WaitRow};
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use serde_json::json;
use std::io::{self, Write};

/// Writes a recording as a document of columns.
pub(crate) fn write(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    write_head(&snapshot.raw, None, out)?;
    write_rows(&snapshot.rows, &snapshot.waits, out)?;
    writeln!(out, "}}")
}

/// The numbers of rows and strings that a live page has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) tasks: usize,
    pub(crate) waits: usize,
    pub(crate) strings: usize,
}

/// Writes an update of a live page, or a whole document if the page has nothing: rows that will not change, and others.
pub(crate) fn write_update(
    raw: &Raw,
    sent: Option<Sent>,
    (rows, waits): (&[Row], &[WaitRow]),
    (open_rows, open_waits): (&[Row], &[WaitRow]),
    out: &mut dyn Write,
) -> io::Result<()> {
    write_head(raw, sent, out)?;
    write_rows(rows, waits, out)?;
    write!(out, ",\"open\":{{\"version\":1")?;
    write_rows(open_rows, open_waits, out)?;
    writeln!(out, "}}}}")
}

fn write_rows(rows: &[Row], waits: &[WaitRow], out: &mut dyn Write) -> io::Result<()> {
    write!(out, ",\"tasks\":")?;
    write_tasks(rows, out)?;
    write!(out, ",\"waits\":")?;
    let mut table = Table::begin(waits.len(), out)?;
    table.f64("start", waits.iter().map(|wait| wait.start))?;
    table.f64("end", waits.iter().map(|wait| wait.end))?;
    table.u32("waiter", waits.iter().map(|wait| wait.waiter))?;
    table.u32("awaited", waits.iter().map(|wait| wait.awaited))?;
    table.end()
}

/// Writes the beginning of a document, up to its tables.
fn write_head(raw: &Raw, sent: Option<Sent>, out: &mut dyn Write) -> io::Result<()> {
    let pools = raw.pools.iter().map(|pool| {
        let kind = match pool.kind {
            PoolKind::Threads => "threads",
            PoolKind::Processes => "processes",
        };
        json!({"id": pool.number, "kind": kind, "name": pool.name, "max_workers": pool.max_workers})
    });
    let pools: Vec<_> = pools.collect();
    let time = |moment: u64| i128::from(moment) - i128::from(raw.began);
    let time = |moment: u64| i64::try_from(time(moment)).unwrap_or(i64::MAX);
    let workers = raw.workers.iter().map(|worker| {
        let pool = raw.pools.iter().position(|pool| pool.number == worker.pool);
        let exit = match worker.end {
            None | Some((_, WorkerEnd::Plain)) if worker.pid == raw.pid => json!(null),
            None => json!(null),
            Some((_, WorkerEnd::Plain)) => json!({}),
            Some((_, WorkerEnd::Code(code))) => json!({"code": code}),
            Some((_, WorkerEnd::Signal(signal))) => json!({"signal": signal}),
        };
        let mut entry = json!({
            "id": worker.number,
            "pool": pool,
            "name": worker.name,
            "pid": worker.pid,
            "start": worker.start.map(time),
            "end": worker.end.map(|(moment, _)| time(moment)),
            "exit": exit,
        });
        if !worker.machine.is_empty() {
            entry["machine"] = worker.machine.as_str().into();
        }
        entry
    });
    let known = sent.map_or(0, |sent| sent.strings);
    let strings = raw.strings.iter().skip(known).map(|text| &**text);
    let mut head = json!({
        "format": "concurrent-futures recording",
        "version": 1,
        "program": raw.program,
        "pid": raw.pid,
        "started": raw.started,
        "duration": raw.ended.saturating_sub(raw.began),
        "finished": raw.is_finished,
        "dropped": raw.dropped,
        "strings": strings.collect::<Vec<_>>(),
        "pools": pools,
        "workers": workers.collect::<Vec<_>>(),
    });
    if let Some(sent) = sent {
        head["update"] = json!({
            "tasks": sent.tasks, "waits": sent.waits, "strings": sent.strings,
        });
    }
    let head = serde_json::to_string(&head)?;
    let head = head.strip_suffix('}').unwrap_or(&head);
    write!(out, "{head}")
}

fn write_tasks(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::begin(rows.len(), out)?;
    table.u32("task", rows.iter().map(|row| row.task))?;
    table.f64("submit", rows.iter().map(|row| row.submit))?;
    table.f64("start", rows.iter().map(|row| row.start))?;
    table.f64("end", rows.iter().map(|row| row.end))?;
    table.u32("name", rows.iter().map(|row| row.name))?;
    table.u32("label", rows.iter().map(|row| row.label))?;
    table.u32("arguments", rows.iter().map(|row| row.arguments))?;
    table.u8("outcome", rows.iter().map(|row| row.outcome as u8))?;
    table.u32("error", rows.iter().map(|row| row.error))?;
    table.u32("pool", rows.iter().map(|row| row.pool))?;
    table.u32("worker", rows.iter().map(|row| row.worker))?;
    table.u32("parent", rows.iter().map(|row| row.parent))?;
    table.u32("items", rows.iter().map(|row| row.items))?;
    table.u8("attempt", rows.iter().map(|row| row.attempt))?;
    table.u32("sent", rows.iter().map(|row| row.sent))?;
    table.u32("received", rows.iter().map(|row| row.received))?;
    table.f32("pickling", rows.iter().map(|row| row.pickling))?;
    table.end()
}

/// A table that is being written.
struct Table<'a> {
    out: &'a mut dyn Write,
    has_columns: bool,
}

impl<'a> Table<'a> {
    fn begin(count: usize, out: &'a mut dyn Write) -> io::Result<Self> {
        write!(out, "{{\"count\":{count},\"columns\":{{")?;
        Ok(Self {
            out,
            has_columns: false,
        })
    }

    fn f64(&mut self, name: &str, values: impl Iterator<Item = f64> + Clone) -> io::Result<()> {
        let is_constant = all_equal(values.clone().map(f64::to_bits));
        // JSON has no number that is not a number.
        let constant = is_constant.map(|bits| match f64::from_bits(bits) {
            value if value.is_finite() => value.to_string(),
            _ => "null".to_owned(),
        });
        self.column(name, "f64", constant, values.map(f64::to_le_bytes))
    }

    fn f32(&mut self, name: &str, values: impl Iterator<Item = f32> + Clone) -> io::Result<()> {
        let constant = all_equal(values.clone().map(f32::to_bits));
        let constant = constant.map(|bits| f32::from_bits(bits).to_string());
        self.column(name, "f32", constant, values.map(f32::to_le_bytes))
    }

    fn u32(&mut self, name: &str, values: impl Iterator<Item = u32> + Clone) -> io::Result<()> {
        let constant = all_equal(values.clone()).map(|value| value.to_string());
        self.column(name, "u32", constant, values.map(u32::to_le_bytes))
    }

    fn u8(&mut self, name: &str, values: impl Iterator<Item = u8> + Clone) -> io::Result<()> {
        let constant = all_equal(values.clone()).map(|value| value.to_string());
        self.column(name, "u8", constant, values.map(u8::to_le_bytes))
    }

    fn column<const N: usize>(
        &mut self,
        name: &str,
        kind: &str,
        constant: Option<String>,
        values: impl Iterator<Item = [u8; N]>,
    ) -> io::Result<()> {
        let comma = if self.has_columns { "," } else { "" };
        self.has_columns = true;
        write!(self.out, "{comma}\"{name}\":{{\"type\":\"{kind}\",")?;
        if let Some(constant) = constant {
            return write!(self.out, "\"constant\":{constant}}}");
        }
        write!(self.out, "\"base64\":\"")?;
        {
            let mut encoder = EncoderWriter::new(&mut *self.out, &STANDARD);
            for value in values {
                encoder.write_all(&value)?;
            }
            encoder.finish()?;
        }
        write!(self.out, "\"}}")
    }

    fn end(self) -> io::Result<()> {
        write!(self.out, "}}}}")
    }
}

/// Returns the value that all items have; none if they differ, or there are none.
fn all_equal<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}
