//! The workloads, one module each.

mod as_completed;
mod callbacks;
mod draining;
pub(crate) mod footprint;
mod fork_join;
pub(crate) mod idle;
mod many_submitters;
mod map;
#[cfg_attr(not(target_os = "linux"), path = "no_processes.rs")]
pub(crate) mod processes;
mod recording;
mod round_trip;
mod sleeps;
mod submit_and_take;
mod wait_call;

use clap::ValueEnum;

use crate::command_line::Settings;
use crate::section::Section;

/// The workers of every pool, unless a workload says otherwise.
const WORKERS: usize = 4;

/// A workload, by its letter.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    A,
    B,
    C,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
    K,
    L,
    M,
}

impl Workload {
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    fn letter(self) -> char {
        char::from(b'a' + self as u8)
    }

    fn run(self, settings: &Settings) -> Section {
        let section = match self {
            Self::A => submit_and_take::run(settings),
            Self::B => round_trip::run(settings),
            Self::C => map::run(settings),
            Self::D => as_completed::run(settings),
            Self::E => callbacks::run(settings),
            Self::F => draining::run(settings),
            Self::G => many_submitters::run(settings),
            Self::H => sleeps::run(settings),
            Self::I => footprint::run(settings),
            Self::J => idle::run(settings),
            Self::K => fork_join::run(settings),
            Self::L => processes::run(settings),
            Self::M => recording::run(settings),
        };
        Section {
            letter: self.letter(),
            ..section
        }
    }
}

/// Runs the workloads, one after the other.
pub(crate) fn run(workloads: &[Workload], settings: &Settings) -> Vec<Section> {
    let run = |workload: &Workload| {
        eprint!("{} ", workload.letter());
        let section = workload.run(settings);
        eprintln!(" {}", section.title);
        section
    };
    workloads.iter().map(run).collect()
}
