//! The view of a cluster as text, for terminals.

#![forbid(unsafe_code)]

use super::view::{ClusterView, HostView, QueueView};
use std::fmt::{self, Write};

/// A table whose columns are as wide as their longest cell. Numbers are at the right.
struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// The first column with numbers, and the first one behind them.
    numbers: (usize, usize),
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| cell.chars().count());
            let head = self.head.get(column).map_or(0, |cell| cell.len());
            cells.max().unwrap_or(0).max(head)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head = self.head.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::from("  ");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let is_number = (self.numbers.0..self.numbers.1).contains(&column);
                // Writing to a string cannot fail.
                let _ = if is_number {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns a text of another party without the characters that terminals obey.
fn plain(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).collect()
}

/// Returns a rate as text.
fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| String::from("?"), |rate| format!("{rate:.1}"))
}

/// Returns a time as text.
fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// Returns a number of bytes as text.
#[allow(clippy::cast_precision_loss, reason = "one digit behind the point")]
fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

impl fmt::Display for ClusterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.queues.len();
        let queues = if count == 1 { "queue" } else { "queues" };
        let version = plain(&self.server_version);
        writeln!(f, "{}, version {version}: {count} {queues}", self.server)?;
        for queue in &self.queues {
            write!(f, "\n{queue}")?;
        }
        Ok(())
    }
}

impl fmt::Display for QueueView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waiting, held, .. } = self;
        let (sent, done) = (rate(self.published_rate), rate(self.done_rate));
        let of_hosts = self.hosts.iter().filter_map(|host| host.details.as_ref());
        let failed: u64 = of_hosts.map(|host| host.failed).sum();
        writeln!(
            f,
            "queue {}: {waiting} waiting, {held} with hosts; {sent} sent and {done} done in a second; {failed} failed, \
             {} delivered again; {} outcomes kept, {} of payloads",
            self.name,
            self.redelivered,
            self.outcomes,
            bytes(self.payload_bytes),
        )?;
        if !self.lanes.is_empty() {
            let rows = self.lanes.iter().map(|lane| {
                vec![
                    plain(&lane.environment),
                    lane.priority.to_string(),
                    lane.waiting.to_string(),
                    lane.held.to_string(),
                    lane.redelivered.to_string(),
                ]
            });
            let head = &[
                "environment",
                "priority",
                "waiting",
                "with hosts",
                "delivered again",
            ];
            let (rows, numbers) = (rows.collect(), (1, 5));
            write!(
                f,
                "{}",
                Table {
                    head,
                    rows,
                    numbers
                }
            )?;
        }
        if self.hosts.is_empty() {
            return writeln!(f, "  no hosts");
        }
        let head = &[
            "machine",
            "pid",
            "workers",
            "running",
            "ended",
            "failed",
            "given back",
            "mean",
            "environment",
        ];
        let (rows, numbers) = (self.hosts.iter().map(row).collect(), (1, 8));
        write!(
            f,
            "{}",
            Table {
                head,
                rows,
                numbers
            }
        )
    }
}

/// Returns the row of a host.
fn row(host: &HostView) -> Vec<String> {
    let mut row = if let Some(host) = &host.details {
        vec![
            plain(&host.machine),
            host.pid.to_string(),
            host.workers.to_string(),
            host.running.to_string(),
            host.ended.to_string(),
            host.failed.to_string(),
            host.returned.to_string(),
            host.seconds.map(time).unwrap_or_default(),
        ]
    } else {
        let mut row = vec![String::new(); 8];
        row[0] = String::from("(another key)");
        row
    };
    row.push(plain(&host.environment));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{HostDetails, LaneView};

    #[test]
    fn a_view_is_a_table_and_no_terminal_obeys_it() {
        let details = HostDetails {
            machine: String::from("box\u{1b}[2J-1"),
            pid: 4711,
            workers: 8,
            running: 3,
            ended: 1_000,
            failed: 2,
            returned: 5,
            seconds: Some(0.0125),
        };
        let view = ClusterView {
            server: String::from("nats://10.0.0.1:4222"),
            server_version: String::from("2.12.5"),
            queues: vec![QueueView {
                name: String::from("default"),
                waiting: 12,
                held: 3,
                redelivered: 1,
                published: 1_020,
                done: 1_005,
                published_rate: Some(10.04),
                done_rate: None,
                outcomes: 0,
                payload_bytes: 1_500_000,
                lanes: vec![LaneView {
                    environment: String::from("rust-1"),
                    priority: 1,
                    waiting: 12,
                    held: 3,
                    redelivered: 1,
                }],
                hosts: vec![
                    HostView {
                        environment: String::from("rust-1"),
                        details: Some(details),
                    },
                    HostView {
                        environment: String::from("rust-2"),
                        details: None,
                    },
                ],
            }],
        };
        let expected = "nats://10.0.0.1:4222, version 2.12.5: 1 queue\n\n\
             queue default: 12 waiting, 3 with hosts; 10.0 sent and ? done in a second; 2 failed, 1 delivered again; \
             0 outcomes kept, 1.5 MB of payloads\n\
             \x20 environment  priority  waiting  with hosts  delivered again\n\
             \x20 rust-1              1       12           3                1\n\
             \x20 machine         pid  workers  running  ended  failed  given back     mean  environment\n\
             \x20 box[2J-1       4711        8        3   1000       2           5  12.5 ms  rust-1\n\
             \x20 (another key)                                                              rust-2\n";
        assert_eq!(view.to_string(), expected);
        let json: serde_json::Value = serde_json::from_str(&view.to_json()).unwrap();
        assert_eq!(json["queues"][0]["hosts"][0]["details"]["failed"], 2);
        assert!(json["queues"][0]["done_rate"].is_null());
    }
}
