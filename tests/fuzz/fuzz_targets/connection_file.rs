//! Fuzzes `bodies::connection_file`: `cargo xtask fuzz connection_file`.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::connection_file(data));
