//! Tells the compiler about the interpreter and the system.
//!
//! | cfg | is set where |
//! |---|---|
//! | `Py_GIL_DISABLED` | the build of the interpreter is free-threaded |
//! | `has_processes` | the module has pools of processes |
//! | `merges_counts` | the build is free-threaded, and `src/interp/bias.rs` knows its counts of references |
//! | `late_threads` | the interpreter's end would unwind threads; see `src/interp/late_threads.rs` |

use std::env;
use std::fs;

/// The last version of the interpreter whose counts of references `src/interp/bias.rs` knows.
const LAST_KNOWN_COUNTS: (u8, u8) = (3, 15);

/// The file with the functions that take the place of the interpreter's.
const LATE_THREADS: &str = "src/interp/late_threads.rs";

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo::rustc-check-cfg=cfg(has_processes)");
    let is_set = |variable| env::var_os(variable).is_some();
    if is_set("CARGO_FEATURE_PROCESS") && is_set("CARGO_CFG_UNIX") {
        println!("cargo::rustc-cfg=has_processes");
    }
    println!("cargo::rustc-check-cfg=cfg(late_threads)");
    let is = |variable, value| env::var(variable).is_ok_and(|it| it == value);
    let interpreter = pyo3_build_config::get();
    let version = (interpreter.version().major, interpreter.version().minor);
    println!("cargo::rustc-check-cfg=cfg(merges_counts)");
    let is_free = interpreter.target_abi().kind().is_free_threaded();
    if is_free && version <= LAST_KNOWN_COUNTS {
        println!("cargo::rustc-cfg=merges_counts");
    }
    let unwinds = version < (3, 14);
    if unwinds && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-cfg=late_threads");
        wrap_functions();
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// Lets the linker put the functions of `late_threads.rs` in the place of the interpreter's.
fn wrap_functions() {
    println!("cargo::rerun-if-changed={LATE_THREADS}");
    // Some linkers replace only functions that something else refers to.
    let wrap = |name: &str| {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--undefined={name},--wrap={name}");
    };
    // Where it is no function of the interpreter, nothing calls it.
    wrap("PyVectorcall_Function");
    let source = fs::read_to_string(LATE_THREADS).expect("the sources are complete");
    let begins = |line: &&str| line.starts_with("    Py") || line.starts_with("    _Py");
    for line in source.lines().filter(begins) {
        wrap(line.trim().split('(').next().unwrap_or_default());
    }
}
