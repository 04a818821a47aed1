//! The public interface of the crate, hidden names included, is the one in `public_api.txt`.
//!
//! After a change that is meant: `CONCURRENT_FUTURES_BLESS=1 cargo test --test public_api`. Items that
//! cannot be reached although they have a public type are tested in `src/sealed.rs`.

#![cfg(all(feature = "process", target_os = "linux"))]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The format that the reader of rustdoc's JSON understands; compilers of other versions write others.
const FORMAT: &str = "\"format_version\":57";

/// Items that the compiler implements or derives, and items that have nothing to do with soundness.
const UNINTERESTING: [&str; 7] = [
    "core::clone::TrivialClone for ",
    "core::marker::Freeze for ",
    "core::marker::StructuralPartialEq for ",
    "core::marker::Unpin for ",
    "core::marker::UnsafeUnpin for ",
    "UnwindSafe for ",
    "::assert_fields_are_eq(",
];

/// Lets rustdoc describe the crate. The format is not stable, and so a stable compiler must be told
/// that this is known.
fn describe() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustdoc", "--quiet", "--lib", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .arg("--document-hidden-items")
        .env("RUSTC_BOOTSTRAP", "1")
        // They are meant for the build that this test is part of.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTDOCFLAGS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    target.join("doc/concurrent_futures.json")
}

fn is_interesting(line: &str) -> bool {
    !UNINTERESTING.iter().any(|part| line.contains(part))
}

#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn the_public_interface_is_the_one_that_is_written_down() {
    let json = describe();
    if !fs::read_to_string(&json).unwrap().contains(FORMAT) {
        eprintln!("skipped: the public interface is checked with Rust 1.95 only");
        return;
    }
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .build()
        .unwrap();
    let lines = api.items().map(ToString::to_string);
    let found: Vec<String> = lines.filter(|line| is_interesting(line)).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_api.txt");
    if env::var_os("CONCURRENT_FUTURES_BLESS").is_some() {
        fs::write(&file, found.join("\n") + "\n").unwrap();
        return;
    }
    let written = fs::read_to_string(&file).unwrap();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let written: BTreeSet<&str> = written.lines().collect();
    let list = |sign: char, lines: &mut dyn Iterator<Item = &&str>| {
        lines.fold(String::new(), |list, line| format!("{list}{sign} {line}\n"))
    };
    assert!(
        found == written,
        "the public interface has changed:\n{}{}if that is meant, run this test with \
         CONCURRENT_FUTURES_BLESS=1",
        list('-', &mut written.difference(&found)),
        list('+', &mut found.difference(&written)),
    );
}
