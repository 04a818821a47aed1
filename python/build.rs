//! Tells the compiler about the interpreter and the system.
//!
//! `Py_GIL_DISABLED` is set for a free-threaded build, and `has_processes` where the module has pools of processes.

use std::env;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo::rustc-check-cfg=cfg(has_processes)");
    let is_set = |variable| env::var_os(variable).is_some();
    if is_set("CARGO_FEATURE_PROCESS") && is_set("CARGO_CFG_UNIX") {
        println!("cargo::rustc-cfg=has_processes");
    }
}
