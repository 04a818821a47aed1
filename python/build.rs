//! Tells the compiler about the interpreter: `Py_GIL_DISABLED` is set for a free-threaded build.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
