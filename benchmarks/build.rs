//! Hands the version of the compiler to the report. It is the compiler that compiles the program, and need
//! not be the one that is found when the program runs.

// Cargo reads a build script's standard output.
#![allow(clippy::print_stdout)]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = std::env::var_os("RUSTC").expect("cargo sets RUSTC for build scripts");
    let output = Command::new(compiler)
        .arg("--version")
        .output()
        .expect("the compiler runs");
    let version = String::from_utf8_lossy(&output.stdout);
    println!("cargo::rustc-env=BENCHMARKS_RUSTC={}", version.trim());
}
