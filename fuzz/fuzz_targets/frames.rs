//! The frames of process pools; see `process/fuzz.rs` of the crate.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| concurrent_futures::__fuzz::frames(bytes));
