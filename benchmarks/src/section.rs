//! One workload's part of the report: tables, and targets.

use crate::harness::{Figure, Role, Row};
use crate::report::figure;

/// A table of contestants.
pub(crate) struct Table {
    /// A sentence above the table; may be empty.
    pub(crate) caption: String,
    /// The headings of the figures, with their units.
    pub(crate) columns: Vec<String>,
    /// The column that the ratio to ours is taken from, if ratios mean anything here.
    pub(crate) ratio: Option<usize>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(columns: &[&str], rows: Vec<Row>) -> Self {
        let columns = columns.iter().copied().map(str::to_owned).collect();
        Self {
            caption: String::new(),
            columns,
            ratio: Some(0),
            rows,
        }
    }

    pub(crate) fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    pub(crate) fn ratio(mut self, column: Option<usize>) -> Self {
        self.ratio = column;
        self
    }

    /// Our figure in a column.
    pub(crate) fn ours(&self, column: usize) -> Figure {
        let row = self
            .rows
            .iter()
            .find(|row| row.role == Role::Ours)
            .expect("ours takes part everywhere");
        row.figures[column]
    }

    /// The peer with the lowest median in a column.
    fn fastest_peer(&self, column: usize) -> Option<(&Row, Figure)> {
        self.rows
            .iter()
            .filter(|row| row.role == Role::Peer)
            .filter_map(|row| Some((row, *row.figures.get(column)?)))
            .min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
    }
}

/// A promised speed, and the measured one.
pub(crate) struct Target {
    pub(crate) promise: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Target {
    /// A figure that must not be above a limit.
    pub(crate) fn at_most(
        promise: impl Into<String>,
        value: f64,
        limit: f64,
        measured: impl Into<String>,
    ) -> Self {
        Self {
            promise: promise.into(),
            measured: measured.into(),
            met: value <= limit,
        }
    }

    /// Promises that ours is not slower than any peer, in a column of the table.
    pub(crate) fn as_fast_as_peers(
        table: &Table,
        column: usize,
        unit: &str,
        what: &str,
    ) -> Option<Self> {
        let ours = table.ours(column).median;
        let (peer, theirs) = table.fastest_peer(column)?;
        let promise = format!("{what}at least as fast as the fastest peer");
        let measured = format!(
            "{} {unit}; {} {} {unit} (× {:.2})",
            figure(ours),
            peer.name,
            figure(theirs.median),
            theirs.median / ours
        );
        Some(Self {
            promise,
            measured,
            met: ours <= theirs.median,
        })
    }
}

/// A workload's part of the report.
pub(crate) struct Section {
    pub(crate) letter: char,
    pub(crate) title: String,
    /// Describes the workload and the rows.
    pub(crate) text: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) targets: Vec<Target>,
}

impl Section {
    /// A section of one table, with the target to be as fast as the peers in its first column.
    pub(crate) fn compared(
        title: impl Into<String>,
        text: impl Into<String>,
        unit: &str,
        table: Table,
    ) -> Self {
        let targets = Target::as_fast_as_peers(&table, 0, unit, "")
            .into_iter()
            .collect();
        Self {
            targets,
            ..Self::shown(title, text, vec![table])
        }
    }

    /// A section without targets. The letter is filled in by whoever ran the workload.
    pub(crate) fn shown(
        title: impl Into<String>,
        text: impl Into<String>,
        tables: Vec<Table>,
    ) -> Self {
        Self {
            letter: ' ',
            title: title.into(),
            text: text.into(),
            tables,
            targets: Vec::new(),
        }
    }
}
