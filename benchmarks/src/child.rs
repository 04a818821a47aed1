//! The parts that run in a process of their own: this program, started again with a hidden command.

use std::env;
use std::process::{Command, Stdio};

use clap::Subcommand;

use crate::contestants::every_pool;
use crate::harness::Sample;
use crate::pool::Pool;
use crate::workloads::{footprint, idle, processes};

/// The jobs of a child process. A child prints its figures on one line.
#[derive(Subcommand)]
pub(crate) enum Child {
    /// The memory of pending futures.
    #[command(hide = true)]
    Footprint { pool: String, tasks: usize },
    /// The rest of an idle pool.
    #[command(hide = true)]
    Idle { pool: String, milliseconds: u64 },
    /// The other side of a floor.
    #[command(hide = true)]
    Floor { what: String, size: usize },
}

impl Child {
    /// Does the work of the child.
    pub(crate) fn run(&self) {
        let sample = match self {
            Self::Floor { what, .. } => return processes::floor(what),
            Self::Footprint { pool, tasks } => {
                every_pool!(P => (P::NAME == pool).then(|| footprint::child::<P>(*tasks)))
            }
            Self::Idle { pool, milliseconds } => {
                every_pool!(P => (P::NAME == pool).then(|| idle::child::<P>(*milliseconds)))
            }
        };
        let sample: Sample = sample
            .into_iter()
            .flatten()
            .next()
            .expect("a pool of that name");
        println!(
            "{}",
            sample
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }

    /// Starts a child that does this, and reads its figures.
    pub(crate) fn start(&self) -> Sample {
        let arguments = match self {
            Self::Footprint { pool, tasks } => {
                ["footprint".to_owned(), pool.clone(), tasks.to_string()]
            }
            Self::Floor { what, size } => ["floor".to_owned(), what.clone(), size.to_string()],
            Self::Idle { pool, milliseconds } => {
                ["idle".to_owned(), pool.clone(), milliseconds.to_string()]
            }
        };
        let program = env::current_exe().expect("a program knows its file");
        let output = Command::new(program)
            .args(&arguments)
            .stderr(Stdio::inherit())
            .output()
            .expect("the child process starts");
        assert!(
            output.status.success(),
            "the child process {arguments:?} failed: {}",
            output.status
        );
        let text = String::from_utf8(output.stdout).expect("figures are text");
        text.split_whitespace()
            .map(|word| word.parse().expect("a figure"))
            .collect()
    }
}
