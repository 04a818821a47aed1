//! Measures the engine against other thread pools, and writes BENCHMARKS.md at the root of the repository.
//!
//! Contestants are interleaved: every round runs each of them once, in an order that changes, and the report shows
//! medians over the rounds. Compare within one table: the machine's mood moves all rows together.

// A command-line program: the report and the progress are what it prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// Counts become figures of three digits.
#![allow(clippy::cast_precision_loss)]

mod allocator;
mod child;
mod command_line;
mod contestants;
mod gate;
mod harness;
mod machine;
mod pool;
mod process;
mod report;
mod section;
mod workloads;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use command_line::{CommandLine, Output};
use machine::Disturbance;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

fn main() -> ExitCode {
    // Worker processes begin here, ours and procspawn's.
    #[cfg(target_os = "linux")]
    concurrent_futures::init();
    procspawn::init();
    let command_line = CommandLine::parse();
    if let Some(child) = &command_line.child {
        child.run();
        return ExitCode::SUCCESS;
    }
    let settings = command_line.settings();
    let disturbance = Disturbance::watch();
    let sections = workloads::run(&command_line.workloads(), &settings);
    let report = report::render(&sections, &settings, disturbance.share());
    match publish(&report, &command_line.output()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the report cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn publish(report: &str, output: &Output) -> io::Result<()> {
    match output {
        Output::Standard => println!("{report}"),
        Output::File(path) => {
            report::write_into(path, report)?;
            println!("written to {}", path.display());
        }
    }
    Ok(())
}
