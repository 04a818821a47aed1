//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::child::Child;
use crate::workloads::Workload;

/// Measures the engine against other thread pools, and writes BENCHMARKS.md.
#[derive(Parser)]
pub(crate) struct CommandLine {
    /// Uses small sizes and two rounds, to check that every workload runs.
    #[arg(long)]
    quick: bool,

    /// Measures these workloads only, for example `a,b,f`.
    #[arg(long, value_delimiter = ',', value_name = "LETTERS")]
    only: Vec<Workload>,

    /// The number of times that each contestant runs.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// The file for the report; `-` prints it. By default, a complete run writes BENCHMARKS.md, and a run
    /// with `--quick` or `--only` prints.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The part of this program that runs in a process of its own.
    #[command(subcommand)]
    pub(crate) child: Option<Child>,
}

/// The amount of measuring.
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
}

impl Settings {
    /// Returns one of two sizes: that of a complete run, or that of a quick one.
    pub(crate) fn size(&self, complete: usize, quick: usize) -> usize {
        if self.quick { quick } else { complete }
    }
}

/// The place for the report.
pub(crate) enum Output {
    Standard,
    File(PathBuf),
}

impl CommandLine {
    pub(crate) fn settings(&self) -> Settings {
        let rounds = self.rounds.unwrap_or(if self.quick { 2 } else { 5 });
        Settings {
            quick: self.quick,
            rounds: rounds as usize,
        }
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let all = Workload::all();
        all.iter()
            .copied()
            .filter(|one| self.only.is_empty() || self.only.contains(one))
            .collect()
    }

    /// Returns the place for the report; a partial run replaces no complete figures unless it is told to.
    pub(crate) fn output(&self) -> Output {
        match &self.output {
            Some(path) if path.as_os_str() == "-" => Output::Standard,
            Some(path) => Output::File(path.clone()),
            None if self.quick || !self.only.is_empty() => Output::Standard,
            None => Output::File(Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCHMARKS.md")),
        }
    }
}
