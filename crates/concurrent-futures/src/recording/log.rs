//! The file of a recording that grows: blocks, one behind the other, each of which can be read alone.
//!
//! `docs/recording.md` describes the format. A block that is not complete is the last one: the program was killed, or
//! the disk was full.

#![forbid(unsafe_code)]

use crate::recording::record::{Record, WORDS, Words};
use crate::recording::session::{PoolInfo, PoolKind, WorkerEnd, WorkerInfo};
use crate::recording::snapshot::Raw;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

const FORMAT: &str = "concurrent-futures recording file";
const VERSION: u64 = 1;

/// The most records of a block, which is written with one call: of an incomplete block, nothing is read.
const MOST: usize = 1 << 10;

/// The news since the block before.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) records: Vec<Words>,
    /// The tasks that threads are running.
    pub(crate) current: Vec<Words>,
    pub(crate) strings: Vec<Arc<str>>,
    pub(crate) pools: Vec<PoolInfo>,
    /// Workers that are new or have ended, with their places in the table.
    pub(crate) workers: Vec<(usize, WorkerInfo)>,
    /// The pools that are recorded; none if all are.
    pub(crate) only: Option<Vec<u32>>,
    pub(crate) program: Option<String>,
    pub(crate) dropped: u64,
    pub(crate) ended: u64,
    pub(crate) is_finished: bool,
}

/// Writes the line with which a file begins.
pub(crate) fn begin(began: u64, started: f64, out: &mut impl Write) -> io::Result<()> {
    let head = json!({
        "format": FORMAT, "version": VERSION, "pid": std::process::id(), "began": began,
        "started": started,
    });
    writeln!(out, "{head}")
}

fn exit(end: WorkerEnd) -> Value {
    match end {
        WorkerEnd::Plain => json!({}),
        WorkerEnd::Code(code) => json!({"code": code}),
        WorkerEnd::Signal(signal) => json!({"signal": signal}),
    }
}

/// Writes what is new, as blocks.
pub(crate) fn write(news: &News, out: &mut impl Write) -> io::Result<()> {
    let kind = |kind| match kind {
        PoolKind::Threads => "threads",
        PoolKind::Processes => "processes",
    };
    let pools = news.pools.iter().map(|pool| {
        json!({
            "id": pool.number, "kind": kind(pool.kind), "name": pool.name,
            "max_workers": pool.max_workers,
        })
    });
    let workers = news.workers.iter().map(|(place, worker)| {
        let mut entry = json!({
            "place": place, "id": worker.number, "pool": worker.pool, "name": worker.name,
            "pid": worker.pid, "start": worker.start, "end": worker.end.map(|(moment, _)| moment),
            "exit": worker.end.map(|(_, end)| exit(end)),
        });
        if !worker.machine.is_empty() {
            entry["machine"] = worker.machine.as_str().into();
        }
        entry
    });
    let mut head = json!({
        "strings": news.strings.iter().map(|text| &**text).collect::<Vec<_>>(),
        "pools": pools.collect::<Vec<_>>(),
        "workers": workers.collect::<Vec<_>>(),
        "only": news.only,
    });
    if let Some(program) = &news.program {
        head["program"] = program.as_str().into();
    }
    let mut bytes = Vec::new();
    let mut rest = &news.records[..];
    loop {
        let (records, later) = rest.split_at(rest.len().min(MOST));
        let is_last = later.is_empty();
        head["records"] = records.len().into();
        head["current"] = news.current.len().into();
        head["dropped"] = news.dropped.into();
        head["ended"] = news.ended.into();
        head["finished"] = (news.is_finished && is_last).into();
        writeln!(bytes, "{head}")?;
        for word in news.current.iter().chain(records).flatten() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.push(b'\n');
        out.write_all(&bytes)?;
        bytes.clear();
        if is_last {
            return Ok(());
        }
        head = json!({"only": news.only});
        rest = later;
    }
}

fn damaged(what: &str, place: u64) -> io::Error {
    let text = format!("the recording has {what} at byte {place}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn narrow(value: &Value) -> u32 {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn end_of(exit: &Value) -> WorkerEnd {
    let number = |name| {
        let number = exit[name].as_i64()?;
        i32::try_from(number).ok()
    };
    match (number("code"), number("signal")) {
        (Some(code), _) => WorkerEnd::Code(code),
        (None, Some(signal)) => WorkerEnd::Signal(signal),
        (None, None) => WorkerEnd::Plain,
    }
}

fn take_tables(head: &Value, raw: &mut Raw) {
    raw.strings
        .extend(list(&head["strings"]).iter().map(|name| text(name).into()));
    raw.pools.extend(list(&head["pools"]).iter().map(|pool| {
        PoolInfo {
            number: narrow(&pool["id"]),
            kind: match pool["kind"].as_str() {
                Some("processes") => PoolKind::Processes,
                _ => PoolKind::Threads,
            },
            name: text(&pool["name"]),
            max_workers: pool["max_workers"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(0),
        }
    }));
    for worker in list(&head["workers"]) {
        let info = WorkerInfo {
            number: narrow(&worker["id"]),
            pool: narrow(&worker["pool"]),
            name: text(&worker["name"]),
            pid: narrow(&worker["pid"]),
            machine: text(&worker["machine"]),
            start: worker["start"].as_u64(),
            end: worker["end"]
                .as_u64()
                .map(|moment| (moment, end_of(&worker["exit"]))),
        };
        match raw.workers.get_mut(narrow(&worker["place"]) as usize) {
            Some(known) => *known = info,
            None => raw.workers.push(info),
        }
    }
    if let Some(program) = head["program"].as_str() {
        program.clone_into(&mut raw.program);
    }
    raw.dropped = head["dropped"].as_u64().unwrap_or(0);
    raw.ended = head["ended"].as_u64().unwrap_or(0);
    raw.is_finished = head["finished"] == true;
}

/// Reads a line; none if it is not complete.
fn line(input: &mut impl BufRead, place: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    *place += line.len() as u64;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// Reads a file, up to its last complete block.
pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Raw> {
    /// The longest first line: another file's may have no end.
    const LONGEST: u64 = 1 << 12;
    let mut place = 0;
    let head = line(&mut input.take(LONGEST), &mut place)?;
    let head: Option<Value> = head.and_then(|head| serde_json::from_slice(&head).ok());
    let Some(head) = head.filter(|head| head["format"] == FORMAT) else {
        return Err(damaged("no first line of this format", 0));
    };
    if head["version"] != VERSION {
        return Err(damaged("an unknown version", 0));
    }
    let began = head["began"].as_u64().unwrap_or(0);
    let mut raw = Raw {
        began,
        ended: began,
        started: head["started"].as_f64().unwrap_or(0.0),
        pid: narrow(&head["pid"]),
        ..Raw::default()
    };
    let mut only = None;
    loop {
        let block = place;
        let Some(head) = line(input, &mut place)? else {
            break;
        };
        let head: Value = serde_json::from_slice(&head)
            .map_err(|_| damaged("a line that is no head of a block", block))?;
        let counts = (head["records"].as_u64(), head["current"].as_u64());
        let (Some(records), Some(current)) = counts else {
            return Err(damaged("a block without its counts", block));
        };
        let length = records
            .checked_add(current)
            .and_then(|count| count.checked_mul(8 * WORDS as u64)?.checked_add(1))
            .ok_or_else(|| damaged("a block with too many records", block))?;
        let mut bytes = Vec::new();
        let got = input.take(length).read_to_end(&mut bytes)? as u64;
        place += got;
        if got < length {
            break;
        }
        if bytes.pop() != Some(b'\n') {
            return Err(damaged("a block of another length", block));
        }
        take_tables(&head, &mut raw);
        only = head["only"]
            .as_array()
            .map(|only| only.iter().map(narrow).collect::<HashSet<u32>>());
        let mut all = bytes.as_chunks::<{ 8 * WORDS }>().0.iter().map(decode);
        let current = usize::try_from(current).unwrap_or(usize::MAX);
        raw.current = all.by_ref().take(current).flatten().collect();
        raw.records.extend(all.flatten());
    }
    raw.settle(only.as_ref());
    Ok(raw)
}

fn decode(bytes: &[u8; 8 * WORDS]) -> Option<Record> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Record::decode(&words)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::recording::record::{Kind, RunOutcome};
    use proptest::prelude::*;

    fn news(records: usize) -> News {
        let run = |task| Record {
            outcome: RunOutcome::Finished,
            name: 1,
            pool: 7,
            ..Record::new(Kind::Run, task)
        };
        News {
            records: (0..records as u64).map(|task| run(task).encode()).collect(),
            strings: vec!["".into(), "a\n</script>".into()],
            ended: 9,
            ..News::default()
        }
    }

    fn file(blocks: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(5, 1.5, &mut bytes).unwrap();
        for records in blocks {
            write(&news(*records), &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn a_file_comes_back_up_to_its_last_complete_block() {
        let whole = file(&[3, MOST + 2]);
        let raw = read(&mut &whole[..]).unwrap();
        assert_eq!((raw.began, raw.ended, raw.records.len()), (5, 9, MOST + 5));
        assert_eq!(&*raw.strings[1], "a\n</script>");
        let first = file(&[3]).len();
        for length in first..first + 400 {
            let raw = read(&mut &whole[..length]).unwrap();
            assert_eq!(raw.records.len(), 3, "{length} bytes");
        }
    }

    #[test]
    fn another_file_is_refused() {
        for bytes in [&b""[..], b"{}\n", b"\n", b"{\"format\": 1}\n", &[0; 9000]] {
            let error = read(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_read_or_refused(place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = file(&[2, 0, 5]);
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            match read(&mut &bytes[..]) {
                Ok(raw) => drop(crate::recording::snapshot::Snapshot::new(raw)),
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}
